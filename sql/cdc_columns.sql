-- @P1: the change table's object_id.
SELECT column_name, column_id, column_ordinal, is_computed
FROM cdc.captured_columns
WHERE object_id = @P1
ORDER BY column_ordinal;
