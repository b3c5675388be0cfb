-- @P1: object_id of a table. Security policies that filter its rows.
SELECT DISTINCT s.name, p.name
FROM sys.security_policies AS p
INNER JOIN sys.schemas AS s ON s.schema_id = p.schema_id
INNER JOIN sys.security_predicates AS f ON f.object_id = p.object_id
WHERE p.is_enabled = 1 AND f.target_object_id = @P1 AND f.predicate_type = 0;
