SELECT TOP (@P1) n.[__$order], c.[__$start_lsn], c.[__$seqval], c.[__$command_id]
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$order] > @P2 AND n.[__$operation] IN (2, 4)
    AND (((n.[__$p0] IS NULL OR n.[__$p1] IS NULL)
        AND (n.[__$operation] = 2 OR NOT EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d WHERE d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS)))
        OR c.[c2] IS NULL)
ORDER BY n.[__$order]
