IF OBJECT_ID(@P1, N'U') IS NULL
    SELECT CAST(NULL AS int) AS has_rows;
ELSE
    SELECT CASE WHEN EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS t) THEN 1 ELSE 0 END AS has_rows;
