DECLARE @mapping_id int = @P1, @from binary(10) = @P2;
SET XACT_ABORT ON;
TRUNCATE TABLE #net;
INSERT INTO #net ([__$order], [__$operation]) SELECT c.[__$order], 2 FROM #changes AS c;
BEGIN TRANSACTION;
DELETE t FROM [sales].[Order]] Details] AS t
INNER JOIN (SELECT DISTINCT [k0], [k1] FROM (VALUES (CAST(@P3 AS bigint), CAST(@P4 AS nvarchar(20)) COLLATE Latin1_General_CI_AS), (CAST(@P5 AS bigint), CAST(@P6 AS nvarchar(20)) COLLATE Latin1_General_CI_AS)) AS v ([k0], [k1])) AS k ON t.[id] = k.[k0] AND t.[code] = k.[k1]
WHERE NOT EXISTS (SELECT 1 FROM #changes AS c WHERE t.[id] = CAST(c.[c0] AS bigint) AND t.[code] = c.[c1] COLLATE Latin1_General_CI_AS);
DELETE d
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 1;
UPDATE d SET
    [code] = c.[c1] COLLATE Latin1_General_CI_AS,
    [price] = CAST(c.[c2] AS money),
    [note] = CAST(c.[c3] AS nvarchar(max)),
    [at] = CAST(c.[c4] AS datetimeoffset(3)),
    [doc] = CONVERT(xml, c.[c5], 1)
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] IN (2, 4);
INSERT INTO [sales].[Order]] Details] ([id], [code], [price], [note], [at], [doc])
SELECT CAST(c.[c0] AS bigint),
    c.[c1] COLLATE Latin1_General_CI_AS,
    CAST(c.[c2] AS money),
    CAST(c.[c3] AS nvarchar(max)),
    CAST(c.[c4] AS datetimeoffset(3)),
    CONVERT(xml, c.[c5], 1)
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$operation] IN (2, 4)
    AND NOT EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d WHERE d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS);
-- guard
COMMIT TRANSACTION;
