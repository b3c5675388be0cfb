-- @P1: mapping_ids, 4 bytes each (big-endian): mappings that work. What a verification found stays until one passes.
DECLARE @ids varbinary(8000) = @P1, @at int = 1;
DECLARE @works TABLE (mapping_id int NOT NULL PRIMARY KEY);
WHILE @at < DATALENGTH(@ids)
BEGIN
    INSERT INTO @works (mapping_id) VALUES (CAST(SUBSTRING(@ids, @at, 4) AS int));
    SET @at = @at + 4;
END;
UPDATE e
SET e.is_resolved = 1, e.resolved_at = GETUTCDATE()
FROM dbo.error_logs AS e
    INNER JOIN @works AS w ON w.mapping_id = e.mapping_id
WHERE e.is_resolved = 0 AND e.error_type <> N'VERIFICATION';
