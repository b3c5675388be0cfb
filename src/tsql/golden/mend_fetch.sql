SELECT CAST(NULL AS binary(10)) AS [__$start_lsn], CAST(NULL AS binary(10)) AS [__$seqval], CAST(2 AS int) AS [__$operation], CAST(NULL AS varbinary(128)) AS [__$update_mask], CAST(NULL AS int) AS [__$command_id],
    t.[ID] AS [id],
    t.[code] AS [code],
    CAST(t.[price] AS decimal(19,4)) AS [price],
    CAST(t.[note] AS nvarchar(max)) AS [note],
    CAST(t.[at] AS datetimeoffset(7)) AS [at],
    CAST(t.[doc] AS nvarchar(max)) AS [doc]
FROM [sales].[Order]] Details] AS t
WHERE (t.[ID] = CAST(@P1 AS int) AND t.[code] = CAST(@P2 AS nvarchar(20))) OR (t.[ID] = CAST(@P3 AS int) AND t.[code] = CAST(@P4 AS nvarchar(20)))
