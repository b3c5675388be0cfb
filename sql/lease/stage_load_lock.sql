DECLARE @result int;
EXEC @result = sys.sp_getapplock @Resource = N'{resource}', @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 0;
IF @result < 0 RAISERROR (N'another connection still loads this staging table', 16, 1);
