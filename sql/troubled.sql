SELECT DISTINCT mapping_id, server_id
FROM dbo.error_logs
WHERE is_resolved = 0 AND error_type <> N'VERIFICATION';

SELECT DISTINCT r.mapping_id
FROM dbo.sync_status AS r
WHERE r.sync_type = N'CDC'
    AND r.status = N'ERROR'
    AND NOT EXISTS (
        SELECT 1
        FROM dbo.sync_status AS later
        WHERE later.mapping_id = r.mapping_id
            AND later.sync_type = N'CDC'
            AND later.status = N'COMPLETED'
            AND later.status_id > r.status_id
    );
