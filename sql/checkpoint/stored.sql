-- Both checkpoints of a source database's mappings, from a session in a destination database. Mappings of other destinations have no twin here.
-- @P1: server_id, @P2: source_database; a hundred sources do not each read what is of the other ninety-nine.
-- A database that is read-only holds nothing that must wait for the next change to be noticed.
-- A twin that was written for another pair of tables is bound elsewhere; a destination that is not there now says nothing.
-- A row of an earlier version has no tran_lsn: its transaction was the one at the checkpoint.
SELECT m.mapping_id, m.last_cdc_lsn, t.mapping_id AS twin_of, t.lsn,
    CASE WHEN t.tran_id IS NOT NULL THEN COALESCE(t.tran_lsn, t.lsn) END AS tran_lsn, t.tran_id, CONVERT(nvarchar(30), t.tran_end_time, 121) AS tran_end_time,
    CASE WHEN m.gap_synced_at BETWEEN DATEADD(DAY, -1, SYSUTCDATETIME()) AND SYSUTCDATETIME()
        THEN DATEDIFF(SECOND, m.gap_synced_at, SYSUTCDATETIME()) END AS gap_synced_ago_s,
    CAST(DATABASEPROPERTYEX(DB_NAME(), N'Updateability') AS nvarchar(128)) AS updateability,
    CASE WHEN t.bound_to <> CONCAT(m.server_id, N'|', LOWER(CONCAT(m.source_database, N'|', m.source_schema, N'|', m.source_table)), N'|',
    OBJECT_ID(QUOTENAME(m.dest_schema) + N'.' + QUOTENAME(m.dest_table))) COLLATE Latin1_General_BIN2
        AND OBJECT_ID(QUOTENAME(m.dest_schema) + N'.' + QUOTENAME(m.dest_table)) IS NOT NULL THEN 1 ELSE 0 END AS elsewhere,
    t.source_object, t.capture_instance
FROM dbaops_dataflow.dbo.table_mappings AS m
LEFT JOIN dbo.dbaops_dataflow_checkpoints AS t ON t.mapping_id = m.mapping_id
WHERE m.cdc_enabled = 1 AND m.server_id = @P1 AND m.source_database = @P2;
