-- Where nothing is old enough, nothing but the end of an index is read: RECOMPILE lets the server see how little that is.
DECLARE @before DATETIME2 = DATEADD(SECOND, -@P1, GETUTCDATE());
DELETE TOP (1000) FROM dbo.sync_logs WHERE created_at < @before OPTION (RECOMPILE);
DELETE TOP (1000) FROM dbo.sync_status WHERE completed_at < @before AND status <> N'RUNNING' OPTION (RECOMPILE);
DELETE TOP (1000) FROM dbo.verification_logs WHERE verified_at < @before OPTION (RECOMPILE);
DELETE TOP (1000) FROM dbo.error_logs WHERE is_resolved = 1 AND resolved_at < @before OPTION (RECOMPILE);
