SELECT o.mapping_id
FROM dbo.table_mappings AS m
JOIN dbo.table_mappings AS o
    ON o.dest_database = m.dest_database AND o.dest_schema = m.dest_schema AND o.dest_table = m.dest_table AND o.mapping_id <> m.mapping_id
JOIN dbo.source_servers AS s ON s.server_id = o.server_id
WHERE m.mapping_id = @P1 AND o.is_enabled = 1 AND s.is_enabled = 1
ORDER BY o.mapping_id;
