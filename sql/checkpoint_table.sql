-- The small table of ours in every destination database: which LSN its rows are at, and which tables they are of. Several may make it at once.
IF OBJECT_ID(N'dbo.dbaops_dataflow_checkpoints', N'U') IS NULL
BEGIN TRY
    CREATE TABLE dbo.dbaops_dataflow_checkpoints (
        mapping_id int NOT NULL PRIMARY KEY,
        lsn binary(10) NULL,
        tran_id varbinary(10) NULL,
        tran_end_time datetime NULL,
        updated_at datetime2 NOT NULL DEFAULT SYSUTCDATETIME(),
        bound_to nvarchar(2000) COLLATE Latin1_General_BIN2 NULL
    );
END TRY
BEGIN CATCH
    IF OBJECT_ID(N'dbo.dbaops_dataflow_checkpoints', N'U') IS NULL THROW;
END CATCH;
IF COL_LENGTH(N'dbo.dbaops_dataflow_checkpoints', N'bound_to') IS NULL
    ALTER TABLE dbo.dbaops_dataflow_checkpoints ADD bound_to nvarchar(2000) COLLATE Latin1_General_BIN2 NULL;
