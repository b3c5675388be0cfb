SELECT TOP (@P1) c.[__$order], c.[__$large], o.[__$start_lsn], o.[__$seqval], o.[__$command_id]
FROM #changes AS c
INNER JOIN #changes AS o ON o.[__$order] = c.[__$order] - CAST(4611686018427387904 AS bigint)
WHERE c.[__$large] IS NOT NULL AND c.[__$order] > @P2 AND c.[__$operation] = 9
ORDER BY c.[__$order]

SELECT CAST(SUBSTRING(CAST(s.[note] AS nvarchar(max)) COLLATE Latin1_General_BIN2, @P1, 2097152) AS varbinary(max))
FROM [cdc].[sales_details_CT] AS c
INNER JOIN [sales].[Order]] Details] AS s ON s.[ID] = c.[ID] AND s.[code] = c.[code]
WHERE c.[__$start_lsn] = @P2 AND c.[__$seqval] = @P3 AND c.[__$operation] IN (2, 4) AND EXISTS (SELECT c.[__$command_id] INTERSECT SELECT CAST(@P4 AS int))

SELECT HASHBYTES('MD5', CAST(CAST(s.[note] AS nvarchar(max)) AS varbinary(max)))
FROM [cdc].[sales_details_CT] AS c
INNER JOIN [sales].[Order]] Details] AS s ON s.[ID] = c.[ID] AND s.[code] = c.[code]
WHERE c.[__$start_lsn] = @P2 AND c.[__$seqval] = @P3 AND c.[__$operation] IN (2, 4) AND EXISTS (SELECT c.[__$command_id] INTERSECT SELECT CAST(@P4 AS int))

UPDATE #changes SET [c3].WRITE(CAST(CAST(@P1 AS varbinary(max)) AS nvarchar(max)), NULL, 0) WHERE [__$order] = @P2

SELECT CAST(SUBSTRING(CAST(s.[doc] AS nvarchar(max)) COLLATE Latin1_General_BIN2, @P1, 2097152) AS varbinary(max))
FROM [cdc].[sales_details_CT] AS c
INNER JOIN [sales].[Order]] Details] AS s ON s.[ID] = c.[ID] AND s.[code] = c.[code]
WHERE c.[__$start_lsn] = @P2 AND c.[__$seqval] = @P3 AND c.[__$operation] IN (2, 4) AND EXISTS (SELECT c.[__$command_id] INTERSECT SELECT CAST(@P4 AS int))

SELECT HASHBYTES('MD5', CAST(CAST(s.[doc] AS nvarchar(max)) AS varbinary(max)))
FROM [cdc].[sales_details_CT] AS c
INNER JOIN [sales].[Order]] Details] AS s ON s.[ID] = c.[ID] AND s.[code] = c.[code]
WHERE c.[__$start_lsn] = @P2 AND c.[__$seqval] = @P3 AND c.[__$operation] IN (2, 4) AND EXISTS (SELECT c.[__$command_id] INTERSECT SELECT CAST(@P4 AS int))

UPDATE #changes SET [c5].WRITE(CAST(CAST(@P1 AS varbinary(max)) AS nvarchar(max)), NULL, 0) WHERE [__$order] = @P2
