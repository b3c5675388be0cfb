SELECT COUNT(*) FROM sys.columns AS f WHERE f.object_id = OBJECT_ID(@P1) AND f.name = @P2 AND TYPE_NAME(f.system_type_id) IN (N'char', N'varchar', N'nchar', N'nvarchar');
SELECT CASE WHEN EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS t WHERE t.[resync] IS NOT NULL AND TRY_CAST(t.[resync] AS int) IS NULL) THEN 1 ELSE 0 END;
UPDATE t SET t.[resync] = '0' FROM [sales].[Order]] Details] AS t WHERE t.[resync] IS NOT NULL AND TRY_CAST(t.[resync] AS int) IS NULL
