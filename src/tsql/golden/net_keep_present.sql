DELETE c
FROM #changes AS c
INNER JOIN #changes AS g ON c.[c0] = g.[c0] AND c.[c1] = g.[c1]
INNER JOIN #net AS n ON n.[__$order] = g.[__$order]
WHERE n.[__$operation] = 1
    AND (EXISTS (SELECT 1 FROM #net AS m INNER JOIN #changes AS p ON p.[__$order] = m.[__$order] WHERE m.[__$operation] = 2 AND CAST(p.[c0] AS bigint) = CAST(g.[c0] AS bigint) AND p.[c1] COLLATE Latin1_General_CI_AS = g.[c1] COLLATE Latin1_General_CI_AS)
        OR NOT EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d WHERE d.[id] = CAST(g.[c0] AS bigint) AND d.[code] = g.[c1] COLLATE Latin1_General_CI_AS AND d.[code] COLLATE Latin1_General_BIN2 = g.[c1]));
TRUNCATE TABLE #net;
