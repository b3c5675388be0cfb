/*
    The control database of dbaops-dataflow.

    `dbaops-dataflow init` runs this script; so does `sqlcmd -b -S SERVER -U LOGIN -i schema-dataflow.sql`. It can be run again at any
    time: what is there stays, what is missing is added. A database made for the first implementation is brought up to date. Works on
    SQL Server 2016 and newer.
*/

IF DB_ID(N'dbaops_dataflow') IS NULL
    CREATE DATABASE dbaops_dataflow;
GO

USE dbaops_dataflow;
GO

-- A later version of the first implementation had another set of tables; the two cannot share a database.
IF OBJECT_ID(N'dbo.flows', N'U') IS NOT NULL
    AND (OBJECT_ID(N'dbo.config', N'U') IS NOT NULL OR OBJECT_ID(N'dbo.logs', N'U') IS NOT NULL)
    THROW 50000, N'The database dbaops_dataflow has the tables flows, config and logs of another version of this service. Rename or drop that database first.', 1;
GO

IF OBJECT_ID(N'dbo.source_servers', N'U') IS NULL
    CREATE TABLE dbo.source_servers (
        server_id INT IDENTITY(1,1) NOT NULL CONSTRAINT PK_source_servers PRIMARY KEY,
        server_name NVARCHAR(255) NOT NULL CONSTRAINT UQ_source_servers_server_name UNIQUE,
        connection_string NVARCHAR(1000) NOT NULL,
        is_enabled BIT NOT NULL CONSTRAINT DF_source_servers_is_enabled DEFAULT 1,
        created_at DATETIME2 NOT NULL CONSTRAINT DF_source_servers_created_at DEFAULT GETUTCDATE(),
        updated_at DATETIME2 NOT NULL CONSTRAINT DF_source_servers_updated_at DEFAULT GETUTCDATE(),
        last_connected_at DATETIME2 NULL,
        notes NVARCHAR(MAX) NULL
    );
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.source_servers') AND name = N'IX_source_servers_is_enabled')
    CREATE INDEX IX_source_servers_is_enabled ON dbo.source_servers (is_enabled);
GO

IF OBJECT_ID(N'dbo.table_mappings', N'U') IS NULL
    CREATE TABLE dbo.table_mappings (
        mapping_id INT IDENTITY(1,1) NOT NULL CONSTRAINT PK_table_mappings PRIMARY KEY,
        server_id INT NOT NULL
            CONSTRAINT FK_table_mappings_server FOREIGN KEY REFERENCES dbo.source_servers (server_id) ON DELETE CASCADE,
        source_database NVARCHAR(255) NOT NULL,
        source_schema NVARCHAR(255) NOT NULL CONSTRAINT DF_table_mappings_source_schema DEFAULT N'dbo',
        source_table NVARCHAR(255) NOT NULL,
        dest_database NVARCHAR(255) NOT NULL,
        dest_schema NVARCHAR(255) NOT NULL CONSTRAINT DF_table_mappings_dest_schema DEFAULT N'dbo',
        dest_table NVARCHAR(255) NOT NULL,
        primary_key_column NVARCHAR(255) NOT NULL,
        full_sync_trigger_column NVARCHAR(255) NULL,
        is_enabled BIT NOT NULL CONSTRAINT DF_table_mappings_is_enabled DEFAULT 1,
        cdc_enabled BIT NOT NULL CONSTRAINT DF_table_mappings_cdc_enabled DEFAULT 0,
        last_cdc_lsn BINARY(10) NULL,
        last_full_sync_at DATETIME2 NULL,
        created_at DATETIME2 NOT NULL CONSTRAINT DF_table_mappings_created_at DEFAULT GETUTCDATE(),
        updated_at DATETIME2 NOT NULL CONSTRAINT DF_table_mappings_updated_at DEFAULT GETUTCDATE(),
        CONSTRAINT UQ_table_mappings_source UNIQUE (server_id, source_database, source_schema, source_table)
    );
GO

IF COL_LENGTH(N'dbo.table_mappings', N'full_sync_requested') IS NULL
    ALTER TABLE dbo.table_mappings ADD full_sync_requested BIT NOT NULL CONSTRAINT DF_table_mappings_full_sync_requested DEFAULT 0;
GO

IF COL_LENGTH(N'dbo.table_mappings', N'full_sync_pending_at') IS NULL
    ALTER TABLE dbo.table_mappings ADD full_sync_pending_at DATETIME2 NULL;
GO

IF COL_LENGTH(N'dbo.table_mappings', N'full_sync_mode') IS NULL
    ALTER TABLE dbo.table_mappings ADD full_sync_mode NVARCHAR(20) NOT NULL CONSTRAINT DF_table_mappings_full_sync_mode DEFAULT N'STAGED';
GO

-- What happens before the first sync: NULL as DATAFLOW_INITIAL_SYNC says, 'NONE' begins at the first change without a load.
IF COL_LENGTH(N'dbo.table_mappings', N'initial_sync') IS NULL
    ALTER TABLE dbo.table_mappings ADD initial_sync NVARCHAR(10) NULL;
GO

-- When lost changes last started a full sync by themselves: at most one an hour.
IF COL_LENGTH(N'dbo.table_mappings', N'gap_synced_at') IS NULL
    ALTER TABLE dbo.table_mappings ADD gap_synced_at DATETIME2 NULL;
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.table_mappings') AND name = N'IX_table_mappings_server')
    CREATE INDEX IX_table_mappings_server ON dbo.table_mappings (server_id, is_enabled);
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.table_mappings') AND name = N'IX_table_mappings_is_enabled')
    CREATE INDEX IX_table_mappings_is_enabled ON dbo.table_mappings (is_enabled);
GO

IF OBJECT_ID(N'dbo.sync_status', N'U') IS NULL
    CREATE TABLE dbo.sync_status (
        status_id BIGINT IDENTITY(1,1) NOT NULL CONSTRAINT PK_sync_status PRIMARY KEY,
        mapping_id INT NOT NULL
            CONSTRAINT FK_sync_status_mapping FOREIGN KEY REFERENCES dbo.table_mappings (mapping_id) ON DELETE CASCADE,
        sync_type NVARCHAR(50) NOT NULL,
        status NVARCHAR(50) NOT NULL,
        records_processed BIGINT NOT NULL CONSTRAINT DF_sync_status_records_processed DEFAULT 0,
        records_failed BIGINT NOT NULL CONSTRAINT DF_sync_status_records_failed DEFAULT 0,
        started_at DATETIME2 NOT NULL,
        completed_at DATETIME2 NULL,
        error_message NVARCHAR(MAX) NULL,
        last_processed_pk NVARCHAR(500) NULL
    );
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.sync_status') AND name = N'IX_sync_status_mapping')
    CREATE INDEX IX_sync_status_mapping ON dbo.sync_status (mapping_id, started_at DESC);
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.sync_status') AND name = N'IX_sync_status_type')
    CREATE INDEX IX_sync_status_type ON dbo.sync_status (sync_type, status);
GO

-- A mapping's running rows, and its newest row of a kind, without a look-up of each of its rows.
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.sync_status') AND name = N'IX_sync_status_newest')
    CREATE INDEX IX_sync_status_newest ON dbo.sync_status (mapping_id, sync_type, status_id) INCLUDE (status);
GO

-- For the deletion of old rows.
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.sync_status') AND name = N'IX_sync_status_completed')
    CREATE INDEX IX_sync_status_completed ON dbo.sync_status (completed_at);
GO

IF OBJECT_ID(N'dbo.sync_logs', N'U') IS NULL
    CREATE TABLE dbo.sync_logs (
        log_id BIGINT IDENTITY(1,1) NOT NULL CONSTRAINT PK_sync_logs PRIMARY KEY,
        mapping_id INT NULL
            CONSTRAINT FK_sync_logs_mapping FOREIGN KEY REFERENCES dbo.table_mappings (mapping_id) ON DELETE CASCADE,
        log_level NVARCHAR(20) NOT NULL,
        log_message NVARCHAR(MAX) NOT NULL,
        sync_type NVARCHAR(50) NULL,
        records_count BIGINT NULL,
        execution_time_ms INT NULL,
        created_at DATETIME2 NOT NULL CONSTRAINT DF_sync_logs_created_at DEFAULT GETUTCDATE()
    );
GO

-- The first implementation had no events without a mapping. Start, shutdown and server events have none. A column that an index or a
-- foreign key uses cannot be altered (Msg 5074), so both go and come back, in one transaction.
IF EXISTS (SELECT 1 FROM sys.columns WHERE object_id = OBJECT_ID(N'dbo.sync_logs') AND name = N'mapping_id' AND is_nullable = 0)
BEGIN
    SET XACT_ABORT ON;
    DECLARE @drop NVARCHAR(MAX) = N'';
    SELECT @drop = @drop + N'ALTER TABLE dbo.sync_logs DROP CONSTRAINT ' + QUOTENAME(f.name) + N'; '
    FROM sys.foreign_keys AS f
    WHERE f.parent_object_id = OBJECT_ID(N'dbo.sync_logs')
        AND EXISTS (
            SELECT 1 FROM sys.foreign_key_columns AS k
            INNER JOIN sys.columns AS c ON c.object_id = k.parent_object_id AND c.column_id = k.parent_column_id
            WHERE k.constraint_object_id = f.object_id AND c.name = N'mapping_id');
    SELECT @drop = @drop + N'DROP INDEX ' + QUOTENAME(i.name) + N' ON dbo.sync_logs; '
    FROM sys.indexes AS i
    INNER JOIN sys.index_columns AS ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id
    INNER JOIN sys.columns AS c ON c.object_id = ic.object_id AND c.column_id = ic.column_id
    WHERE i.object_id = OBJECT_ID(N'dbo.sync_logs') AND i.is_primary_key = 0 AND c.name = N'mapping_id';
    BEGIN TRANSACTION;
    EXEC (@drop);
    ALTER TABLE dbo.sync_logs ALTER COLUMN mapping_id INT NULL;
    ALTER TABLE dbo.sync_logs WITH CHECK ADD CONSTRAINT FK_sync_logs_mapping
        FOREIGN KEY (mapping_id) REFERENCES dbo.table_mappings (mapping_id) ON DELETE CASCADE;
    COMMIT TRANSACTION;
END
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.sync_logs') AND name = N'IX_sync_logs_mapping')
    CREATE INDEX IX_sync_logs_mapping ON dbo.sync_logs (mapping_id, created_at DESC);
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.sync_logs') AND name = N'IX_sync_logs_level')
    CREATE INDEX IX_sync_logs_level ON dbo.sync_logs (log_level, created_at DESC);
GO

-- For the deletion of old rows.
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.sync_logs') AND name = N'IX_sync_logs_created')
    CREATE INDEX IX_sync_logs_created ON dbo.sync_logs (created_at);
GO

-- server_id has no foreign key: a second cascade path from source_servers is refused (Msg 1785).
IF OBJECT_ID(N'dbo.error_logs', N'U') IS NULL
    CREATE TABLE dbo.error_logs (
        error_id BIGINT IDENTITY(1,1) NOT NULL CONSTRAINT PK_error_logs PRIMARY KEY,
        mapping_id INT NULL
            CONSTRAINT FK_error_logs_mapping FOREIGN KEY REFERENCES dbo.table_mappings (mapping_id) ON DELETE SET NULL,
        server_id INT NULL,
        error_type NVARCHAR(50) NOT NULL,
        error_message NVARCHAR(MAX) NOT NULL,
        error_details NVARCHAR(MAX) NULL,
        stack_trace NVARCHAR(MAX) NULL,
        retry_count INT NOT NULL CONSTRAINT DF_error_logs_retry_count DEFAULT 0,
        is_resolved BIT NOT NULL CONSTRAINT DF_error_logs_is_resolved DEFAULT 0,
        created_at DATETIME2 NOT NULL CONSTRAINT DF_error_logs_created_at DEFAULT GETUTCDATE(),
        resolved_at DATETIME2 NULL
    );
GO

-- Which error it is (errors are looked for by this, never by their text), and the one database of the server that it is about. NULL: a row of
-- an older version; open ones get theirs when a daemon starts.
IF COL_LENGTH(N'dbo.error_logs', N'error_code') IS NULL
    ALTER TABLE dbo.error_logs ADD error_code NVARCHAR(50) NULL, source_database NVARCHAR(255) NULL;
GO

-- 1: the mapping is only tried again now and then, until somebody mends what the message names.
IF COL_LENGTH(N'dbo.error_logs', N'is_parked') IS NULL
    ALTER TABLE dbo.error_logs ADD is_parked BIT NOT NULL CONSTRAINT DF_error_logs_is_parked DEFAULT 0;
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.error_logs') AND name = N'IX_error_logs_mapping')
    CREATE INDEX IX_error_logs_mapping ON dbo.error_logs (mapping_id, created_at DESC);
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.error_logs') AND name = N'IX_error_logs_server')
    CREATE INDEX IX_error_logs_server ON dbo.error_logs (server_id, created_at DESC);
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.error_logs') AND name = N'IX_error_logs_resolved')
    CREATE INDEX IX_error_logs_resolved ON dbo.error_logs (is_resolved, created_at DESC);
GO

-- For the deletion of old rows.
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.error_logs') AND name = N'IX_error_logs_resolved_at')
    CREATE INDEX IX_error_logs_resolved_at ON dbo.error_logs (is_resolved, resolved_at);
GO

IF OBJECT_ID(N'dbo.verification_logs', N'U') IS NULL
    CREATE TABLE dbo.verification_logs (
        verification_id BIGINT IDENTITY(1,1) NOT NULL CONSTRAINT PK_verification_logs PRIMARY KEY,
        mapping_id INT NOT NULL
            CONSTRAINT FK_verification_logs_mapping FOREIGN KEY REFERENCES dbo.table_mappings (mapping_id) ON DELETE CASCADE,
        verification_type NVARCHAR(50) NOT NULL,
        source_md5 NVARCHAR(32) NULL,
        dest_md5 NVARCHAR(32) NULL,
        source_row_count BIGINT NULL,
        dest_row_count BIGINT NULL,
        records_compared BIGINT NOT NULL CONSTRAINT DF_verification_logs_records_compared DEFAULT 0,
        mismatches_found BIGINT NOT NULL CONSTRAINT DF_verification_logs_mismatches_found DEFAULT 0,
        verification_status NVARCHAR(50) NOT NULL,
        verification_details NVARCHAR(MAX) NULL,
        verified_at DATETIME2 NOT NULL CONSTRAINT DF_verification_logs_verified_at DEFAULT GETUTCDATE()
    );
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.verification_logs') AND name = N'IX_verification_logs_mapping')
    CREATE INDEX IX_verification_logs_mapping ON dbo.verification_logs (mapping_id, verified_at DESC);
GO

IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.verification_logs') AND name = N'IX_verification_logs_status')
    CREATE INDEX IX_verification_logs_status ON dbo.verification_logs (verification_status, verified_at DESC);
GO

-- For the deletion of old rows.
IF NOT EXISTS (SELECT 1 FROM sys.indexes WHERE object_id = OBJECT_ID(N'dbo.verification_logs') AND name = N'IX_verification_logs_verified')
    CREATE INDEX IX_verification_logs_verified ON dbo.verification_logs (verified_at);
GO

-- What the last poll found: for v_cdc_lag. Times are UTC.
IF OBJECT_ID(N'dbo.cdc_lag', N'U') IS NULL
    CREATE TABLE dbo.cdc_lag (
        mapping_id INT NOT NULL CONSTRAINT PK_cdc_lag PRIMARY KEY
            CONSTRAINT FK_cdc_lag_mapping FOREIGN KEY REFERENCES dbo.table_mappings (mapping_id) ON DELETE CASCADE,
        committed_at DATETIME2(3) NULL,
        oldest_at DATETIME2(3) NULL,
        polled_at DATETIME2(3) NOT NULL,
        reason NVARCHAR(400) NULL
    );
GO

-- Carried columns that the table's capture instance does not have, in words, for status.
IF COL_LENGTH(N'dbo.cdc_lag', N'uncaptured') IS NULL
    ALTER TABLE dbo.cdc_lag ADD uncaptured NVARCHAR(MAX) NULL;
GO

-- How far the sweep over a whole table has come, and the keys that the next verification looks at again. Keys are encoded as the
-- documentation of plan::key says.
IF OBJECT_ID(N'dbo.verification_progress', N'U') IS NULL
    CREATE TABLE dbo.verification_progress (
        mapping_id INT NOT NULL CONSTRAINT PK_verification_progress PRIMARY KEY
            CONSTRAINT FK_verification_progress_mapping FOREIGN KEY REFERENCES dbo.table_mappings (mapping_id) ON DELETE CASCADE,
        sweep_after VARBINARY(MAX) NULL,
        sweep_rows BIGINT NOT NULL CONSTRAINT DF_verification_progress_sweep_rows DEFAULT 0,
        sweep_completed_at DATETIME2 NULL,
        carried_keys VARBINARY(MAX) NULL,
        updated_at DATETIME2 NOT NULL CONSTRAINT DF_verification_progress_updated_at DEFAULT GETUTCDATE()
    );
GO

-- The daemons that run, by their place among each other. A daemon whose beat is old is marked as gone (gone_at), and never beats again: others take
-- its mappings over. Times are UTC.
IF OBJECT_ID(N'dbo.daemons', N'U') IS NULL
    CREATE TABLE dbo.daemons (
        daemon_id INT IDENTITY(1,1) NOT NULL CONSTRAINT PK_daemons PRIMARY KEY,
        place INT NOT NULL CONSTRAINT UQ_daemons_place UNIQUE,
        host NVARCHAR(255) NULL,
        process_id INT NULL,
        started_at DATETIME2(3) NOT NULL CONSTRAINT DF_daemons_started_at DEFAULT SYSUTCDATETIME(),
        beat_at DATETIME2(3) NOT NULL CONSTRAINT DF_daemons_beat_at DEFAULT SYSUTCDATETIME(),
        gone_at DATETIME2(3) NULL
    );
GO

-- Who took a mapping last (NULL: a command), and under which generation of its lock: one more each time it is taken from a daemon that is gone.
IF OBJECT_ID(N'dbo.mapping_owners', N'U') IS NULL
    CREATE TABLE dbo.mapping_owners (
        mapping_id INT NOT NULL CONSTRAINT PK_mapping_owners PRIMARY KEY
            CONSTRAINT FK_mapping_owners_mapping FOREIGN KEY REFERENCES dbo.table_mappings (mapping_id) ON DELETE CASCADE,
        daemon_id INT NULL,
        generation INT NOT NULL CONSTRAINT DF_mapping_owners_generation DEFAULT 0
    );
GO

-- Views: made empty where they are missing, then altered, so that rights granted on them stay. (CREATE OR ALTER came with 2016 SP1.)
IF OBJECT_ID(N'dbo.v_sync_summary', N'V') IS NULL
    EXEC (N'CREATE VIEW dbo.v_sync_summary AS SELECT 1 AS x');
GO

-- What runs, and what failed and has not completed since.
ALTER VIEW dbo.v_sync_summary
AS
SELECT
    s.server_name,
    m.source_database,
    m.source_table,
    m.dest_table,
    r.status,
    r.sync_type,
    r.records_processed,
    r.records_failed,
    r.started_at,
    r.completed_at,
    DATEDIFF(SECOND, r.started_at, COALESCE(r.completed_at, GETUTCDATE())) AS duration_seconds
FROM dbo.sync_status AS r
    INNER JOIN dbo.table_mappings AS m ON m.mapping_id = r.mapping_id
    INNER JOIN dbo.source_servers AS s ON s.server_id = m.server_id
WHERE r.status = N'RUNNING'
    OR (
        r.status = N'ERROR'
        AND NOT EXISTS (
            SELECT 1
            FROM dbo.sync_status AS later
            WHERE later.mapping_id = r.mapping_id
                AND later.sync_type = r.sync_type
                AND later.status = N'COMPLETED'
                AND later.status_id > r.status_id
        )
    );
GO

IF OBJECT_ID(N'dbo.v_recent_errors', N'V') IS NULL
    EXEC (N'CREATE VIEW dbo.v_recent_errors AS SELECT 1 AS x');
GO

-- The newest 100 unresolved errors.
ALTER VIEW dbo.v_recent_errors
AS
SELECT TOP (100)
    e.error_id,
    s.server_name,
    m.source_table,
    m.dest_table,
    e.error_type,
    e.error_message,
    e.retry_count,
    e.is_resolved,
    e.created_at,
    e.error_code,
    e.mapping_id,
    COALESCE(m.source_database, e.source_database) AS source_database,
    m.source_schema,
    m.dest_database,
    m.dest_schema,
    CASE
        WHEN CHARINDEX(N'what to do: ', e.error_details) > 0
            THEN SUBSTRING(e.error_details, CHARINDEX(N'what to do: ', e.error_details) + 12, 4000)
        WHEN e.error_code IN (N'ROWS_DIFFER', N'ROW_COUNT_DIFFERS') THEN CONCAT(N'dbaops-dataflow verify --mapping ', e.mapping_id, N' --full --repair')
        WHEN e.error_code = N'COLUMNS_DIFFER' THEN CONCAT(N'dbaops-dataflow check --mapping ', e.mapping_id)
        ELSE N'read error_details in error_logs'
    END AS what_to_do
FROM dbo.error_logs AS e
    LEFT JOIN dbo.table_mappings AS m ON m.mapping_id = e.mapping_id
    LEFT JOIN dbo.source_servers AS s ON s.server_id = COALESCE(e.server_id, m.server_id)
WHERE e.is_resolved = 0
ORDER BY e.created_at DESC;
GO

IF OBJECT_ID(N'dbo.v_cdc_lag', N'V') IS NULL
    EXEC (N'CREATE VIEW dbo.v_cdc_lag AS SELECT 1 AS x');
GO

-- How far behind each mapping is: since the oldest commit that is not applied yet, or since the last poll that found nothing left.
ALTER VIEW dbo.v_cdc_lag
AS
SELECT
    m.mapping_id,
    s.server_name,
    m.source_database,
    m.source_schema,
    m.source_table,
    m.dest_database,
    m.dest_table,
    m.last_cdc_lsn,
    l.committed_at AS last_commit_at,
    CASE
        WHEN m.cdc_enabled = 0 OR l.mapping_id IS NULL OR l.reason IS NOT NULL THEN NULL
        WHEN COALESCE(l.oldest_at, l.polled_at) > SYSUTCDATETIME() THEN 0
        ELSE DATEDIFF(SECOND, COALESCE(l.oldest_at, l.polled_at), SYSUTCDATETIME())
    END AS seconds_behind,
    CASE
        WHEN m.cdc_enabled = 0 THEN N'CDC is off for this mapping'
        WHEN l.mapping_id IS NULL THEN N'not polled yet'
        ELSE l.reason
    END AS reason
FROM dbo.table_mappings AS m
    INNER JOIN dbo.source_servers AS s ON s.server_id = m.server_id
    LEFT JOIN dbo.cdc_lag AS l ON l.mapping_id = m.mapping_id;
GO

IF OBJECT_ID(N'dbo.v_mapping_status', N'V') IS NULL
    EXEC (N'CREATE VIEW dbo.v_mapping_status AS SELECT 1 AS x');
GO

-- In what state each mapping is, and what somebody has to do about it: what `dbaops-dataflow status` shows, decided as src/plan/status.rs decides.
-- A daemon lives while its heartbeat is younger than 20 s. Times are UTC.
ALTER VIEW dbo.v_mapping_status
AS
SELECT
    m.mapping_id,
    s.server_name,
    m.source_database,
    m.source_schema,
    m.source_table,
    m.dest_database,
    m.dest_schema,
    m.dest_table,
    w.state,
    CAST(CASE WHEN w.state IN (N'no daemon', N'unreachable', N'destination missing', N'changes lost', N'parked', N'failing', N'verification failed',
        N'never synced', N'stalled') THEN 1 ELSE 0 END AS BIT) AS needs_action,
    CASE
        WHEN w.state = N'no daemon' THEN b.last_beat
        WHEN w.state = N'unreachable' THEN p.created_at
        WHEN w.state IN (N'destination missing', N'changes lost', N'parked', N'failing') THEN e.created_at
        WHEN w.state = N'verification failed' THEN f.verified_at
        WHEN w.state = N'never synced' THEN m.created_at
        WHEN w.state IN (N'stalled', N'behind', N'waiting') THEN COALESCE(g.oldest_at, g.polled_at)
        WHEN w.state = N'full sync' THEN r.started_at
        WHEN w.state = N'full sync due' THEN m.full_sync_pending_at
    END AS since,
    CASE
        WHEN w.state = N'no daemon' THEN N'no daemon of this control database has a fresh heartbeat'
        WHEN w.state = N'unreachable' THEN p.error_message
        WHEN w.state IN (N'destination missing', N'changes lost', N'parked', N'failing') THEN e.error_message
        WHEN w.state = N'verification failed' THEN CONCAT(f.verification_type, N': ', f.mismatches_found, N' mismatches')
        WHEN w.state = N'never synced'
            THEN N'no full sync was completed: rows that have not changed since are missing at the destination'
        WHEN w.state = N'full sync'
            THEN CONCAT(r.records_processed, N' rows so far', N'; before it began: ' + e.error_message)
        WHEN w.state IN (N'stalled', N'waiting') THEN l.reason
        WHEN w.state IN (N'behind', N'idle', N'following') THEN g.uncaptured
        WHEN w.state = N'disabled' AND s.is_enabled = 0 THEN N'its server is disabled'
    END AS reason,
    CASE
        WHEN w.state = N'no daemon' THEN N'start the service, or: dbaops-dataflow run'
        WHEN w.state = N'unreachable' THEN COALESCE(p.advice, N'read the server''s message in v_recent_errors')
        WHEN w.state = N'destination missing' THEN CONCAT(
            COALESCE(e.advice, N'create the destination table, or correct its name in table_mappings'),
            N'; then: dbaops-dataflow retry --mapping ', m.mapping_id)
        WHEN w.state = N'changes lost' THEN CONCAT(N'dbaops-dataflow sync --mapping ', m.mapping_id)
        WHEN w.state = N'parked' THEN CONCAT(
            COALESCE(e.advice, N'mend what the error names'), N'; then: dbaops-dataflow retry --mapping ', m.mapping_id)
        WHEN w.state = N'failing' THEN COALESCE(e.advice, N'read error_details in error_logs')
        WHEN w.state = N'verification failed' AND f.verification_type = N'SCHEMA'
            THEN CONCAT(N'dbaops-dataflow check --mapping ', m.mapping_id)
        WHEN w.state = N'verification failed' THEN CONCAT(N'dbaops-dataflow verify --mapping ', m.mapping_id, N' --full --repair')
        WHEN w.state = N'never synced' THEN CONCAT(
            N'dbaops-dataflow sync --mapping ', m.mapping_id,
            N'; or, where the destination has the rows already: dbaops-dataflow start-from --mapping ', m.mapping_id,
            N', or UPDATE dbo.table_mappings SET initial_sync = ''NONE'' WHERE mapping_id = ', m.mapping_id)
        WHEN w.state = N'stalled' THEN
            N'look whether SQL Server Agent and the capture job run at the source: EXEC sys.sp_cdc_help_jobs; SELECT * FROM sys.dm_cdc_errors'
    END AS what_to_do,
    l.seconds_behind,
    m.last_full_sync_at,
    v.verification_status,
    v.verified_at,
    e.error_message AS last_error,
    e.created_at AS last_error_at
FROM dbo.table_mappings AS m
    INNER JOIN dbo.source_servers AS s ON s.server_id = m.server_id
    LEFT JOIN dbo.v_cdc_lag AS l ON l.mapping_id = m.mapping_id
    LEFT JOIN dbo.cdc_lag AS g ON g.mapping_id = m.mapping_id
    CROSS JOIN (
        SELECT
            MAX(d.beat_at) AS last_beat,
            COALESCE(MAX(CASE WHEN d.gone_at IS NULL AND d.beat_at >= DATEADD(SECOND, -20, SYSUTCDATETIME()) THEN 1 ELSE 0 END), 0) AS lives
        FROM dbo.daemons AS d
    ) AS b
    OUTER APPLY (
        SELECT TOP (1) x.sync_type, x.status, x.records_processed, x.started_at
        FROM dbo.sync_status AS x
        WHERE x.mapping_id = m.mapping_id
        ORDER BY x.started_at DESC, x.status_id DESC
    ) AS r
    OUTER APPLY (
        SELECT TOP (1) x.error_code, x.error_message, x.created_at, x.is_parked,
            CASE WHEN CHARINDEX(N'what to do: ', x.error_details) > 0
                THEN SUBSTRING(x.error_details, CHARINDEX(N'what to do: ', x.error_details) + 12, 4000) END AS advice
        FROM dbo.error_logs AS x
        WHERE x.mapping_id = m.mapping_id AND x.is_resolved = 0 AND x.error_type <> N'VERIFICATION'
        ORDER BY x.is_parked DESC, x.created_at DESC, x.error_id DESC
    ) AS e
    OUTER APPLY (
        SELECT TOP (1) x.error_message, x.created_at,
            CASE WHEN CHARINDEX(N'what to do: ', x.error_details) > 0
                THEN SUBSTRING(x.error_details, CHARINDEX(N'what to do: ', x.error_details) + 12, 4000) END AS advice
        FROM dbo.error_logs AS x
        WHERE x.server_id = m.server_id AND x.mapping_id IS NULL AND x.is_resolved = 0
            AND (x.source_database IS NULL OR x.source_database = m.source_database)
        ORDER BY x.created_at DESC, x.error_id DESC
    ) AS p
    OUTER APPLY (
        SELECT TOP (1) x.verification_status, x.verified_at
        FROM dbo.verification_logs AS x
        WHERE x.mapping_id = m.mapping_id AND x.verification_type = N'MD5_COMPARISON'
        ORDER BY x.verified_at DESC, x.verification_id DESC
    ) AS v
    OUTER APPLY (
        SELECT TOP (1) x.verification_type, x.mismatches_found, x.verified_at
        FROM dbo.verification_logs AS x
        WHERE x.mapping_id = m.mapping_id AND x.verification_status = N'FAILED'
            AND (x.verification_type = N'SCHEMA' OR m.last_full_sync_at IS NULL OR x.verified_at > m.last_full_sync_at)
            AND NOT EXISTS (
                SELECT 1
                FROM dbo.verification_logs AS n
                WHERE n.mapping_id = x.mapping_id AND n.verification_type = x.verification_type AND n.verification_status = N'PASSED'
                    AND n.verified_at >= x.verified_at AND n.verification_id > x.verification_id
            )
        ORDER BY x.verified_at DESC, x.verification_id DESC
    ) AS f
    CROSS APPLY (
        SELECT CASE
            WHEN m.is_enabled = 0 OR s.is_enabled = 0 THEN N'disabled'
            WHEN b.lives = 0 THEN N'no daemon'
            WHEN p.error_message IS NOT NULL THEN N'unreachable'
            WHEN r.sync_type = N'FULL_SYNC' AND r.status = N'RUNNING' AND (e.created_at IS NULL OR e.created_at < r.started_at) THEN N'full sync'
            WHEN e.error_code = N'DESTINATION_MISSING' THEN N'destination missing'
            WHEN e.error_code = N'CHANGES_LOST' THEN N'changes lost'
            WHEN e.error_code = N'MAPPING_ROW_UNUSABLE' OR e.is_parked = 1 THEN N'parked'
            WHEN e.error_message IS NOT NULL THEN N'failing'
            WHEN m.full_sync_requested = 1 OR m.full_sync_pending_at IS NOT NULL THEN N'full sync due'
            WHEN f.verification_type IS NOT NULL THEN N'verification failed'
            WHEN m.last_full_sync_at IS NULL AND (m.initial_sync IS NULL OR UPPER(m.initial_sync) <> N'NONE') THEN N'never synced'
            WHEN m.cdc_enabled = 0 THEN N'idle'
            WHEN l.seconds_behind > 300 THEN N'behind'
            WHEN l.seconds_behind IS NOT NULL THEN N'following'
            WHEN g.reason IS NOT NULL AND DATEDIFF(SECOND, g.polled_at, SYSUTCDATETIME()) > 900 THEN N'stalled'
            ELSE N'waiting'
        END AS state
    ) AS w;
GO
