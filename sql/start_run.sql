INSERT INTO dbo.sync_status (mapping_id, sync_type, status, started_at)
VALUES (@P1, @P2, N'RUNNING', GETUTCDATE());
SELECT CAST(SCOPE_IDENTITY() AS BIGINT);
