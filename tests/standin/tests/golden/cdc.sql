CREATE DATABASE shop
GO
USE shop
GO
EXEC sys.sp_cdc_enable_db
CREATE TABLE dbo.t (id int NOT NULL CONSTRAINT PK_t PRIMARY KEY, v nvarchar(10) NULL, n int NULL)
GO
EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N't', @role_name = NULL
SELECT capture_instance, supports_net_changes, index_name FROM cdc.change_tables
SELECT is_tracked_by_cdc FROM sys.tables WHERE name = 't'
GO
INSERT INTO t VALUES (1, N'a', 1), (2, N'b', 2)
UPDATE t SET v = N'c' WHERE id = 1
DELETE t WHERE id = 2
UPDATE t SET id = 9 WHERE id = 1
GO
SELECT __$operation, __$update_mask, id, v, n, __$command_id FROM cdc.dbo_t_CT ORDER BY __$start_lsn, __$command_id, __$seqval, __$operation
SELECT __$operation, id, v FROM cdc.fn_cdc_get_all_changes_dbo_t(sys.fn_cdc_get_min_lsn('dbo_t'), sys.fn_cdc_get_max_lsn(), N'all')
SELECT __$operation, id, v FROM cdc.fn_cdc_get_net_changes_dbo_t(sys.fn_cdc_get_min_lsn('dbo_t'), sys.fn_cdc_get_max_lsn(), N'all')
GO
DECLARE @max binary(10) = sys.fn_cdc_get_max_lsn()
SELECT __$operation FROM cdc.fn_cdc_get_all_changes_dbo_t(0x00000000000000000001, @max, N'all')
GO
ALTER TABLE t ALTER COLUMN v nvarchar(20) NULL
ALTER TABLE t ADD extra int NULL
ALTER TABLE t DROP COLUMN n
GO
INSERT INTO t (id, v, extra) VALUES (3, N'after', 7)
SELECT required_column_update, ddl_command FROM cdc.ddl_history ORDER BY ddl_lsn
SELECT TOP (1) id, v, n FROM cdc.dbo_t_CT ORDER BY __$start_lsn DESC
GO
EXEC sys.sp_cdc_stop_job
INSERT INTO t (id) VALUES (4)
SELECT COUNT(*) AS seen FROM cdc.dbo_t_CT WHERE id = 4
EXEC sys.sp_cdc_start_job
SELECT COUNT(*) AS seen FROM cdc.dbo_t_CT WHERE id = 4
GO
DROP TABLE t
SELECT COUNT(*) AS instances FROM cdc.change_tables
EXEC sys.sp_cdc_disable_db
SELECT is_cdc_enabled FROM sys.databases WHERE name = N'shop'
