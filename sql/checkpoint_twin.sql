-- Writes the checkpoint's twin in the destination database, in the same transaction.
-- Wants @mapping_id int, @to binary(10) (NULL without CDC), @tran_id varbinary(10), @tran_end_time nvarchar(30) in style 121.
UPDATE dbo.dbaops_dataflow_checkpoints
SET lsn = @to, tran_id = @tran_id, tran_end_time = CONVERT(datetime, @tran_end_time, 121), updated_at = SYSUTCDATETIME()
WHERE mapping_id = @mapping_id;
IF @@ROWCOUNT = 0
BEGIN
    INSERT INTO dbo.dbaops_dataflow_checkpoints (mapping_id, lsn, tran_id, tran_end_time, updated_at)
    VALUES (@mapping_id, @to, @tran_id, CONVERT(datetime, @tran_end_time, 121), SYSUTCDATETIME());
END;
