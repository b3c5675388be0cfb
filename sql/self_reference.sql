-- @P1: [schema].[table]. Enabled foreign keys of the table to itself.
SELECT COUNT(*) AS references_to_itself
FROM sys.foreign_keys AS f
WHERE f.parent_object_id = OBJECT_ID(@P1) AND f.referenced_object_id = f.parent_object_id AND f.is_disabled = 0;
