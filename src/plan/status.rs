//! In what state a mapping is, and what somebody has to do about it, from what the control tables
//! say of it.
//!
//! `v_mapping_status` (in `sql/schema-dataflow.sql`) decides the same in SQL, for those who have no
//! shell: the same states, in the same order, with the same advice. A unit test compares the words,
//! a scenario the decisions.

use crate::model::name::TableName;
use serde::Serialize;

/// A mapping is behind when the oldest commit that is not applied is older than this: more than a
/// poll, a long transaction or a short interruption explain.
pub const BEHIND_AFTER_S: i64 = 300;

/// Capture that has not moved for this long needs somebody: for an idle database, too, it writes an
/// entry about every five minutes.
pub const STALLED_AFTER_S: i64 = 900;

/// The states, worst first: `status` lists them in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No daemon of this control database runs.
    NoDaemon,
    /// Its source server, or source database, cannot be reached.
    Unreachable,
    DestinationMissing,
    /// Changes are lost at the source, and no full sync has begun since.
    ChangesLost,
    /// It failed, and is tried again only now and then: somebody has to mend what the error names.
    Parked,
    /// It failed, and is tried again by itself.
    Failing,
    /// The newest verification found that source and destination differ.
    VerificationFailed,
    /// No full sync was ever completed, and none is on its way.
    NeverSynced,
    /// Capture at the source does not move.
    Stalled,
    /// Applied changes are more than [`BEHIND_AFTER_S`] behind the source.
    Behind,
    /// A full sync runs.
    FullSync,
    /// A full sync was asked for.
    FullSyncDue,
    /// How far it is behind cannot be told yet.
    Waiting,
    /// CDC is off: its rows are those of the last full sync.
    Idle,
    Following,
    Disabled,
}

impl State {
    pub const ALL: [State; 16] = [
        State::NoDaemon,
        State::Unreachable,
        State::DestinationMissing,
        State::ChangesLost,
        State::Parked,
        State::Failing,
        State::VerificationFailed,
        State::NeverSynced,
        State::Stalled,
        State::Behind,
        State::FullSync,
        State::FullSyncDue,
        State::Waiting,
        State::Idle,
        State::Following,
        State::Disabled,
    ];

    /// The words are a contract with operators: they are in views, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            State::NoDaemon => "no daemon",
            State::Unreachable => "unreachable",
            State::DestinationMissing => "destination missing",
            State::ChangesLost => "changes lost",
            State::Parked => "parked",
            State::Failing => "failing",
            State::VerificationFailed => "verification failed",
            State::NeverSynced => "never synced",
            State::Stalled => "stalled",
            State::Behind => "behind",
            State::FullSync => "full sync",
            State::FullSyncDue => "full sync due",
            State::Waiting => "waiting",
            State::Idle => "idle",
            State::Following => "following",
            State::Disabled => "disabled",
        }
    }

    /// Nothing mends it but somebody who does something.
    pub fn needs_action(self) -> bool {
        self <= State::Stalled
    }

    /// One cause outside of the mapping stops it, and others with it: they are told together.
    pub fn is_outage(self) -> bool {
        matches!(self, State::NoDaemon | State::Unreachable)
    }
}

/// Whether a daemon works on the mappings of this control database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonPresence {
    Alive,
    /// No heartbeat is fresh; when the last one was, if there was one.
    Gone {
        last_beat: Option<String>,
    },
    /// `init` has not made the table of the heartbeats.
    Unknown,
}

/// What the control tables say of a mapping.
#[derive(Clone, Debug)]
pub struct StatusRow {
    pub mapping: i32,
    pub server_id: i32,
    pub server: String,
    pub source: TableName,
    pub dest: TableName,
    pub enabled: bool,
    pub server_enabled: bool,
    pub cdc_enabled: bool,
    pub full_sync_requested: bool,
    /// ISO 8601, UTC, like all times here
    pub full_sync_pending_at: Option<String>,
    pub last_full_sync_at: Option<String>,
    /// The destination has its rows from elsewhere: nothing has to be loaded before CDC.
    pub no_initial_sync: bool,
    pub created_at: Option<String>,
    pub last_cdc_lsn: Option<String>,
    pub lag_seconds: Option<i64>,
    /// Why there is no lag.
    pub lag_reason: Option<String>,
    /// Since when: the oldest commit that is not applied, or the last poll that could tell.
    pub lag_since: Option<String>,
    /// How long the lag could not be told.
    pub unknown_lag_seconds: Option<i64>,
    /// What is to be said of columns that are not captured.
    pub uncaptured: Option<String>,
    pub last_run: Option<NewestRun>,
    pub error: Option<OpenError>,
    /// The newest open error of its server.
    pub server_error: Option<ServerError>,
    pub verification: Option<NewestVerification>,
    /// What verification last found to differ, unless it passed or a full sync was completed since.
    pub finding: Option<Finding>,
    /// At the destination.
    pub rows: Option<i64>,
}

/// The newest row of sync_status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewestRun {
    pub sync_type: String,
    pub status: String,
    pub records: i64,
    pub started_at: Option<String>,
    pub completed_at: Option<String>,
}

/// The unresolved row of error_logs that matters most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenError {
    #[serde(rename = "type")]
    pub error_type: String,
    /// `None`: a control database without codes.
    pub code: Option<String>,
    pub message: String,
    pub at: Option<String>,
    /// Tried again every five minutes only, or when its row changes.
    pub parked: bool,
    /// What to do about it, where the error says so.
    #[serde(skip)]
    pub advice: Option<String>,
}

/// The newest open error of a source server, or of one of its databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    pub code: Option<String>,
    pub message: String,
    pub at: Option<String>,
    pub advice: Option<String>,
}

impl ServerError {
    /// Not of one of its databases alone.
    pub fn is_of_the_server(&self) -> bool {
        self.code.as_deref() != Some(SOURCE_DATABASE_UNAVAILABLE)
    }
}

/// The newest verification of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewestVerification {
    pub status: String,
    pub at: Option<String>,
}

/// A verification that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `MD5_COMPARISON`, `ROW_COUNT`, `SCHEMA`
    pub kind: String,
    pub mismatches: i64,
    pub at: Option<String>,
}

/// What `status` says of a mapping; `--json` prints these names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MappingReport {
    pub mapping: i32,
    pub server_id: i32,
    pub server: String,
    pub source: String,
    pub destination: String,
    #[serde(serialize_with = "state_word")]
    pub state: State,
    pub needs_action: bool,
    pub since: Option<String>,
    pub reason: Option<String>,
    pub what_to_do: Option<String>,
    pub rows: Option<i64>,
    pub lag_seconds: Option<i64>,
    pub last_cdc_lsn: Option<String>,
    pub last_full_sync_at: Option<String>,
    pub last_run: Option<NewestRun>,
    pub last_error: Option<OpenError>,
    pub last_verification: Option<NewestVerification>,
}

fn state_word<S: serde::Serializer>(state: &State, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(state.as_str())
}

/// What to do in a state, where no error says it better; `{mapping}` is the mapping_id.
fn advice(state: State) -> Option<&'static str> {
    Some(match state {
        State::NoDaemon => "start the service, or: dbaops-dataflow run",
        State::Unreachable => "read the server's message in v_recent_errors",
        State::ChangesLost => "dbaops-dataflow sync --mapping {mapping}",
        State::Failing => "read error_details in error_logs",
        State::VerificationFailed => "dbaops-dataflow verify --mapping {mapping} --full --repair",
        State::NeverSynced => {
            "dbaops-dataflow sync --mapping {mapping}; or, where the destination has the rows already: dbaops-dataflow start-from --mapping {mapping}, or UPDATE dbo.table_mappings SET initial_sync = 'NONE' WHERE mapping_id = {mapping}"
        }
        State::Stalled => {
            "look whether SQL Server Agent and the capture job run at the source: EXEC sys.sp_cdc_help_jobs; SELECT * FROM sys.dm_cdc_errors"
        }
        // in what_to_do
        State::DestinationMissing
        | State::Parked
        | State::Behind
        | State::FullSync
        | State::FullSyncDue
        | State::Waiting
        | State::Idle
        | State::Following
        | State::Disabled => return None,
    })
}

/// For columns that differ, which no repair of rows mends.
const COLUMNS_ADVICE: &str = "dbaops-dataflow check --mapping {mapping}";

/// For a missing destination table whose error does not say more.
const MISSING_ADVICE: &str = "create the destination table, or correct its name in table_mappings";

/// For a parked mapping whose error does not say more.
const PARKED_ADVICE: &str = "mend what the error names";

/// Behind what the error of a parked mapping advises.
const RETRY_ADVICE: &str = "; then: dbaops-dataflow retry --mapping {mapping}";

const NO_DAEMON: &str = "no daemon of this control database has a fresh heartbeat";
const SERVER_DISABLED: &str = "its server is disabled";
const NEVER_SYNCED: &str =
    "no full sync was completed: rows that have not changed since are missing at the destination";

/// Codes of errors that decide a state, as `control::ErrorCode` writes them.
const DESTINATION_MISSING: &str = "DESTINATION_MISSING";
const SOURCE_DATABASE_UNAVAILABLE: &str = "SOURCE_DATABASE_UNAVAILABLE";
const CHANGES_LOST: &str = "CHANGES_LOST";
const MAPPING_ROW_UNUSABLE: &str = "MAPPING_ROW_UNUSABLE";

/// The first state that is so. `daemon`: whether one runs.
pub fn state(facts: &StatusRow, daemon: &DaemonPresence) -> State {
    if !facts.enabled || !facts.server_enabled {
        return State::Disabled;
    }
    if matches!(daemon, DaemonPresence::Gone { .. }) {
        return State::NoDaemon;
    }
    // whatever else is wrong, nothing is tried before its server can be reached
    if facts.server_error.is_some() {
        return State::Unreachable;
    }
    if full_sync_runs(facts) {
        return State::FullSync;
    }
    if let Some(error) = &facts.error {
        return match error.code.as_deref() {
            Some(DESTINATION_MISSING) => State::DestinationMissing,
            Some(CHANGES_LOST) => State::ChangesLost,
            Some(MAPPING_ROW_UNUSABLE) => State::Parked,
            _ if error.parked => State::Parked,
            _ => State::Failing,
        };
    }
    if facts.full_sync_requested || facts.full_sync_pending_at.is_some() {
        return State::FullSyncDue;
    }
    if facts.finding.is_some() {
        return State::VerificationFailed;
    }
    if facts.last_full_sync_at.is_none() && !facts.no_initial_sync {
        return State::NeverSynced;
    }
    if !facts.cdc_enabled {
        return State::Idle;
    }
    match (facts.lag_seconds, facts.unknown_lag_seconds) {
        (Some(lag), _) if lag > BEHIND_AFTER_S => State::Behind,
        (Some(_), _) => State::Following,
        (None, Some(unknown)) if unknown > STALLED_AFTER_S => State::Stalled,
        (None, _) => State::Waiting,
    }
}

/// A full sync mends much: an error from before it began is somebody's work again only when the
/// full sync has failed.
fn full_sync_runs(facts: &StatusRow) -> bool {
    let running = facts
        .last_run
        .as_ref()
        .filter(|run| run.sync_type == "FULL_SYNC" && run.status == "RUNNING");
    running.is_some_and(|run| facts.error.as_ref().is_none_or(|error| error.at < run.started_at))
}

/// Since when the state is so, where that is known.
fn since(facts: &StatusRow, daemon: &DaemonPresence, state: State) -> Option<String> {
    match state {
        State::NoDaemon => match daemon {
            DaemonPresence::Gone { last_beat } => last_beat.clone(),
            DaemonPresence::Alive | DaemonPresence::Unknown => None,
        },
        State::Idle | State::Following | State::Disabled => None,
        State::Unreachable => facts.server_error.as_ref().and_then(|error| error.at.clone()),
        State::DestinationMissing | State::ChangesLost | State::Parked | State::Failing => {
            facts.error.as_ref().and_then(|error| error.at.clone())
        }
        State::VerificationFailed => facts.finding.as_ref().and_then(|found| found.at.clone()),
        State::NeverSynced => facts.created_at.clone(),
        State::Stalled | State::Behind | State::Waiting => facts.lag_since.clone(),
        State::FullSync => facts.last_run.as_ref().and_then(|run| run.started_at.clone()),
        State::FullSyncDue => facts.full_sync_pending_at.clone(),
    }
}

fn reason(facts: &StatusRow, state: State) -> Option<String> {
    let error = facts.error.as_ref();
    match state {
        State::NoDaemon => Some(NO_DAEMON.to_owned()),
        State::Unreachable => facts.server_error.as_ref().map(|error| error.message.clone()),
        State::DestinationMissing | State::ChangesLost | State::Parked | State::Failing => {
            error.map(|error| error.message.clone())
        }
        State::VerificationFailed => facts
            .finding
            .as_ref()
            .map(|found| format!("{}: {} mismatches", found.kind, found.mismatches)),
        State::NeverSynced => Some(NEVER_SYNCED.to_owned()),
        State::FullSync => {
            let rows = facts.last_run.as_ref().map_or(0, |run| run.records);
            let before = error.map(|error| format!("; before it began: {}", error.message));
            Some(format!("{rows} rows so far{}", before.unwrap_or_default()))
        }
        State::Stalled | State::Waiting => facts.lag_reason.clone(),
        State::Behind | State::Idle | State::Following => facts.uncaptured.clone(),
        State::FullSyncDue => None,
        State::Disabled => (!facts.server_enabled).then(|| SERVER_DISABLED.to_owned()),
    }
}

fn what_to_do(facts: &StatusRow, state: State) -> Option<String> {
    // in our own texts only: names of others may look like it
    let fill = |text: &str| text.replace("{mapping}", &facts.mapping.to_string());
    let of_error = facts.error.as_ref().and_then(|error| error.advice.clone());
    let then_retry = |otherwise: &str| {
        format!("{}{}", of_error.as_deref().unwrap_or(otherwise), fill(RETRY_ADVICE))
    };
    let nearer = match state {
        State::Unreachable => facts.server_error.as_ref().and_then(|error| error.advice.clone()),
        State::DestinationMissing => Some(then_retry(MISSING_ADVICE)),
        State::Parked => Some(then_retry(PARKED_ADVICE)),
        State::Failing => of_error.clone(),
        State::VerificationFailed => facts
            .finding
            .as_ref()
            .filter(|found| found.kind == "SCHEMA")
            .map(|_| fill(COLUMNS_ADVICE)),
        _ => None,
    };
    nearer.or_else(|| advice(state).map(fill))
}

/// A mapping's state, with what is known of it.
pub fn report(facts: &StatusRow, daemon: &DaemonPresence) -> MappingReport {
    let state = state(facts, daemon);
    MappingReport {
        mapping: facts.mapping,
        server_id: facts.server_id,
        server: facts.server.clone(),
        source: facts.source.to_string(),
        destination: facts.dest.to_string(),
        state,
        needs_action: state.needs_action(),
        since: since(facts, daemon, state),
        reason: reason(facts, state),
        what_to_do: what_to_do(facts, state),
        rows: facts.rows,
        lag_seconds: facts.lag_seconds,
        last_cdc_lsn: facts.last_cdc_lsn.clone(),
        last_full_sync_at: facts.last_full_sync_at.clone(),
        last_run: facts.last_run.clone(),
        last_error: facts.error.clone(),
        last_verification: facts.verification.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A mapping that follows its source.
    pub(crate) fn facts() -> StatusRow {
        StatusRow {
            mapping: 7,
            server_id: 1,
            server: "S".into(),
            source: TableName::new("A", "dbo", "T"),
            dest: TableName::new("B", "dbo", "T"),
            enabled: true,
            server_enabled: true,
            cdc_enabled: true,
            full_sync_requested: false,
            full_sync_pending_at: None,
            last_full_sync_at: Some("2026-01-01T00:00:00".into()),
            no_initial_sync: false,
            created_at: Some("2025-12-31T00:00:00".into()),
            last_cdc_lsn: None,
            lag_seconds: Some(3),
            lag_reason: None,
            lag_since: Some("2026-01-03T00:00:00".into()),
            unknown_lag_seconds: None,
            uncaptured: None,
            last_run: None,
            error: None,
            server_error: None,
            verification: None,
            finding: None,
            rows: None,
        }
    }

    fn error(code: &str, parked: bool) -> OpenError {
        OpenError {
            error_type: "SYNC".into(),
            code: Some(code.into()),
            message: "no".into(),
            at: Some("2026-01-02T00:00:02".into()),
            parked,
            advice: None,
        }
    }

    fn full_sync(status: &str, started_at: &str) -> NewestRun {
        NewestRun {
            sync_type: "FULL_SYNC".into(),
            status: status.into(),
            records: 5,
            started_at: Some(started_at.into()),
            completed_at: None,
        }
    }

    fn finding(kind: &str) -> Finding {
        Finding { kind: kind.into(), mismatches: 6, at: Some("2026-01-02T00:00:00".into()) }
    }

    /// What is so, the state, since when, and how the advice begins.
    type Case = (fn(&mut StatusRow), State, Option<&'static str>, Option<&'static str>);

    const CASES: [Case; 24] = [
        (|_| {}, State::Following, None, None),
        (|now| now.lag_seconds = Some(300), State::Following, None, None),
        (|now| now.lag_seconds = Some(301), State::Behind, Some("2026-01-03"), None),
        (|now| now.lag_seconds = None, State::Waiting, Some("2026-01-03"), None),
        (
            |now| (now.lag_seconds, now.unknown_lag_seconds) = (None, Some(900)),
            State::Waiting,
            Some("2026-01-03"),
            None,
        ),
        (
            |now| (now.lag_seconds, now.unknown_lag_seconds) = (None, Some(901)),
            State::Stalled,
            Some("2026-01-03"),
            Some("look whether SQL Server Agent"),
        ),
        (|now| now.cdc_enabled = false, State::Idle, None, None),
        (
            |now| now.last_full_sync_at = None,
            State::NeverSynced,
            Some("2025-12-31"),
            Some("dbaops-dataflow sync --mapping 7;"),
        ),
        (
            |now| (now.last_full_sync_at, now.no_initial_sync) = (None, true),
            State::Following,
            None,
            None,
        ),
        (
            |now| (now.last_full_sync_at, now.full_sync_requested) = (None, true),
            State::FullSyncDue,
            None,
            None,
        ),
        (
            |now| now.full_sync_pending_at = Some("2026-01-04".into()),
            State::FullSyncDue,
            Some("2026-01-04"),
            None,
        ),
        (
            |now| now.finding = Some(finding("MD5_COMPARISON")),
            State::VerificationFailed,
            Some("2026-01-02"),
            Some("dbaops-dataflow verify --mapping 7 --full --repair"),
        ),
        (
            |now| now.finding = Some(finding("SCHEMA")),
            State::VerificationFailed,
            Some("2026-01-02"),
            Some("dbaops-dataflow check --mapping 7"),
        ),
        (
            |now| {
                now.finding = Some(finding("MD5_COMPARISON"));
                now.full_sync_requested = true;
            },
            State::FullSyncDue,
            None,
            None,
        ),
        (
            |now| now.error = Some(error("MAPPING_FAILED", false)),
            State::Failing,
            Some("2026-01-02"),
            Some("read error_details"),
        ),
        (
            |now| now.error = Some(error("MAPPING_FAILED", true)),
            State::Parked,
            Some("2026-01-02"),
            Some("mend what the error names; then: dbaops-dataflow retry --mapping 7"),
        ),
        (
            |now| now.error = Some(error("MAPPING_ROW_UNUSABLE", false)),
            State::Parked,
            Some("2026-01-02"),
            Some("mend"),
        ),
        (
            |now| now.error = Some(error("DESTINATION_MISSING", true)),
            State::DestinationMissing,
            Some("2026-01-02"),
            Some("create the destination table"),
        ),
        (
            |now| now.error = Some(error("CHANGES_LOST", false)),
            State::ChangesLost,
            Some("2026-01-02"),
            Some("dbaops-dataflow sync --mapping 7"),
        ),
        (
            |now| {
                now.error = Some(error("CHANGES_LOST", false));
                now.last_run = Some(full_sync("RUNNING", "2026-01-02T00:00:03"));
            },
            State::FullSync,
            Some("2026-01-02T00:00:03"),
            None,
        ),
        (
            |now| {
                now.error = Some(error("MAPPING_FAILED", false));
                now.last_run = Some(full_sync("RUNNING", "2026-01-02T00:00:01"));
            },
            State::Failing,
            Some("2026-01-02"),
            Some("read error_details"),
        ),
        (
            |now| {
                now.error = Some(error("MAPPING_FAILED", false));
                now.last_run = Some(full_sync("ERROR", "2026-01-02T00:00:03"));
            },
            State::Failing,
            Some("2026-01-02"),
            Some("read error_details"),
        ),
        (
            |now| {
                now.error = Some(error("MAPPING_FAILED", true));
                now.server_error = Some(ServerError {
                    code: None,
                    message: "away".into(),
                    at: Some("2026-01-05".into()),
                    advice: Some("start it".into()),
                });
            },
            State::Unreachable,
            Some("2026-01-05"),
            Some("start it"),
        ),
        (|now| now.server_enabled = false, State::Disabled, None, None),
    ];

    #[test]
    fn the_state_is_the_first_that_is_so() {
        for (at, (change, state, since, to_do)) in CASES.into_iter().enumerate() {
            let mut now = facts();
            change(&mut now);
            let said = report(&now, &DaemonPresence::Alive);
            let begins = |text: &Option<String>, with: Option<&str>| {
                text.is_some() == with.is_some()
                    && text.as_deref().unwrap_or("").starts_with(with.unwrap_or(""))
            };
            assert_eq!(said.state, state, "case {at}: {said:?}");
            assert!(begins(&said.since, since), "case {at}: {said:?}");
            assert!(begins(&said.what_to_do, to_do), "case {at}: {said:?}");
            assert_eq!(said.needs_action, to_do.is_some(), "case {at}: {said:?}");
            // nothing moves without a daemon, whatever else is so
            let gone = DaemonPresence::Gone { last_beat: Some("2026-01-06".into()) };
            let said = report(&now, &gone);
            let disabled = state == State::Disabled;
            assert_eq!(said.state, if disabled { state } else { State::NoDaemon }, "case {at}");
            assert_eq!(said.since.is_some(), !disabled, "case {at}");
        }
    }

    #[test]
    fn an_error_says_better_what_to_do_and_is_told_with_the_full_sync_that_mends_it() {
        let mut now = facts();
        let advice = Some("grant {mapping}".to_owned());
        now.error = Some(OpenError { advice, ..error("MAPPING_FAILED", true) });
        assert_eq!(
            report(&now, &DaemonPresence::Unknown).what_to_do.as_deref(),
            Some("grant {mapping}; then: dbaops-dataflow retry --mapping 7"),
            "a name of others is left as it is"
        );
        now.last_run = Some(full_sync("RUNNING", "2026-01-02T00:00:03"));
        assert_eq!(
            report(&now, &DaemonPresence::Alive).reason.as_deref(),
            Some("5 rows so far; before it began: no")
        );
    }

    /// The view has the same words; a scenario compares what the two decide.
    #[test]
    fn the_view_knows_every_state_and_advice() {
        let script = include_str!("../../sql/schema-dataflow.sql");
        let view = script.split("ALTER VIEW dbo.v_mapping_status").nth(1).unwrap();
        let quoted = |text: &str| text.replace('\'', "''");
        for state in State::ALL {
            assert!(view.contains(&format!("N'{}'", state.as_str())), "{state:?}");
            for part in advice(state).unwrap_or_default().split("{mapping}") {
                assert!(view.contains(&quoted(part)), "{state:?}: {part}");
            }
        }
        let texts = [
            NO_DAEMON,
            SERVER_DISABLED,
            NEVER_SYNCED,
            MISSING_ADVICE,
            PARKED_ADVICE,
            RETRY_ADVICE,
            COLUMNS_ADVICE,
            "> 300",
            "> 900",
            "SECOND, -20,",
        ];
        for part in texts.iter().flat_map(|text| text.split("{mapping}")) {
            assert!(view.contains(part), "{part}");
        }
        let needs = view.split("AS needs_action").next().unwrap();
        for state in State::ALL {
            let word = format!("N'{}'", state.as_str());
            assert_eq!(needs.contains(&word), state.needs_action(), "{state:?}");
        }
        assert_eq!((BEHIND_AFTER_S, STALLED_AFTER_S), (300, 900));
        assert_eq!(crate::control::GONE_AFTER.as_secs(), 20);
    }
}
