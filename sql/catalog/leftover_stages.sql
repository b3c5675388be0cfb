SELECT t.name
FROM sys.tables AS t
WHERE t.schema_id = SCHEMA_ID(N'dbo') AND t.name LIKE N'dbaops[_]dataflow[_]stage[_]%' AND t.name NOT LIKE N'dbaops[_]dataflow[_]stage[_]%[^0-9_]%';
