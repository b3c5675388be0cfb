-- Proves a lease: writes this daemon's beat, marks daemons as gone that are silent for too long, and lists who is left.
-- @P1: places in all; @P2: this daemon's daemon_id, NULL for a command, which has no place; @P3: seconds of silence after which a daemon is gone.
-- One row per place that is taken by a daemon that lives. A daemon that was marked as gone never beats again: the row with is_own = 1 is missing then.
-- A place whose daemon has no row is an older version's, which has no beat: it lives as long as its lock.
-- Every beat and every comparison is by this server's UTC clock. A clock that jumps forward may cost live daemons their leases once, which is safe.
DECLARE @places int = @P1, @daemon_id int = @P2, @gone_after_s int = @P3, @place int = 1, @resource nvarchar(255);
DECLARE @members TABLE (place int NOT NULL PRIMARY KEY);
UPDATE dbo.daemons SET beat_at = SYSUTCDATETIME() WHERE daemon_id = @daemon_id AND gone_at IS NULL;
UPDATE dbo.daemons SET gone_at = SYSUTCDATETIME() WHERE gone_at IS NULL AND beat_at < DATEADD(SECOND, -@gone_after_s, SYSUTCDATETIME());
WHILE @daemon_id IS NOT NULL AND @place <= @places
BEGIN
    SET @resource = CONCAT(N'dbaops-dataflow/daemon/', @place);
    IF APPLOCK_TEST(N'public', @resource, N'Exclusive', N'Session') = 0
        AND NOT EXISTS (SELECT 1 FROM dbo.daemons AS d WHERE d.place = @place AND (d.gone_at IS NOT NULL OR d.daemon_id = @daemon_id))
        INSERT INTO @members (place) VALUES (@place);
    SET @place = @place + 1;
END;
SELECT m.place, CAST(0 AS bit) AS is_own FROM @members AS m
UNION ALL
SELECT d.place, CAST(1 AS bit) AS is_own FROM dbo.daemons AS d WHERE d.daemon_id = @daemon_id AND d.gone_at IS NULL;
