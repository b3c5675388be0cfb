-- The newest transaction that was committed up to a local time of this server, @P1 seconds and @P2 milliseconds after 2000-01-01: what
-- sys.fn_cdc_map_time_to_lsn says for 'largest less than or equal'.
SELECT MAX(start_lsn) AS lsn FROM cdc.lsn_time_mapping
WHERE tran_end_time <= DATEADD(MILLISECOND, @P2, DATEADD(SECOND, @P1, CONVERT(datetime, N'2000-01-01', 121)));
