SELECT job_type, CAST(retention AS bigint) FROM msdb.dbo.cdc_jobs WHERE database_id = DB_ID();
