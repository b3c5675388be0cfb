-- @P1, @P2, @P3: the codes of errors that are a server's own. A deleted mapping's errors have lost their mapping_id and are told from these by
-- their codes. @P3 is of the server's row, whether or not a mapping uses it.
UPDATE e
SET e.is_resolved = 1, e.resolved_at = GETUTCDATE()
FROM dbo.error_logs AS e
    LEFT JOIN dbo.table_mappings AS m ON m.mapping_id = e.mapping_id
    LEFT JOIN dbo.source_servers AS s ON s.server_id = COALESCE(m.server_id, e.server_id)
WHERE e.is_resolved = 0
    AND COALESCE(m.server_id, e.server_id) IS NOT NULL
    AND (
        s.server_id IS NULL OR s.is_enabled = 0 OR m.is_enabled = 0
        OR (
            m.mapping_id IS NULL AND e.error_code <> @P3
            AND (
                e.error_code NOT IN (@P1, @P2)
                OR NOT EXISTS (SELECT 1 FROM dbo.table_mappings AS u WHERE u.server_id = s.server_id AND u.is_enabled = 1)
            )
        )
    );
