-- Which transactions stand at up to eight LSNs, and the lowest one still listed (last row, tran_id NULL).
SELECT t.start_lsn, t.tran_id, CONVERT(nvarchar(30), t.tran_end_time, 121) AS tran_end_time
FROM cdc.lsn_time_mapping AS t
WHERE t.start_lsn IN (CAST(@P1 AS binary(10)), CAST(@P2 AS binary(10)), CAST(@P3 AS binary(10)), CAST(@P4 AS binary(10)), CAST(@P5 AS binary(10)), CAST(@P6 AS binary(10)), CAST(@P7 AS binary(10)), CAST(@P8 AS binary(10)))
UNION ALL
SELECT MIN(t.start_lsn), NULL, NULL FROM cdc.lsn_time_mapping AS t;
