-- The session's database, and what this login may do there.
SELECT CAST(DATABASEPROPERTYEX(DB_NAME(), N'Updateability') AS nvarchar(128)), USER_NAME(), d.is_cdc_enabled,
    HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'CREATE TABLE'), HAS_PERMS_BY_NAME(N'dbo', N'SCHEMA', N'ALTER'),
    HAS_PERMS_BY_NAME(N'dbo', N'SCHEMA', N'SELECT'), HAS_PERMS_BY_NAME(N'dbo', N'SCHEMA', N'INSERT'),
    HAS_PERMS_BY_NAME(N'dbo', N'SCHEMA', N'UPDATE'), HAS_PERMS_BY_NAME(N'dbo', N'SCHEMA', N'DELETE'),
    HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE'), HAS_PERMS_BY_NAME(N'cdc', N'SCHEMA', N'SELECT')
FROM sys.databases AS d
WHERE d.database_id = DB_ID();
