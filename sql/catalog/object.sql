SELECT t.object_id, s.name, t.name, DB_NAME(), t.is_memory_optimized, t.temporal_type,
    CAST(CASE WHEN EXISTS (
        SELECT 1 FROM sys.all_columns AS c WHERE c.object_id = OBJECT_ID(N'sys.tables') AND c.name = N'ledger_type'
    ) THEN 1 ELSE 0 END AS BIT)
FROM sys.tables AS t
JOIN sys.schemas AS s ON s.schema_id = t.schema_id
WHERE s.name = @P1 AND t.name = @P2;
