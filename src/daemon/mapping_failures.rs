//! Failures of mappings: each is logged here, once, and [`crate::plan::retry`] decides by the error's
//! kind alone when the mapping is tried again.

use super::{
    failure::{MappingFailure, WAKES_MAX},
    source_state::SourceDatabase,
    state::{Daemon, Mode},
};
use crate::{
    control::ErrorCode,
    error::{Error, Kind},
    model::{id::MappingId, mapping::SyncType},
    plan::retry::{self, RetryDecision, RetryPolicy},
    telemetry::Resolution,
};
use std::time::Duration;
use tokio::time::Instant;

/// An attempt that failed.
pub(super) struct FailedAttempt {
    /// `None`: a poll.
    pub sync_type: Option<SyncType>,
    /// It committed something.
    pub progressed: bool,
    pub began: Instant,
}

impl FailedAttempt {
    /// A poll that has just failed.
    pub fn poll() -> Self {
        FailedAttempt { sync_type: None, progressed: false, began: Instant::now() }
    }
}

/// What follows from a failure of a mapping.
struct FailurePlan {
    /// Failures in a row, with this one.
    attempts: u32,
    decision: RetryDecision,
    /// Until the next attempt.
    delay: Duration,
    parked: bool,
    /// It waits for rows of a related table.
    waits: bool,
    /// It waits, and made progress before.
    progressed: bool,
}

impl Daemon {
    /// Failures in a row before the attempt that runs now.
    pub fn attempts_before(&self, id: MappingId) -> u32 {
        let interval = self.env.config.check_interval;
        self.mappings
            .get(&id)
            .and_then(|state| state.failure())
            .map_or(0, |failure| failure.attempts_before(interval))
    }

    /// A mapping's job committed rows: mappings to the same destination database that wait for rows
    /// of a related table become due. Returns the source databases to poll.
    pub fn wake_waiting(&mut self, id: MappingId) -> Vec<SourceDatabase> {
        let interval = self.env.config.check_interval;
        let Some(state) = self.mappings.get_mut(&id) else { return Vec::new() };
        let Some(row) = &state.row else { return Vec::new() };
        let dest = row.dest.database.clone();
        state.committed_at = Some(Instant::now());
        let mut to_poll = Vec::new();
        for (other, state) in &mut self.mappings {
            // a job that fails checks itself whether others committed while it ran
            let skipped = *other == id || state.lifecycle().running().is_some();
            let Some(row) = state.row.as_ref().filter(|row| row.dest.database == dest && !skipped)
            else {
                continue;
            };
            let database = SourceDatabase::of(row);
            if let Some(failure) = state.failure_mut().filter(|failure| failure.waits)
                && failure.wake(interval)
            {
                to_poll.push(database);
            }
        }
        to_poll
    }

    /// Whether another mapping committed to the same destination database since then.
    fn others_committed(&self, id: MappingId, since: Instant) -> bool {
        let Some(row) = self.row(id) else { return false };
        self.rows().any(|(other, state)| {
            other.id != id
                && other.dest.database == row.dest.database
                && state.committed_at.is_some_and(|at| at > since)
        })
    }

    /// A parked mapping is tried again when its row changes. A request for a full sync that is no
    /// longer in the row was claimed by the attempt that failed, and is no such change.
    pub fn forget_claimed_requests(&mut self) {
        for state in self.mappings.values_mut() {
            let requested = state.row.as_ref().is_none_or(|row| row.full_sync_requested);
            if !requested
                && let Some(parked) =
                    state.failure_mut().and_then(|failure| failure.parked_as.as_mut())
            {
                parked.full_sync_requested = false;
            }
        }
    }

    /// A mapping's job completed, or a poll found nothing to do for it.
    pub fn mapping_worked(&mut self, id: MappingId) {
        let table = self.table_of(id);
        let Some(state) = self.mappings.get_mut(&id) else { return };
        if state.clear_failure() {
            tracing::info!(mapping_id = id.0, "{table} works again");
        }
        // Errors of the trigger column stay open until the column can be read, or was reset.
        if !self.env.triggers.is_refused(id)
            && state.trigger_error.is_none()
            && std::mem::take(&mut state.error_open)
        {
            self.log_sender.resolve(Resolution::Mapping(id));
        }
    }

    /// A trigger column cannot be read: logged once. The mapping's CDC goes on.
    pub fn trigger_failed(&mut self, id: MappingId, error: &Error) {
        let reason = error.message().to_owned();
        let state = self.mappings.entry(id).or_default();
        if state.trigger_error.as_ref() == Some(&reason) {
            return;
        }
        self.all_worked = false;
        let table = state.row.as_ref().map_or_else(String::new, |row| format!("{}: ", row.source));
        tracing::error!(
            mapping_id = id.0,
            server_id = state.row.as_ref().map(|row| row.server.0),
            sync_type = SyncType::FullSync.as_str(),
            error_type = error.kind.error_type(),
            error_code = ErrorCode::TriggerUnreadable.as_str(),
            error_details = %error.details(1, "asked again at every poll; CDC goes on"),
            %error,
            "{table}the trigger column cannot be read"
        );
        state.trigger_error = Some(reason);
        state.error_open = true;
    }

    /// Logs the failure and sets when the mapping is tried again. Returns the source database to
    /// poll if that is now.
    pub fn mapping_failed(
        &mut self,
        id: MappingId,
        attempt: &FailedAttempt,
        error: &Error,
    ) -> Option<SourceDatabase> {
        let plan = self.plan_retry(id, attempt, error)?;
        self.all_worked = false;
        let message = error.to_string();
        let logged_before = self.logged_before(id, &message, &plan);
        let logged_as_error =
            logged_before.is_some() || self.log_mapping_failure(id, attempt, error, &plan);
        let interval = self.env.config.check_interval;
        let now = Instant::now();
        // What it waits for may have been committed while it ran. A full sync is not repeated for
        // that: it is expensive, and checks its constraints at its end.
        let may_wake = plan.waits
            && attempt.sync_type == Some(SyncType::Cdc)
            && self.others_committed(id, attempt.began);
        let state = self.mappings.entry(id).or_default();
        state.error_open |= logged_as_error;
        let row = state.row.as_ref();
        let parked_as = row.filter(|_| plan.parked).map(|row| row.as_configured());
        let updated_at = row.map_or_else(|| "".into(), |row| row.updated_at.clone());
        let database = row.map(SourceDatabase::of);
        let before = state.failure();
        let mut failure = MappingFailure {
            attempts: plan.attempts,
            due: now + plan.delay,
            parked_as,
            updated_at,
            logged: (message, logged_before.unwrap_or(now)),
            waits: plan.waits,
            progressed: plan.progressed,
            woken_at: before.and_then(|failure| failure.woken_at),
            wakes: before.map_or(0, |failure| failure.wakes),
            counted_at: before
                .filter(|failure| failure.attempts == plan.attempts && !plan.progressed)
                .map_or(now, |failure| failure.counted_at),
        };
        let woken = may_wake && failure.wake(interval);
        state.set_failure(failure);
        database.filter(|_| woken)
    }

    /// `None`: it was cancelled, which is not a failure.
    fn plan_retry(
        &self,
        id: MappingId,
        attempt: &FailedAttempt,
        error: &Error,
    ) -> Option<FailurePlan> {
        let config = &self.env.config;
        let policy = RetryPolicy {
            attempts_max: config.retry_attempts,
            delay: config.retry_delay,
            interval: config.check_interval,
        };
        let waits = error.kind == Kind::ForeignKey;
        // Tables that wait for each other take turns: an attempt with progress ends the row of
        // failures.
        let progressed = waits && attempt.progressed;
        let attempts = if progressed { 1 } else { self.attempts_before(id) + 1 };
        let decision = match retry::next(error.kind, attempts, &policy) {
            RetryDecision::Retry(delay) if progressed => RetryDecision::Retry(delay / WAKES_MAX),
            decision => decision,
        };
        let (delay, parked) = match decision {
            RetryDecision::Nothing => return None,
            RetryDecision::Retry(delay) | RetryDecision::Later(delay) => (delay, false),
            RetryDecision::Park => {
                let in_poll = match attempt.sync_type {
                    None => true,
                    Some(sync_type) => sync_type == SyncType::Cdc && attempts == 1,
                };
                let intervals = (config.parked_interval, config.check_interval);
                (retry::parked_for(error.kind, in_poll, intervals), true)
            }
        };
        Some(FailurePlan { attempts, decision, delay, parked, waits, progressed })
    }

    /// A parked mapping is looked at more often than its error is logged: when it was logged last,
    /// if that is less than `DATAFLOW_PARKED_INTERVAL` ago.
    fn logged_before(&self, id: MappingId, message: &str, plan: &FailurePlan) -> Option<Instant> {
        let failure = self.mappings.get(&id)?.failure()?;
        let (logged, at) = &failure.logged;
        let recent = at.elapsed() < self.env.config.parked_interval;
        (plan.parked && failure.parked_as.is_some() && logged == message && recent).then_some(*at)
    }

    /// Returns whether it was logged as an error, which stays open in error_logs.
    fn log_mapping_failure(
        &self,
        id: MappingId,
        attempt: &FailedAttempt,
        error: &Error,
        plan: &FailurePlan,
    ) -> bool {
        let sync_type = attempt.sync_type.map(SyncType::as_str);
        let work = match attempt.sync_type {
            Some(SyncType::Cdc) => "CDC",
            Some(SyncType::FullSync) => "full sync",
            _ => "the look for work",
        };
        if let RetryDecision::Retry(_) = plan.decision {
            if plan.progressed && self.mode == Mode::Forever {
                tracing::debug!(
                    mapping_id = id.0,
                    sync_type,
                    %error,
                    "{}: made progress, then had to wait for a related table",
                    self.table_of(id)
                );
            } else {
                tracing::warn!(
                    mapping_id = id.0,
                    sync_type,
                    retry_count = plan.attempts,
                    attempts_max = self.env.config.retry_attempts,
                    %error,
                    "{}: {work} failed, and will be tried again",
                    self.table_of(id)
                );
            }
            return false;
        }
        let then = if plan.parked {
            "parked: looked at again within a minute where something is to be mended (else every DATAFLOW_PARKED_INTERVAL), and at once by `dbaops-dataflow retry`"
        } else {
            "tried again later"
        };
        tracing::error!(
            mapping_id = id.0,
            server_id = self.row(id).map(|row| row.server.0),
            sync_type,
            error_type = error.kind.error_type(),
            error_code = ErrorCode::of_failure(error.kind).as_str(),
            error_details = %error.details(plan.attempts, then),
            retry_count = plan.attempts,
            parked = plan.parked,
            %error,
            "{}: {work} failed",
            self.table_of(id)
        );
        true
    }
}
