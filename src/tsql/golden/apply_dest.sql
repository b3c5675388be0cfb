DECLARE @fetched bit = @P1, @mapping_id int = @P2, @from binary(10) = @P3, @to binary(10) = @P4, @tran_id varbinary(10) = @P5, @tran_end_time nvarchar(30) = @P6, @resync bit = @P7, @tran_lsn binary(10) = @P8, @source_object nvarchar(50) = @P9, @capture_instance nvarchar(200) = @P10, @rebind bit = 0;
SET XACT_ABORT ON;
BEGIN TRANSACTION;
IF @fetched = 1
    UPDATE n SET [__$p0] = ISNULL(n.[__$p0], f.[__$order]), [__$p1] = ISNULL(n.[__$p1], f.[__$order]), [__$p2] = ISNULL(n.[__$p2], f.[__$order])
    FROM #net AS n
    INNER JOIN #changes AS f ON f.[__$order] = n.[__$order] + CAST(4611686018427387904 AS bigint);
DELETE d
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 1;
UPDATE d SET
    [code] = c.[c1] COLLATE Latin1_General_CI_AS,
    [price] = CAST(c.[c2] AS money),
    [note] = CASE WHEN n.[__$p0] IS NULL THEN CAST(d.[note] AS nvarchar(max)) WHEN n.[__$p0] = n.[__$order] THEN CAST(c.[c3] AS nvarchar(max)) ELSE (SELECT CAST(x.[c3] AS nvarchar(max)) FROM #changes AS x WHERE x.[__$order] = n.[__$p0]) END,
    [at] = CASE WHEN n.[__$p1] IS NULL THEN d.[at] WHEN n.[__$p1] = n.[__$order] THEN CAST(c.[c4] AS datetimeoffset(3)) ELSE (SELECT CAST(x.[c4] AS datetimeoffset(3)) FROM #changes AS x WHERE x.[__$order] = n.[__$p1]) END,
    [doc] = CASE WHEN n.[__$p2] IS NULL THEN CAST(d.[doc] AS xml) WHEN n.[__$p2] = n.[__$order] THEN CONVERT(xml, c.[c5], 1) ELSE (SELECT CONVERT(xml, x.[c5], 1) FROM #changes AS x WHERE x.[__$order] = n.[__$p2]) END
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] IN (2, 4);
INSERT INTO [sales].[Order]] Details] ([id], [code], [price], [note], [at], [doc])
SELECT CAST(c.[c0] AS bigint),
    c.[c1] COLLATE Latin1_General_CI_AS,
    CAST(c.[c2] AS money),
    CASE WHEN n.[__$p0] = n.[__$order] THEN CAST(c.[c3] AS nvarchar(max)) ELSE (SELECT CAST(x.[c3] AS nvarchar(max)) FROM #changes AS x WHERE x.[__$order] = n.[__$p0]) END,
    CASE WHEN n.[__$p1] = n.[__$order] THEN CAST(c.[c4] AS datetimeoffset(3)) ELSE (SELECT CAST(x.[c4] AS datetimeoffset(3)) FROM #changes AS x WHERE x.[__$order] = n.[__$p1]) END,
    CASE WHEN n.[__$p2] = n.[__$order] THEN CONVERT(xml, c.[c5], 1) ELSE (SELECT CONVERT(xml, x.[c5], 1) FROM #changes AS x WHERE x.[__$order] = n.[__$p2]) END
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$operation] IN (2, 4) AND n.[__$p0] IS NOT NULL AND n.[__$p1] IS NOT NULL AND n.[__$p2] IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d WHERE d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS);
-- checkpoint and twin
COMMIT TRANSACTION;
TRUNCATE TABLE #net;
TRUNCATE TABLE #changes;
