-- @P1: mapping_ids, 4 bytes each (big-endian), whose locks this session holds.
DECLARE @ids varbinary(max) = @P1, @at int = 1, @mapping_id int, @resource nvarchar(255);
WHILE @at < DATALENGTH(@ids)
BEGIN
    SET @mapping_id = CAST(SUBSTRING(@ids, @at, 4) AS int);
    SET @resource = CONCAT(N'dbaops-dataflow/mapping/', @mapping_id);
    EXEC sys.sp_releaseapplock @Resource = @resource, @LockOwner = N'Session';
    SET @at = @at + 4;
END;
