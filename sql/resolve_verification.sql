UPDATE dbo.error_logs
SET is_resolved = 1, resolved_at = GETUTCDATE()
WHERE mapping_id = @P1 AND is_resolved = 0 AND error_type = N'VERIFICATION' AND LEFT(error_message, LEN(@P2)) = @P2;
