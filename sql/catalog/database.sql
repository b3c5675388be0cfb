SELECT @@SERVERNAME, d.name, CONVERT(NVARCHAR(30), d.create_date, 121), CAST(d.snapshot_isolation_state AS INT), d.is_read_only,
    CONVERT(NVARCHAR(36), d.group_database_id)
FROM sys.databases AS d
WHERE d.database_id = DB_ID();
