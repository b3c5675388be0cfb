UPDATE c SET [__$operation] = 5
FROM #changes AS c
INNER JOIN #changes AS b ON b.[__$order] = c.[__$order] - 1
WHERE c.[__$operation] = 4 AND b.[__$operation] = 3 AND b.[__$start_lsn] = c.[__$start_lsn] AND b.[__$seqval] = c.[__$seqval]
    AND CAST(b.[c0] AS bigint) = CAST(c.[c0] AS bigint)
    AND b.[c1] COLLATE Latin1_General_CI_AS = c.[c1] COLLATE Latin1_General_CI_AS;
DELETE b
FROM #changes AS b
INNER JOIN #changes AS c ON c.[__$order] = b.[__$order] + 1
WHERE b.[__$operation] = 3 AND c.[__$operation] = 5;
