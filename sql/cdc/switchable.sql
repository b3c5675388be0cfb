-- Captured tables of several partitions, by object_id, whose instances allow ALTER TABLE … SWITCH: what it moves is in no change table.
SELECT c.source_object_id
FROM cdc.change_tables AS c
WHERE EXISTS (SELECT 1 FROM sys.partitions AS p WHERE p.object_id = c.source_object_id AND p.index_id <= 1 AND p.partition_number > 1)
GROUP BY c.source_object_id
HAVING MIN(CAST(c.partition_switch AS int)) = 1;
