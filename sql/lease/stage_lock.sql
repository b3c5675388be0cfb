-- @P1: what is locked, in the current database, by this session; @P2: what a connection that loads has locked, and must not any more; @P3:
-- milliseconds to wait for each. One cell: below 0 is a no.
DECLARE @resource nvarchar(255) = @P1, @load nvarchar(255) = @P2, @timeout_ms int = @P3, @result int;
EXEC @result = sys.sp_getapplock @Resource = @resource, @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = @timeout_ms;
IF @result >= 0
BEGIN
    EXEC @result = sys.sp_getapplock @Resource = @load, @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = @timeout_ms;
    IF @result >= 0 EXEC sys.sp_releaseapplock @Resource = @load, @LockOwner = N'Session';
    ELSE EXEC sys.sp_releaseapplock @Resource = @resource, @LockOwner = N'Session';
END;
SELECT @result AS result;
