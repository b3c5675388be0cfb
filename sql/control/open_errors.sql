SELECT DISTINCT mapping_id, server_id
FROM dbo.error_logs
WHERE is_resolved = 0 AND error_type <> N'VERIFICATION';
