-- Enabled servers and mappings; @P1: a mapping that is wanted also while it is switched off, or NULL.
-- {initial_sync} is m.initial_sync, or NULL in a control database where `init` has not added that column.
SELECT server_id, server_name, connection_string, CONVERT(NVARCHAR(30), updated_at, 126)
FROM dbo.source_servers
WHERE is_enabled = 1
ORDER BY server_id;

SELECT
    m.mapping_id, m.server_id,
    m.source_database, m.source_schema, m.source_table,
    m.dest_database, m.dest_schema, m.dest_table,
    m.primary_key_column, m.full_sync_trigger_column,
    m.cdc_enabled, m.last_cdc_lsn,
    m.full_sync_requested,
    CAST(CASE WHEN m.full_sync_pending_at IS NULL THEN 0 ELSE 1 END AS BIT),
    m.full_sync_mode,
    CONVERT(NVARCHAR(30), m.updated_at, 126),
    CAST(CASE WHEN m.last_full_sync_at IS NULL THEN 0 ELSE 1 END AS BIT),
    CAST({initial_sync} AS NVARCHAR(10))
FROM dbo.table_mappings AS m
    INNER JOIN dbo.source_servers AS s ON s.server_id = m.server_id
WHERE (m.is_enabled = 1 OR m.mapping_id = @P1) AND s.is_enabled = 1
ORDER BY m.mapping_id;
