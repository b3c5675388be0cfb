UPDATE dbo.sync_status
SET status = @P2, records_processed = @P3, records_failed = @P4, error_message = @P5, completed_at = GETUTCDATE()
WHERE status_id = @P1;
