-- A gap asks for a full sync, and when it did is remembered: at most one an hour, whoever runs. @P1: mapping_id; @P2: the checkpoint that the
-- gap was found for: where it moved since, somebody else is further, and there is no gap.
UPDATE dbo.table_mappings SET full_sync_requested = 1, gap_synced_at = SYSUTCDATETIME()
WHERE mapping_id = @P1 AND (last_cdc_lsn = @P2 OR (last_cdc_lsn IS NULL AND @P2 IS NULL));
