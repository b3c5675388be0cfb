-- The small table of ours in every destination database: which LSN its rows are at.
IF OBJECT_ID(N'dbo.dbaops_dataflow_checkpoints', N'U') IS NULL
BEGIN
    CREATE TABLE dbo.dbaops_dataflow_checkpoints (
        mapping_id int NOT NULL PRIMARY KEY,
        lsn binary(10) NULL,
        tran_id varbinary(10) NULL,
        tran_end_time datetime NULL,
        updated_at datetime2 NOT NULL DEFAULT SYSUTCDATETIME()
    );
END;
