-- A mapping that has never synced asks for a full sync. @P1: mapping_id. One that got a checkpoint meanwhile, from start-from or by another
-- daemon, goes on from there.
UPDATE dbo.table_mappings SET full_sync_requested = 1
WHERE mapping_id = @P1 AND last_cdc_lsn IS NULL AND last_full_sync_at IS NULL;
