-- Locks a name that nobody else can think of, in the current database and for this session; the name, and below 0 for a no.
DECLARE @resource nvarchar(255) = N'dbaops-dataflow/same/' + CONVERT(nvarchar(36), NEWID()), @result int;
EXEC @result = sys.sp_getapplock @Resource = @resource, @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 0;
SELECT @resource AS resource, @result AS result;
