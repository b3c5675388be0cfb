-- @P1: 20 bytes for each row (big-endian): status_id (8), records_processed (8), milliseconds since its last pass ended (4; -1: a pass runs).
-- A row that ended ERROR stays as it is: somebody else may have taken the mapping over.
DECLARE @entries varbinary(8000) = @P1, @at int = 1;
DECLARE @sessions TABLE (status_id bigint NOT NULL PRIMARY KEY, records_processed bigint NOT NULL, age_ms int NOT NULL);
WHILE @at < DATALENGTH(@entries)
BEGIN
    INSERT INTO @sessions (status_id, records_processed, age_ms)
    VALUES (CAST(SUBSTRING(@entries, @at, 8) AS bigint), CAST(SUBSTRING(@entries, @at + 8, 8) AS bigint), CAST(SUBSTRING(@entries, @at + 16, 4) AS int));
    SET @at = @at + 20;
END;
UPDATE s
SET s.status = CASE WHEN n.age_ms < 0 THEN N'RUNNING' ELSE N'COMPLETED' END,
    s.records_processed = n.records_processed,
    s.error_message = NULL,
    s.completed_at = CASE WHEN n.age_ms < 0 THEN NULL ELSE DATEADD(MILLISECOND, -n.age_ms, GETUTCDATE()) END
FROM dbo.sync_status AS s
    INNER JOIN @sessions AS n ON n.status_id = s.status_id
WHERE s.status <> N'ERROR';
