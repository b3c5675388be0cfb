-- The state of database @P1 as the server tells it, from a session in another database: no row where there is none, or none this login may see.
SELECT d.state_desc, d.user_access_desc FROM sys.databases AS d WHERE d.name = @P1;
