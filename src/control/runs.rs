//! `sync_status`, `verification_logs` and resolved errors: what a run leaves behind.
//!
//! **No row says RUNNING for longer than somebody runs.** An end that could not be written is kept
//! and written at the next look at the control tables; it does not make a failure of what
//! succeeded. A row whose number never arrived (the reply to its INSERT was lost) ends when the
//! mapping's next run begins, or when somebody takes the mapping over: a mapping never runs twice
//! at once.

use super::{
    Control,
    lease::{PACKED_MAX, packed},
};
use crate::{
    error::{Context, Result},
    model::{
        id::{MappingId, ServerId, StatusId},
        mapping::SyncType,
    },
    mssql::client::row::Param,
    plan::cdc_session::RowStatus,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Ends of runs that are kept to be written later; beyond, the oldest is forgotten, and its row
/// ends with the mapping's next run.
const LATE_MAX: usize = 1_000;

/// Ends that could not be written yet.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingCompletions(Arc<Mutex<VecDeque<(StatusId, RunOutcome)>>>);

impl PendingCompletions {
    fn push(&self, run: StatusId, outcome: RunOutcome) {
        let mut late = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if late.len() >= LATE_MAX {
            late.pop_front();
        }
        late.push_back((run, outcome));
    }

    fn pop(&self) -> Option<(StatusId, RunOutcome)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// `sync_status.status`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    Completed,
    Error,
    Paused,
}

impl RunStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            RunStatus::Completed => "COMPLETED",
            RunStatus::Error => "ERROR",
            RunStatus::Paused => "PAUSED",
        }
    }

    pub(super) fn in_row(self) -> RowStatus {
        match self {
            RunStatus::Completed => RowStatus::Completed,
            RunStatus::Error => RowStatus::Error,
            RunStatus::Paused => RowStatus::Paused,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    pub status: RunStatus,
    pub records_processed: i64,
    pub records_failed: i64,
    pub error: Option<String>,
}

impl RunOutcome {
    pub fn completed(records_processed: i64) -> Self {
        RunOutcome {
            status: RunStatus::Completed,
            records_processed,
            records_failed: 0,
            error: None,
        }
    }

    pub fn failed(records_processed: i64, records_failed: i64, error: impl Into<String>) -> Self {
        RunOutcome {
            status: RunStatus::Error,
            records_processed,
            records_failed,
            error: Some(error.into()),
        }
    }

    pub fn paused(records_processed: i64) -> Self {
        RunOutcome { status: RunStatus::Paused, records_processed, records_failed: 0, error: None }
    }
}

/// A row of `verification_logs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationRow {
    pub mapping: MappingId,
    /// `MD5_COMPARISON`, `ROW_COUNT`, `SCHEMA`
    pub kind: &'static str,
    pub source_md5: Option<String>,
    pub dest_md5: Option<String>,
    pub source_rows: Option<i64>,
    pub dest_rows: Option<i64>,
    pub compared: i64,
    pub mismatches: i64,
    /// `PASSED`, `FAILED`, `PARTIAL`
    pub status: &'static str,
    pub details: Option<String>,
}

impl Control {
    /// A RUNNING row of a full sync.
    pub async fn start_run(&self, mapping: MappingId, sync_type: SyncType) -> Result<StatusId> {
        let run = self.insert_run(mapping, sync_type).await?;
        self.metrics.run_started(mapping, run, sync_type);
        Ok(run)
    }

    /// A RUNNING row. Older ones of this mapping are of runs whose number never arrived.
    pub(super) async fn insert_run(
        &self,
        mapping: MappingId,
        sync_type: SyncType,
    ) -> Result<StatusId> {
        let row = self
            .session()
            .await?
            .row(
                include_str!("../../sql/control/start_run.sql"),
                &[Param::Int(mapping.0), Param::Text(sync_type.as_str())],
            )
            .await
            .context("write sync_status")?;
        self.activity.charge(1);
        Ok(StatusId(row.i64(0)?))
    }

    /// Moves `records_processed` and `last_processed_pk` of a RUNNING row.
    pub async fn progress(
        &self,
        run: StatusId,
        records_processed: i64,
        last_pk: Option<&str>,
    ) -> Result<()> {
        self.session()
            .await?
            .execute(
                include_str!("../../sql/control/progress.sql"),
                &[Param::BigInt(run.0), Param::BigInt(records_processed), Param::OptText(last_pk)],
            )
            .await
            .context("write sync_status")
            .map(drop)
    }

    /// Ends a RUNNING row, now or, where that fails, at a later [`Control::write_pending_completions`].
    pub async fn finish_run(&self, run: StatusId, outcome: RunOutcome) {
        self.metrics.run_finished(run, outcome.status.as_str(), outcome.records_processed);
        self.write_end_or_later(run, outcome).await;
    }

    /// Whether it could be written now.
    pub(super) async fn write_end_or_later(&self, run: StatusId, outcome: RunOutcome) -> bool {
        let written = self.write_end(run, &outcome).await;
        if let Err(error) = &written {
            tracing::warn!(%error, status_id = run.0, "sync_status cannot be written: how a run ended is written later");
            self.pending_completions.push(run, outcome);
        }
        written.is_ok()
    }

    /// Writes the ends of runs that could not be written when they came, and the counts of CDC
    /// sessions.
    pub async fn write_pending_completions(&self) {
        while let Some((run, outcome)) = self.pending_completions.pop() {
            if let Err(error) = self.write_end(run, &outcome).await {
                tracing::debug!(%error, status_id = run.0, "the end of a run is still not in sync_status");
                return self.pending_completions.push(run, outcome);
            }
        }
        if let Err(error) = self.save_cdc_sessions().await {
            tracing::debug!(%error, "the counts of CDC are not in sync_status yet");
        }
    }

    async fn write_end(&self, run: StatusId, outcome: &RunOutcome) -> Result<()> {
        self.session()
            .await?
            .execute(
                include_str!("../../sql/control/finish_run.sql"),
                &[
                    Param::BigInt(run.0),
                    Param::Text(outcome.status.as_str()),
                    Param::BigInt(outcome.records_processed),
                    Param::BigInt(outcome.records_failed),
                    Param::OptText(outcome.error.as_deref()),
                ],
            )
            .await
            .context("write sync_status")
            .map(drop)
    }

    /// These mappings' CDC is fine: where the newest CDC run ended ERROR, a COMPLETED row with 0
    /// rows clears it.
    pub async fn settle_cdc(&self, mappings: &[MappingId]) -> Result<()> {
        for mappings in mappings.chunks(PACKED_MAX) {
            self.session()
                .await?
                .execute(
                    include_str!("../../sql/control/settle_cdc.sql"),
                    &[Param::Binary(&packed(mappings))],
                )
                .await
                .context("write sync_status")?;
        }
        Ok(())
    }

    /// One row of verification_logs.
    pub async fn verification(&self, result: &VerificationRow) -> Result<()> {
        self.activity.charge(1);
        self.session()
            .await?
            .execute(
                include_str!("../../sql/control/verification.sql"),
                &[
                    Param::Int(result.mapping.0),
                    Param::Text(result.kind),
                    Param::OptText(result.source_md5.as_deref()),
                    Param::OptText(result.dest_md5.as_deref()),
                    Param::OptBigInt(result.source_rows),
                    Param::OptBigInt(result.dest_rows),
                    Param::BigInt(result.compared),
                    Param::BigInt(result.mismatches),
                    Param::Text(result.status),
                    Param::OptText(result.details.as_deref()),
                ],
            )
            .await
            .context("write verification_logs")
            .map(drop)
    }

    /// Marks unresolved errors of mappings resolved, all but VERIFICATION.
    pub async fn resolve_errors(&self, mappings: &[MappingId]) -> Result<()> {
        let mut mappings = mappings.to_vec();
        mappings.sort_unstable();
        mappings.dedup();
        for mappings in mappings.chunks(PACKED_MAX) {
            self.session()
                .await?
                .execute(
                    include_str!("../../sql/control/resolve_errors.sql"),
                    &[Param::Binary(&packed(mappings))],
                )
                .await
                .context("resolve errors")?;
        }
        Ok(())
    }

    /// Marks a server's own unresolved errors resolved.
    pub async fn resolve_server_errors(&self, server: ServerId) -> Result<u64> {
        let counts = self
            .session()
            .await?
            .execute(
                include_str!("../../sql/control/resolve_server_errors.sql"),
                &[Param::Int(server.0)],
            )
            .await
            .context("resolve errors")?;
        Ok(counts.into_iter().sum())
    }

    /// Deletes what is older than `age` from the log tables, a small batch of each; unresolved
    /// errors stay. Returns how many rows went: as long as there are some, there may be more.
    pub async fn purge_logs(&self, age: Duration) -> Result<u64> {
        let seconds = i32::try_from(age.as_secs()).unwrap_or(i32::MAX);
        let counts = self
            .session()
            .await?
            .execute(include_str!("../../sql/cdc/retention.sql"), &[Param::Int(seconds)])
            .await
            .context("delete old log rows")?;
        Ok(counts.into_iter().sum())
    }

    /// RUNNING rows of mappings that were just taken over become ERROR "interrupted"; how many
    /// there were.
    pub async fn interrupt_running(&self, mappings: &[MappingId]) -> Result<i32> {
        let mut session = self.session().await?;
        let mut interrupted = 0;
        for some in mappings.chunks(PACKED_MAX) {
            let params = [Param::Binary(&packed(some))];
            let row = session
                .row(include_str!("../../sql/control/interrupt_running.sql"), &params)
                .await
                .context("mark interrupted runs")?;
            interrupted += row.i32(0)?;
        }
        Ok(interrupted)
    }
}
