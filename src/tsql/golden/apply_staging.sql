DECLARE @fetched bit = @P1;
SET XACT_ABORT ON;
BEGIN TRANSACTION;
IF @fetched = 1
    UPDATE n SET [__$p0] = ISNULL(n.[__$p0], f.[__$order]), [__$p1] = ISNULL(n.[__$p1], f.[__$order]), [__$p2] = ISNULL(n.[__$p2], f.[__$order])
    FROM #net AS n
    INNER JOIN #changes AS f ON f.[__$order] = n.[__$order] + CAST(4611686018427387904 AS bigint);
DELETE d
FROM [dbo].[dbaops_dataflow_stage_7] AS d
INNER JOIN #changes AS c ON d.[c0] = c.[c0] AND d.[c1] = c.[c1]
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 1;
UPDATE d SET
    [c1] = c.[c1],
    [c2] = c.[c2],
    [c3] = CASE WHEN n.[__$p0] IS NULL THEN d.[c3] WHEN n.[__$p0] = n.[__$order] THEN c.[c3] ELSE (SELECT x.[c3] FROM #changes AS x WHERE x.[__$order] = n.[__$p0]) END,
    [c4] = CASE WHEN n.[__$p1] IS NULL THEN d.[c4] WHEN n.[__$p1] = n.[__$order] THEN c.[c4] ELSE (SELECT x.[c4] FROM #changes AS x WHERE x.[__$order] = n.[__$p1]) END,
    [c5] = CASE WHEN n.[__$p2] IS NULL THEN d.[c5] WHEN n.[__$p2] = n.[__$order] THEN c.[c5] ELSE (SELECT x.[c5] FROM #changes AS x WHERE x.[__$order] = n.[__$p2]) END
FROM [dbo].[dbaops_dataflow_stage_7] AS d
INNER JOIN #changes AS c ON d.[c0] = c.[c0] AND d.[c1] = c.[c1]
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] IN (2, 4);
INSERT INTO [dbo].[dbaops_dataflow_stage_7] ([c0], [c1], [c2], [c3], [c4], [c5])
SELECT c.[c0],
    c.[c1],
    c.[c2],
    CASE WHEN n.[__$p0] = n.[__$order] THEN c.[c3] ELSE (SELECT x.[c3] FROM #changes AS x WHERE x.[__$order] = n.[__$p0]) END,
    CASE WHEN n.[__$p1] = n.[__$order] THEN c.[c4] ELSE (SELECT x.[c4] FROM #changes AS x WHERE x.[__$order] = n.[__$p1]) END,
    CASE WHEN n.[__$p2] = n.[__$order] THEN c.[c5] ELSE (SELECT x.[c5] FROM #changes AS x WHERE x.[__$order] = n.[__$p2]) END
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$operation] IN (2, 4) AND n.[__$p0] IS NOT NULL AND n.[__$p1] IS NOT NULL AND n.[__$p2] IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM [dbo].[dbaops_dataflow_stage_7] AS d WHERE d.[c0] = c.[c0] AND d.[c1] = c.[c1]);
COMMIT TRANSACTION;
TRUNCATE TABLE #net;
TRUNCATE TABLE #changes;
