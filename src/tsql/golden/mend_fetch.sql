SELECT CAST(NULL AS binary(10)) AS [__$start_lsn], CAST(NULL AS binary(10)) AS [__$seqval], CAST(2 AS int) AS [__$operation], CAST(NULL AS varbinary(128)) AS [__$update_mask], CAST(NULL AS int) AS [__$command_id],
    t.[ID] AS [c0],
    t.[code] AS [c1],
    CAST(t.[price] AS decimal(19,4)) AS [c2],
    CASE WHEN DATALENGTH(t.[note]) > 1048576 THEN CAST(N'' AS nvarchar(max)) ELSE CAST(t.[note] AS nvarchar(max)) END AS [c3],
    CAST(t.[at] AS datetimeoffset(7)) AS [c4],
    CASE WHEN DATALENGTH(CAST(t.[doc] AS nvarchar(max))) > 1048576 THEN CAST(N'' AS nvarchar(max)) ELSE CAST(t.[doc] AS nvarchar(max)) END AS [c5],
    CASE WHEN DATALENGTH(t.[note]) > 1048576 OR DATALENGTH(CAST(t.[doc] AS nvarchar(max))) > 1048576 THEN CAST(CAST(CASE WHEN DATALENGTH(t.[note]) > 1048576 THEN DATALENGTH(t.[note]) ELSE 0 END AS bigint) AS binary(8)) + CAST(CAST(CASE WHEN DATALENGTH(CAST(t.[doc] AS nvarchar(max))) > 1048576 THEN DATALENGTH(CAST(t.[doc] AS nvarchar(max))) ELSE 0 END AS bigint) AS binary(8)) END AS [__$large]
FROM [sales].[Order]] Details] AS t
INNER JOIN (SELECT DISTINCT [k0], [k1] FROM (VALUES (CAST(@P1 AS int), CAST(@P2 AS nvarchar(20)) COLLATE Latin1_General_CI_AS), (CAST(@P3 AS int), CAST(@P4 AS nvarchar(20)) COLLATE Latin1_General_CI_AS)) AS v ([k0], [k1])) AS k ON t.[ID] = k.[k0] AND t.[code] = k.[k1]
