-- A gap asks for a full sync, and when it did is remembered: at most one an hour, whoever runs.
UPDATE dbo.table_mappings SET full_sync_requested = 1, gap_synced_at = SYSUTCDATETIME() WHERE mapping_id = @P1;
