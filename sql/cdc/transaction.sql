-- The newest transaction up to an LSN. @P1: the LSN. Entries with tran_id 0x00 stand for no transaction.
SELECT TOP (1) t.start_lsn, t.tran_id, CONVERT(nvarchar(30), t.tran_end_time, 121) AS tran_end_time
FROM cdc.lsn_time_mapping AS t
WHERE t.start_lsn <= CAST(@P1 AS binary(10)) AND t.tran_id <> 0x00
ORDER BY t.start_lsn DESC;
