//! What a verification leaves behind: a row in verification_logs, an event, and what becomes of
//! earlier errors of its kind.

use crate::{
    control::{ErrorCode, VerificationRow},
    error::Result,
    jobs::Env,
    model::{
        id::MappingId,
        mapping::{Mapping, SyncType},
    },
    plan::{
        digest::Hash,
        log_budget::VerificationForm,
        verify::{Status, Tally, details},
    },
};
use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    hash::Hasher,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tracing::{error, info, warn};

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationReport {
    pub kind: &'static str,
    pub status: Status,
    pub compared: usize,
    /// Differences: of a FAILED run those that are certain, of others those that are not confirmed.
    pub mismatches: u64,
    /// How many of `mismatches` could not be decided, or are right as the mapping does not follow.
    pub unconfirmed: u64,
    pub details: String,
    /// Rows that were repaired.
    pub repaired: u64,
}

impl VerificationReport {
    /// `3000 compared, 5 mismatches (2 not confirmed)`
    pub fn counts(&self) -> String {
        let unconfirmed = match self.unconfirmed {
            0 => String::new(),
            unconfirmed => format!(" ({unconfirmed} not confirmed)"),
        };
        format!("{} compared, {} mismatches{unconfirmed}", self.compared, self.mismatches)
    }
}

/// What an error says of a failure: words that are the same as long as the finding is, and what
/// makes it up.
#[derive(Clone, Debug, Default)]
pub(super) struct ReportedFinding {
    pub message: String,
    /// A number for each thing that is wrong.
    pub parts: HashSet<u64>,
}

impl ReportedFinding {
    pub fn of_message(message: String) -> Self {
        let parts = HashSet::from([fingerprint(&message)]);
        ReportedFinding { message, parts }
    }

    pub fn of_rows(found: &Tally) -> Self {
        let parts = found
            .kept()
            .iter()
            .map(|(key, (difference, _))| fingerprint(&(difference, key)))
            .collect();
        ReportedFinding { message: details(found).replace('\n', "; "), parts }
    }
}

fn fingerprint(of: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// What each side had.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sides {
    pub md5: (Option<Hash>, Option<Hash>),
    pub rows: (Option<i64>, Option<i64>),
}

pub(super) fn long(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// Writes it all down.
pub(super) async fn write(
    env: &Env,
    mapping: &Mapping,
    report: &VerificationReport,
    finding: ReportedFinding,
    sides: &Sides,
    took: Duration,
) -> Result<()> {
    let VerificationReport { kind, status, compared, mismatches, details, .. } = report;
    env.metrics.verified(mapping.id, kind, status.as_str());
    let found_nothing = *status != Status::Failed && *mismatches == 0;
    let records_count = long(*compared);
    let form =
        env.activity.verification(mapping.id, kind, status.as_str(), found_nothing, records_count);
    if form != VerificationForm::Sum {
        env.control.verification(&row(mapping, report, sides)).await?;
    }
    let took = i32::try_from(took.as_millis()).unwrap_or(i32::MAX);
    let (id, server, sync_type) = (
        mapping.id.0,
        mapping.server.0,
        if *kind == super::SCHEMA { SyncType::SchemaCheck } else { SyncType::Verification }
            .as_str(),
    );
    let summary = format!("{kind} of {}: {}, {}", mapping.source, status.as_str(), report.counts());
    let code = code_of(kind);
    let ReportedFinding { message, parts } = finding;
    let is_new = *status == Status::Failed && env.findings.is_new((mapping.id, kind), parts);
    match status {
        _ if form != VerificationForm::RowAndLine => tracing::debug!(mapping_id = id, "{summary}"),
        // rows that change while they are compared are no finding
        Status::Passed | Status::Partial => info!(
            mapping_id = id,
            server_id = server,
            sync_type,
            records_count,
            execution_time_ms = took,
            "{summary}"
        ),
        // the same finding is the same message, so that after a restart too it is one row of
        // error_logs
        Status::Failed if is_new => error!(
            mapping_id = id,
            server_id = server,
            sync_type,
            records_count,
            execution_time_ms = took,
            error_type = "VERIFICATION",
            error_code = code.as_str(),
            error_details = %details,
            "{kind} of {}: FAILED: {message}",
            mapping.source
        ),
        Status::Failed => warn!(
            mapping_id = id,
            server_id = server,
            sync_type,
            records_count,
            execution_time_ms = took,
            "{summary}"
        ),
    }
    if *status == Status::Passed {
        env.findings.forget((mapping.id, kind));
        env.control.resolve_code(Some(mapping.id), code).await?;
    }
    Ok(())
}

fn row(mapping: &Mapping, report: &VerificationReport, sides: &Sides) -> VerificationRow {
    VerificationRow {
        mapping: mapping.id,
        kind: report.kind,
        source_md5: sides.md5.0.map(|hash| hash.to_string()),
        dest_md5: sides.md5.1.map(|hash| hash.to_string()),
        source_rows: sides.rows.0,
        dest_rows: sides.rows.1,
        compared: long(report.compared),
        mismatches: i64::try_from(report.mismatches).unwrap_or(i64::MAX),
        status: report.status.as_str(),
        details: Some(report.details.clone()).filter(|text| !text.is_empty()),
    }
}

/// Of what a verification of this kind finds.
fn code_of(kind: &str) -> ErrorCode {
    match kind {
        super::SCHEMA => ErrorCode::ColumnsDiffer,
        super::ROW_COUNT => ErrorCode::RowCountDiffers,
        _ => ErrorCode::RowsDiffer,
    }
}

/// What was reported of each mapping since it last passed, so that the same finding is not an error
/// every five minutes.
#[derive(Clone, Debug, Default)]
pub struct KnownFindings(Arc<Mutex<Reported>>);

/// By mapping and kind of verification.
type Reported = HashMap<(MappingId, &'static str), HashSet<u64>>;

impl KnownFindings {
    /// Whether anything among `parts` was not reported yet. From now on it was.
    fn is_new(&self, mapping: (MappingId, &'static str), parts: HashSet<u64>) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(mapping).or_default();
        let is_new = !parts.is_subset(known);
        // what went away would be news if it came back
        *known = parts;
        is_new
    }

    /// What of these mappings alone was reported; of others it would be news.
    pub fn retain(&self, is_ours: impl Fn(&MappingId) -> bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(mapping, _), _| is_ours(mapping));
    }

    fn forget(&self, mapping: (MappingId, &'static str)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&mapping);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_finding_is_news_once() {
        let findings = KnownFindings::default();
        let mapping = (MappingId(1), super::super::ROWS);
        let rows = |keys: &[u64]| keys.iter().copied().collect::<HashSet<_>>();
        assert!(findings.is_new(mapping, rows(&[7, 8])));
        assert!(!findings.is_new(mapping, rows(&[7, 8])));
        assert!(!findings.is_new(mapping, rows(&[8])), "one of them was mended");
        assert!(findings.is_new(mapping, rows(&[8, 9])));
        findings.forget(mapping);
        assert!(findings.is_new(mapping, rows(&[8])));
    }
}
