-- Lets a repair commit only if the mapping's checkpoint is still the one for which its rows were read, from a session in the destination
-- database. The row stays locked until the commit, so that neither a change nor a full sync comes between. The error number is that of the
-- checkpoint's own guard.
-- Wants @mapping_id int, @from binary(10).
UPDATE dbaops_dataflow.dbo.table_mappings
SET last_cdc_lsn = @from
WHERE mapping_id = @mapping_id
  AND last_cdc_lsn = @from
  AND is_enabled = 1
  AND cdc_enabled = 1
  AND full_sync_pending_at IS NULL;
IF @@ROWCOUNT <> 1
BEGIN;
    THROW 50547, N'the checkpoint or the state of the mapping changed after the rows were read', 1;
END;
