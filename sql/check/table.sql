-- @P1: [schema].[table], @P2: a column. What this login may do with the table; NULL where it cannot see it.
SELECT HAS_PERMS_BY_NAME(@P1, N'OBJECT', N'SELECT'), HAS_PERMS_BY_NAME(@P1, N'OBJECT', N'INSERT'),
    HAS_PERMS_BY_NAME(@P1, N'OBJECT', N'UPDATE'), HAS_PERMS_BY_NAME(@P1, N'OBJECT', N'DELETE'),
    HAS_PERMS_BY_NAME(@P1, N'OBJECT', N'ALTER'), HAS_PERMS_BY_NAME(@P1, N'OBJECT', N'UPDATE', @P2, N'COLUMN');
