-- How far capture has come, and which transaction that was. One row; NULLs where nothing was captured yet.
-- Entries with tran_id 0x00 stand for no transaction: real_lsn is the newest transaction's.
SELECT m.lsn, t.tran_id, CONVERT(nvarchar(30), t.tran_end_time, 121) AS tran_end_time,
    CAST(DATEDIFF(SECOND, t.tran_end_time, GETDATE()) AS bigint) AS age_s, DATEPART(TZOFFSET, SYSDATETIMEOFFSET()) AS utc_offset_minutes,
    r.start_lsn AS real_lsn, r.tran_id AS real_tran_id, CONVERT(nvarchar(30), r.tran_end_time, 121) AS real_tran_end_time
FROM (SELECT sys.fn_cdc_get_max_lsn() AS lsn) AS m
LEFT JOIN cdc.lsn_time_mapping AS t ON t.start_lsn = m.lsn
LEFT JOIN cdc.lsn_time_mapping AS r
    ON r.start_lsn = (SELECT TOP (1) x.start_lsn FROM cdc.lsn_time_mapping AS x WHERE x.start_lsn <= m.lsn AND x.tran_id <> 0x00 ORDER BY x.start_lsn DESC);
