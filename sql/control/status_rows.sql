-- Rows of every table of the session's database, as the catalog last heard.
SELECT s.name, t.name, CAST(SUM(p.rows) AS BIGINT)
FROM sys.tables AS t
INNER JOIN sys.schemas AS s ON s.schema_id = t.schema_id
INNER JOIN sys.partitions AS p ON p.object_id = t.object_id AND p.index_id IN (0, 1)
GROUP BY s.name, t.name;
