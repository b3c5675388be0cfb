-- @P1: mapping_ids, 4 bytes each (big-endian), in the order they are tried; @P2: how many at most; @P3: the daemon_id to take them for, NULL for a
-- command. One cell: those that are ours now, 8 bytes each: mapping_id and generation.
-- A daemon that is frozen keeps its session, and so its locks. Where the owner is marked as gone, the mapping is taken under the lock of its next
-- generation, which nobody holds. A generation that moved between the look and the lock is another taker's: the lock is given back.
DECLARE @ids varbinary(8000) = @P1, @count_max int = @P2, @daemon_id int = @P3, @at int = 1, @taken int = 0, @result int, @resource nvarchar(255),
    @id int, @owner int, @seen int, @generation int, @packed varbinary(8000) = 0x;
DECLARE @ours TABLE (mapping_id int NOT NULL PRIMARY KEY, generation int NOT NULL);
WHILE @at < DATALENGTH(@ids) AND @taken < @count_max
BEGIN
    SET @id = CAST(SUBSTRING(@ids, @at, 4) AS int);
    SET @at = @at + 4;
    SET @owner = NULL;
    SET @seen = 0;
    SELECT @owner = o.daemon_id, @seen = o.generation FROM dbo.mapping_owners AS o WHERE o.mapping_id = @id;
    SET @generation = @seen;
    SET @resource = CONCAT(N'dbaops-dataflow/mapping/', @id, CASE WHEN @generation > 0 THEN CONCAT(N'/', @generation) END);
    EXEC @result = sys.sp_getapplock @Resource = @resource, @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 0;
    IF @result < 0 AND EXISTS (SELECT 1 FROM dbo.daemons AS d WHERE d.daemon_id = @owner AND d.gone_at IS NOT NULL)
    BEGIN
        SET @generation = @seen + 1;
        SET @resource = CONCAT(N'dbaops-dataflow/mapping/', @id, N'/', @generation);
        EXEC @result = sys.sp_getapplock @Resource = @resource, @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 0;
    END;
    IF @result >= 0 AND EXISTS (SELECT 1 FROM dbo.mapping_owners AS o WHERE o.mapping_id = @id AND o.generation > @seen)
    BEGIN
        EXEC sys.sp_releaseapplock @Resource = @resource, @LockOwner = N'Session';
        SET @result = -1;
    END;
    IF @result >= 0
    BEGIN
        INSERT INTO @ours (mapping_id, generation) VALUES (@id, @generation);
        SET @packed = @packed + CAST(@id AS binary(4)) + CAST(@generation AS binary(4));
        SET @taken = @taken + 1;
    END;
END;
UPDATE o SET daemon_id = @daemon_id, generation = w.generation
FROM dbo.mapping_owners AS o
    INNER JOIN @ours AS w ON w.mapping_id = o.mapping_id;
INSERT INTO dbo.mapping_owners (mapping_id, daemon_id, generation)
SELECT w.mapping_id, @daemon_id, w.generation
FROM @ours AS w
    INNER JOIN dbo.table_mappings AS m ON m.mapping_id = w.mapping_id
WHERE NOT EXISTS (SELECT 1 FROM dbo.mapping_owners AS o WHERE o.mapping_id = w.mapping_id);
SELECT @packed AS ours;
