-- @P2: a table's name, quoted. Which table has it now.
SELECT OBJECT_ID(@P2, N'U') AS object_id;
