SELECT 0 AS item WHERE EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS t WHERE t.[resync] = 1)
UNION ALL
SELECT 1 AS item WHERE EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS t WHERE TRY_CAST(t.[resync] AS int) = 1)
