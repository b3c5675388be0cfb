-- The source's local clock, as cdc.lsn_time_mapping has it, and what was captured a moment before. On a readable secondary the entries have
-- the primary's clock: two minutes are more than two servers of one group may differ (Kerberos allows five, time services a second).
DECLARE @captured binary(10) = sys.fn_cdc_get_max_lsn();
SELECT CONVERT(nvarchar(30), DATEADD(SECOND, CASE WHEN CAST(DATABASEPROPERTYEX(DB_NAME(), N'Updateability') AS nvarchar(128)) = N'READ_ONLY' THEN 120 ELSE 0 END, SYSDATETIME()), 121)
    AS local_time, @captured AS captured;
