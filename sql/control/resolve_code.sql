-- @P1: mapping_id, or NULL for what concerns no mapping and no server; @P2: the error_code.
UPDATE dbo.error_logs
SET is_resolved = 1, resolved_at = GETUTCDATE()
WHERE is_resolved = 0 AND error_code = @P2
    AND (mapping_id = @P1 OR (@P1 IS NULL AND mapping_id IS NULL AND server_id IS NULL));
