-- What this session sees of a capture instance. @P1: its name. The low watermark is zero where it does not exist or may not be read; the newest
-- entry is what this session has of capture: another replica may have more.
SELECT sys.fn_cdc_get_min_lsn(@P1) AS min_lsn,
    (SELECT COUNT(*) FROM cdc.change_tables AS c WHERE c.capture_instance = @P1) AS instances,
    (SELECT TOP (1) t.start_lsn FROM cdc.lsn_time_mapping AS t ORDER BY t.start_lsn DESC) AS max_lsn;
