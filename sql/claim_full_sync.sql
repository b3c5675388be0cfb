UPDATE dbo.table_mappings
SET full_sync_pending_at = COALESCE(full_sync_pending_at, GETUTCDATE()), full_sync_requested = 0
WHERE mapping_id = @P1 AND (full_sync_requested = 1 OR @P2 = 1);
SELECT CAST(CASE WHEN full_sync_pending_at IS NULL THEN 0 ELSE 1 END AS BIT) FROM dbo.table_mappings WHERE mapping_id = @P1;
