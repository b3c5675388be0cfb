//! `error_logs.error_code`: which error a row is, for whoever looks for it again.
//!
//! Errors are resolved, and told apart in `status`, by their code alone: a message may be reworded,
//! and no row that an earlier version left open is stranded. Rows of versions before there were
//! codes get one when a daemon starts (`sql/control/error_code_of_older_rows.sql`), by their texts: that
//! is the only place that knows texts.

use crate::error::Kind;

/// The codes are a contract with operators: one that was written stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A source server cannot be reached, or refuses the login.
    ServerUnreachable,
    /// One database of a source server cannot be polled.
    SourceDatabaseUnavailable,
    /// A row of `source_servers` that cannot be used.
    ServerRowUnusable,
    /// A row of `table_mappings` that cannot be used.
    MappingRowUnusable,
    ControlTablesUnreadable,
    LeaseLost,
    /// A poll, a CDC pass or a full sync of a mapping failed.
    MappingFailed,
    /// The same, because the destination table is not there.
    DestinationMissing,
    /// Changes between the checkpoint and what the source still has are lost.
    ChangesLost,
    TriggerUnreadable,
    TriggerNotReset,
    VerificationNotRun,
    RowsDiffer,
    RowCountDiffers,
    ColumnsDiffer,
    Other,
}

impl ErrorCode {
    /// Of a mapping's work that failed with this kind.
    pub fn of_failure(kind: Kind) -> Self {
        match kind {
            Kind::DestMissing => ErrorCode::DestinationMissing,
            _ => ErrorCode::MappingFailed,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::ServerUnreachable => "SERVER_UNREACHABLE",
            ErrorCode::SourceDatabaseUnavailable => "SOURCE_DATABASE_UNAVAILABLE",
            ErrorCode::ServerRowUnusable => "SERVER_ROW_UNUSABLE",
            ErrorCode::MappingRowUnusable => "MAPPING_ROW_UNUSABLE",
            ErrorCode::ControlTablesUnreadable => "CONTROL_TABLES_UNREADABLE",
            ErrorCode::LeaseLost => "LEASE_LOST",
            ErrorCode::MappingFailed => "MAPPING_FAILED",
            ErrorCode::DestinationMissing => "DESTINATION_MISSING",
            ErrorCode::ChangesLost => "CHANGES_LOST",
            ErrorCode::TriggerUnreadable => "TRIGGER_UNREADABLE",
            ErrorCode::TriggerNotReset => "TRIGGER_NOT_RESET",
            ErrorCode::VerificationNotRun => "VERIFICATION_NOT_RUN",
            ErrorCode::RowsDiffer => "ROWS_DIFFER",
            ErrorCode::RowCountDiffers => "ROW_COUNT_DIFFERS",
            ErrorCode::ColumnsDiffer => "COLUMNS_DIFFER",
            ErrorCode::Other => "OTHER",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ErrorCode; 16] = [
        ErrorCode::ServerUnreachable,
        ErrorCode::SourceDatabaseUnavailable,
        ErrorCode::ServerRowUnusable,
        ErrorCode::MappingRowUnusable,
        ErrorCode::ControlTablesUnreadable,
        ErrorCode::LeaseLost,
        ErrorCode::MappingFailed,
        ErrorCode::DestinationMissing,
        ErrorCode::ChangesLost,
        ErrorCode::TriggerUnreadable,
        ErrorCode::TriggerNotReset,
        ErrorCode::VerificationNotRun,
        ErrorCode::RowsDiffer,
        ErrorCode::RowCountDiffers,
        ErrorCode::ColumnsDiffer,
        ErrorCode::Other,
    ];

    #[test]
    fn a_code_fits_its_column_and_is_documented() {
        let docs = include_str!("../../docs/control-database.md");
        for code in ALL.map(ErrorCode::as_str) {
            assert!(code.len() <= 50, "{code}");
            assert!(
                docs.contains(&format!("`{code}`")),
                "{code} is not in docs/control-database.md"
            );
        }
    }

    /// The statement for older rows has the codes as literals.
    #[test]
    fn older_rows_get_codes_that_there_are() {
        let sql = include_str!("../../sql/control/error_code_of_older_rows.sql");
        let given: Vec<&str> = sql
            .split(" THEN N'")
            .skip(1)
            .chain(sql.split("ELSE N'").skip(1))
            .filter_map(|rest| rest.split('\'').next())
            .collect();
        assert!(given.len() >= 10, "{given:?}");
        for code in given {
            assert!(ALL.iter().any(|known| known.as_str() == code), "{code}");
        }
    }
}
