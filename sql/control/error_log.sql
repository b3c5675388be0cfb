UPDATE dbo.error_logs
SET retry_count = CASE WHEN @P6 > retry_count THEN @P6 ELSE retry_count + 1 END, error_details = COALESCE(@P5, error_details),
    error_code = @P7, source_database = @P8
WHERE is_resolved = 0
    AND error_type = @P3
    AND error_message = @P4
    AND (mapping_id = @P1 OR (mapping_id IS NULL AND @P1 IS NULL))
    AND (server_id = @P2 OR (server_id IS NULL AND @P2 IS NULL));
IF @@ROWCOUNT = 0
    INSERT INTO dbo.error_logs (mapping_id, server_id, error_type, error_message, error_details, retry_count, error_code, source_database)
    SELECT @P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8
    WHERE @P1 IS NULL OR EXISTS (SELECT 1 FROM dbo.table_mappings WHERE mapping_id = @P1);
