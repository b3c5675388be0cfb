-- @P1: what this session locked.
DECLARE @resource nvarchar(255) = @P1;
EXEC sys.sp_releaseapplock @Resource = @resource, @LockOwner = N'Session';
