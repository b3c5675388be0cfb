SELECT c.[__$start_lsn], c.[__$seqval], CAST(9 AS int) AS [__$operation], CAST(NULL AS varbinary(128)) AS [__$update_mask], v.slot AS [__$command_id],
    s.[ID] AS [c0],
    s.[code] AS [c1],
    CAST(s.[price] AS decimal(19,4)) AS [c2],
    CASE WHEN DATALENGTH(s.[note]) > 1048576 THEN CAST(N'' AS nvarchar(max)) ELSE CAST(s.[note] AS nvarchar(max)) END AS [c3],
    CAST(s.[at] AS datetimeoffset(7)) AS [c4],
    CASE WHEN DATALENGTH(CAST(s.[doc] AS nvarchar(max))) > 1048576 THEN CAST(N'' AS nvarchar(max)) ELSE CAST(s.[doc] AS nvarchar(max)) END AS [c5],
    CASE WHEN DATALENGTH(s.[note]) > 1048576 OR DATALENGTH(CAST(s.[doc] AS nvarchar(max))) > 1048576 THEN CAST(CAST(CASE WHEN DATALENGTH(s.[note]) > 1048576 THEN DATALENGTH(s.[note]) ELSE 0 END AS bigint) AS binary(8)) + CAST(CAST(CASE WHEN DATALENGTH(CAST(s.[doc] AS nvarchar(max))) > 1048576 THEN DATALENGTH(CAST(s.[doc] AS nvarchar(max))) ELSE 0 END AS bigint) AS binary(8)) END AS [__$large]
FROM (VALUES (0, CAST(@P1 AS binary(10)), CAST(@P2 AS binary(10)), CAST(@P3 AS int)), ...) AS v (slot, start_lsn, seqval, command_id)
INNER JOIN [cdc].[sales_details_CT] AS c ON c.[__$start_lsn] = v.start_lsn AND c.[__$seqval] = v.seqval AND c.[__$operation] IN (2, 4) AND EXISTS (SELECT c.[__$command_id] INTERSECT SELECT v.command_id)
INNER JOIN [sales].[Order]] Details] AS s ON s.[ID] = c.[ID] AND s.[code] = c.[code]
