-- When a mapping's checkpoint last moved, in UTC, from a session in its destination database. @P1: mapping_id.
SELECT CONVERT(nvarchar(30), updated_at, 126) FROM dbo.dbaops_dataflow_checkpoints WHERE mapping_id = @P1;
