-- Mappings in the order of their last verification, the longest ago (or never) first.
SELECT m.mapping_id,
    (SELECT MAX(v.verified_at) FROM dbo.verification_logs AS v WHERE v.mapping_id = m.mapping_id) AS verified_at
FROM dbo.table_mappings AS m
ORDER BY verified_at, m.mapping_id;
