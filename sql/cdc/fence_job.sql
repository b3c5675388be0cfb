-- How the capture job of the session's database runs, and for how many minutes its cleanup job keeps changes. Needs SELECT on msdb.dbo.cdc_jobs.
SELECT CAST(c.continuous AS int) AS continuous, CAST(c.pollinginterval AS bigint) AS polling_s,
    (SELECT TOP (1) CAST(k.retention AS bigint) FROM msdb.dbo.cdc_jobs AS k WHERE k.database_id = c.database_id AND k.job_type = N'cleanup') AS retention_minutes
FROM msdb.dbo.cdc_jobs AS c
WHERE c.database_id = DB_ID() AND c.job_type = N'capture';
