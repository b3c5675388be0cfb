SELECT CAST(value_in_use AS bigint) FROM sys.configurations WHERE name = N'max text repl size (B)';
