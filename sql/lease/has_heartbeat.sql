-- Whether `init` has made the tables of the heartbeat.
SELECT CASE WHEN OBJECT_ID(N'dbo.daemons', N'U') IS NULL OR OBJECT_ID(N'dbo.mapping_owners', N'U') IS NULL THEN 0 ELSE 1 END AS has_heartbeat;
