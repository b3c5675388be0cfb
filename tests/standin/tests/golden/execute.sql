DECLARE @x int = 5, @rc int
EXEC @rc = sp_executesql N'SET @p = @p * @q', N'@p int OUTPUT, @q int', @p = @x OUTPUT, @q = 3
SELECT @x AS x, @rc AS rc
GO
EXEC sp_executesql N'SELECT @a AS a, @b AS b', N'@a int, @b nvarchar(20)', 1, N'two'
GO
EXEC sp_executesql N'SELECT @a', N'@a int'
GO
EXEC sp_executesql 'SELECT 1'
GO
DECLARE @t nvarchar(50) = N'SELECT @@TRANCOUNT AS n'
EXEC (@t + ', 2 AS two')
EXEC ('SET NOCOUNT ON; SELECT 1 AS one')
SELECT 2 AS two
GO
DECLARE @h int
EXEC sp_prepare @h OUTPUT, N'@a int', N'SELECT @a + 1 AS a'
EXEC sp_execute @h, 41
EXEC sp_unprepare @h
EXEC sp_execute @h, 41
GO
EXEC ('SELEC')
PRINT 'here'
GO
EXEC ('USE tempdb; SELECT DB_NAME() AS d')
SELECT DB_NAME() AS d
USE msdb
SELECT DB_NAME() AS d
USE nowhere
GO
SET LOCK_TIMEOUT 1000 SET DATEFIRST 1 SET CONTEXT_INFO 0x0102
SELECT @@LOCK_TIMEOUT AS l, DATEPART(weekday, '2024-01-01') AS monday, @@SPID AS s
SELECT context_info AS c FROM sys.dm_exec_sessions WHERE session_id = @@SPID
EXEC ('SET DATEFIRST 3')
SELECT DATEPART(weekday, '2024-01-01') AS monday
GO
