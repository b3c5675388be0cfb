-- @P1: mapping_ids and generations, 4 bytes each (big-endian), whose locks this session holds. The row in dbo.mapping_owners, where there is one, may
-- go on naming this daemon: a lock that is free is taken whatever the row says.
DECLARE @ids varbinary(8000) = @P1, @at int = 1, @generation int, @resource nvarchar(255);
WHILE @at < DATALENGTH(@ids)
BEGIN
    SET @generation = CAST(SUBSTRING(@ids, @at + 4, 4) AS int);
    SET @resource = CONCAT(N'dbaops-dataflow/mapping/', CAST(SUBSTRING(@ids, @at, 4) AS int), CASE WHEN @generation > 0 THEN CONCAT(N'/', @generation) END);
    EXEC sys.sp_releaseapplock @Resource = @resource, @LockOwner = N'Session';
    SET @at = @at + 8;
END;
