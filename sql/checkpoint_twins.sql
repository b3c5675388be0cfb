SELECT mapping_id, lsn, tran_id, CONVERT(nvarchar(30), tran_end_time, 121) AS tran_end_time
FROM dbo.dbaops_dataflow_checkpoints;
