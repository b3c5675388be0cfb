CREATE DATABASE shop
GO
USE shop
CREATE TABLE dbo.customers (
  id int IDENTITY(1,1) NOT NULL CONSTRAINT PK_customers PRIMARY KEY,
  name nvarchar(20) NOT NULL CONSTRAINT UQ_customers_name UNIQUE,
  age int NULL CONSTRAINT CK_customers_age CHECK (age >= 0),
  note varchar(10) NULL CONSTRAINT DF_customers_note DEFAULT 'none',
  initial AS (LEFT(name, 1)),
  rv rowversion
)
CREATE TABLE orders (
  order_id int NOT NULL PRIMARY KEY,
  customer_id int NULL CONSTRAINT FK_orders_customers REFERENCES customers (id) ON DELETE CASCADE,
  total decimal(10,2) NOT NULL DEFAULT 0
)
GO
INSERT INTO customers (name, age) VALUES (N'Anna', 30), (N'Bert', NULL)
INSERT customers (name, note) SELECT N'Carl', DEFAULT_NOTE FROM (VALUES ('x')) v (DEFAULT_NOTE)
SELECT SCOPE_IDENTITY() AS last, @@ROWCOUNT AS n
SELECT id, name, age, note, initial FROM customers ORDER BY id
GO
INSERT customers (name) VALUES (N'anna')
GO
INSERT customers (name) VALUES (NULL)
GO
INSERT customers (name, age) VALUES (N'Dora', -1)
GO
INSERT customers (name, note) VALUES (N'Dora', 'far too long for this')
GO
INSERT customers (id, name) VALUES (9, N'Emil')
GO
INSERT customers (initial, name) VALUES ('x', N'Emil')
GO
INSERT customers (rv, name) VALUES (0x1, N'Emil')
GO
SET IDENTITY_INSERT customers ON
INSERT customers (id, name) VALUES (20, N'Emil')
SET IDENTITY_INSERT customers OFF
INSERT customers (name) VALUES (N'Frida')
SELECT id, name FROM customers ORDER BY id
GO
UPDATE customers SET id = 3 WHERE id = 1
GO
INSERT orders (order_id, customer_id) VALUES (1, 1), (2, 1), (3, 2)
INSERT orders (order_id, customer_id) VALUES (4, 99)
GO
UPDATE o SET total = o.order_id * 1.5 FROM orders o JOIN customers c ON c.id = o.customer_id WHERE c.name = N'Anna'
UPDATE orders SET order_id = order_id + 1
SELECT * FROM orders ORDER BY order_id
GO
UPDATE orders SET customer_id = 77 WHERE order_id = 2
GO
DECLARE @gone TABLE (order_id int, total decimal(10,2))
DELETE TOP (1) FROM orders OUTPUT deleted.order_id, deleted.total INTO @gone WHERE customer_id = 1
SELECT * FROM @gone
UPDATE customers SET age += 1 OUTPUT inserted.name, deleted.age AS before, inserted.age AS after WHERE age IS NOT NULL
DELETE customers WHERE name = N'Anna'
SELECT * FROM orders
GO
BEGIN TRAN
DELETE orders
TRUNCATE TABLE orders
INSERT orders (order_id) VALUES (50)
ALTER TABLE orders ADD extra int NOT NULL DEFAULT 7
SELECT * FROM orders
ROLLBACK
SELECT * FROM orders
GO
TRUNCATE TABLE customers
GO
CREATE TABLE #t (k varchar(10) CONSTRAINT PK_t PRIMARY KEY, v int)
INSERT #t VALUES ('a', 1), ('b', 2)
INSERT #t VALUES ('A', 3)
SELECT * FROM #t ORDER BY k
DROP TABLE #t
GO
SELECT * FROM #t
GO
SELECT id, name INTO kept FROM customers
SELECT * FROM kept ORDER BY id
DBCC CHECKIDENT ('customers', RESEED, 100)
INSERT customers (name) VALUES (N'Gina')
SELECT MAX(id) AS id FROM customers
GO
GO
-- A variable that each row adds to sees the rows in the order that ORDER BY gives them.
DECLARE @list nvarchar(max)
SELECT @list = COALESCE(@list + N', ', N'') + name FROM kept ORDER BY name DESC
SELECT @list AS list, @@ROWCOUNT AS rows
GO
