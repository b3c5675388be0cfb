-- Open errors that a version without codes wrote get the code, and the database, that the same error has today. This is the only place where an
-- error is known by its text: these are the texts of those versions, and they do not change when today's messages do.
UPDATE e
SET error_code = CASE
        WHEN e.error_message LIKE N'the source server cannot be reached%' THEN N'SERVER_UNREACHABLE'
        WHEN e.error_message LIKE N'the source database cannot be polled%' THEN N'SOURCE_DATABASE_UNAVAILABLE'
        WHEN e.error_message LIKE N'the server cannot be used%' THEN N'SERVER_ROW_UNUSABLE'
        WHEN e.error_message LIKE N'the control tables cannot be read%' THEN N'CONTROL_TABLES_UNREADABLE'
        WHEN e.error_message LIKE N'no mapping is owned: the lease connection is lost%' THEN N'LEASE_LOST'
        WHEN e.error_message LIKE N'verification failed to run%' THEN N'VERIFICATION_NOT_RUN'
        WHEN e.error_message LIKE N'MD5[_]COMPARISON of %: FAILED%' THEN N'ROWS_DIFFER'
        WHEN e.error_message LIKE N'ROW[_]COUNT of %: FAILED%' THEN N'ROW_COUNT_DIFFERS'
        WHEN e.error_message LIKE N'SCHEMA of %: FAILED%' THEN N'COLUMNS_DIFFER'
        ELSE N'OTHER'
    END,
    source_database = CASE WHEN e.error_message LIKE N'the source database cannot be polled%' THEN (
        SELECT TOP (1) m.source_database
        FROM dbo.table_mappings AS m
        WHERE m.server_id = e.server_id AND RIGHT(e.error_message, LEN(m.source_database) + 10) = N' database=' + m.source_database
        ORDER BY LEN(m.source_database) DESC
    ) END
FROM dbo.error_logs AS e
WHERE e.is_resolved = 0 AND e.error_code IS NULL;
