-- A mapping never runs twice at once: an older RUNNING row is of a run whose INSERT was done and whose reply was lost.
UPDATE dbo.sync_status
SET status = N'ERROR', error_message = N'interrupted', completed_at = GETUTCDATE()
WHERE mapping_id = @P1 AND status = N'RUNNING';
INSERT INTO dbo.sync_status (mapping_id, sync_type, status, started_at)
VALUES (@P1, @P2, N'RUNNING', GETUTCDATE());
SELECT CAST(SCOPE_IDENTITY() AS BIGINT);
