-- The source's local clock, as cdc.lsn_time_mapping has it, what was captured a moment before, and whether the database is in an availability
-- group (or cannot be found, and so may be). On a readable secondary the entries have the primary's clock: two minutes are more than two servers of
-- one group may differ (Kerberos allows five, time services a second).
DECLARE @captured binary(10) = (SELECT TOP (1) t.start_lsn FROM cdc.lsn_time_mapping AS t ORDER BY t.start_lsn DESC);
SELECT CONVERT(nvarchar(30), DATEADD(SECOND, CASE WHEN CAST(DATABASEPROPERTYEX(DB_NAME(), N'Updateability') AS nvarchar(128)) = N'READ_ONLY' THEN 120 ELSE 0 END, SYSDATETIME()), 121)
    AS local_time, @captured AS captured,
    CASE WHEN EXISTS (SELECT 1 FROM sys.databases AS d WHERE d.name = DB_NAME() AND d.replica_id IS NULL) THEN 0 ELSE 1 END AS in_group;
