INSERT INTO #net ([__$order], [__$operation], [__$p0], [__$p1])
SELECT CASE w.effect WHEN 2 THEN w.last_put ELSE w.[__$order] END,
    CASE WHEN w.effect = 4 AND w.last_reset > 0 THEN 2 ELSE w.effect END,
    CASE WHEN w.p0 >= w.last_reset THEN w.p0 END,
    CASE WHEN w.p1 >= w.last_reset THEN w.p1 END
FROM (
    SELECT e.*, CASE WHEN e.[__$operation] IN (2, 4, 5) THEN 4
        WHEN e.balance >= 0
            AND e.[__$start_lsn] = (SELECT a.[__$start_lsn] FROM #changes AS a WHERE a.[__$order] = e.last_arrival)
            AND (e.balance > 0 OR EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d INNER JOIN #changes AS c ON d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS WHERE c.[__$order] = e.[__$order]))
        THEN 2 ELSE 1 END AS effect
    FROM (
        SELECT c.[__$order], c.[__$operation], c.[__$start_lsn],
            ROW_NUMBER() OVER (PARTITION BY CAST(c.[c0] AS bigint), c.[c1] COLLATE Latin1_General_CI_AS ORDER BY c.[__$order] DESC) AS place,
            MAX(CASE WHEN c.[__$operation] IN (2, 4, 5) THEN c.[__$order] END) OVER (PARTITION BY CAST(c.[c0] AS bigint), c.[c1] COLLATE Latin1_General_CI_AS) AS last_put,
            MAX(CASE WHEN c.[__$operation] = 2 OR (c.[__$operation] = 4 AND (CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 1 <> 0 OR CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 2 <> 0)) THEN c.[__$order] END) OVER (PARTITION BY CAST(c.[c0] AS bigint), c.[c1] COLLATE Latin1_General_CI_AS) AS last_arrival,
            MAX(CASE WHEN c.[__$operation] < 4 OR (c.[__$operation] = 4 AND (CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 1 <> 0 OR CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 2 <> 0)) THEN c.[__$order] ELSE 0 END) OVER (PARTITION BY CAST(c.[c0] AS bigint), c.[c1] COLLATE Latin1_General_CI_AS) AS last_reset,
            SUM(CASE WHEN c.[__$operation] IN (1, 3) THEN -1 WHEN c.[__$operation] = 2 OR (c.[__$operation] = 4 AND (CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 1 <> 0 OR CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 2 <> 0)) THEN 1 ELSE 0 END) OVER (PARTITION BY CAST(c.[c0] AS bigint), c.[c1] COLLATE Latin1_General_CI_AS) AS balance,
            MAX(CASE WHEN (c.[__$operation] = 2 OR (c.[__$operation] IN (4, 5) AND CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]) - 1, 1) AS tinyint) & 2 <> 0)) AND c.[c3] IS NOT NULL THEN c.[__$order] END) OVER (PARTITION BY CAST(c.[c0] AS bigint), c.[c1] COLLATE Latin1_General_CI_AS) AS p0,
            MAX(CASE WHEN (c.[__$operation] = 2 AND (c.[__$update_mask] IS NOT NULL OR c.[c5] IS NOT NULL)) OR (c.[__$operation] IN (4, 5) AND CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 16 <> 0) THEN c.[__$order] END) OVER (PARTITION BY CAST(c.[c0] AS bigint), c.[c1] COLLATE Latin1_General_CI_AS) AS p1
        FROM #changes AS c
    ) AS e
    WHERE e.place = 1
) AS w;
