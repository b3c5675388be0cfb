-- @P1: what is locked, in the current database, by this session; @P2: milliseconds to wait. One cell: below 0 is a no.
DECLARE @resource nvarchar(255) = @P1, @timeout_ms int = @P2, @result int;
EXEC @result = sys.sp_getapplock @Resource = @resource, @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = @timeout_ms;
SELECT @result AS result;
