-- Whether the database is mirrored. Azure SQL Database has no such view.
SELECT COUNT(*) FROM sys.database_mirroring AS m WHERE m.database_id = DB_ID() AND m.mirroring_guid IS NOT NULL;
