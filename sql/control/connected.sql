UPDATE dbo.source_servers SET last_connected_at = GETUTCDATE() WHERE server_id = @P1;
