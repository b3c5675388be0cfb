-- For a control database that `init` has not brought up to date. The places, of @P1 in all, that other sessions hold: one row each.
DECLARE @places int = @P1, @place int = 1, @resource nvarchar(255);
DECLARE @members TABLE (place int NOT NULL);
WHILE @place <= @places
BEGIN
    SET @resource = CONCAT(N'dbaops-dataflow/daemon/', @place);
    IF APPLOCK_TEST(N'public', @resource, N'Exclusive', N'Session') = 0 INSERT INTO @members (place) VALUES (@place);
    SET @place = @place + 1;
END;
SELECT place FROM @members ORDER BY place;
