-- A place among the daemons, of @P1 in all. One cell: the place that is ours now, or NULL where all are taken.
DECLARE @places int = @P1, @place int = 1, @result int = -1, @resource nvarchar(255);
WHILE @result < 0 AND @place <= @places
BEGIN
    SET @resource = CONCAT(N'dbaops-dataflow/daemon/', @place);
    EXEC @result = sys.sp_getapplock @Resource = @resource, @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 0;
    IF @result < 0 SET @place = @place + 1;
END;
SELECT CASE WHEN @result >= 0 THEN @place END AS place;
