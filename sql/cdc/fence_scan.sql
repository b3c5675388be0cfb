-- The capture job's newest log scan. @P1: a clock reading (style 121). A scan that starts later than now started before the clock was set
-- back. Needs VIEW DATABASE STATE.
SELECT TOP (1) s.session_id,
    CASE WHEN s.start_time > CONVERT(datetime, CONVERT(datetime2(3), @P1, 121)) AND s.start_time <= DATEADD(millisecond, 10, GETDATE()) THEN 1 ELSE 0 END
        AS started_after,
    CASE WHEN s.end_time IS NULL THEN 0 ELSE 1 END AS ended, s.tran_count, s.empty_scan_count
FROM sys.dm_cdc_log_scan_sessions AS s
WHERE s.session_id > 0
ORDER BY s.session_id DESC;
