-- Needs VIEW SERVER STATE.
SELECT status_desc FROM sys.dm_server_services WHERE servicename LIKE N'SQL Server Agent%';
