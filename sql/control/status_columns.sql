-- What of the columns and tables that `status` reads there is: those that `init` adds to a control database of an older version.
SELECT
    CAST(CASE WHEN COL_LENGTH(N'dbo.table_mappings', N'initial_sync') IS NULL THEN 0 ELSE 1 END AS BIT),
    CAST(CASE WHEN COL_LENGTH(N'dbo.error_logs', N'error_code') IS NULL THEN 0 ELSE 1 END AS BIT),
    CAST(CASE WHEN COL_LENGTH(N'dbo.error_logs', N'is_parked') IS NULL THEN 0 ELSE 1 END AS BIT),
    CAST(CASE WHEN COL_LENGTH(N'dbo.cdc_lag', N'uncaptured') IS NULL THEN 0 ELSE 1 END AS BIT),
    CAST(CASE WHEN OBJECT_ID(N'dbo.daemons', N'U') IS NULL THEN 0 ELSE 1 END AS BIT),
    CAST(CASE WHEN OBJECT_ID(N'dbo.v_mapping_status', N'V') IS NULL THEN 0 ELSE 1 END AS BIT);
