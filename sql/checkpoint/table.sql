-- The small table of ours in every destination database: which LSN its rows are at, and which tables they are of. Several may make it at once.
-- A table that an earlier version made has fewer columns: NULL in these is what is not known.
IF OBJECT_ID(N'dbo.dbaops_dataflow_checkpoints', N'U') IS NULL
BEGIN TRY
    CREATE TABLE dbo.dbaops_dataflow_checkpoints (
        mapping_id int NOT NULL PRIMARY KEY,
        lsn binary(10) NULL,
        tran_id varbinary(10) NULL,
        tran_end_time datetime NULL,
        updated_at datetime2 NOT NULL DEFAULT SYSUTCDATETIME(),
        bound_to nvarchar(2000) COLLATE Latin1_General_BIN2 NULL,
        tran_lsn binary(10) NULL,
        source_object nvarchar(50) COLLATE Latin1_General_BIN2 NULL,
        capture_instance nvarchar(200) COLLATE Latin1_General_BIN2 NULL
    );
END TRY
BEGIN CATCH
    IF OBJECT_ID(N'dbo.dbaops_dataflow_checkpoints', N'U') IS NULL THROW;
END CATCH;
IF COL_LENGTH(N'dbo.dbaops_dataflow_checkpoints', N'bound_to') IS NULL
    ALTER TABLE dbo.dbaops_dataflow_checkpoints ADD bound_to nvarchar(2000) COLLATE Latin1_General_BIN2 NULL;
IF COL_LENGTH(N'dbo.dbaops_dataflow_checkpoints', N'tran_lsn') IS NULL
BEGIN TRY
    ALTER TABLE dbo.dbaops_dataflow_checkpoints ADD
        tran_lsn binary(10) NULL,
        source_object nvarchar(50) COLLATE Latin1_General_BIN2 NULL,
        capture_instance nvarchar(200) COLLATE Latin1_General_BIN2 NULL;
END TRY
BEGIN CATCH
    IF COL_LENGTH(N'dbo.dbaops_dataflow_checkpoints', N'tran_lsn') IS NULL THROW;
END CATCH;
