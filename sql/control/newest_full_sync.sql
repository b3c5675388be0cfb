-- @P1: mapping_id, @P2: status_id. The newest full sync after that one.
SELECT TOP (1) status_id, status, records_processed, error_message
FROM dbo.sync_status
WHERE mapping_id = @P1 AND sync_type = N'FULL_SYNC' AND status_id > @P2
ORDER BY status_id DESC;
