INSERT INTO #net ([__$order], [__$operation])
SELECT e.[__$order], CASE WHEN e.[__$operation] IN (2, 4) THEN 2
    WHEN e.balance >= 0
        AND e.[__$start_lsn] = (SELECT a.[__$start_lsn] FROM #changes AS a WHERE a.[__$order] = e.last_arrival)
        AND (e.balance > 0 OR EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d INNER JOIN #changes AS c ON d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS AND d.[code] COLLATE Latin1_General_BIN2 = c.[c1] WHERE c.[__$order] = e.[__$order]))
    THEN 2 ELSE 1 END
FROM (
    SELECT c.[__$order], c.[__$operation], c.[__$start_lsn],
        ROW_NUMBER() OVER (PARTITION BY c.[c0], c.[c1] ORDER BY c.[__$order] DESC) AS place,
        MAX(CASE WHEN c.[__$operation] = 2 OR (c.[__$operation] = 4 AND (CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 1 <> 0 OR CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 2 <> 0)) THEN c.[__$order] END) OVER (PARTITION BY c.[c0], c.[c1]) AS last_arrival,
        SUM(CASE WHEN c.[__$operation] IN (1, 3) THEN -1 WHEN c.[__$operation] = 2 OR (c.[__$operation] = 4 AND (CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 1 <> 0 OR CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 2 <> 0)) THEN 1 ELSE 0 END) OVER (PARTITION BY c.[c0], c.[c1]) AS balance
    FROM #changes AS c
) AS e
WHERE e.place = 1;
