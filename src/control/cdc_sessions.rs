//! CDC in `sync_status`: one row for each session of a mapping, whose counts grow.
//!
//! A session begins with a mapping's first pass and ends with an error, after an hour, with another
//! owner, or with the process ([`crate::plan::cdc_session`]). A pass that only adds to the counts
//! sends no statement of its own: the rows of all mappings are brought up to date together, by
//! [`Control::save_cdc_sessions`], which the writer of the log tables calls every few seconds. So a
//! process that is killed leaves rows whose counts are right for a moment a few seconds earlier.
//!
//! Two writes of one row can reach the server in either order. Each change of a session has a
//! number; when a write has been done and the number has moved on meanwhile, the row is written
//! again.

use super::{
    Control,
    runs::{RunOutcome, RunStatus},
};
use crate::{
    control::Generation,
    error::{Context, Result},
    model::{
        id::{MappingId, StatusId},
        mapping::SyncType,
    },
    mssql::client::row::Param,
    plan::cdc_session::{self, RowStatus, SHOW_RUNNING_AFTER},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Bytes that one row takes in the statement's parameter.
const ENTRY_BYTES: usize = 20;
/// Rows of one statement: what fits into `varbinary(8000)`.
const ENTRIES_MAX: usize = 8000 / ENTRY_BYTES;

/// The row of a mapping.
#[derive(Clone, Debug)]
struct CdcSession {
    row: StatusId,
    generation: Generation,
    /// The mapping left this daemon: its next pass has a new row.
    closed: bool,
    began: Instant,
    /// Of all passes that ended.
    outcome: RunOutcome,
    /// Since when a pass runs.
    pass_since: Option<Instant>,
    last_end: Instant,
    /// The status in the table.
    shown: RowStatus,
    /// The table has older counts.
    unsaved: bool,
    /// Grows with each change.
    version: u64,
}

/// The open sessions of this process.
#[derive(Clone, Debug, Default)]
pub(super) struct CdcSessions(Arc<Mutex<HashMap<MappingId, CdcSession>>>);

/// What a statement is to write.
struct Entry {
    mapping: MappingId,
    version: u64,
    row: StatusId,
    records: i64,
    /// -1: a pass runs
    age_ms: i32,
}

impl CdcSessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<MappingId, CdcSession>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row that a pass is counted in, where one goes on; otherwise what is left to write of the
    /// one that ends here.
    fn resume(
        &self,
        mapping: MappingId,
        generation: Generation,
    ) -> std::result::Result<StatusId, Option<(StatusId, RunOutcome)>> {
        let mut sessions = self.lock();
        let Some(session) = sessions.get_mut(&mapping) else { return Err(None) };
        let same_owner = session.generation == generation && !session.closed;
        if cdc_session::continues(session.began.elapsed(), same_owner) {
            session.pass_since = Some(Instant::now());
            session.version += 1;
            return Ok(session.row);
        }
        let ended = sessions.remove(&mapping).filter(|session| session.unsaved);
        Err(ended.map(|session| (session.row, session.outcome)))
    }

    fn begin(&self, mapping: MappingId, row: StatusId, generation: Generation) {
        let now = Instant::now();
        let session = CdcSession {
            row,
            generation,
            closed: false,
            began: now,
            outcome: RunOutcome::completed(0),
            pass_since: Some(now),
            last_end: now,
            shown: RowStatus::Running,
            unsaved: false,
            version: 0,
        };
        self.lock().insert(mapping, session);
    }

    /// Adds a pass to its session; an error ends that. Returns what is to be written at once.
    fn end_pass(&self, mapping: MappingId, row: StatusId, pass: RunOutcome) -> Option<RunOutcome> {
        let mut sessions = self.lock();
        let Some(session) = sessions.get_mut(&mapping).filter(|session| session.row == row) else {
            return Some(pass);
        };
        let before = session.outcome.records_processed;
        session.outcome = pass;
        session.outcome.records_processed =
            before.saturating_add(session.outcome.records_processed);
        session.pass_since = None;
        session.last_end = Instant::now();
        session.version += 1;
        session.unsaved = true;
        let end = session.outcome.status.in_row();
        let at_once = cdc_session::writes_end_at_once(session.shown, end);
        let outcome = session.outcome.clone();
        if outcome.status == RunStatus::Error {
            sessions.remove(&mapping);
        }
        at_once.then_some(outcome)
    }

    /// The table has had what `outcome` says of this row.
    fn written(&self, mapping: MappingId, row: StatusId, outcome: &RunOutcome) {
        if let Some(session) = self.lock().get_mut(&mapping)
            && session.row == row
        {
            session.shown = outcome.status.in_row();
            session.unsaved = session.outcome != *outcome;
        }
    }

    /// What the table does not say yet. Sessions that are over and written are forgotten.
    fn entries(&self) -> Vec<Entry> {
        let mut sessions = self.lock();
        sessions.retain(|_, session| {
            session.unsaved
                || session.pass_since.is_some()
                || cdc_session::continues(session.began.elapsed(), !session.closed)
        });
        let mut entries = Vec::new();
        for (mapping, session) in sessions.iter_mut() {
            let long =
                session.pass_since.is_some_and(|since| since.elapsed() >= SHOW_RUNNING_AFTER);
            let running = long && session.shown != RowStatus::Running;
            // an end with a text is written by its pass, and again by the next one
            let completed = session.outcome.status == RunStatus::Completed
                && session.unsaved
                && session.shown != RowStatus::Running;
            if !running && !completed {
                continue;
            }
            session.unsaved = false;
            session.shown = if running { RowStatus::Running } else { RowStatus::Completed };
            let age = i32::try_from(session.last_end.elapsed().as_millis()).unwrap_or(i32::MAX);
            entries.push(Entry {
                mapping: *mapping,
                version: session.version,
                row: session.row,
                records: session.outcome.records_processed,
                age_ms: if running { -1 } else { age },
            });
        }
        entries
    }

    /// These were written, or could not be: what has changed meanwhile is written again.
    fn saved(&self, entries: &[Entry], done: bool) {
        let mut sessions = self.lock();
        for entry in entries {
            if let Some(session) = sessions.get_mut(&entry.mapping)
                && session.row == entry.row
                && (!done || session.version != entry.version)
            {
                session.unsaved = true;
            }
        }
    }
}

fn packed(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        bytes.extend(entry.row.0.to_be_bytes());
        bytes.extend(entry.records.to_be_bytes());
        bytes.extend(entry.age_ms.to_be_bytes());
    }
    bytes
}

impl Control {
    /// A pass of `mapping` begins: the row that it is counted in. Only the first pass of a session
    /// sends a statement.
    pub async fn start_cdc(&self, mapping: MappingId, generation: Generation) -> Result<StatusId> {
        let ended = match self.cdc_sessions.resume(mapping, generation) {
            Ok(row) => return Ok(row),
            Err(ended) => ended,
        };
        if let Some((row, outcome)) = ended {
            self.write_end_or_later(row, outcome).await;
        }
        let row = self.insert_run(mapping, SyncType::Cdc).await?;
        self.cdc_sessions.begin(mapping, row, generation);
        Ok(row)
    }

    /// A pass that began with [`Control::start_cdc`] ends.
    pub async fn finish_cdc(&self, mapping: MappingId, row: StatusId, pass: RunOutcome) {
        self.metrics.ran(mapping, SyncType::Cdc, pass.status.as_str(), pass.records_processed);
        let Some(outcome) = self.cdc_sessions.end_pass(mapping, row, pass) else { return };
        if self.write_end_or_later(row, outcome.clone()).await {
            self.cdc_sessions.written(mapping, row, &outcome);
        }
    }

    /// Sessions of mappings that are not this daemon's any more end.
    pub fn retain_cdc_sessions(&self, is_ours: impl Fn(&MappingId) -> bool) {
        for (mapping, session) in self.cdc_sessions.lock().iter_mut() {
            session.closed |= !is_ours(mapping);
        }
    }

    /// Brings the rows of all open sessions up to date.
    pub async fn save_cdc_sessions(&self) -> Result<()> {
        let entries = self.cdc_sessions.entries();
        for some in entries.chunks(ENTRIES_MAX) {
            let written = self.save_entries(some).await;
            self.cdc_sessions.saved(some, written.is_ok());
            written?;
        }
        Ok(())
    }

    async fn save_entries(&self, entries: &[Entry]) -> Result<()> {
        self.session()
            .await?
            .execute(
                include_str!("../../sql/control/save_cdc_sessions.sql"),
                &[Param::Binary(&packed(entries))],
            )
            .await
            .context("write sync_status")
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING: MappingId = MappingId(7);
    const ROW: StatusId = StatusId(70);

    fn started() -> CdcSessions {
        let sessions = CdcSessions::default();
        sessions.begin(MAPPING, ROW, 1);
        sessions
    }

    fn pass(sessions: &CdcSessions, changes: i64) -> Option<RunOutcome> {
        assert_eq!(sessions.resume(MAPPING, 1), Ok(ROW));
        sessions.end_pass(MAPPING, ROW, RunOutcome::completed(changes))
    }

    #[test]
    fn the_first_end_is_written_at_once_and_later_ones_together() {
        let sessions = started();
        let first = sessions.end_pass(MAPPING, ROW, RunOutcome::completed(3)).unwrap();
        assert_eq!(first.records_processed, 3);
        sessions.written(MAPPING, ROW, &first);
        assert!(sessions.entries().is_empty());
        assert_eq!((pass(&sessions, 4), pass(&sessions, 5)), (None, None));
        let entries = sessions.entries();
        assert_eq!((entries.len(), entries[0].records, entries[0].row), (1, 12, ROW));
        assert_eq!(packed(&entries).len(), ENTRY_BYTES);
        sessions.saved(&entries, true);
        assert!(sessions.entries().is_empty());
    }

    #[test]
    fn what_was_not_written_or_has_changed_meanwhile_is_written_again() {
        let sessions = started();
        let first = sessions.end_pass(MAPPING, ROW, RunOutcome::completed(0)).unwrap();
        sessions.written(MAPPING, ROW, &first);
        pass(&sessions, 1);
        let entries = sessions.entries();
        sessions.saved(&entries, false);
        let entries = sessions.entries();
        assert_eq!(entries.len(), 1, "it was not written");
        assert_eq!(sessions.resume(MAPPING, 1), Ok(ROW));
        sessions.saved(&entries, true);
        assert_eq!(sessions.entries().len(), 1, "it has changed");
    }

    #[test]
    fn an_error_another_owner_and_nothing_else_ends_a_session() {
        let sessions = started();
        let paused = sessions.end_pass(MAPPING, ROW, RunOutcome::paused(2)).unwrap();
        sessions.written(MAPPING, ROW, &paused);
        assert_eq!(pass(&sessions, 1).unwrap().records_processed, 3, "it shows PAUSED");
        let error = sessions.end_pass(MAPPING, ROW, RunOutcome::failed(1, 1, "no")).unwrap();
        assert_eq!((error.records_processed, error.status), (4, RunStatus::Error));
        assert_eq!(sessions.resume(MAPPING, 1), Err(None));
        sessions.begin(MAPPING, StatusId(71), 1);
        let first = sessions.end_pass(MAPPING, StatusId(71), RunOutcome::completed(1)).unwrap();
        sessions.written(MAPPING, StatusId(71), &first);
        assert_eq!(sessions.resume(MAPPING, 1), Ok(StatusId(71)));
        assert_eq!(sessions.end_pass(MAPPING, StatusId(71), RunOutcome::completed(1)), None);
        let left = sessions.resume(MAPPING, 2).unwrap_err().unwrap();
        assert_eq!((left.0, left.1.records_processed), (StatusId(71), 2));
    }
}
