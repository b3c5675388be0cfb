INSERT INTO dbo.verification_logs
    (mapping_id, verification_type, source_md5, dest_md5, source_row_count, dest_row_count,
     records_compared, mismatches_found, verification_status, verification_details)
VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10);
