-- What the change table @change_table_id captures, and in which types it keeps that now.
SELECT k.column_name, k.column_id, k.column_ordinal, k.is_computed, COALESCE(base.name, ty.name) AS type_name,
    CAST(c.max_length AS INT) AS max_length, CAST(c.[precision] AS INT) AS [precision], CAST(c.scale AS INT) AS scale
FROM cdc.captured_columns AS k
-- a contained database has names in two collations
LEFT JOIN sys.columns AS c ON c.object_id = k.object_id AND c.name COLLATE Latin1_General_BIN2 = k.column_name COLLATE Latin1_General_BIN2
LEFT JOIN sys.types AS ty ON ty.user_type_id = c.user_type_id
LEFT JOIN sys.types AS base ON base.user_type_id = c.system_type_id
WHERE k.object_id = @change_table_id
ORDER BY k.column_ordinal;
