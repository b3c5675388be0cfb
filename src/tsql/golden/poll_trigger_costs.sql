SELECT 0 AS item,
    ISNULL((SELECT SUM(p.rows) FROM sys.partitions AS p WHERE p.object_id = OBJECT_ID(@P1) AND p.index_id IN (0, 1)), 0) AS table_rows,
    (SELECT COUNT(*) FROM sys.index_columns AS x INNER JOIN sys.columns AS k ON k.object_id = x.object_id AND k.column_id = x.column_id WHERE x.object_id = OBJECT_ID(@P1) AND x.key_ordinal = 1 AND k.name = @P2) AS leading,
    CASE WHEN COL_LENGTH(@P3, @P2) IS NULL THEN 0 ELSE 1 END AS captured,
    (SELECT COUNT(*) FROM sys.columns AS f WHERE f.object_id = OBJECT_ID(@P1) AND f.name = @P2 AND TYPE_NAME(f.system_type_id) IN (N'char', N'varchar', N'nchar', N'nvarchar')) AS is_text,
    (SELECT COUNT(*) FROM sys.tables AS m WHERE m.object_id = OBJECT_ID(@P1) AND m.is_memory_optimized = 1) AS memory_optimized
UNION ALL
SELECT 1 AS item,
    ISNULL((SELECT SUM(p.rows) FROM sys.partitions AS p WHERE p.object_id = OBJECT_ID(@P4) AND p.index_id IN (0, 1)), 0) AS table_rows,
    (SELECT COUNT(*) FROM sys.index_columns AS x INNER JOIN sys.columns AS k ON k.object_id = x.object_id AND k.column_id = x.column_id WHERE x.object_id = OBJECT_ID(@P4) AND x.key_ordinal = 1 AND k.name = @P5) AS leading,
    CASE WHEN COL_LENGTH(@P6, @P5) IS NULL THEN 0 ELSE 1 END AS captured,
    (SELECT COUNT(*) FROM sys.columns AS f WHERE f.object_id = OBJECT_ID(@P4) AND f.name = @P5 AND TYPE_NAME(f.system_type_id) IN (N'char', N'varchar', N'nchar', N'nvarchar')) AS is_text,
    (SELECT COUNT(*) FROM sys.tables AS m WHERE m.object_id = OBJECT_ID(@P4) AND m.is_memory_optimized = 1) AS memory_optimized
