-- Every capture instance of the database with its low watermark. change_tables.start_lsn moves with cleanup, as the watermark does;
-- create_date does not. With the captured table's own create_date its object_id is not taken for that of a table made anew.
SELECT c.capture_instance, t.name AS change_table, c.object_id, c.source_object_id,
    OBJECT_SCHEMA_NAME(c.source_object_id) AS source_schema, OBJECT_NAME(c.source_object_id) AS source_table,
    c.start_lsn, sys.fn_cdc_get_min_lsn(c.capture_instance) AS min_lsn, c.role_name,
    CASE WHEN k.column_id IS NULL THEN 0 ELSE 1 END AS has_command_id,
    DB_NAME() AS source_database, CONVERT(nvarchar(30), c.create_date, 121) AS created,
    CONVERT(nvarchar(30), s.create_date, 121) AS source_created
FROM cdc.change_tables AS c
INNER JOIN sys.objects AS t ON t.object_id = c.object_id
LEFT JOIN sys.objects AS s ON s.object_id = c.source_object_id
LEFT JOIN sys.columns AS k ON k.object_id = c.object_id AND k.name = N'__$command_id';
