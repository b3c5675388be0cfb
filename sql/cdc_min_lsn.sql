-- @P1: capture instance. Zero when it does not exist or may not be read.
SELECT sys.fn_cdc_get_min_lsn(@P1) AS min_lsn,
    (SELECT COUNT(*) FROM cdc.change_tables AS c WHERE c.capture_instance = @P1) AS instances;
