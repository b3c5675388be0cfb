//! After a failure: when to try again.
//!
//! `Kind` alone decides. Three families:
//!
//! - **It will pass** (a deadlock, a lock, a server that fails over): a few attempts a fixed time
//!   apart, and only the last of them is reported as an error; then on with a back-off.
//! - **Someone has to do something** (a GRANT, a missing table, shapes that do not fit, lost
//!   changes): parked. The fix is often made elsewhere, so a parked mapping is tried again every
//!   few minutes, and at once when its row or its server's row changes.
//! - **The rows themselves** (a foreign key whose parent is still on its way, a value that does not
//!   fit) and **the database's state** (offline, read-only): the next look, then slower.

use crate::error::Kind;
use std::time::Duration;

/// What the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    pub attempts_max: u32,
    pub delay: Duration,
    /// Time between two looks for work.
    pub interval: Duration,
}

/// Looks for which a foreign key may wait for a related table before it is an error.
pub const WAITS_MAX: u32 = 3;

/// The longest back-off: an unreachable server is asked at most this often.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// One more attempt after this time; not an error yet.
    Retry(Duration),
    /// It failed. It is tried again after this time.
    Later(Duration),
    /// It failed, and waits for a change of its row, or the next probe.
    Park,
    /// Not a failure.
    Nothing,
}

/// What happens after the `attempt`th failure (from 1) in a row.
pub fn next(kind: Kind, attempt: u32, policy: &RetryPolicy) -> RetryDecision {
    match kind {
        Kind::Deadlock
        | Kind::LockTimeout
        | Kind::Busy
        | Kind::Timeout
        | Kind::Connection
        | Kind::Altered => {
            if attempt < policy.attempts_max {
                RetryDecision::Retry(policy.delay)
            } else {
                RetryDecision::Later(back_off(
                    attempt - policy.attempts_max,
                    policy.interval.max(policy.delay.min(BACK_OFF_MAX)),
                ))
            }
        }
        // Mostly a related table's rows are on their way: a few looks, and only then somebody has
        // to know.
        Kind::ForeignKey if attempt < WAITS_MAX => RetryDecision::Retry(policy.interval),
        Kind::ForeignKey => RetryDecision::Later(back_off(attempt - WAITS_MAX, policy.interval)),
        // A database that is offline or read-only, often for planned work: reported at once, and
        // noticed soon after it is back.
        Kind::Database | Kind::Duplicate | Kind::Data | Kind::CheckpointConflict | Kind::Other => {
            RetryDecision::Later(back_off(attempt.saturating_sub(1), policy.interval))
        }
        Kind::Login
        | Kind::Permission
        | Kind::Missing
        | Kind::DestMissing
        | Kind::Schema
        | Kind::TooLarge
        | Kind::Gap
        | Kind::Config => RetryDecision::Park,
        Kind::Cancelled => RetryDecision::Nothing,
    }
}

/// A parked mapping of which a person mends what is missing is looked at again after this: with a tick
/// of 10 s a mended table goes on within a minute.
pub const MENDED_AFTER: Duration = Duration::from_secs(45);

/// How long a mapping stays parked that nobody asks to try. `in_poll`: what found it was a poll, or
/// it is the first failure of a CDC pass, and the next poll finds out cheaply whether it is mended:
/// CDC that was switched off, a missing table. `parked_interval`: what needs more than a look, such
/// as a full sync because of lost changes.
pub fn parked_for(
    kind: Kind,
    in_poll: bool,
    (parked_interval, poll_interval): (Duration, Duration),
) -> Duration {
    match kind {
        Kind::Missing if in_poll => parked_interval.min(poll_interval),
        Kind::Missing | Kind::DestMissing | Kind::Permission | Kind::Schema | Kind::Config => {
            parked_interval.min(MENDED_AFTER)
        }
        _ => parked_interval,
    }
}

/// `first`, doubled `times` times, up to [`BACK_OFF_MAX`] (or `first`, where that is longer).
pub fn back_off(times: u32, first: Duration) -> Duration {
    let factor = 2u32.saturating_pow(times.min(16));
    first.saturating_mul(factor).min(BACK_OFF_MAX.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts_max: 3,
        delay: Duration::from_secs(30),
        interval: Duration::from_secs(10),
    };

    #[test]
    fn what_passes_gets_its_attempts_and_then_a_back_off() {
        assert_eq!(next(Kind::Deadlock, 1, &POLICY), RetryDecision::Retry(Duration::from_secs(30)));
        assert_eq!(next(Kind::Deadlock, 2, &POLICY), RetryDecision::Retry(Duration::from_secs(30)));
        assert_eq!(next(Kind::Deadlock, 3, &POLICY), RetryDecision::Later(Duration::from_secs(30)));
        assert_eq!(next(Kind::Deadlock, 4, &POLICY), RetryDecision::Later(Duration::from_secs(60)));
        assert_eq!(next(Kind::Deadlock, 40, &POLICY), RetryDecision::Later(BACK_OFF_MAX));
        let once = RetryPolicy { attempts_max: 1, ..POLICY };
        assert_eq!(next(Kind::Timeout, 1, &once), RetryDecision::Later(Duration::from_secs(30)));
    }

    #[test]
    fn rows_are_tried_at_the_next_look_and_then_slower() {
        assert_eq!(
            next(Kind::ForeignKey, 2, &POLICY),
            RetryDecision::Retry(Duration::from_secs(10))
        );
        assert_eq!(
            next(Kind::ForeignKey, 3, &POLICY),
            RetryDecision::Later(Duration::from_secs(10))
        );
        assert_eq!(next(Kind::Data, 1, &POLICY), RetryDecision::Later(Duration::from_secs(10)));
        assert_eq!(next(Kind::Data, 3, &POLICY), RetryDecision::Later(Duration::from_secs(40)));
        assert_eq!(next(Kind::Data, 9, &POLICY), RetryDecision::Later(BACK_OFF_MAX));
        assert_eq!(
            next(Kind::Database, 1, &POLICY),
            RetryDecision::Later(Duration::from_secs(10)),
            "not parked, and no attempt before it is told"
        );
    }

    #[test]
    fn what_needs_hands_is_parked() {
        for kind in [
            Kind::Login,
            Kind::Permission,
            Kind::Missing,
            Kind::DestMissing,
            Kind::Schema,
            Kind::TooLarge,
            Kind::Gap,
            Kind::Config,
        ] {
            assert_eq!(next(kind, 1, &POLICY), RetryDecision::Park, "{kind:?}");
        }
        assert_eq!(next(Kind::Cancelled, 1, &POLICY), RetryDecision::Nothing);
    }

    #[test]
    fn what_a_person_mends_is_looked_at_within_a_minute() {
        let (tick, long) = (POLICY.interval, Duration::from_secs(300));
        assert_eq!(parked_for(Kind::Missing, true, (long, tick)), tick);
        for kind in [Kind::Missing, Kind::DestMissing, Kind::Permission, Kind::Schema, Kind::Config]
        {
            assert_eq!(parked_for(kind, false, (long, tick)), MENDED_AFTER, "{kind:?}");
        }
        assert!(MENDED_AFTER + tick < Duration::from_secs(60));
        for kind in [Kind::Gap, Kind::TooLarge, Kind::Login] {
            assert_eq!(parked_for(kind, true, (long, tick)), long, "{kind:?}");
        }
        assert_eq!(parked_for(Kind::Schema, false, (tick, tick)), tick, "as short as configured");
    }

    #[test]
    fn back_off_never_shortens_a_long_interval() {
        assert_eq!(back_off(5, Duration::from_secs(600)), Duration::from_secs(600));
        assert_eq!(
            back_off(u32::MAX, Duration::from_millis(1)),
            BACK_OFF_MAX.min(Duration::from_millis(65_536))
        );
    }
}
