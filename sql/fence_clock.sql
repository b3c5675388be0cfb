-- The source's local clock, as cdc.lsn_time_mapping has it, and what was captured a moment before.
DECLARE @captured binary(10) = sys.fn_cdc_get_max_lsn();
SELECT CONVERT(nvarchar(30), SYSDATETIME(), 121) AS local_time, @captured AS captured;
