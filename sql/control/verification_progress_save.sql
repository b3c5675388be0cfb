UPDATE dbo.verification_progress
SET sweep_after = @P2, sweep_rows = @P3, carried_keys = @P4, updated_at = GETUTCDATE(),
    sweep_completed_at = CASE WHEN @P5 = 1 THEN GETUTCDATE() ELSE sweep_completed_at END
WHERE mapping_id = @P1;
IF @@ROWCOUNT = 0
    INSERT INTO dbo.verification_progress (mapping_id, sweep_after, sweep_rows, carried_keys, sweep_completed_at)
    SELECT @P1, @P2, @P3, @P4, CASE WHEN @P5 = 1 THEN GETUTCDATE() END
    WHERE EXISTS (SELECT 1 FROM dbo.table_mappings WHERE mapping_id = @P1);
