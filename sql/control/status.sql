-- How every mapping stands: its row, its newest run, its newest open error, its newest verification of rows.
SELECT
    m.mapping_id, s.server_name, m.source_database, m.source_schema, m.source_table, m.dest_database, m.dest_schema, m.dest_table,
    m.is_enabled, s.is_enabled, m.cdc_enabled, m.full_sync_requested,
    CAST(CASE WHEN m.full_sync_pending_at IS NULL THEN 0 ELSE 1 END AS BIT),
    CONVERT(NVARCHAR(30), m.last_full_sync_at, 126), m.last_cdc_lsn,
    CAST(l.seconds_behind AS BIGINT), l.reason,
    r.sync_type, r.status, r.records_processed, CONVERT(NVARCHAR(30), r.started_at, 126), CONVERT(NVARCHAR(30), r.completed_at, 126),
    e.error_type, e.error_message, CONVERT(NVARCHAR(30), e.created_at, 126), e.is_parked,
    p.error_message, v.verification_status, CONVERT(NVARCHAR(30), v.verified_at, 126), g.uncaptured
FROM dbo.table_mappings AS m
    INNER JOIN dbo.source_servers AS s ON s.server_id = m.server_id
    LEFT JOIN dbo.v_cdc_lag AS l ON l.mapping_id = m.mapping_id
    LEFT JOIN dbo.cdc_lag AS g ON g.mapping_id = m.mapping_id
    OUTER APPLY (
        SELECT TOP (1) x.sync_type, x.status, x.records_processed, x.started_at, x.completed_at
        FROM dbo.sync_status AS x
        WHERE x.mapping_id = m.mapping_id
        ORDER BY x.started_at DESC, x.status_id DESC
    ) AS r
    OUTER APPLY (
        SELECT TOP (1) x.error_type, x.error_message, x.created_at, x.is_parked
        FROM dbo.error_logs AS x
        WHERE x.mapping_id = m.mapping_id AND x.is_resolved = 0 AND x.error_type <> N'VERIFICATION'
        ORDER BY x.created_at DESC, x.error_id DESC
    ) AS e
    OUTER APPLY (
        SELECT TOP (1) x.error_message
        FROM dbo.error_logs AS x
        WHERE x.server_id = m.server_id AND x.mapping_id IS NULL AND x.is_resolved = 0
            -- of one database alone
            AND (x.source_database IS NULL OR x.source_database = m.source_database)
        ORDER BY x.created_at DESC, x.error_id DESC
    ) AS p
    OUTER APPLY (
        SELECT TOP (1) x.verification_status, x.verified_at
        FROM dbo.verification_logs AS x
        WHERE x.mapping_id = m.mapping_id AND x.verification_type = N'MD5_COMPARISON'
        ORDER BY x.verified_at DESC, x.verification_id DESC
    ) AS v
ORDER BY m.mapping_id;
