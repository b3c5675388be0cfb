IF @fetched = 1
    UPDATE c SET [c2] = ISNULL(c.[c2], f.[c2])
    FROM #net AS n
    INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
    INNER JOIN #changes AS f ON f.[__$order] = n.[__$order] + CAST(4611686018427387904 AS bigint)
    WHERE c.[c2] IS NULL;
IF @fetched = 1
    DELETE n
    FROM #net AS n
    INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
    WHERE n.[__$operation] IN (2, 4) AND (c.[c2] IS NULL);
DELETE d
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 1;
UPDATE d SET
    [code] = c.[c1] COLLATE Latin1_General_CI_AS,
    [price] = CAST(c.[c2] AS money)
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] IN (2, 4);
INSERT INTO [sales].[Order]] Details] ([id], [code], [price])
SELECT CAST(c.[c0] AS bigint),
    c.[c1] COLLATE Latin1_General_CI_AS,
    CAST(c.[c2] AS money)
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$operation] IN (2, 4)
    AND NOT EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d WHERE d.[id] = CAST(c.[c0] AS bigint) AND d.[code] = c.[c1] COLLATE Latin1_General_CI_AS);
