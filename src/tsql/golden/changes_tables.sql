IF OBJECT_ID(N'tempdb..#changes') IS NOT NULL DROP TABLE #changes;
IF OBJECT_ID(N'tempdb..#net') IS NOT NULL DROP TABLE #net;
CREATE TABLE #changes (
    [__$start_lsn] binary(10) NULL,
    [__$seqval] binary(10) NULL,
    [__$operation] int NULL,
    [__$update_mask] varbinary(128) NULL,
    [__$command_id] int NULL,
    [c0] int NULL,
    [c1] nvarchar(20) COLLATE Latin1_General_BIN2 NULL,
    [c2] decimal(19,4) NULL,
    [c3] nvarchar(max) COLLATE Latin1_General_CI_AS NULL,
    [c4] datetimeoffset(7) NULL,
    [c5] nvarchar(max) COLLATE DATABASE_DEFAULT NULL,
    [__$large] varbinary(8000) NULL,
    [__$order] bigint NOT NULL PRIMARY KEY
);
CREATE TABLE #net (
    [__$order] bigint NOT NULL PRIMARY KEY,
    [__$operation] int NOT NULL,
    [__$p0] bigint NULL,
    [__$p1] bigint NULL,
    [__$p2] bigint NULL
);
