SELECT TOP (@P1) c.[__$order], c.[__$large], o.[__$start_lsn], o.[__$seqval], o.[__$command_id]
FROM #changes AS c
INNER JOIN #changes AS o ON o.[__$order] = c.[__$order]
WHERE c.[__$large] IS NOT NULL AND c.[__$order] > @P2 AND c.[__$operation] IN (2, 4, 5)
    AND c.[__$order] IN (SELECT n.[__$order] FROM #net AS n UNION ALL SELECT n.[__$p0] FROM #net AS n UNION ALL SELECT n.[__$p1] FROM #net AS n UNION ALL SELECT n.[__$p2] FROM #net AS n)
ORDER BY c.[__$order]

SELECT CAST(SUBSTRING(CAST(c.[note] AS nvarchar(max)) COLLATE Latin1_General_BIN2, @P1, 2097152) AS varbinary(max))
FROM [cdc].[sales_details_CT] AS c
WHERE c.[__$start_lsn] = @P2 AND c.[__$seqval] = @P3 AND c.[__$operation] IN (2, 4) AND EXISTS (SELECT c.[__$command_id] INTERSECT SELECT CAST(@P4 AS int))

SELECT HASHBYTES('MD5', CAST(CAST(c.[note] AS nvarchar(max)) AS varbinary(max)))
FROM [cdc].[sales_details_CT] AS c
WHERE c.[__$start_lsn] = @P2 AND c.[__$seqval] = @P3 AND c.[__$operation] IN (2, 4) AND EXISTS (SELECT c.[__$command_id] INTERSECT SELECT CAST(@P4 AS int))

UPDATE #changes SET [c3].WRITE(CAST(CAST(@P1 AS varbinary(max)) AS nvarchar(max)), NULL, 0) WHERE [__$order] = @P2

SELECT CAST(SUBSTRING(CAST(c.[doc] AS nvarchar(max)) COLLATE Latin1_General_BIN2, @P1, 2097152) AS varbinary(max))
FROM [cdc].[sales_details_CT] AS c
WHERE c.[__$start_lsn] = @P2 AND c.[__$seqval] = @P3 AND c.[__$operation] IN (2, 4) AND EXISTS (SELECT c.[__$command_id] INTERSECT SELECT CAST(@P4 AS int))

SELECT HASHBYTES('MD5', CAST(CAST(c.[doc] AS nvarchar(max)) AS varbinary(max)))
FROM [cdc].[sales_details_CT] AS c
WHERE c.[__$start_lsn] = @P2 AND c.[__$seqval] = @P3 AND c.[__$operation] IN (2, 4) AND EXISTS (SELECT c.[__$command_id] INTERSECT SELECT CAST(@P4 AS int))

UPDATE #changes SET [c5].WRITE(CAST(CAST(@P1 AS varbinary(max)) AS nvarchar(max)), NULL, 0) WHERE [__$order] = @P2
