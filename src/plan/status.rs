//! The state of a mapping as `status` shows it, derived from the control tables alone.

use crate::model::name::TableName;
use serde::Serialize;

/// What `sql/control/status.sql` reads of a mapping.
#[derive(Clone, Debug)]
pub struct StatusRow {
    pub mapping: i32,
    pub server: String,
    pub source: TableName,
    pub dest: TableName,
    pub enabled: bool,
    pub server_enabled: bool,
    pub cdc_enabled: bool,
    pub full_sync_requested: bool,
    pub full_sync_pending: bool,
    /// ISO 8601, UTC, like all times here
    pub last_full_sync_at: Option<String>,
    pub last_cdc_lsn: Option<String>,
    pub lag_seconds: Option<i64>,
    /// Why there is no lag.
    pub lag_reason: Option<String>,
    /// A note about columns that the capture instance does not have.
    pub uncaptured: Option<String>,
    pub last_run: Option<NewestRun>,
    pub error: Option<OpenError>,
    /// The newest open error of its server.
    pub server_error: Option<String>,
    pub verification: Option<NewestVerification>,
    /// Rows in the destination table.
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

/// The newest unresolved row of error_logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenError {
    #[serde(rename = "type")]
    pub error_type: String,
    pub message: String,
    pub at: Option<String>,
    /// Tried again only every `DATAFLOW_PARKED_INTERVAL`, or when its row changes.
    pub parked: bool,
}

/// The newest verification of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewestVerification {
    pub status: String,
    pub at: Option<String>,
}

/// What `status` says of a mapping; `--json` prints these names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MappingReport {
    pub mapping: i32,
    pub server: String,
    pub source: String,
    pub destination: String,
    pub state: &'static str,
    pub reason: Option<String>,
    pub rows: Option<i64>,
    pub lag_seconds: Option<i64>,
    pub last_cdc_lsn: Option<String>,
    pub last_full_sync_at: Option<String>,
    pub last_run: Option<NewestRun>,
    pub last_error: Option<OpenError>,
    pub last_verification: Option<NewestVerification>,
}

/// The state and its reason. The conditions are in order of precedence: the first that holds wins.
fn state(row: &StatusRow) -> (&'static str, Option<String>) {
    let reason = |text: &str| Some(text.to_owned());
    if !row.enabled {
        return ("disabled", None);
    }
    if !row.server_enabled {
        return ("disabled", reason("its server is disabled"));
    }
    // nothing else can be tried while the server is unreachable
    if let Some(error) = &row.server_error {
        return ("unreachable", reason(error));
    }
    let error = row.error.as_ref();
    if let Some(run) =
        row.last_run.as_ref().filter(|run| run.sync_type == "FULL_SYNC" && run.status == "RUNNING")
    {
        // A full sync repairs most errors, so an error from before it began counts again only if
        // the full sync fails.
        if error.is_none_or(|error| error.at < run.started_at) {
            return ("full sync", error.map(|error| format!("before it began: {}", error.message)));
        }
    }
    if let Some(error) = error {
        return (if error.parked { "parked" } else { "failing" }, reason(&error.message));
    }
    if row.full_sync_requested || row.full_sync_pending {
        return ("full sync due", None);
    }
    if row.cdc_enabled {
        let notes: Vec<_> =
            row.lag_reason.iter().chain(&row.uncaptured).map(String::as_str).collect();
        return ("following", (!notes.is_empty()).then(|| notes.join("; ")));
    }
    if row.last_full_sync_at.is_none() {
        return ("never synced", reason("nobody has asked for a full sync yet"));
    }
    ("idle", None)
}

/// A mapping's state, with the details that `status` prints.
pub fn report(row: &StatusRow) -> MappingReport {
    let (state, reason) = state(row);
    MappingReport {
        mapping: row.mapping,
        server: row.server.clone(),
        source: row.source.to_string(),
        destination: row.dest.to_string(),
        state,
        reason,
        rows: row.rows,
        lag_seconds: row.lag_seconds,
        last_cdc_lsn: row.last_cdc_lsn.clone(),
        last_full_sync_at: row.last_full_sync_at.clone(),
        last_run: row.last_run.clone(),
        last_error: row.error.clone(),
        last_verification: row.verification.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_row() -> StatusRow {
        StatusRow {
            mapping: 1,
            server: "S".into(),
            source: TableName::new("A", "dbo", "T"),
            dest: TableName::new("B", "dbo", "T"),
            enabled: true,
            server_enabled: true,
            cdc_enabled: true,
            full_sync_requested: false,
            full_sync_pending: false,
            last_full_sync_at: None,
            last_cdc_lsn: None,
            uncaptured: None,
            lag_seconds: None,
            lag_reason: None,
            last_run: None,
            error: None,
            server_error: None,
            verification: None,
            rows: None,
        }
    }

    #[test]
    fn what_an_operator_has_to_act_on_comes_first() {
        let at = |time: &str| Some(time.to_owned());
        let mut now = status_row();
        assert_eq!(report(&now).state, "following");
        now.cdc_enabled = false;
        assert_eq!(report(&now).state, "never synced");
        now.last_full_sync_at = Some("2026-01-01T00:00:00".into());
        assert_eq!(report(&now).state, "idle");
        now.full_sync_requested = true;
        assert_eq!(report(&now).state, "full sync due");
        let run = NewestRun {
            sync_type: "FULL_SYNC".into(),
            status: "RUNNING".into(),
            records: 5,
            started_at: at("2026-01-02T00:00:01"),
            completed_at: None,
        };
        now.last_run = Some(run.clone());
        assert_eq!(report(&now).state, "full sync");
        let error = |parked, at: &str| {
            Some(OpenError {
                error_type: "SCHEMA".into(),
                message: "no".into(),
                at: Some(at.into()),
                parked,
            })
        };
        now.error = error(false, "2026-01-02T00:00:02");
        assert_eq!(report(&now).state, "failing", "an error after the full sync began");
        now.error = error(true, "2026-01-02T00:00:02");
        assert_eq!((report(&now).state, report(&now).reason.as_deref()), ("parked", Some("no")));
        now.error = error(true, "2026-01-02T00:00:00");
        assert_eq!(
            (report(&now).state, report(&now).reason.as_deref()),
            ("full sync", Some("before it began: no"))
        );
        now.last_run = Some(NewestRun { status: "ERROR".into(), ..run });
        assert_eq!(report(&now).state, "parked");
        now.server_error = Some("away".into());
        assert_eq!(
            (report(&now).state, report(&now).reason.as_deref()),
            ("unreachable", Some("away"))
        );
        now.server_enabled = false;
        assert_eq!(report(&now).state, "disabled");
    }
}
