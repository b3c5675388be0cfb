-- @P1: 20 bytes per mapping, big-endian: mapping_id (4), commit time of its checkpoint (8) and of the oldest change left (8), both in
-- milliseconds of UTC since 2000-01-01, 0 for none. @P2: why the numbers mean nothing, or NULL.
DECLARE @rows varbinary(8000) = @P1, @reason nvarchar(400) = LEFT(@P2, 400), @at int = 1, @committed bigint, @oldest bigint;
DECLARE @epoch datetime2(3) = '2000-01-01';
DECLARE @seen TABLE (mapping_id int NOT NULL PRIMARY KEY, committed_at datetime2(3) NULL, oldest_at datetime2(3) NULL);
WHILE @at < DATALENGTH(@rows)
BEGIN
    SET @committed = CAST(SUBSTRING(@rows, @at + 4, 8) AS bigint);
    SET @oldest = CAST(SUBSTRING(@rows, @at + 12, 8) AS bigint);
    INSERT INTO @seen (mapping_id, committed_at, oldest_at)
    VALUES (
        CAST(SUBSTRING(@rows, @at, 4) AS int),
        CASE WHEN @committed > 0 THEN DATEADD(MILLISECOND, CAST(@committed % 1000 AS int), DATEADD(SECOND, CAST(@committed / 1000 AS int), @epoch)) END,
        CASE WHEN @oldest > 0 THEN DATEADD(MILLISECOND, CAST(@oldest % 1000 AS int), DATEADD(SECOND, CAST(@oldest / 1000 AS int), @epoch)) END
    );
    SET @at = @at + 20;
END;
UPDATE l
SET committed_at = s.committed_at, oldest_at = s.oldest_at, reason = @reason,
    polled_at = CASE WHEN s.oldest_at IS NULL AND @reason IS NULL THEN SYSUTCDATETIME() ELSE l.polled_at END
FROM dbo.cdc_lag AS l
INNER JOIN @seen AS s ON s.mapping_id = l.mapping_id;
INSERT INTO dbo.cdc_lag (mapping_id, committed_at, oldest_at, polled_at, reason)
SELECT s.mapping_id, s.committed_at, s.oldest_at, SYSUTCDATETIME(), @reason
FROM @seen AS s
INNER JOIN dbo.table_mappings AS m ON m.mapping_id = s.mapping_id
WHERE NOT EXISTS (SELECT 1 FROM dbo.cdc_lag AS l WHERE l.mapping_id = s.mapping_id);
