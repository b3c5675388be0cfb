UPDATE c SET [__$update_mask] = NULL
FROM #changes AS c
WHERE c.[__$operation] = 2 AND (c.[c3] IS NULL OR c.[c5] IS NULL)
    AND EXISTS (SELECT 1 FROM #changes AS x WHERE x.[__$start_lsn] = c.[__$start_lsn] AND x.[__$operation] = 1);
