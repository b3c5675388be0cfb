-- @P1: mapping_ids, 4 bytes each (big-endian), whose locks this session holds.
DECLARE @ids varbinary(8000) = @P1, @at int = 1, @resource nvarchar(255);
WHILE @at < DATALENGTH(@ids)
BEGIN
    SET @resource = CONCAT(N'dbaops-dataflow/mapping/', CAST(SUBSTRING(@ids, @at, 4) AS int));
    EXEC sys.sp_releaseapplock @Resource = @resource, @LockOwner = N'Session';
    SET @at = @at + 4;
END;
