-- The lowest entry that was committed after a reading of the clock: of real transactions and of those that capture writes by itself on an idle
-- database (tran_id 0x00), a row for each kind that is there.
-- @P1: the reading (style 121). datetime is rounded to 1/300 s on both sides, so the reading is moved up past that; an entry of capture's own
-- has its own time and maybe an older place in the log, so by more.
-- @P2: the newest captured LSN before the reading, or NULL: what is not above it was committed before, whatever its time says.
-- What is later than now was committed before the clock was set back.
SELECT CASE WHEN t.tran_id = 0x00 THEN 0 ELSE 1 END AS is_real, MIN(t.start_lsn) AS lsn
FROM cdc.lsn_time_mapping AS t
WHERE t.tran_end_time > DATEADD(millisecond, CASE WHEN t.tran_id = 0x00 THEN 10000 ELSE 10 END, CONVERT(datetime, CONVERT(datetime2(3), @P1, 121)))
    AND t.tran_end_time <= DATEADD(millisecond, 10, GETDATE())
    AND (@P2 IS NULL OR t.start_lsn > @P2)
GROUP BY CASE WHEN t.tran_id = 0x00 THEN 0 ELSE 1 END;
