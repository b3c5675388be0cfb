SELECT TOP (@P1) n.[__$order], c.[__$start_lsn], c.[__$seqval], c.[__$command_id]
FROM #net AS n
INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]
WHERE n.[__$order] > @P2 AND n.[__$operation] IN (2, 4)
ORDER BY n.[__$order]
