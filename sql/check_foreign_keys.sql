-- @P1: [schema].[table]. Enabled foreign keys from it and to it.
SELECT f.name, OBJECT_NAME(f.parent_object_id), OBJECT_NAME(f.referenced_object_id)
FROM sys.foreign_keys AS f
WHERE f.is_disabled = 0 AND (f.parent_object_id = OBJECT_ID(@P1) OR f.referenced_object_id = OBJECT_ID(@P1))
ORDER BY f.name;
