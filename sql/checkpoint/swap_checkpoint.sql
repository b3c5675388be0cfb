-- The end of a full sync, in the transaction that swapped its rows in, from a session in the destination database: the checkpoint may go
-- anywhere here, also back. The fence is the old LSN and the claim
-- of this attempt: whoever else fulfilled the request, or claimed it since, leaves nothing for us to end.
DECLARE @mapping_id int = @P1, @to binary(10) = @P2, @from binary(10) = @P3, @tran_id varbinary(10) = @P4, @tran_end_time nvarchar(30) = @P5,
    @tran_lsn binary(10) = @P6, @source_object nvarchar(50) = @P7, @capture_instance nvarchar(200) = @P8, @rebind bit = 1,
    @claim nvarchar(30) = @P9;
UPDATE dbaops_dataflow.dbo.table_mappings
SET last_cdc_lsn = @to, last_full_sync_at = SYSUTCDATETIME(), full_sync_pending_at = NULL
WHERE mapping_id = @mapping_id
  AND CONVERT(nvarchar(30), full_sync_pending_at, 126) = @claim
  AND (last_cdc_lsn = @from OR (last_cdc_lsn IS NULL AND @from IS NULL));
IF @@ROWCOUNT <> 1
BEGIN;
    THROW 50547, N'the checkpoint is no longer what it was when this work began', 1;
END;
