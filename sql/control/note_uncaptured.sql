-- @P1: mapping. @P2: what is to be said of carried columns that its capture instance does not have, or NULL.
UPDATE dbo.cdc_lag SET uncaptured = @P2 WHERE mapping_id = @P1;
INSERT INTO dbo.cdc_lag (mapping_id, polled_at, uncaptured)
SELECT m.mapping_id, SYSUTCDATETIME(), @P2
FROM dbo.table_mappings AS m
WHERE m.mapping_id = @P1 AND @P2 IS NOT NULL AND NOT EXISTS (SELECT 1 FROM dbo.cdc_lag AS l WHERE l.mapping_id = @P1);
