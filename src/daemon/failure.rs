//! What is remembered of a failure, until the next attempt works.

use crate::{
    error::{Error, Kind},
    model::mapping::{Mapping, Server},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often a mapping that waits for a related table, and makes no progress, is tried early between
/// two regular polls: this often at once, then after pauses.
pub(super) const WAKES_MAX: u32 = 4;

/// Failures in a row of a source server, or of one of its databases.
pub(super) struct SourceFailure {
    pub attempts: u32,
    /// When it is tried again.
    pub due: Instant,
    /// The server's row at the last failure: when it changes, the server is tried at once.
    pub server: Server,
    /// The error that was logged last; it is not logged again until the text changes.
    pub logged: String,
}

impl SourceFailure {
    pub fn new(server: Server) -> Self {
        SourceFailure { attempts: 0, due: Instant::now(), server, logged: String::new() }
    }

    pub fn is_due(&self, now: Instant, server: &Server) -> bool {
        now >= self.due || self.server != *server
    }
}

/// Failures in a row of a mapping.
pub(super) struct MappingFailure {
    pub attempts: u32,
    /// When it is tried again.
    pub due: Instant,
    /// The row of a parked mapping when it was parked: when it changes, the mapping is tried at
    /// once.
    pub parked_as: Option<Mapping>,
    /// `updated_at` of the row at the failure: when it changes, the mapping is tried at once.
    pub updated_at: Arc<str>,
    /// The error that was logged last, and when.
    pub logged: (String, Instant),
    /// It waits for rows of a related table (a foreign key).
    pub waits: bool,
    /// Its last attempt committed something before it had to wait, and it was not woken since.
    /// Tables that wait for each other each get a step further in turns.
    pub progressed: bool,
    /// When it was last tried early because a related table's rows may have come.
    pub woken_at: Option<Instant>,
    /// How often it was woken since it last made progress, or since it was not woken for a whole
    /// check interval.
    pub wakes: u32,
    /// When a failure was last counted in `attempts`.
    pub counted_at: Instant,
}

impl MappingFailure {
    /// `row` as [`Mapping::as_configured`].
    pub fn is_due(&self, now: Instant, row: &Mapping) -> bool {
        now >= self.due
            || self.updated_at != row.updated_at
            || self.parked_as.as_ref().is_some_and(|parked| parked != row)
    }

    /// Makes it due now, unless it was woken too often without progress. Returns whether it did.
    pub fn wake(&mut self, interval: Duration) -> bool {
        let since = self.woken_at.map(|woken| woken.elapsed());
        if self.progressed || since.is_none_or(|since| since >= interval) {
            self.wakes = 0;
        }
        if self.wakes >= WAKES_MAX && since.is_some_and(|since| since < interval / WAKES_MAX) {
            return false;
        }
        let now = Instant::now();
        self.wakes = self.wakes.saturating_add(1);
        (self.due, self.woken_at, self.progressed) = (now, Some(now), false);
        true
    }

    /// Failures in a row before the attempt that runs now. Attempts of a mapping that is woken may
    /// fail often: they count as one per check interval.
    pub fn attempts_before(&self, interval: Duration) -> u32 {
        let woken_early = self.woken_at.is_some_and(|woken| woken >= self.counted_at)
            && self.counted_at.elapsed() < interval;
        self.attempts - u32::from(woken_early)
    }
}

/// Whether a server, or one of its databases, cannot be reached.
pub(super) fn is_unreachable(error: &Error) -> bool {
    matches!(error.kind, Kind::Connection | Kind::Login | Kind::Database)
}

/// Whether the whole server cannot be reached, and not only one of its databases (4060, 4064).
pub(super) fn concerns_server(error: &Error) -> bool {
    matches!(error.kind, Kind::Connection | Kind::Login)
}
