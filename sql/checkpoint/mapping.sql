SELECT CAST(CASE WHEN m.is_enabled = 1 AND s.is_enabled = 1 THEN 1 ELSE 0 END AS BIT),
    CAST(CASE WHEN m.full_sync_pending_at IS NULL THEN 0 ELSE 1 END AS BIT),
    m.last_cdc_lsn, CONVERT(NVARCHAR(30), m.last_full_sync_at, 126), m.full_sync_requested
FROM dbo.table_mappings AS m
JOIN dbo.source_servers AS s ON s.server_id = m.server_id
WHERE m.mapping_id = @P1;
