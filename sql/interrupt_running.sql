UPDATE dbo.sync_status
SET status = N'ERROR', error_message = N'interrupted', completed_at = GETUTCDATE()
WHERE status = N'RUNNING';
