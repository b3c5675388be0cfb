-- @P1: mapping_ids, 4 bytes each (big-endian): mappings that were just taken over, so that no living process is behind their RUNNING rows.
DECLARE @ids varbinary(8000) = @P1, @at int = 1;
DECLARE @taken TABLE (mapping_id int NOT NULL PRIMARY KEY);
WHILE @at < DATALENGTH(@ids)
BEGIN
    INSERT INTO @taken (mapping_id) VALUES (CAST(SUBSTRING(@ids, @at, 4) AS int));
    SET @at = @at + 4;
END;
UPDATE s
SET s.status = N'ERROR', s.error_message = N'interrupted', s.completed_at = GETUTCDATE()
FROM dbo.sync_status AS s
    INNER JOIN @taken AS t ON t.mapping_id = s.mapping_id
WHERE s.status = N'RUNNING';
SELECT @@ROWCOUNT AS interrupted;
