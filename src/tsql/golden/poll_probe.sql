SET LOCK_TIMEOUT 1000;
SELECT 0 AS item, 0 AS what WHERE EXISTS (SELECT 1 FROM [cdc].[sales_details_CT] AS c WHERE c.[__$start_lsn] > @P2 AND c.[__$start_lsn] <= @P1)
UNION ALL
SELECT 0 AS item, 1 AS what WHERE EXISTS (SELECT 1 FROM [cdc].[sales_details_CT] AS c WHERE c.[__$start_lsn] > @P2 AND c.[__$start_lsn] <= @P1 AND c.[__$operation] IN (2, 4) AND c.[resync] = 1)
UNION ALL
SELECT 1 AS item, 0 AS what WHERE EXISTS (SELECT 1 FROM [cdc].[other]]_CT] AS c WHERE c.[__$start_lsn] > @P3 AND c.[__$start_lsn] <= @P1)
UNION ALL
SELECT 2 AS item, 0 AS what WHERE EXISTS (SELECT 1 FROM [cdc].[other]]_CT] AS c WHERE c.[__$start_lsn] > @P4 AND c.[__$start_lsn] <= @P1)
UNION ALL
SELECT 2 AS item, 1 AS what WHERE EXISTS (SELECT 1 FROM [cdc].[other]]_CT] AS c WHERE c.[__$start_lsn] > @P4 AND c.[__$start_lsn] <= @P1 AND c.[__$operation] IN (2, 4) AND TRY_CAST(c.[resync] AS int) = 1)
