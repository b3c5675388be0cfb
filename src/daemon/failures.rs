//! Failures: logged here, once, and when what failed is due again.
//!
//! [`crate::plan::retry`] decides by the kind alone. A server that cannot be reached is one
//! failure, not one per mapping or database.

use super::{Daemon, Mode, SourceDatabase, Task, TaskResult, following::place_of};
use crate::{
    control::ErrorCode,
    error::{Error, Kind},
    model::{
        id::{MappingId, ServerId},
        mapping::{Mapping, Server, SyncType},
    },
    plan::retry::{self, RetryDecision, RetryPolicy},
    telemetry::Resolution,
};
use std::time::Duration;
use tokio::time::Instant;

/// A mapping that waits for a related table and gets nowhere is called up this often at once, and
/// then after pauses: this often between two looks.
const WAKES_MAX: u32 = 4;

/// A mapping, or a database of a source, that failed and has not worked since.
pub(super) struct FailureState<T> {
    pub(super) attempts: u32,
    pub(super) due: Instant,
    /// Parked until this looks different (or it is due).
    pub(super) parked_as: Option<T>,
    /// What was said of it last.
    pub(super) words: String,
    /// It waits for rows of a related table.
    pub(super) waits: bool,
    /// It got on before it had to wait, and was not called up since: tables that wait for each
    /// other take turns.
    progressed: bool,
    /// When it was last called up because a related table's rows may have come.
    woken: Option<Instant>,
    /// How often it was, since it last got on or was left alone for the time between two looks.
    wakes: u32,
    /// When a failure last counted.
    counted: Instant,
}

/// An attempt that failed.
pub(super) struct FailedAttempt {
    /// `None`: it was polled only.
    pub(super) sync_type: Option<SyncType>,
    /// It committed something.
    pub(super) progressed: bool,
    pub(super) began: Instant,
}

impl FailedAttempt {
    /// A poll's, which has just failed.
    pub(super) fn polled() -> Self {
        FailedAttempt { sync_type: None, progressed: false, began: Instant::now() }
    }
}

impl<T: PartialEq> FailureState<T> {
    pub(super) fn new() -> Self {
        FailureState {
            attempts: 0,
            due: Instant::now(),
            parked_as: None,
            words: String::new(),
            waits: false,
            progressed: false,
            woken: None,
            wakes: 0,
            counted: Instant::now(),
        }
    }

    pub(super) fn is_due(&self, now: Instant, looks: &T) -> bool {
        now >= self.due || self.parked_as.as_ref().is_some_and(|parked| parked != looks)
    }

    /// Calls it up, unless it was called up in vain too often. Whether it did.
    fn call_up(&mut self, interval: Duration) -> bool {
        let since = self.woken.map(|woken| woken.elapsed());
        if self.progressed || since.is_none_or(|since| since >= interval) {
            self.wakes = 0;
        }
        if self.wakes >= WAKES_MAX && since.is_some_and(|since| since < interval / WAKES_MAX) {
            return false;
        }
        let now = Instant::now();
        self.wakes = self.wakes.saturating_add(1);
        (self.due, self.woken, self.progressed) = (now, Some(now), false);
        true
    }

    /// It failed since it was called up, before its regular look was due again.
    fn called_up_early(&self, interval: Duration) -> bool {
        self.woken.is_some_and(|woken| woken >= self.counted) && self.counted.elapsed() < interval
    }
}

impl Daemon {
    /// Whether its server can be reached, as far as is known, or this is the one attempt to find
    /// out.
    pub(super) fn may_try(&self, place: &SourceDatabase, server: &Server, now: Instant) -> bool {
        match self.failing_servers.get(&place.0) {
            None => true,
            Some(failing) => {
                failing.is_due(now, server) && !self.polling.iter().any(|other| other.0 == place.0)
            }
        }
    }

    /// A database that cannot be polled: one word about it, and a longer wait each time. Where it
    /// is the server, one word for all of its databases.
    pub(super) fn place_failed(&mut self, place: SourceDatabase, error: Error) {
        if error.kind == Kind::Cancelled {
            return;
        }
        self.well = false;
        let Some(server) = self.servers.get(&place.0).cloned() else { return };
        let interval = self.env.config.check_interval;
        let whole = is_of_the_server(&error);
        if !whole && error.number.is_some() {
            self.server_answers(place.0);
        }
        let failing = if whole {
            self.failing_servers.entry(place.0).or_insert_with(FailureState::new)
        } else {
            self.failing_places.entry(place.clone()).or_insert_with(FailureState::new)
        };
        // An attempt that began with others, before the first of them failed.
        if failing.attempts > 0 && Instant::now() < failing.due {
            return;
        }
        failing.attempts += 1;
        failing.due = Instant::now() + retry::back_off(failing.attempts - 1, interval);
        // Not until the wait is over, unless somebody changes the row.
        failing.parked_as = Some(server.clone());
        let attempts = failing.attempts;
        if failing.words != error.message() {
            failing.words = error.message().to_owned();
            let (code, message) = if whole {
                (ErrorCode::ServerUnreachable, "the source server cannot be reached")
            } else {
                (ErrorCode::SourceDatabaseUnavailable, "the source database cannot be polled")
            };
            tracing::error!(
                error_code = code.as_str(),
                server_id = place.0.0,
                error_type = error.kind.error_type(),
                error_details = %error.details(attempts, "tried again, ever less often, down to once a minute"),
                retry_count = attempts,
                server = server.name,
                database = place.1.as_str(),
                %error,
                "{message}"
            );
            self.troubled.servers.insert(place.0);
        }
    }

    /// It can be reached, whatever it says: its other databases need not be tried one at a time.
    fn server_answers(&mut self, server: ServerId) {
        if self.failing_servers.remove(&server).is_some() {
            tracing::info!(server_id = server.0, "the source server can be reached again");
        }
    }

    pub(super) fn place_works(&mut self, place: &SourceDatabase) {
        self.server_answers(place.0);
        if self.failing_places.remove(place).is_some() {
            tracing::info!(
                server_id = place.0.0,
                database = place.1.as_str(),
                "the source can be polled again"
            );
        }
        let server_works = !self.failing_places.keys().any(|(server, _)| *server == place.0);
        if server_works && self.troubled.servers.remove(&place.0) {
            self.log_sender.resolve(Resolution::Server(place.0));
        }
        let Ok(house) = self.env.sources.connections(place.0) else { return };
        let logins = house.pools().logins();
        if self.logins.insert(place.0, logins) != Some(logins) {
            let control = self.env.control.clone();
            let server = place.0;
            self.spawn(Task::Note, async move {
                TaskResult::Noted(control.record_connected(server).await)
            });
        }
    }

    /// Failures of a mapping in a row.
    pub(super) fn failed_before(&self, id: MappingId) -> u32 {
        let interval = self.env.config.check_interval;
        // Called up early, because others had committed, it may fail often; that counts once for
        // each regular look.
        self.failing
            .get(&id)
            .map_or(0, |failing| failing.attempts - u32::from(failing.called_up_early(interval)))
    }

    /// Rows were committed to a destination database: whoever waits there for a related table's
    /// rows is tried again at once. Who got on with its last attempt always is, as tables that wait
    /// for each other take one step at a time; others not many times between two looks, however
    /// busy their neighbours are.
    pub(super) fn wake_waiting(&mut self, id: MappingId) {
        let Some(database) = self.mappings.get(&id).map(|mapping| mapping.dest.database.clone())
        else {
            return;
        };
        let interval = self.env.config.check_interval;
        self.committed.insert(id, Instant::now());
        let mut places = Vec::new();
        for (other, failing) in &mut self.failing {
            let Some(mapping) =
                self.mappings.get(other).filter(|mapping| mapping.dest.database == database)
            else {
                continue;
            };
            // who runs hears of it when it has failed
            let waits = *other != id && failing.waits && !self.running.contains(*other);
            if waits && failing.call_up(interval) {
                places.push(place_of(mapping));
            }
        }
        self.poll_again(&places);
    }

    /// Whether another mapping committed to the same destination database since then.
    fn neighbour_committed(&self, id: MappingId, since: Instant) -> bool {
        let Some(mapping) = self.mappings.get(&id) else { return false };
        self.committed.iter().any(|(other, at)| {
            let related = || {
                self.mappings
                    .get(other)
                    .is_some_and(|other| other.dest.database == mapping.dest.database)
            };
            *other != id && *at > since && related()
        })
    }

    /// A parked mapping's request that is not in its row any more was claimed by the very attempt
    /// that failed: no reason for another one.
    pub(super) fn forget_claims(&mut self) {
        for (id, failing) in &mut self.failing {
            let requested = self.mappings.get(id).is_none_or(|mapping| mapping.full_sync_requested);
            if let Some(parked) = failing.parked_as.as_mut().filter(|_| !requested) {
                parked.full_sync_requested = false;
            }
        }
    }

    pub(super) fn mapping_works(&mut self, id: MappingId) {
        if self.failing.remove(&id).is_some() {
            tracing::info!(mapping_id = id.0, "the mapping works again");
        }
        // A trigger column that could not be reset is an error until it was seen 0: until then it
        // is ignored. So is one that cannot be asked.
        if !self.env.triggers.is_refused(id)
            && !self.trigger_faults.contains_key(&id)
            && self.troubled.mappings.remove(&id)
        {
            self.log_sender.resolve(Resolution::Mapping(id));
        }
    }

    /// A trigger column that cannot be asked: told once. The mapping works on without it.
    pub(super) fn trigger_failed(&mut self, id: MappingId, error: &Error) {
        let words = error.message().to_owned();
        if self.trigger_faults.get(&id) == Some(&words) {
            return;
        }
        self.well = false;
        tracing::error!(
            mapping_id = id.0,
            server_id = self.mappings.get(&id).map(|mapping| mapping.server.0),
            sync_type = SyncType::FullSync.as_str(),
            error_type = error.kind.error_type(),
            error_code = ErrorCode::TriggerUnreadable.as_str(),
            error_details = %error.details(1, "asked again at every look; CDC goes on"),
            %error,
            "the trigger column cannot be asked"
        );
        self.trigger_faults.insert(id, words);
        self.troubled.mappings.insert(id);
    }

    pub(super) fn mapping_failed(&mut self, id: MappingId, attempt: &FailedAttempt, error: Error) {
        let config = &self.env.config;
        let interval = config.check_interval;
        let policy = RetryPolicy {
            attempts_max: config.retry_attempts,
            delay: config.retry_delay,
            interval,
        };
        let waits = error.kind == Kind::ForeignKey;
        // Tables that wait for each other take turns: what gets on does not fail in a row.
        let progressed = waits && attempt.progressed;
        let attempts = if progressed { 1 } else { self.failed_before(id) + 1 };
        let next = match retry::next(error.kind, attempts, &policy) {
            // what its pass did not try, because it got on, may help
            RetryDecision::Retry(wait) if progressed => RetryDecision::Retry(wait / WAKES_MAX),
            next => next,
        };
        let (wait, park) = match next {
            RetryDecision::Nothing => return,
            RetryDecision::Retry(wait) | RetryDecision::Later(wait) => (wait, false),
            RetryDecision::Park => (config.parked_interval, true),
        };
        self.well = false;
        let server = self.mappings.get(&id).map(|mapping| mapping.server.0);
        let sync_type = attempt.sync_type.map(SyncType::as_str);
        let words = error.to_string();
        match next {
            RetryDecision::Retry(_) if progressed && self.mode == Mode::Forever => {
                tracing::debug!(mapping_id = id.0, sync_type, %error, "waits for a related table, and got on until there");
            }
            RetryDecision::Retry(_) => tracing::warn!(
                mapping_id = id.0,
                sync_type,
                retry_count = attempts,
                attempts_max = policy.attempts_max,
                %error,
                "failed, and will be tried again"
            ),
            _ => {
                let then = if park {
                    "parked: tried again now and then (DATAFLOW_PARKED_INTERVAL), and when its row or its server's row changes"
                } else {
                    "tried again later"
                };
                tracing::error!(
                    mapping_id = id.0,
                    server_id = server,
                    sync_type,
                    error_type = error.kind.error_type(),
                    error_code = ErrorCode::MappingFailed.as_str(),
                    error_details = %error.details(attempts, then),
                    retry_count = attempts,
                    parked = park,
                    %error,
                    "failed"
                );
                self.troubled.mappings.insert(id);
            }
        }
        let parked_as = if park { self.mappings.get(&id).map(looks) } else { None };
        let now = Instant::now();
        let before = self.failing.get(&id);
        let counted = before
            .filter(|failing| failing.attempts == attempts && !progressed)
            .map_or(now, |failing| failing.counted);
        let (woken, wakes) = before.map_or((None, 0), |failing| (failing.woken, failing.wakes));
        let mut failing = FailureState {
            attempts,
            due: now + wait,
            parked_as,
            words,
            waits,
            progressed,
            woken,
            wakes,
            counted,
        };
        // What it waits for may have come while it was refused. (A full sync looked at its own
        // time, and is dear.)
        let again = waits
            && attempt.sync_type == Some(SyncType::Cdc)
            && self.neighbour_committed(id, attempt.began)
            && failing.call_up(interval);
        self.failing.insert(id, failing);
        if let Some(place) = self.mappings.get(&id).filter(|_| again).map(place_of) {
            self.poll_again(&[place]);
        }
    }
}

/// Whether a server, or one of its databases, is out of reach.
pub(super) fn is_away(error: &Error) -> bool {
    matches!(error.kind, Kind::Connection | Kind::Login | Kind::Database)
}

/// Whether a whole server is out of reach, and not one of its databases (4060, 4064).
pub(super) fn is_of_the_server(error: &Error) -> bool {
    matches!(error.kind, Kind::Connection | Kind::Login)
}

/// A mapping without what changes by itself: what an operator would have to touch.
pub(super) fn looks(mapping: &Mapping) -> Mapping {
    Mapping { last_cdc_lsn: None, full_sync_pending: false, has_synced: false, ..mapping.clone() }
}
