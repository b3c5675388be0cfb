-- @P1: a clock reading (style 121). datetime is rounded to 1/300 s on both sides, so the reading is moved up past that.
-- @P2: the newest captured LSN before the reading, or NULL: what is not above it was committed before, whatever its time says.
SELECT MIN(t.start_lsn) AS lsn
FROM cdc.lsn_time_mapping AS t
WHERE t.tran_end_time > DATEADD(millisecond, 10, CONVERT(datetime, CONVERT(datetime2(3), @P1, 121)))
    AND (@P2 IS NULL OR t.start_lsn > @P2);
