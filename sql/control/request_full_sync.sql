UPDATE dbo.table_mappings SET full_sync_requested = 1 WHERE mapping_id = @P1;
