//! In what state a mapping is, from what the control tables say of it.

use crate::model::name::TableName;
use serde::Serialize;

/// What the control tables say of a mapping.
#[derive(Clone, Debug)]
pub struct MappingState {
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
    /// What is to be said of columns that are not captured.
    pub uncaptured: Option<String>,
    pub last_run: Option<NewestRun>,
    pub error: Option<OpenError>,
    /// The newest open error of its server.
    pub server_error: Option<String>,
    pub verification: Option<NewestVerification>,
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

/// The newest unresolved row of error_logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenError {
    #[serde(rename = "type")]
    pub error_type: String,
    pub message: String,
    pub at: Option<String>,
    /// Tried again every five minutes only, or when its row changes.
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

/// The first of these that is so.
fn state(standing: &MappingState) -> (&'static str, Option<String>) {
    let why = |words: &str| Some(words.to_owned());
    if !standing.enabled {
        return ("disabled", None);
    }
    if !standing.server_enabled {
        return ("disabled", why("its server is disabled"));
    }
    // whatever else is wrong, nothing is tried before its server can be reached
    if let Some(error) = &standing.server_error {
        return ("unreachable", why(error));
    }
    let error = standing.error.as_ref();
    if let Some(run) = standing
        .last_run
        .as_ref()
        .filter(|run| run.sync_type == "FULL_SYNC" && run.status == "RUNNING")
    {
        // a full sync mends much; what was wrong before it began is somebody's work again only when
        // it has failed
        if error.is_none_or(|error| error.at < run.started_at) {
            return ("full sync", error.map(|error| format!("before it began: {}", error.message)));
        }
    }
    if let Some(error) = error {
        return (if error.parked { "parked" } else { "failing" }, why(&error.message));
    }
    if standing.full_sync_requested || standing.full_sync_pending {
        return ("full sync due", None);
    }
    if standing.cdc_enabled {
        let words: Vec<_> =
            standing.lag_reason.iter().chain(&standing.uncaptured).map(String::as_str).collect();
        return ("following", (!words.is_empty()).then(|| words.join("; ")));
    }
    if standing.last_full_sync_at.is_none() {
        return ("never synced", why("nobody has asked for a full sync yet"));
    }
    ("idle", None)
}

/// A mapping's state, with what is known of it.
pub fn report(standing: &MappingState) -> MappingReport {
    let (state, reason) = state(standing);
    MappingReport {
        mapping: standing.mapping,
        server: standing.server.clone(),
        source: standing.source.to_string(),
        destination: standing.dest.to_string(),
        state,
        reason,
        rows: standing.rows,
        lag_seconds: standing.lag_seconds,
        last_cdc_lsn: standing.last_cdc_lsn.clone(),
        last_full_sync_at: standing.last_full_sync_at.clone(),
        last_run: standing.last_run.clone(),
        last_error: standing.error.clone(),
        last_verification: standing.verification.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> MappingState {
        MappingState {
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
    fn what_an_operator_has_to_touch_comes_first() {
        let at = |time: &str| Some(time.to_owned());
        let mut now = standing();
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
        assert_eq!(report(&now).state, "failing", "its full sync runs no more, or in vain");
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
