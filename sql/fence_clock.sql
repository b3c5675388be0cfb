-- The source's local clock, as cdc.lsn_time_mapping has it.
SELECT CONVERT(nvarchar(30), SYSDATETIME(), 121) AS local_time;
