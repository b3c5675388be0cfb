-- @P1: [schema].[table]. Enabled foreign keys of the table to itself, and all from it or to it.
SELECT COUNT(CASE WHEN f.parent_object_id = f.referenced_object_id THEN 1 END) AS to_itself, COUNT(*) AS altogether
FROM sys.foreign_keys AS f
WHERE f.is_disabled = 0 AND (f.parent_object_id = OBJECT_ID(@P1) OR f.referenced_object_id = OBJECT_ID(@P1));
