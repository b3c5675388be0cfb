TRUNCATE TABLE #net;
INSERT INTO #net ([__$order], [__$operation]) SELECT c.[__$order], 2 FROM #changes AS c;
SELECT TOP (1) a.[c0], a.[c1], b.[c0], b.[c1]
FROM #net AS n
INNER JOIN #changes AS a ON a.[__$order] = n.[__$order]
INNER JOIN #changes AS b ON CAST(a.[c0] AS bigint) = CAST(b.[c0] AS bigint) AND a.[c1] COLLATE Latin1_General_CI_AS = b.[c1] COLLATE Latin1_General_CI_AS
INNER JOIN #net AS m ON m.[__$order] = b.[__$order]
WHERE n.[__$operation] = 2 AND m.[__$operation] = 2 AND n.[__$order] < m.[__$order]
UNION ALL
SELECT TOP (1) t.[id], t.[code] COLLATE Latin1_General_BIN2, a.[c0], a.[c1]
FROM #net AS n
INNER JOIN #changes AS a ON a.[__$order] = n.[__$order]
INNER JOIN [sales].[Order]] Details] AS t ON t.[id] = CAST(a.[c0] AS bigint) AND t.[code] = a.[c1] COLLATE Latin1_General_CI_AS
WHERE n.[__$operation] = 2 AND NOT (t.[code] COLLATE Latin1_General_BIN2 = a.[c1])
    AND NOT EXISTS (SELECT 1 FROM #net AS m INNER JOIN #changes AS b ON b.[__$order] = m.[__$order] WHERE m.[__$operation] = 1 AND t.[id] = CAST(b.[c0] AS bigint) AND t.[code] = b.[c1] COLLATE Latin1_General_CI_AS AND t.[code] COLLATE Latin1_General_BIN2 = b.[c1])
    AND NOT (EXISTS (SELECT 1 FROM (VALUES (CAST(@P1 AS bigint), CAST(@P2 AS nvarchar(20)) COLLATE Latin1_General_CI_AS)) AS k ([k0], [k1]) WHERE t.[id] = k.[k0] AND t.[code] = k.[k1]));
