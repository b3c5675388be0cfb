DECLARE @before DATETIME2 = DATEADD(SECOND, -@P1, GETUTCDATE());
DELETE TOP (1000) FROM dbo.sync_logs WHERE created_at < @before;
DELETE TOP (1000) FROM dbo.sync_status WHERE completed_at < @before AND status <> N'RUNNING';
DELETE TOP (1000) FROM dbo.verification_logs WHERE verified_at < @before;
DELETE TOP (1000) FROM dbo.error_logs WHERE is_resolved = 1 AND resolved_at < @before;
