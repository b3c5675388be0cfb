DELETE d
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[code] = c.[code]
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 2 AND d.[id] <> CAST(c.[id] AS bigint);
DELETE d
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[code] = c.[code]
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 1;
UPDATE d SET
    [code] = CASE WHEN c.[code] IS NULL THEN d.[code] ELSE c.[code] END
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[code] = c.[code]
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] IN (2, 4);
SET IDENTITY_INSERT [sales].[Order]] Details] ON;
INSERT INTO [sales].[Order]] Details] ([id], [code])
SELECT CAST(c.[id] AS bigint),
    c.[code]
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$operation] IN (2, 4)
    AND NOT EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d WHERE d.[code] = c.[code]);
SET IDENTITY_INSERT [sales].[Order]] Details] OFF;
