-- @P1: mapping_ids, 4 bytes each (big-endian). Where the newest CDC run ended ERROR and nothing is wrong any more, one COMPLETED row says so.
DECLARE @ids varbinary(8000) = @P1, @at int = 1;
DECLARE @fine TABLE (mapping_id int NOT NULL PRIMARY KEY);
WHILE @at < DATALENGTH(@ids)
BEGIN
    INSERT INTO @fine (mapping_id) VALUES (CAST(SUBSTRING(@ids, @at, 4) AS int));
    SET @at = @at + 4;
END;
INSERT INTO dbo.sync_status (mapping_id, sync_type, status, records_processed, records_failed, started_at, completed_at)
SELECT f.mapping_id, N'CDC', N'COMPLETED', 0, 0, SYSUTCDATETIME(), SYSUTCDATETIME()
FROM @fine AS f
WHERE (SELECT TOP (1) s.status FROM dbo.sync_status AS s WHERE s.mapping_id = f.mapping_id AND s.sync_type = N'CDC' ORDER BY s.status_id DESC) = N'ERROR';
