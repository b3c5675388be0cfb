-- For a control database that `init` has not brought up to date. @P1: mapping_ids, 4 bytes each (big-endian), in the order they are tried; @P2: how
-- many at most. One cell: those that are ours now, 8 bytes each: mapping_id and generation, which is 0 here.
DECLARE @ids varbinary(8000) = @P1, @count_max int = @P2, @at int = 1, @taken int = 0, @result int, @resource nvarchar(255);
DECLARE @ours varbinary(8000) = 0x;
WHILE @at < DATALENGTH(@ids) AND @taken < @count_max
BEGIN
    SET @resource = CONCAT(N'dbaops-dataflow/mapping/', CAST(SUBSTRING(@ids, @at, 4) AS int));
    EXEC @result = sys.sp_getapplock @Resource = @resource, @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 0;
    IF @result >= 0 SELECT @ours = @ours + SUBSTRING(@ids, @at, 4) + 0x00000000, @taken = @taken + 1;
    SET @at = @at + 4;
END;
SELECT @ours AS ours;
