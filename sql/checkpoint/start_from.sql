-- Sets a mapping's checkpoint and its twin, from a session in the destination database. @P1: mapping_id, @P2: the LSN.
DECLARE @mapping_id int = @P1, @to binary(10) = @P2, @tran_id varbinary(10) = NULL, @tran_end_time nvarchar(30) = NULL,
    @tran_lsn binary(10) = NULL, @source_object nvarchar(50) = NULL, @capture_instance nvarchar(200) = NULL, @rebind bit = 1;
SET XACT_ABORT ON;
BEGIN TRANSACTION;
UPDATE dbaops_dataflow.dbo.table_mappings SET last_cdc_lsn = @to WHERE mapping_id = @mapping_id;
