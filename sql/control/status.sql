-- The state of every mapping: its row, its newest run, the open error that matters most, its verifications. v_mapping_status has the same facts.
-- In braces: what a control database has not where `init` was not run again.
SELECT
    m.mapping_id, m.server_id, s.server_name, m.source_database, m.source_schema, m.source_table, m.dest_database, m.dest_schema, m.dest_table,
    m.is_enabled, s.is_enabled, m.cdc_enabled, m.full_sync_requested,
    CONVERT(NVARCHAR(30), m.full_sync_pending_at, 126), CONVERT(NVARCHAR(30), m.last_full_sync_at, 126),
    {initial_sync}, CONVERT(NVARCHAR(30), m.created_at, 126), m.last_cdc_lsn,
    CAST(l.seconds_behind AS BIGINT), l.reason, CONVERT(NVARCHAR(30), COALESCE(g.oldest_at, g.polled_at), 126),
    CAST(CASE WHEN g.reason IS NOT NULL THEN DATEDIFF(SECOND, g.polled_at, SYSUTCDATETIME()) END AS BIGINT), {uncaptured},
    r.sync_type, r.status, r.records_processed, CONVERT(NVARCHAR(30), r.started_at, 126), CONVERT(NVARCHAR(30), r.completed_at, 126),
    e.error_type, e.error_code, e.error_message, CONVERT(NVARCHAR(30), e.created_at, 126), e.is_parked, e.advice,
    p.error_code, p.error_message, CONVERT(NVARCHAR(30), p.created_at, 126), p.advice,
    v.verification_status, CONVERT(NVARCHAR(30), v.verified_at, 126),
    f.verification_type, f.mismatches_found, CONVERT(NVARCHAR(30), f.verified_at, 126)
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
        SELECT TOP (1) x.error_type, {error_code} AS error_code, x.error_message, x.created_at, {is_parked} AS is_parked,
            CASE WHEN CHARINDEX(N'what to do: ', x.error_details) > 0
                THEN SUBSTRING(x.error_details, CHARINDEX(N'what to do: ', x.error_details) + 12, 4000) END AS advice
        FROM dbo.error_logs AS x
        WHERE x.mapping_id = m.mapping_id AND x.is_resolved = 0 AND x.error_type <> N'VERIFICATION'
        ORDER BY {is_parked} DESC, x.created_at DESC, x.error_id DESC
    ) AS e
    OUTER APPLY (
        SELECT TOP (1) {error_code} AS error_code, x.error_message, x.created_at,
            CASE WHEN CHARINDEX(N'what to do: ', x.error_details) > 0
                THEN SUBSTRING(x.error_details, CHARINDEX(N'what to do: ', x.error_details) + 12, 4000) END AS advice
        FROM dbo.error_logs AS x
        WHERE x.server_id = m.server_id AND x.mapping_id IS NULL AND x.is_resolved = 0
            -- of one database alone
            AND ({source_database} IS NULL OR {source_database} = m.source_database)
        ORDER BY x.created_at DESC, x.error_id DESC
    ) AS p
    OUTER APPLY (
        SELECT TOP (1) x.verification_status, x.verified_at
        FROM dbo.verification_logs AS x
        WHERE x.mapping_id = m.mapping_id AND x.verification_type = N'MD5_COMPARISON'
        ORDER BY x.verified_at DESC, x.verification_id DESC
    ) AS v
    OUTER APPLY (
        -- found, and neither passed since nor, where rows are compared, loaded anew
        SELECT TOP (1) x.verification_type, x.mismatches_found, x.verified_at
        FROM dbo.verification_logs AS x
        WHERE x.mapping_id = m.mapping_id AND x.verification_status = N'FAILED'
            AND (x.verification_type = N'SCHEMA' OR m.last_full_sync_at IS NULL OR x.verified_at > m.last_full_sync_at)
            AND NOT EXISTS (
                SELECT 1
                FROM dbo.verification_logs AS n
                WHERE n.mapping_id = x.mapping_id AND n.verification_type = x.verification_type AND n.verification_status = N'PASSED'
                    AND n.verified_at >= x.verified_at AND n.verification_id > x.verification_id
            )
        ORDER BY x.verified_at DESC, x.verification_id DESC
    ) AS f
ORDER BY m.mapping_id;
