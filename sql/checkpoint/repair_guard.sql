-- Lets a repair commit only if the mapping still stands where its rows were read for, from a session in the destination database. The row
-- stays locked until then, so that no change, and no full sync, comes between. The number is that of the checkpoint's own fence.
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
    THROW 50547, N'the mapping no longer stands where it stood when the rows were read', 1;
END;
