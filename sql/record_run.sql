INSERT INTO dbo.sync_status (mapping_id, sync_type, status, records_processed, records_failed, started_at, completed_at, error_message)
VALUES (@P1, @P2, @P4, @P5, @P6, DATEADD(MILLISECOND, -@P3, GETUTCDATE()), GETUTCDATE(), @P7);
