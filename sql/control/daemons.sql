-- Whether a daemon lives, and the newest heartbeat of any. @P1: seconds of silence after which one is gone.
SELECT
    CAST(CASE WHEN EXISTS (
        SELECT 1 FROM dbo.daemons AS d WHERE d.gone_at IS NULL AND d.beat_at >= DATEADD(SECOND, -@P1, SYSUTCDATETIME())
    ) THEN 1 ELSE 0 END AS BIT),
    CONVERT(NVARCHAR(30), (SELECT MAX(d.beat_at) FROM dbo.daemons AS d), 126);
