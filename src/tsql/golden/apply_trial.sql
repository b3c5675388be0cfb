DECLARE @fetched bit = @P1;
SET XACT_ABORT ON;
BEGIN TRANSACTION;
DELETE n FROM #net AS n WHERE n.[__$order] < @P2 OR n.[__$order] > @P3;
-- statements
ROLLBACK TRANSACTION;
