//! What a database keeps for change data capture beside its tables: jobs, scan sessions, and the
//! switches of a test. What is done with it stands in `cdc`.

use crate::engine::clock::Moment;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// When a commit becomes visible in change tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureMode {
    /// before the committing statement returns
    #[default]
    Immediate,
    /// only when a test asks for it
    Manual,
    /// by the agent's thread, after a random delay
    Delayed { min_ms: u64, max_ms: u64 },
}

/// How capture behaves in databases made from now on.
#[derive(Clone, Copy, Debug)]
pub struct CaptureConfig {
    pub mode: CaptureMode,
    /// Time between two scans of an idle log.
    pub poll: Duration,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self { mode: CaptureMode::Immediate, poll: Duration::from_millis(30) }
    }
}

/// What the after-image of an update holds for a (max) or xml column the update did not touch.
/// Microsoft's page promises only the before-image's NULL; users report NULL in the after-image as
/// well when the value lives off the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UntouchedLob {
    /// NULL for values of more than 8,000 bytes, which live off the row
    #[default]
    NullOffRow,
    Null,
    Value,
}

/// How an update of the clustered key shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyUpdates {
    /// as the log has a moved row: delete (1) and insert (2)
    #[default]
    DeleteInsert,
    /// as an update pair (3, 4)
    UpdatePair,
}

#[derive(Clone, Copy, Debug)]
pub struct CaptureJob {
    pub maxtrans: i32,
    pub maxscans: i32,
    pub continuous: bool,
    pub pollinginterval: i64,
}

impl Default for CaptureJob {
    fn default() -> Self {
        Self { maxtrans: 500, maxscans: 10, continuous: true, pollinginterval: 5 }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct CleanupJob {
    /// minutes
    pub retention: i64,
    pub threshold: i64,
}

impl Default for CleanupJob {
    fn default() -> Self {
        Self { retention: 4320, threshold: 5000 }
    }
}

/// A row of sys.dm_cdc_log_scan_sessions.
#[derive(Clone, Debug)]
pub struct ScanSession {
    pub id: i32,
    pub start: Moment,
    pub end: Moment,
    pub start_lsn: String,
    pub end_lsn: String,
    pub transactions: i64,
    pub commands: i64,
    pub last_commit: Option<Moment>,
    pub errors: i32,
    /// scans that found nothing, folded into this one
    pub empty_scans: i64,
}

#[derive(Clone, Debug)]
pub struct CdcRuntime {
    pub mode: CaptureMode,
    /// whether the capture job runs: sp_cdc_stop_job makes capture stand still
    pub running: bool,
    pub capture_job: Option<CaptureJob>,
    pub cleanup_job: Option<CleanupJob>,
    /// The log of what is committed has not been hardened by every secondary: capture stops before
    /// it, as at the log's end. (In a group, and with asynchronous secondaries, too, without trace
    /// flag 1448.)
    pub unhardened: bool,
    /// `sys.fn_cdc_get_max_lsn` reads dirty: it is in no document how it reads.
    pub max_lsn_reads_dirty: bool,
    /// change tables have `__$command_id`; servers before the updates of KB 3030352 do not
    pub command_id: bool,
    pub untouched_lob: UntouchedLob,
    pub key_updates: KeyUpdates,
    /// The insert of a row that moved has NULL for a large value that the update did not touch. No
    /// document says what it has there.
    pub moved_lob_null: bool,
    pub sessions: VecDeque<ScanSession>,
    pub last_session: i32,
    /// when a delayed capture is to run
    pub due: Option<Instant>,
    /// Time between two scans of an idle log. The job's own pollinginterval is what tables and
    /// procedures tell of; the agent does not make a test wait for its five seconds.
    pub poll: Duration,
    /// the last scan
    pub scanned: Option<Instant>,
    /// the last time a scan wrote to cdc.lsn_time_mapping
    pub last_entry: Option<Moment>,
}

impl Default for CdcRuntime {
    fn default() -> Self {
        Self {
            mode: CaptureMode::Immediate,
            running: true,
            capture_job: None,
            cleanup_job: None,
            unhardened: false,
            max_lsn_reads_dirty: false,
            command_id: true,
            untouched_lob: UntouchedLob::NullOffRow,
            key_updates: KeyUpdates::DeleteInsert,
            moved_lob_null: false,
            sessions: VecDeque::new(),
            last_session: 0,
            due: None,
            poll: Duration::from_millis(30),
            scanned: None,
            last_entry: None,
        }
    }
}
