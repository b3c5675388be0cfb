DECLARE @a int = 1, @b nvarchar(10) = N'x'
SET @a += 2
WHILE @a < 10
BEGIN
  SET @a = @a + 1
  IF @a = 5 CONTINUE
  IF @a = 7 BREAK
  PRINT CONCAT('a is ', @a)
END
SELECT @a AS a, @b AS b, @@ROWCOUNT AS r
GO
IF 1 = 2 PRINT 'no' ELSE IF 2 = 2 PRINT 'yes'
RETURN
PRINT 'never'
GO
SELECT @a
GO
SET @nothing = 1
PRINT 'never'
GO
SELECT 1 +
PRINT 'never'
GO
RAISERROR('%s has %d', 16, 3, 'cat', 4) WITH NOWAIT
PRINT 'still here'
RAISERROR('told', 10, 1)
GO
THROW 50001, 'thrown', 7
PRINT 'never'
GO
SELECT 1/0
PRINT 'after a division'
GO
SELECT CAST('x' AS int)
PRINT 'never: a conversion ends the batch'
GO
EXEC no_such_procedure 1
PRINT 'still here'
GO
DECLARE @x int
SELECT @x = 1 + 1, @x = @x * 10
SELECT @x AS x
GO
CREATE SEQUENCE s
GO
