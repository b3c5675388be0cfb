-- @P1: a name that another session has locked, perhaps in this very database. 0: it has.
DECLARE @resource nvarchar(255) = @P1;
SELECT CAST(APPLOCK_TEST(N'public', @resource, N'Exclusive', N'Session') AS INT) AS could_be_locked;
