-- This process's row in dbo.daemons. @P1: the place whose lock this session holds, so that whoever had it before is gone; @P2: host; @P3: process id.
DELETE FROM dbo.daemons WHERE place = @P1;
INSERT INTO dbo.daemons (place, host, process_id, started_at, beat_at) VALUES (@P1, @P2, @P3, SYSUTCDATETIME(), SYSUTCDATETIME());
SELECT CAST(SCOPE_IDENTITY() AS int) AS daemon_id;
