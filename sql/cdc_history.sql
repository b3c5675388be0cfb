-- Which transactions stand at up to eight LSNs, and the lowest one still listed (last row, tran_id NULL).
SELECT t.start_lsn, t.tran_id, CONVERT(nvarchar(30), t.tran_end_time, 121) AS tran_end_time
FROM cdc.lsn_time_mapping AS t
WHERE t.start_lsn IN (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8)
UNION ALL
SELECT MIN(t.start_lsn), NULL, NULL FROM cdc.lsn_time_mapping AS t;
