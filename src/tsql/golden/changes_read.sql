SELECT c.[__$start_lsn], c.[__$seqval], c.[__$operation], c.[__$update_mask], c.[__$command_id] AS [__$command_id],
    c.[ID] AS [c0],
    c.[code] AS [c1],
    CAST(c.[price] AS decimal(19,4)) AS [c2],
    CASE WHEN DATALENGTH(c.[note]) > 1048576 THEN CAST(N'' AS nvarchar(max)) ELSE CAST(c.[note] AS nvarchar(max)) END AS [c3],
    CAST(NULL AS datetimeoffset(7)) AS [c4],
    CASE WHEN DATALENGTH(CAST(c.[doc] AS nvarchar(max))) > 1048576 THEN CAST(N'' AS nvarchar(max)) ELSE CAST(c.[doc] AS nvarchar(max)) END AS [c5],
    CASE WHEN DATALENGTH(c.[note]) > 1048576 OR DATALENGTH(CAST(c.[doc] AS nvarchar(max))) > 1048576 THEN CAST(CAST(CASE WHEN DATALENGTH(c.[note]) > 1048576 THEN DATALENGTH(c.[note]) ELSE 0 END AS bigint) AS binary(8)) + CAST(CAST(CASE WHEN DATALENGTH(CAST(c.[doc] AS nvarchar(max))) > 1048576 THEN DATALENGTH(CAST(c.[doc] AS nvarchar(max))) ELSE 0 END AS bigint) AS binary(8)) END AS [__$large]
FROM [cdc].[sales_details_CT] AS c
WHERE c.[__$start_lsn] > @P1 AND c.[__$start_lsn] <= @P2
    AND (c.[__$operation] <> 3 OR (CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 1 <> 0 OR CAST(SUBSTRING(c.[__$update_mask], DATALENGTH(c.[__$update_mask]), 1) AS tinyint) & 2 <> 0))
ORDER BY c.[__$start_lsn], c.[__$command_id], c.[__$seqval], c.[__$operation]
