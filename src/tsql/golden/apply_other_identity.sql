IF @fetched = 1
    UPDATE c SET [c0] = ISNULL(c.[c0], f.[c0])
    FROM #net AS n
    INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
    INNER JOIN #changes AS f ON f.[__$order] = n.[__$order] + CAST(4611686018427387904 AS bigint)
    WHERE c.[c0] IS NULL;
IF @fetched = 1
    DELETE n
    FROM #net AS n
    INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
    WHERE n.[__$operation] IN (2, 4) AND (c.[c0] IS NULL);
DELETE d
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[code] = c.[c1] COLLATE Latin1_General_CI_AS
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 2 AND d.[id] <> CAST(c.[c0] AS bigint);
DELETE d
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[code] = c.[c1] COLLATE Latin1_General_CI_AS
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 1;
UPDATE d SET
    [code] = c.[c1] COLLATE Latin1_General_CI_AS
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[code] = c.[c1] COLLATE Latin1_General_CI_AS
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] IN (2, 4);
SET IDENTITY_INSERT [sales].[Order]] Details] ON;
INSERT INTO [sales].[Order]] Details] ([id], [code])
SELECT CAST(c.[c0] AS bigint),
    c.[c1] COLLATE Latin1_General_CI_AS
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$operation] IN (2, 4)
    AND NOT EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d WHERE d.[code] = c.[c1] COLLATE Latin1_General_CI_AS);
SET IDENTITY_INSERT [sales].[Order]] Details] OFF;
