SELECT sweep_after, sweep_rows, carried_keys, CAST(CASE WHEN sweep_completed_at IS NULL THEN 0 ELSE 1 END AS BIT) FROM dbo.verification_progress WHERE mapping_id = @P1;
