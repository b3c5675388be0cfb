-- How far capture has come, and which transaction that was. One row; NULLs where nothing was captured yet.
SELECT m.lsn, t.tran_id, CONVERT(nvarchar(30), t.tran_end_time, 121) AS tran_end_time,
    CAST(DATEDIFF(SECOND, t.tran_end_time, GETDATE()) AS bigint) AS age_s, DATEPART(TZOFFSET, SYSDATETIMEOFFSET()) AS utc_offset_minutes
FROM (SELECT sys.fn_cdc_get_max_lsn() AS lsn) AS m
LEFT JOIN cdc.lsn_time_mapping AS t ON t.start_lsn = m.lsn;
