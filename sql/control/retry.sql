-- Whatever waits after a failure is tried at the next look of its daemon, which sees that its row was touched. @P1: mapping_id, or NULL for all.
-- One row: how many mappings, and how many servers.
DECLARE @mappings int, @servers int;
UPDATE m SET updated_at = SYSUTCDATETIME()
FROM dbo.table_mappings AS m
    INNER JOIN dbo.source_servers AS s ON s.server_id = m.server_id
WHERE m.is_enabled = 1 AND s.is_enabled = 1 AND (@P1 IS NULL OR m.mapping_id = @P1);
SET @mappings = @@ROWCOUNT;
UPDATE s SET updated_at = SYSUTCDATETIME()
FROM dbo.source_servers AS s
WHERE s.is_enabled = 1
    AND EXISTS (SELECT 1 FROM dbo.table_mappings AS m WHERE m.server_id = s.server_id AND m.is_enabled = 1 AND (@P1 IS NULL OR m.mapping_id = @P1));
SET @servers = @@ROWCOUNT;
SELECT @mappings AS mappings, @servers AS servers;
