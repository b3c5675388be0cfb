UPDATE dbo.error_logs
SET is_resolved = 1, resolved_at = GETUTCDATE()
WHERE is_resolved = 0 AND LEFT(error_message, LEN(@P2)) = @P2
    AND (mapping_id = @P1 OR (@P1 IS NULL AND mapping_id IS NULL AND server_id IS NULL));
