//! Verifications: which mapping is next, and what follows from the result.

use super::{
    failure::is_unreachable,
    source_state::SourceDatabase,
    state::Daemon,
    task::{Task, TaskResult},
};
use crate::{
    control::ErrorCode,
    error::{Error, Kind, Result},
    jobs::{Env, verify},
    model::{
        id::MappingId,
        mapping::{Mapping, SyncType},
    },
    plan::lifecycle::LifecycleEvent,
    telemetry::Resolution,
};
use tokio::time::Instant;

impl Daemon {
    /// Begins a round of all mappings, the one that was verified longest ago first. If the last
    /// round has not ended, it goes on instead.
    pub fn verify_tick(&mut self) {
        if self.verifications.queue.is_empty() && self.verifications_running() == 0 {
            let mut queue: Vec<(Option<usize>, MappingId)> =
                self.rows().map(|(row, state)| (state.verification.turn, row.id)).collect();
            queue.sort_unstable();
            self.verifications.queue = queue.into_iter().map(|(_, id)| id).collect();
        }
        self.start_verifications();
    }

    fn verifications_running(&self) -> usize {
        self.mappings.values().filter(|state| state.lifecycle().verifying).count()
    }

    /// Starts as many as may run at a time. Mappings that cannot be verified now are skipped until
    /// the next round.
    pub fn start_verifications(&mut self) {
        if self.verifications.queue.is_empty()
            || self.stopping()
            || !self.lease_is_fresh()
            || self.control.unreadable_logged_at.is_some()
        {
            return;
        }
        let mut running = self.verifications_running();
        while running < self.env.config.verify_concurrency {
            let Some(id) = self.verifications.queue.pop_front() else { return };
            if let Some(mapping) = self.verifiable(id) {
                self.start_verification(mapping);
                running += 1;
            }
        }
    }

    /// The mapping's row, if it can be verified now. Not while it waits for a full sync: it differs
    /// until that has ended.
    fn verifiable(&self, id: MappingId) -> Option<Mapping> {
        let state = self.mappings.get(&id)?;
        let row = state.row.as_ref()?;
        let can = state.lifecycle().can_be_verified()
            && !row.wants_full_sync()
            && !state.leaving
            && self.env.sources.connections(row.server).is_ok()
            && !self.is_source_unreachable(&SourceDatabase::of(row));
        can.then(|| row.clone())
    }

    fn start_verification(&mut self, mapping: Mapping) {
        let id = mapping.id;
        let interval = self.env.config.verify_structure_interval;
        let env = self.env_for(id);
        let state = self.mappings.entry(id).or_default();
        state.apply(LifecycleEvent::VerificationStarted);
        let failing = state.failure().is_some();
        let checked_at = &mut state.verification.structure_checked_at;
        let structure =
            !interval.is_zero() && !failing && checked_at.is_none_or(|at| at.elapsed() >= interval);
        if structure {
            *checked_at = Some(Instant::now());
        }
        self.spawn(Task::Verification(id), async move {
            TaskResult::Verification(verify_one(&env, &mapping, failing, structure).await)
        });
    }

    pub fn on_verification_end(&mut self, id: MappingId, result: Result<()>) {
        let unreachable = result.as_ref().is_err_and(is_unreachable);
        let turn = self.verifications.next_turn;
        self.verifications.next_turn += 1;
        let state = self.mappings.entry(id).or_default();
        state.apply(LifecycleEvent::VerificationEnded);
        state.verification.turn = Some(turn);
        if !unreachable && let Some(error) = state.verification.deferred_error.take() {
            self.log_verification_error(id, &error);
        }
        match result {
            Ok(()) => self.resolve_verification_errors(id),
            Err(error) if error.kind == Kind::Cancelled => {}
            Err(error) if unreachable => {
                self.mappings.entry(id).or_default().verification.deferred_error = Some(error);
            }
            Err(error) => self.log_verification_error(id, &error),
        }
        // a full sync may have waited for the end of the verification
        self.start_queued();
        self.start_verifications();
    }

    fn resolve_verification_errors(&mut self, id: MappingId) {
        let state = self.mappings.entry(id).or_default();
        if !std::mem::replace(&mut state.verification.errors_resolved, true) {
            self.log_sender.resolve(Resolution::Code(Some(id), ErrorCode::VerificationNotRun));
        }
    }

    /// A source database was polled: connection errors of its verifications, held until now, are
    /// logged. Not if it is unreachable: then that is one error for all of its mappings.
    pub fn log_deferred_errors(&mut self, database: &SourceDatabase, unreachable: bool) {
        let deferred: Vec<(MappingId, Error)> = self
            .mappings
            .iter_mut()
            .filter(|(_, state)| {
                state.row.as_ref().is_none_or(|row| SourceDatabase::of(row) == *database)
            })
            .filter_map(|(id, state)| Some((*id, state.verification.deferred_error.take()?)))
            .collect();
        for (id, error) in deferred.into_iter().filter(|_| !unreachable) {
            self.log_verification_error(id, &error);
        }
    }

    fn log_verification_error(&mut self, id: MappingId, error: &Error) {
        let Some(state) = self.mappings.get_mut(&id) else { return };
        // a mapping that fails was logged when it failed
        let Some(row) = state.row.as_ref().filter(|_| state.failure().is_none()) else { return };
        let error_type = match error.kind.error_type() {
            "SYNC" | "OTHER" => "VERIFICATION",
            other => other,
        };
        tracing::error!(
            mapping_id = id.0,
            server_id = row.server.0,
            sync_type = SyncType::Verification.as_str(),
            error_type,
            // resolved by the next verification that ends with a result
            error_code = ErrorCode::VerificationNotRun.as_str(),
            error_details = %error.details(1, "tried again at the next verification"),
            %error,
            "{}: the verification could not be done",
            row.source
        );
        state.verification.errors_resolved = false;
    }
}

/// Verifies a mapping's rows, and if `structure` is set its columns and its number of rows. Its
/// checkpoint does not move while it is `failing`.
async fn verify_one(env: &Env, mapping: &Mapping, failing: bool, structure: bool) -> Result<()> {
    if structure {
        verify::schema(env, mapping).await?;
    }
    let scope = verify::Scope::Next { stands_still: failing };
    verify::run(env, mapping, scope, None, &verify::unwatched).await?;
    if structure {
        verify::row_count(env, mapping, scope, None).await?;
    }
    Ok(())
}
