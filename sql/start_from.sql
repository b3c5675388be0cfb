-- Sets a mapping's checkpoint and its twin, from a session in the destination database. @P1: mapping_id, @P2: the LSN.
DECLARE @mapping_id int = @P1, @to binary(10) = @P2;
SET XACT_ABORT ON;
BEGIN TRANSACTION;
UPDATE dbaops_dataflow.dbo.table_mappings SET last_cdc_lsn = @to WHERE mapping_id = @mapping_id;
UPDATE dbo.dbaops_dataflow_checkpoints
SET lsn = @to, tran_id = NULL, tran_end_time = NULL, updated_at = SYSUTCDATETIME()
WHERE mapping_id = @mapping_id;
IF @@ROWCOUNT = 0
BEGIN
    INSERT INTO dbo.dbaops_dataflow_checkpoints (mapping_id, lsn, updated_at) VALUES (@mapping_id, @to, SYSUTCDATETIME());
END;
COMMIT TRANSACTION;
