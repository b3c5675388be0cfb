-- Moves the checkpoints of mappings that had nothing to apply, in one transaction for a whole destination database: both the control row
-- (fenced on the LSN it had) and its twin. A mapping that somebody moved or removed meanwhile is left alone.
-- @P1: moves, 24 bytes each: mapping_id (4, big-endian), old LSN (10, all 0xFF for NULL), new LSN (10). @P2 tran_id, @P3 tran_end_time and
-- @P4 LSN of the newest transaction up to there; where it is not known (NULL), the one that is known already stays.
SET XACT_ABORT ON;
DECLARE @moves varbinary(8000) = @P1, @tran_id varbinary(10) = @P2, @tran_end_time nvarchar(30) = @P3,
    @tran_lsn binary(10) = @P4, @at int = 1, @id int, @from binary(10), @to binary(10);
DECLARE @moved TABLE (mapping_id int NOT NULL PRIMARY KEY, from_lsn binary(10) NULL, to_lsn binary(10) NOT NULL);
WHILE @at < DATALENGTH(@moves)
BEGIN
    SET @id = CAST(SUBSTRING(@moves, @at, 4) AS int);
    SET @from = CAST(SUBSTRING(@moves, @at + 4, 10) AS binary(10));
    SET @to = CAST(SUBSTRING(@moves, @at + 14, 10) AS binary(10));
    IF @from = 0xFFFFFFFFFFFFFFFFFFFF SET @from = NULL;
    INSERT INTO @moved (mapping_id, from_lsn, to_lsn) VALUES (@id, @from, @to);
    SET @at = @at + 24;
END;
BEGIN TRANSACTION;
UPDATE m SET last_cdc_lsn = w.to_lsn
FROM dbaops_dataflow.dbo.table_mappings AS m
INNER JOIN @moved AS w ON w.mapping_id = m.mapping_id
WHERE m.last_cdc_lsn = w.from_lsn OR (m.last_cdc_lsn IS NULL AND w.from_lsn IS NULL);
DELETE w FROM @moved AS w
WHERE NOT EXISTS (SELECT 1 FROM dbaops_dataflow.dbo.table_mappings AS m WHERE m.mapping_id = w.mapping_id AND m.last_cdc_lsn = w.to_lsn);
UPDATE t SET lsn = w.to_lsn, updated_at = SYSUTCDATETIME(),
    tran_lsn = CASE WHEN @tran_id IS NOT NULL THEN @tran_lsn WHEN t.tran_id IS NOT NULL THEN COALESCE(t.tran_lsn, t.lsn) END,
    tran_id = COALESCE(@tran_id, t.tran_id),
    tran_end_time = CASE WHEN @tran_id IS NOT NULL THEN CONVERT(datetime, @tran_end_time, 121) ELSE t.tran_end_time END
FROM dbo.dbaops_dataflow_checkpoints AS t
INNER JOIN @moved AS w ON w.mapping_id = t.mapping_id
WHERE t.lsn = w.from_lsn OR (t.lsn IS NULL AND w.from_lsn IS NULL);
INSERT INTO dbo.dbaops_dataflow_checkpoints (mapping_id, lsn, tran_lsn, tran_id, tran_end_time, updated_at, bound_to)
SELECT w.mapping_id, w.to_lsn, @tran_lsn, @tran_id, CONVERT(datetime, @tran_end_time, 121), SYSUTCDATETIME(),
    CONCAT(m.server_id, N'|', LOWER(CONCAT(m.source_database, N'|', m.source_schema, N'|', m.source_table)), N'|',
    OBJECT_ID(QUOTENAME(m.dest_schema) + N'.' + QUOTENAME(m.dest_table))) COLLATE Latin1_General_BIN2
FROM @moved AS w
INNER JOIN dbaops_dataflow.dbo.table_mappings AS m ON m.mapping_id = w.mapping_id
WHERE w.from_lsn IS NULL AND NOT EXISTS (SELECT 1 FROM dbo.dbaops_dataflow_checkpoints AS t WHERE t.mapping_id = w.mapping_id);
COMMIT TRANSACTION;
SELECT mapping_id FROM @moved;
