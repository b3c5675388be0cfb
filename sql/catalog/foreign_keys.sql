-- @P1: a table's object id. Enabled foreign keys from it or to it, a row per column, in key order.
SELECT f.object_id, f.name, f.parent_object_id, f.referenced_object_id, cs.name, ct.name, ps.name, pt.name, cc.name, pc.name,
    CASE WHEN f.delete_referential_action = 0 THEN 0 ELSE 1 END AS acts
FROM sys.foreign_keys AS f
JOIN sys.foreign_key_columns AS k ON k.constraint_object_id = f.object_id
JOIN sys.tables AS ct ON ct.object_id = f.parent_object_id
JOIN sys.schemas AS cs ON cs.schema_id = ct.schema_id
JOIN sys.tables AS pt ON pt.object_id = f.referenced_object_id
JOIN sys.schemas AS ps ON ps.schema_id = pt.schema_id
JOIN sys.columns AS cc ON cc.object_id = k.parent_object_id AND cc.column_id = k.parent_column_id
JOIN sys.columns AS pc ON pc.object_id = k.referenced_object_id AND pc.column_id = k.referenced_column_id
WHERE f.is_disabled = 0 AND (f.parent_object_id = @P1 OR f.referenced_object_id = @P1)
ORDER BY f.name, f.object_id, k.constraint_column_id;
