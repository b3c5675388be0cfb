-- Claims a full sync that is asked for. @P1: mapping_id; @P2: the trigger column was seen set. One cell: the claim, NULL where nothing is asked for.
-- Each attempt has a claim of its own, and its writes are fenced on it: an attempt that another one overtook writes nothing more.
UPDATE dbo.table_mappings
SET full_sync_pending_at = SYSUTCDATETIME(), full_sync_requested = 0
WHERE mapping_id = @P1 AND (full_sync_requested = 1 OR @P2 = 1 OR full_sync_pending_at IS NOT NULL);
SELECT CONVERT(NVARCHAR(30), full_sync_pending_at, 126) FROM dbo.table_mappings WHERE mapping_id = @P1;
