//! `sync_logs` and `error_logs`: writing what happened.
//!
//! An event whose mapping was deleted meanwhile is left out by the statement itself and counted, so
//! that it never takes its batch along. The same error of the same mapping, as long as it is
//! unresolved, is one row whose `retry_count` climbs: an error that comes back every tick for a
//! night must be readable in the morning.

use super::{Control, ErrorCode};
use crate::{
    error::{Context, Error, Kind, Result},
    model::id::MappingId,
    mssql::client::{row::Param, session::Session},
};
use std::sync::atomic::Ordering;

/// A row of `sync_logs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub mapping: Option<i32>,
    /// `INFO`, `WARNING`, `ERROR`
    pub level: &'static str,
    pub message: String,
    pub sync_type: Option<String>,
    pub records: Option<i64>,
    pub execution_time_ms: Option<i32>,
    /// How long ago it happened: the row gets the server's clock less this.
    pub age_ms: i32,
}

/// A row of `error_logs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorEntry {
    pub mapping: Option<i32>,
    pub server: Option<i32>,
    /// `CONNECTION`, `SYNC`, `SCHEMA`, `VERIFICATION`, `OTHER`
    pub error_type: String,
    pub code: String,
    /// The one database of the server that it is about.
    pub source_database: Option<String>,
    pub message: String,
    pub details: Option<String>,
    pub retry_count: i32,
    /// Its mapping is parked.
    pub parked: bool,
}

/// What became of some rows for sync_logs.
#[derive(Debug, Default)]
pub struct InsertOutcome {
    /// Rows from the front that are done with.
    pub done: usize,
    /// How many of them were left out because their mapping is gone.
    pub orphans: usize,
    /// Why it went no further.
    pub error: Option<Error>,
}

impl InsertOutcome {
    fn count(&mut self, rows: usize, written: Vec<u64>) {
        let written = usize::try_from(written.into_iter().sum::<u64>()).unwrap_or(usize::MAX);
        self.done += rows;
        self.orphans += rows.saturating_sub(written);
    }
}

/// Rows per statement: few texts, so that the server's plan cache holds few plans.
const SHAPES: [usize; 3] = [64, 8, 1];

/// The statement for `count` rows, seven parameters each.
fn insert_logs(count: usize) -> String {
    let mut sql = String::from(
        "INSERT INTO dbo.sync_logs (mapping_id, log_level, log_message, sync_type, records_count, execution_time_ms, created_at)\n\
         SELECT v.mapping_id, v.log_level, v.log_message, v.sync_type, v.records_count, v.execution_time_ms, \
         DATEADD(MILLISECOND, -v.age_ms, GETUTCDATE())\nFROM (VALUES\n",
    );
    for row in 0..count {
        let p = row * 7;
        if row > 0 {
            sql.push_str(",\n");
        }
        sql.push_str(&format!(
            "    ({row}, @P{}, @P{}, @P{}, @P{}, @P{}, @P{}, @P{})",
            p + 1,
            p + 2,
            p + 3,
            p + 4,
            p + 5,
            p + 6,
            p + 7
        ));
    }
    sql.push_str(
        "\n) AS v (n, mapping_id, log_level, log_message, sync_type, records_count, execution_time_ms, age_ms)\n\
         WHERE v.mapping_id IS NULL OR EXISTS (SELECT 1 FROM dbo.table_mappings AS m WHERE m.mapping_id = v.mapping_id)\n\
         ORDER BY v.n;",
    );
    sql
}

fn log_params(entries: &[LogEntry]) -> Vec<Param<'_>> {
    entries
        .iter()
        .flat_map(|entry| {
            [
                Param::OptInt(entry.mapping),
                Param::Text(entry.level),
                Param::Text(&entry.message),
                Param::OptText(entry.sync_type.as_deref()),
                Param::OptBigInt(entry.records),
                Param::OptInt(entry.execution_time_ms),
                Param::Int(entry.age_ms),
            ]
        })
        .collect()
}

impl Control {
    /// Writes rows to sync_logs, in order, as far as it goes: each statement commits by itself, so
    /// what is done stays done.
    pub async fn log(&self, entries: &[LogEntry]) -> InsertOutcome {
        let mut logged = InsertOutcome::default();
        if let Err(error) = self.log_until(entries, &mut logged).await {
            logged.error = Some(error.context("write sync_logs"));
        }
        logged
    }

    async fn log_until(&self, entries: &[LogEntry], logged: &mut InsertOutcome) -> Result<()> {
        let mut session = self.session().await?;
        let mut rest = entries;
        while !rest.is_empty() {
            let size = SHAPES.into_iter().find(|size| *size <= rest.len()).unwrap_or(1);
            let (now, later) = rest.split_at(size);
            rest = later;
            match session.execute(&insert_logs(now.len()), &log_params(now)).await {
                Ok(counts) => logged.count(now.len(), counts),
                // A mapping went away between the look and the insert: the others still count.
                Err(error) if error.kind == Kind::ForeignKey => {
                    session.recover().await?;
                    for entry in now {
                        match session
                            .execute(&insert_logs(1), &log_params(std::slice::from_ref(entry)))
                            .await
                        {
                            Ok(counts) => logged.count(1, counts),
                            Err(error) if error.kind == Kind::ForeignKey => {
                                session.recover().await?;
                                logged.count(1, Vec::new());
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes one row to error_logs, or counts one up. Returns whether it was left out because its
    /// mapping is gone.
    pub async fn fail(&self, failure: &ErrorEntry) -> Result<bool> {
        let mut session = self.session().await?;
        let params = [
            Param::OptInt(failure.mapping),
            Param::OptInt(failure.server),
            Param::Text(&failure.error_type),
            Param::Text(&failure.message),
            Param::OptText(failure.details.as_deref()),
            Param::Int(failure.retry_count),
            Param::Text(&failure.code),
            Param::OptText(failure.source_database.as_deref()),
        ];
        let coded = session.execute(include_str!("../../sql/control/error_log.sql"), &params).await;
        let result = match coded {
            Err(error) if error.kind == Kind::Missing => {
                self.skip_without_codes(&mut session).await?;
                let (params, _) = params.split_at(params.len() - 2);
                session
                    .execute(include_str!("../../sql/control/error_log_without_code.sql"), params)
                    .await
            }
            result => result,
        };
        match result {
            Ok(counts) => Ok(counts.into_iter().sum::<u64>() == 0),
            Err(error) if error.kind == Kind::ForeignKey => {
                session.recover().await?;
                Ok(true)
            }
            Err(error) => Err(error).context("write error_logs"),
        }
    }

    /// Marks unresolved errors with this code resolved: of a mapping, or of the daemon itself.
    pub async fn resolve_code(&self, mapping: Option<MappingId>, code: ErrorCode) -> Result<()> {
        let params = [Param::OptInt(mapping.map(|id| id.0)), Param::Text(code.as_str())];
        self.execute_with_codes(include_str!("../../sql/control/resolve_code.sql"), &params).await
    }

    /// Marks errors resolved that nobody will ever see repaired: of mappings and servers that are
    /// deleted or disabled, and of servers that no mapping uses any more.
    pub async fn resolve_abandoned(&self) -> Result<()> {
        let params = [
            ErrorCode::ServerUnreachable,
            ErrorCode::SourceDatabaseUnavailable,
            ErrorCode::ServerRowUnusable,
        ]
        .map(|code| Param::Text(code.as_str()));
        self.execute_with_codes(include_str!("../../sql/control/resolve_abandoned.sql"), &params)
            .await
    }

    /// Gives open errors of versions that wrote no codes theirs.
    pub async fn add_codes_to_older_errors(&self) -> Result<()> {
        let statement = include_str!("../../sql/control/error_code_of_older_rows.sql");
        self.execute_with_codes(statement, &[]).await
    }

    /// A statement that looks for codes: left out where `init` has not added them. What it would
    /// have resolved stays open until then.
    async fn execute_with_codes(&self, statement: &str, params: &[Param<'_>]) -> Result<()> {
        let mut session = self.session().await?;
        match session.execute(statement, params).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::Missing => {
                self.skip_without_codes(&mut session).await
            }
            Err(error) => Err(error).context("write error_logs"),
        }
    }

    async fn skip_without_codes(&self, session: &mut Session) -> Result<()> {
        if !self.no_codes_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!("{NO_CODES}");
        }
        session.recover().await
    }
}

/// Logged once by each process.
const NO_CODES: &str = "error_logs has no column error_code: errors of servers and of verifications \
    stay open there. Run `dbaops-dataflow init`, then restart the daemons";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_for_two_rows() {
        let sql = insert_logs(2);
        assert!(sql.contains("(0, @P1, @P2, @P3, @P4, @P5, @P6, @P7),\n    (1, @P8, @P9, @P10, @P11, @P12, @P13, @P14)"), "{sql}");
    }

    #[test]
    fn the_largest_statement_stays_below_the_parameter_limit() {
        let largest = SHAPES.iter().max().copied().unwrap_or_default();
        assert!(largest * 7 < 2100, "Msg 8003");
        assert!(SHAPES.contains(&1));
    }
}
