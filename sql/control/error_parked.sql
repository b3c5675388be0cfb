UPDATE dbo.error_logs SET is_parked = 1 WHERE mapping_id = @P1 AND is_resolved = 0 AND error_type = @P2 AND error_message = @P3;
