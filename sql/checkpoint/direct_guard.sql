-- Lets a batch of a DIRECT load commit only while this attempt's claim stands, from a session in the destination database. The row is locked
-- (shared) until then, so that nobody claims between. The number is that of the checkpoint's own fence. @P1: mapping_id; @P2: the claim.
IF NOT EXISTS (
    SELECT 1 FROM dbaops_dataflow.dbo.table_mappings AS m WITH (REPEATABLEREAD)
    WHERE m.mapping_id = @P1 AND CONVERT(nvarchar(30), m.full_sync_pending_at, 126) = @P2
)
BEGIN;
    THROW 50547, N'another attempt has claimed this full sync since', 1;
END;
