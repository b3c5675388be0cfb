-- The lowest entry that was committed after a reading of the clock: of real transactions, and of those that capture writes by itself on an idle
-- database (tran_id 0x00). Each is a seek in the clustered index on start_lsn, which ends at the first row that fits.
-- @P1: the reading (style 121). datetime is rounded to 1/300 s on both sides, so the reading is moved up past that; an entry of capture's own
-- has its own time and maybe an older place in the log, so by more.
-- @P2: the newest captured LSN before the reading, or NULL: what is not above it was committed before, whatever its time says.
-- What is later than now was committed before the clock was set back.
DECLARE @after binary(10) = ISNULL(@P2, 0x00000000000000000000), @now datetime = DATEADD(millisecond, 10, GETDATE()),
    @real datetime = DATEADD(millisecond, 10, CONVERT(datetime, CONVERT(datetime2(3), @P1, 121))),
    @idle datetime = DATEADD(millisecond, 10000, CONVERT(datetime, CONVERT(datetime2(3), @P1, 121)));
SELECT 1 AS is_real, MIN(t.start_lsn) AS lsn
FROM cdc.lsn_time_mapping AS t
WHERE t.start_lsn > @after AND t.tran_end_time > @real AND t.tran_end_time <= @now AND t.tran_id <> 0x00
UNION ALL
SELECT 0 AS is_real, MIN(t.start_lsn) AS lsn
FROM cdc.lsn_time_mapping AS t
WHERE t.start_lsn > @after AND t.tran_end_time > @idle AND t.tran_end_time <= @now AND t.tran_id = 0x00;
