-- Writes the checkpoint's twin in the destination database, in the same transaction.
-- Wants @mapping_id int, @to binary(10) (NULL without CDC), @tran_id varbinary(10), @tran_end_time nvarchar(30) in style 121, and
-- @rebind bit: a full sync binds the twin to the tables that the mapping names now; changes never do, but where nothing was known.
DECLARE @bound_to nvarchar(2000) = (SELECT CONCAT(m.server_id, N'|', LOWER(CONCAT(m.source_database, N'|', m.source_schema, N'|', m.source_table)), N'|',
    OBJECT_ID(QUOTENAME(m.dest_schema) + N'.' + QUOTENAME(m.dest_table))) COLLATE Latin1_General_BIN2
    FROM dbaops_dataflow.dbo.table_mappings AS m WHERE m.mapping_id = @mapping_id);
UPDATE dbo.dbaops_dataflow_checkpoints
SET lsn = @to, tran_id = @tran_id, tran_end_time = CONVERT(datetime, @tran_end_time, 121), updated_at = SYSUTCDATETIME(),
    bound_to = CASE WHEN @rebind = 1 OR bound_to IS NULL THEN @bound_to ELSE bound_to END
WHERE mapping_id = @mapping_id;
IF @@ROWCOUNT = 0
BEGIN
    INSERT INTO dbo.dbaops_dataflow_checkpoints (mapping_id, lsn, tran_id, tran_end_time, updated_at, bound_to)
    VALUES (@mapping_id, @to, @tran_id, CONVERT(datetime, @tran_end_time, 121), SYSUTCDATETIME(), @bound_to);
END;
