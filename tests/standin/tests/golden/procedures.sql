CREATE TABLE t (id int IDENTITY(1,1) NOT NULL PRIMARY KEY, name nvarchar(20) NOT NULL, n int NULL CHECK (n > 0))
INSERT INTO t (name, n) VALUES (N'one', 1), (N'two', 2), (N'three', NULL)
SELECT SCOPE_IDENTITY() AS i, @@ROWCOUNT AS r
SELECT * FROM t ORDER BY id
GO
SELECT id, name INTO #copy FROM t WHERE id < 3
SELECT COUNT(*) AS c FROM #copy
SET NOCOUNT ON
DELETE c FROM #copy AS c JOIN t ON t.id = c.id WHERE t.n = 1
SELECT id FROM #copy
SET NOCOUNT OFF
GO
CREATE PROCEDURE p @a int, @b nvarchar(20) = N'default', @out int = NULL OUTPUT AS
SELECT @a AS a, @b AS b
CREATE TABLE #own (x int)
INSERT INTO #own VALUES (@a)
SELECT x FROM #own
SET @out = @a * 2
RETURN 7
GO
DECLARE @rc int, @o int
EXEC @rc = p 5, @out = @o OUTPUT
SELECT @rc AS rc, @o AS o
EXEC p @b = N'x'
EXEC p 1, 2, 3, 4
EXEC p @a = 1, @zz = 2
SELECT * FROM #own
GO
INSERT INTO t (name, n) EXEC ('SELECT N''four'', 4')
SELECT name FROM t WHERE n = 4
GO
INSERT INTO t (name, n) VALUES (N'bad', -1)
PRINT 'the next statement runs'
GO
BEGIN TRAN
INSERT INTO t (name, n) VALUES (N'in a transaction', 9)
SAVE TRAN s
DELETE FROM t
ROLLBACK TRAN s
SELECT COUNT(*) AS c FROM t
ROLLBACK
SELECT COUNT(*) AS c FROM t
GO
CREATE TABLE log (what nvarchar(40))
GO
CREATE TRIGGER tr ON t AFTER INSERT AS
INSERT INTO log SELECT name FROM inserted
IF EXISTS (SELECT 1 FROM inserted WHERE name = N'undo') ROLLBACK
GO
INSERT INTO t (name) VALUES (N'seen')
INSERT INTO t (name) VALUES (N'undo')
PRINT 'never'
GO
SELECT what FROM log
SELECT @@TRANCOUNT AS t
GO
DECLARE @v TABLE (a int PRIMARY KEY, b int)
BEGIN TRAN
INSERT INTO @v VALUES (1, 2)
ROLLBACK
SELECT * FROM @v
GO
DBCC CHECKIDENT ('t', RESEED, 100)
INSERT INTO t (name) OUTPUT inserted.id VALUES (N'reseeded')
GO
TRUNCATE TABLE log
SELECT COUNT(*) AS c FROM log
UPDATE t SET n = 10 OUTPUT deleted.n AS old, inserted.n AS new WHERE id = 1
SELECT @@ROWCOUNT AS r
GO
