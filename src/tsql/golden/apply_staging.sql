DECLARE @fetched bit = @P1;
SET XACT_ABORT ON;
BEGIN TRANSACTION;
IF @fetched = 1
    UPDATE n SET [__$p0] = ISNULL(n.[__$p0], f.[__$order]), [__$p1] = ISNULL(n.[__$p1], f.[__$order]), [__$p2] = ISNULL(n.[__$p2], f.[__$order])
    FROM #net AS n
    INNER JOIN #changes AS f ON f.[__$order] = n.[__$order] + CAST(4611686018427387904 AS bigint);
DELETE d
FROM [dbo].[dbaops_dataflow_stage_7] AS d
INNER JOIN #changes AS c ON d.[id] = c.[id] AND d.[code] = c.[code]
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 1;
UPDATE d SET
    [code] = CASE WHEN c.[code] IS NULL THEN d.[code] ELSE c.[code] END,
    [price] = c.[price],
    [note] = CASE WHEN n.[__$p0] IS NULL THEN d.[note] WHEN n.[__$p0] = n.[__$order] THEN c.[note] ELSE (SELECT x.[note] FROM #changes AS x WHERE x.[__$order] = n.[__$p0]) END,
    [at] = CASE WHEN n.[__$p1] IS NULL THEN d.[at] WHEN n.[__$p1] = n.[__$order] THEN c.[at] ELSE (SELECT x.[at] FROM #changes AS x WHERE x.[__$order] = n.[__$p1]) END,
    [doc] = CASE WHEN n.[__$p2] IS NULL THEN d.[doc] WHEN n.[__$p2] = n.[__$order] THEN c.[doc] ELSE (SELECT x.[doc] FROM #changes AS x WHERE x.[__$order] = n.[__$p2]) END
FROM [dbo].[dbaops_dataflow_stage_7] AS d
INNER JOIN #changes AS c ON d.[id] = c.[id] AND d.[code] = c.[code]
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] IN (2, 4);
INSERT INTO [dbo].[dbaops_dataflow_stage_7] ([id], [code], [price], [note], [at], [doc])
SELECT c.[id],
    c.[code],
    c.[price],
    CASE WHEN n.[__$p0] = n.[__$order] THEN c.[note] ELSE (SELECT x.[note] FROM #changes AS x WHERE x.[__$order] = n.[__$p0]) END,
    CASE WHEN n.[__$p1] = n.[__$order] THEN c.[at] ELSE (SELECT x.[at] FROM #changes AS x WHERE x.[__$order] = n.[__$p1]) END,
    CASE WHEN n.[__$p2] = n.[__$order] THEN c.[doc] ELSE (SELECT x.[doc] FROM #changes AS x WHERE x.[__$order] = n.[__$p2]) END
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$operation] IN (2, 4) AND n.[__$p0] IS NOT NULL AND n.[__$p1] IS NOT NULL AND n.[__$p2] IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM [dbo].[dbaops_dataflow_stage_7] AS d WHERE d.[id] = c.[id] AND d.[code] = c.[code]);
COMMIT TRANSACTION;
TRUNCATE TABLE #net;
TRUNCATE TABLE #changes;
