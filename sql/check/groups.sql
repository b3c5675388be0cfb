-- The session's database and the control database: their availability groups, and whether one transaction may span databases there.
SELECT d.name, CAST(a.group_id AS nvarchar(36)), g.name, CAST(g.dtc_support AS int)
FROM sys.databases AS d
LEFT JOIN sys.availability_databases_cluster AS a ON a.group_database_id = d.group_database_id
LEFT JOIN sys.availability_groups AS g ON g.group_id = a.group_id
WHERE d.database_id IN (DB_ID(), DB_ID(N'dbaops_dataflow'));
