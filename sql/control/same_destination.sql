-- The enabled mappings that bring rows to one destination table, and whether each has synced. @P1: one of them, which may be disabled.
SELECT o.mapping_id, CAST(CASE WHEN o.last_cdc_lsn IS NULL AND o.last_full_sync_at IS NULL THEN 0 ELSE 1 END AS BIT) AS has_synced
FROM dbo.table_mappings AS m
JOIN dbo.table_mappings AS o
    ON o.dest_database = m.dest_database AND o.dest_schema = m.dest_schema AND o.dest_table = m.dest_table
JOIN dbo.source_servers AS s ON s.server_id = o.server_id
WHERE m.mapping_id = @P1 AND (o.mapping_id = m.mapping_id OR (o.is_enabled = 1 AND s.is_enabled = 1))
ORDER BY o.mapping_id;
