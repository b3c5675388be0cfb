-- The columns of table @object_id. Masked: for this login.
SELECT c.column_id, c.name, COALESCE(base.name, ty.name), CAST(c.max_length AS INT), CAST(c.[precision] AS INT), CAST(c.scale AS INT),
    c.collation_name, CAST(COLLATIONPROPERTY(c.collation_name, N'CodePage') AS INT), c.is_nullable, c.is_identity, c.is_computed,
    CAST(c.generated_always_type AS INT), c.default_object_id,
    CAST(CASE WHEN HAS_PERMS_BY_NAME(QUOTENAME(DB_NAME()), N'DATABASE', N'UNMASK') = 1 THEN 0 ELSE c.is_masked END AS BIT),
    CAST(c.encryption_type AS INT), c.is_column_set
FROM sys.columns AS c
JOIN sys.types AS ty ON ty.user_type_id = c.user_type_id
LEFT JOIN sys.types AS base ON base.user_type_id = c.system_type_id
WHERE c.object_id = @object_id
ORDER BY c.column_id;
