-- Moves a mapping's checkpoint in the control database, in the transaction that wrote the rows, from a session in the destination database.
-- The old LSN is the fence: no row affected means that somebody else moved it, and then nothing of this transaction may stay.
-- Wants @mapping_id int, @from binary(10), @to binary(10), @resync bit.
UPDATE dbaops_dataflow.dbo.table_mappings
SET last_cdc_lsn = @to,
    full_sync_requested = CASE WHEN @resync = 1 THEN 1 ELSE full_sync_requested END
WHERE mapping_id = @mapping_id
  AND (last_cdc_lsn = @from OR (last_cdc_lsn IS NULL AND @from IS NULL));
IF @@ROWCOUNT <> 1
BEGIN;
    THROW 50547, N'the checkpoint is no longer what it was when this work began', 1;
END;
