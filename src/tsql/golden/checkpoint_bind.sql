UPDATE t SET source_object = COALESCE(t.source_object, v.source_object), capture_instance = COALESCE(t.capture_instance, v.capture_instance)
FROM dbo.dbaops_dataflow_checkpoints AS t
INNER JOIN (VALUES
    (@P1, CAST(@P2 AS binary(10)), @P3 COLLATE Latin1_General_BIN2, @P4 COLLATE Latin1_General_BIN2),
    (@P5, CAST(@P6 AS binary(10)), @P7 COLLATE Latin1_General_BIN2, @P8 COLLATE Latin1_General_BIN2)
) AS v (mapping_id, lsn, source_object, capture_instance) ON v.mapping_id = t.mapping_id AND v.lsn = t.lsn
