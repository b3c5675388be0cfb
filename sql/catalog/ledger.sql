SELECT CAST(t.ledger_type AS INT) FROM sys.tables AS t WHERE t.object_id = @P1;
