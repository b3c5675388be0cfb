//! What ends a verification before its end: every loop asks between two statements.
//!
//! A verification may read a table for hours, and what it reads is void as soon as a full sync
//! brings all rows anew. So it makes way: for a full sync that is due, for a stop, for an operator
//! who switches its mapping off, and when its time is up. CDC passes never wait for it: they have
//! connections of their own, and its reads hold no lock longer than a row.
//!
//! The token of the job says at once that the daemon wants it to end; the mapping's row says why,
//! and is read at most once in [`LOOK_EVERY`].

use super::confirm::row_of;
use crate::{
    control::CurrentMapping,
    error::{Error, Kind, Result},
    jobs::Env,
    model::mapping::Mapping,
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Between two looks at the mapping's row: a statement of a verification may take a millisecond.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why a verification ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The process stops, or another daemon takes the mapping.
    Stopping,
    SwitchedOff,
    FullSyncDue,
    TimeUp,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ended::Stopping => "asked to stop",
            Ended::SwitchedOff => "the mapping was switched off",
            Ended::FullSyncDue => "a full sync of the mapping is due",
            Ended::TimeUp => "its time is up",
        })
    }
}

/// Asked between statements.
pub(super) struct Limit<'a> {
    env: &'a Env,
    mapping: &'a Mapping,
    /// What is switched off from the beginning may be verified all the same, by the command.
    enabled_at_start: bool,
    until: Option<Instant>,
    /// shared with limits made by [`Self::until`]
    last: Arc<Mutex<LastLook>>,
}

struct LastLook {
    at: Instant,
    /// never [`Ended::TimeUp`]: each limit has its own time
    ended: Option<Ended>,
}

impl<'a> Limit<'a> {
    pub fn new(
        env: &'a Env,
        mapping: &'a Mapping,
        at_start: &CurrentMapping,
        until: Option<Instant>,
    ) -> Self {
        let last = LastLook { at: Instant::now(), ended: None };
        Limit {
            env,
            mapping,
            enabled_at_start: at_start.enabled,
            until,
            last: Arc::new(Mutex::new(last)),
        }
    }

    /// The same, for a step that has a time of its own.
    pub fn until(&self, deadline: Instant) -> Self {
        Limit {
            env: self.env,
            mapping: self.mapping,
            enabled_at_start: self.enabled_at_start,
            until: Some(self.until.map_or(deadline, |until| until.min(deadline))),
            last: self.last.clone(),
        }
    }

    /// Time left, at most `longest`.
    pub fn left(&self, longest: Duration) -> Duration {
        self.until
            .map_or(longest, |until| until.saturating_duration_since(Instant::now()).min(longest))
    }

    pub fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Why the verification ends here, if it does.
    pub async fn ended(&self) -> Result<Option<Ended>> {
        let (at, known) = {
            let last = self.lock();
            (last.at, last.ended)
        };
        if known.is_some() {
            return Ok(known);
        }
        let cancelled = self.env.stopping();
        if cancelled || at.elapsed() >= LOOK_EVERY {
            let now = row_of(self.env, self.mapping).await?;
            let ended =
                why(now.as_ref(), self.enabled_at_start).or(cancelled.then_some(Ended::Stopping));
            *self.lock() = LastLook { at: Instant::now(), ended };
            if ended.is_some() {
                return Ok(ended);
            }
        }
        Ok(self.is_over().then_some(Ended::TimeUp))
    }

    /// What an earlier question answered, or the time says: without another look.
    pub fn ended_so_far(&self) -> Option<Ended> {
        let known = self.lock().ended;
        known.or(self.is_over().then_some(Ended::TimeUp))
    }

    /// [`Self::ended`] as an error, for loops whose callers know what to do with the rest.
    pub async fn check(&self) -> Result<()> {
        match self.ended().await? {
            None => Ok(()),
            Some(ended) => {
                Err(Error::new(Kind::Cancelled, format!("ended before its end: {ended}")))
            }
        }
    }

    /// Cancels `cancel` when the verification ends, until the step is `done`: for a wait that looks
    /// at a token alone.
    pub async fn watch(&self, cancel: &CancellationToken, done: &CancellationToken) -> Result<()> {
        while !done.is_cancelled() {
            match self.ended().await {
                Ok(None) => {}
                // its own time the wait knows
                Ok(Some(Ended::TimeUp)) => return Ok(()),
                Ok(Some(_)) => {
                    cancel.cancel();
                    return Ok(());
                }
                Err(error) => {
                    cancel.cancel();
                    return Err(error);
                }
            }
            tokio::select! {
                () = done.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        Ok(())
    }

    pub fn env(&self) -> &'a Env {
        self.env
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LastLook> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the mapping's row says of a verification that runs; no row: the mapping was deleted.
fn why(now: Option<&CurrentMapping>, enabled_at_start: bool) -> Option<Ended> {
    match now {
        None => Some(Ended::SwitchedOff),
        Some(now) if now.pending || (now.enabled && now.requested) => Some(Ended::FullSyncDue),
        Some(now) if enabled_at_start && !now.enabled => Some(Ended::SwitchedOff),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(enabled: bool, pending: bool, requested: bool) -> CurrentMapping {
        CurrentMapping { enabled, pending, requested, last_cdc_lsn: None, last_full_sync_at: None }
    }

    #[test]
    fn a_row_says_why_a_verification_ends() {
        assert_eq!(why(Some(&row(true, false, false)), true), None);
        assert_eq!(why(Some(&row(true, false, true)), true), Some(Ended::FullSyncDue));
        assert_eq!(why(Some(&row(true, true, false)), true), Some(Ended::FullSyncDue));
        assert_eq!(why(Some(&row(false, false, false)), true), Some(Ended::SwitchedOff));
        assert_eq!(why(None, true), Some(Ended::SwitchedOff));
        // switched off before it began, and asked for by name
        assert_eq!(why(Some(&row(false, false, false)), false), None);
        assert_eq!(why(Some(&row(false, false, true)), false), None, "nothing will sync it");
    }
}
