-- How far capture has come, and which transaction that was: the newest entry that this session's isolation level lets it see, so that its change
-- rows can be seen too (how sys.fn_cdc_get_max_lsn reads is in no document). One row; NULLs where nothing was captured yet.
-- Entries with tran_id 0x00 stand for no transaction: real_lsn is the newest transaction's.
SELECT t.start_lsn, t.tran_id, CONVERT(nvarchar(30), t.tran_end_time, 121) AS tran_end_time,
    CAST(DATEDIFF(SECOND, t.tran_end_time, GETDATE()) AS bigint) AS age_s, DATEPART(TZOFFSET, SYSDATETIMEOFFSET()) AS utc_offset_minutes,
    r.start_lsn AS real_lsn, r.tran_id AS real_tran_id, CONVERT(nvarchar(30), r.tran_end_time, 121) AS real_tran_end_time,
    CASE WHEN CAST(DATABASEPROPERTYEX(DB_NAME(), N'Updateability') AS nvarchar(128)) = N'READ_ONLY' THEN 1 ELSE 0 END AS is_read_only
FROM (SELECT 1 AS one) AS o
OUTER APPLY (SELECT TOP (1) m.start_lsn, m.tran_id, m.tran_end_time FROM cdc.lsn_time_mapping AS m ORDER BY m.start_lsn DESC) AS t
LEFT JOIN cdc.lsn_time_mapping AS r
    ON r.start_lsn = (SELECT TOP (1) x.start_lsn FROM cdc.lsn_time_mapping AS x WHERE x.start_lsn <= t.start_lsn AND x.tran_id <> 0x00 ORDER BY x.start_lsn DESC);
