UPDATE dbo.sync_status SET records_processed = @P2, last_processed_pk = LEFT(@P3, 500) WHERE status_id = @P1 AND status = N'RUNNING';
