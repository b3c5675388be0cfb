-- Writes the checkpoint's twin in the destination database, in the same transaction.
-- Wants @mapping_id int, @to binary(10) (NULL without CDC), @tran_id varbinary(10) and @tran_end_time nvarchar(30) in style 121 of the newest
-- transaction known up to there, at @tran_lsn binary(10), @source_object nvarchar(50), @capture_instance nvarchar(200), and
-- @rebind bit: a full sync binds the twin to the tables that the mapping names now; changes never do, but where nothing was known.
-- Changes move from one capture instance to the next one, and what is not known of a transaction leaves the one that is known.
DECLARE @bound_to nvarchar(2000) = (SELECT CONCAT(m.server_id, N'|', LOWER(CONCAT(m.source_database, N'|', m.source_schema, N'|', m.source_table)), N'|',
    OBJECT_ID(QUOTENAME(m.dest_schema) + N'.' + QUOTENAME(m.dest_table))) COLLATE Latin1_General_BIN2
    FROM dbaops_dataflow.dbo.table_mappings AS m WHERE m.mapping_id = @mapping_id);
UPDATE dbo.dbaops_dataflow_checkpoints
SET lsn = @to, updated_at = SYSUTCDATETIME(),
    tran_lsn = CASE WHEN @tran_id IS NOT NULL THEN @tran_lsn WHEN @rebind = 0 AND tran_id IS NOT NULL THEN COALESCE(tran_lsn, lsn) END,
    tran_id = CASE WHEN @tran_id IS NOT NULL OR @rebind = 1 THEN @tran_id ELSE tran_id END,
    tran_end_time = CASE WHEN @tran_id IS NOT NULL OR @rebind = 1 THEN CONVERT(datetime, @tran_end_time, 121) ELSE tran_end_time END,
    bound_to = CASE WHEN @rebind = 1 OR bound_to IS NULL THEN @bound_to ELSE bound_to END,
    source_object = CASE WHEN @rebind = 1 OR source_object IS NULL THEN @source_object ELSE source_object END,
    capture_instance = CASE WHEN @rebind = 1 OR @capture_instance IS NOT NULL THEN @capture_instance ELSE capture_instance END
WHERE mapping_id = @mapping_id;
IF @@ROWCOUNT = 0
BEGIN
    INSERT INTO dbo.dbaops_dataflow_checkpoints (mapping_id, lsn, tran_lsn, tran_id, tran_end_time, updated_at, bound_to, source_object, capture_instance)
    VALUES (@mapping_id, @to, @tran_lsn, @tran_id, CONVERT(datetime, @tran_end_time, 121), SYSUTCDATETIME(), @bound_to, @source_object, @capture_instance);
END;
