//! Tables that could not be asked because another session holds a lock on them.
//!
//! A lock of one table must not hold up the other mappings of its database: a poll waits briefly
//! ([`crate::tsql::poll::LOCK_TIMEOUT_MS`]), leaves the mapping alone in this poll, and asks again
//! in the next. Short locks are normal (capture writes its change rows in a transaction, cleanup
//! may escalate to a table lock), so this becomes an error only when a table was locked at every
//! poll for `DATAFLOW_LOCK_TIMEOUT`.

use crate::{
    error::{Error, Kind},
    model::id::MappingId,
};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// Tables that are remembered as locked. Mappings that are no longer polled stay here, so that one
/// that is retried after an error is known to have been locked; beyond, all are forgotten, which
/// delays an error by `DATAFLOW_LOCK_TIMEOUT`.
const LOCKED_MAX: usize = 10_000;

/// Since when each mapping's table has been locked whenever it was asked.
#[derive(Debug, Default)]
pub(super) struct LockedTables(HashMap<MappingId, Instant>);

/// What a failed question about one table means.
#[derive(Debug)]
pub(super) enum Failure {
    /// Locked, and not for long yet: nothing is known of the table in this poll.
    Locked,
    Error(Error),
}

impl LockedTables {
    /// Judges the error of a question about this mapping's table alone. `lock_timeout`: how long a
    /// table may be locked (`DATAFLOW_LOCK_TIMEOUT`).
    pub fn failure(
        &mut self,
        mapping: MappingId,
        error: Error,
        lock_timeout: Duration,
        now: Instant,
    ) -> Failure {
        if error.kind != Kind::LockTimeout {
            return Failure::Error(error);
        }
        if self.0.len() >= LOCKED_MAX {
            self.0.clear();
        }
        let since = *self.0.entry(mapping).or_insert(now);
        if now - since < lock_timeout { Failure::Locked } else { Failure::Error(error) }
    }

    /// The table answered.
    pub fn answered(&mut self, mapping: MappingId) {
        self.0.remove(&mapping);
    }

    pub fn contains(&self, mapping: MappingId) -> bool {
        self.0.contains_key(&mapping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_becomes_an_error_when_it_is_held_for_the_lock_timeout() {
        let (mut locked, mapping, start) = (LockedTables::default(), MappingId(1), Instant::now());
        let at = |locked: &mut LockedTables, kind, seconds| {
            let now = start + Duration::from_secs(seconds);
            let limit = Duration::from_secs(30);
            match locked.failure(mapping, Error::new(kind, "refused"), limit, now) {
                Failure::Locked => None,
                Failure::Error(error) => Some(error.kind),
            }
        };
        assert_eq!(at(&mut locked, Kind::LockTimeout, 0), None);
        assert_eq!(at(&mut locked, Kind::LockTimeout, 20), None);
        assert_eq!(at(&mut locked, Kind::Missing, 21), Some(Kind::Missing));
        assert_eq!(at(&mut locked, Kind::LockTimeout, 30), Some(Kind::LockTimeout));
        assert!(locked.contains(mapping));
        locked.answered(mapping);
        assert_eq!(at(&mut locked, Kind::LockTimeout, 40), None);
        assert_eq!(at(&mut locked, Kind::LockTimeout, 69), None);
    }
}
