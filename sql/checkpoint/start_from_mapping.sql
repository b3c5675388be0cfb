-- @P1: mapping_id.
SELECT dest_database, cdc_enabled, CAST(CASE WHEN full_sync_requested = 1 OR full_sync_pending_at IS NOT NULL THEN 1 ELSE 0 END AS bit) AS wanted
FROM dbo.table_mappings
WHERE mapping_id = @P1;
