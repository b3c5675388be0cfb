-- What else is to be known of table @object_id.
SELECT i.index_id, i.name, i.is_primary_key, c.name
FROM sys.indexes AS i
JOIN sys.index_columns AS k ON k.object_id = i.object_id AND k.index_id = i.index_id
JOIN sys.columns AS c ON c.object_id = k.object_id AND c.column_id = k.column_id
WHERE i.object_id = @object_id AND i.is_unique = 1 AND i.has_filter = 0 AND i.is_disabled = 0 AND i.is_hypothetical = 0 AND k.key_ordinal > 0
ORDER BY i.is_primary_key DESC, i.index_id, k.key_ordinal;

SELECT g.name, g.is_instead_of_trigger
FROM sys.triggers AS g
WHERE g.parent_id = @object_id AND g.is_disabled = 0
ORDER BY g.name;

SELECT COUNT(*)
FROM sys.security_policies AS p
JOIN sys.security_predicates AS f ON f.object_id = p.object_id
WHERE p.is_enabled = 1 AND f.target_object_id = @object_id AND f.predicate_type = 0;

-- Whether this login may see that there are security policies. And the database's own code page, which bytes are turned into text by.
SELECT CAST(CASE WHEN HAS_PERMS_BY_NAME(QUOTENAME(DB_NAME()), N'DATABASE', N'VIEW DEFINITION') = 1
            OR HAS_PERMS_BY_NAME(QUOTENAME(DB_NAME()), N'DATABASE', N'ALTER ANY SECURITY POLICY') = 1 THEN 1 ELSE 0 END AS INT),
    CAST(COLLATIONPROPERTY(CONVERT(NVARCHAR(128), DATABASEPROPERTYEX(DB_NAME(), N'Collation')), N'CodePage') AS INT);
