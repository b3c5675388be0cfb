UPDATE dbo.error_logs
SET is_resolved = 1, resolved_at = GETUTCDATE()
WHERE server_id = @P1 AND mapping_id IS NULL AND is_resolved = 0;
