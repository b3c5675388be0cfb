-- @P1: mapping_ids, 4 bytes each (big-endian), in the order they are tried; @P2: how many at most. The rows are those that are ours now.
DECLARE @ids varbinary(max) = @P1, @count_max int = @P2, @at int = 1, @taken int = 0, @mapping_id int, @result int, @resource nvarchar(255);
DECLARE @ours TABLE (mapping_id int NOT NULL);
WHILE @at < DATALENGTH(@ids) AND @taken < @count_max
BEGIN
    SET @mapping_id = CAST(SUBSTRING(@ids, @at, 4) AS int);
    SET @resource = CONCAT(N'dbaops-dataflow/mapping/', @mapping_id);
    EXEC @result = sys.sp_getapplock @Resource = @resource, @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 0;
    IF @result >= 0
    BEGIN
        INSERT INTO @ours (mapping_id) VALUES (@mapping_id);
        SET @taken = @taken + 1;
    END;
    SET @at = @at + 4;
END;
SELECT mapping_id FROM @ours;
