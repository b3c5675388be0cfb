SELECT e.rows_seen, e.last_lsn, t.tran_id, CONVERT(nvarchar(30), t.tran_end_time, 121) AS tran_end_time
FROM (
    SELECT COUNT_BIG(*) AS rows_seen, MAX(x.[__$start_lsn]) AS last_lsn
    FROM (
        SELECT TOP (@P1) c.[__$start_lsn]
        FROM [cdc].[sales_details_CT] AS c
        WHERE c.[__$start_lsn] > @P2 AND c.[__$start_lsn] <= @P3
        ORDER BY c.[__$start_lsn]
    ) AS x
) AS e
LEFT JOIN cdc.lsn_time_mapping AS t ON t.start_lsn = e.last_lsn
