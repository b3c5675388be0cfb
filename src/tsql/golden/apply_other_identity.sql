DELETE d
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[code] = c.[c1]
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 2 AND d.[id] <> CAST(c.[c0] AS bigint);
DELETE d
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[code] = c.[c1]
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 1;
UPDATE d SET
    [code] = CASE WHEN c.[c1] IS NULL THEN d.[code] ELSE c.[c1] END
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[code] = c.[c1]
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] IN (2, 4);
SET IDENTITY_INSERT [sales].[Order]] Details] ON;
INSERT INTO [sales].[Order]] Details] ([id], [code])
SELECT CAST(c.[c0] AS bigint),
    c.[c1]
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$operation] IN (2, 4)
    AND NOT EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d WHERE d.[code] = c.[c1]);
SET IDENTITY_INSERT [sales].[Order]] Details] OFF;
