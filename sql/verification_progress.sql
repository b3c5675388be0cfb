SELECT sweep_after, sweep_rows, carried_keys FROM dbo.verification_progress WHERE mapping_id = @P1;
