SELECT CAST(SUM(p.rows) AS BIGINT) FROM sys.partitions AS p WHERE p.object_id = @P1 AND p.index_id IN (0, 1);
