DELETE d
FROM [sales].[Order]] Details] AS d
INNER JOIN #changes AS c ON d.[id] = CAST(c.[c0] AS bigint)
INNER JOIN #net AS n ON n.[__$order] = c.[__$order]
WHERE n.[__$operation] = 1;
SET IDENTITY_INSERT [sales].[Order]] Details] ON;
INSERT INTO [sales].[Order]] Details] ([id])
SELECT CAST(c.[c0] AS bigint)
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$operation] IN (2, 4)
    AND NOT EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d WHERE d.[id] = CAST(c.[c0] AS bigint));
SET IDENTITY_INSERT [sales].[Order]] Details] OFF;
