-- Sets a mapping's checkpoint and its twin, and that nothing is to be loaded, from a session in the destination database. @P1: mapping_id, @P2: the LSN.
DECLARE @mapping_id int = @P1, @to binary(10) = @P2, @tran_id varbinary(10) = NULL, @tran_end_time nvarchar(30) = NULL,
    @tran_lsn binary(10) = NULL, @source_object nvarchar(50) = NULL, @capture_instance nvarchar(200) = NULL, @rebind bit = 1;
SET XACT_ABORT ON;
BEGIN TRANSACTION;
UPDATE dbaops_dataflow.dbo.table_mappings SET last_cdc_lsn = @to WHERE mapping_id = @mapping_id;
-- Where `init` has not added initial_sync, nothing loads the table either: it has a checkpoint.
IF COL_LENGTH(N'dbaops_dataflow.dbo.table_mappings', N'initial_sync') IS NOT NULL
    EXEC sys.sp_executesql N'UPDATE dbaops_dataflow.dbo.table_mappings SET initial_sync = N''NONE'' WHERE mapping_id = @id', N'@id int', @id = @mapping_id;
