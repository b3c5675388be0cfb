//! Verifications: whose turn it is, and how they ended.

use super::{Daemon, SourceDatabase, Task, TaskResult, failures::is_away, following::place_of};
use crate::{
    control::ErrorCode,
    error::{Error, Kind, Result},
    jobs::{Env, verify},
    model::{
        id::MappingId,
        mapping::{Mapping, SyncType},
    },
    telemetry::Resolution,
};
use tokio::time::Instant;

impl Daemon {
    /// Time to verify: every mapping, the one whose turn was longest ago first. A round that is not
    /// done yet goes on.
    pub(super) fn verify_tick(&mut self) {
        if self.verify_queue.is_empty() && self.verifying.is_empty() {
            let mut queue: Vec<MappingId> = self.mappings.keys().copied().collect();
            queue.sort_by_key(|id| (self.verified.get(id).copied(), *id));
            self.verify_queue = queue.into();
        }
        self.verify_more();
    }

    pub(super) fn verify_more(&mut self) {
        // Mappings in a full sync, or about to be, have their turn in a later round: they differ by
        // right.
        while !self.stopping()
            && self.lease_is_fresh()
            && self.control_away.is_none()
            && self.verifying.len() < self.env.config.verify_concurrency
        {
            let Some(id) = self.verify_queue.pop_front() else { return };
            let Some(mapping) = self.mappings.get(&id).cloned() else { continue };
            let runs = self.running.of(id) == Some(SyncType::FullSync) || self.full_sync_waits(id);
            let syncs = runs || mapping.wants_full_sync();
            if syncs
                || self.leaving.contains(&id)
                || self.env.sources.connections(mapping.server).is_err()
                || self.is_out_of_reach(&place_of(&mapping))
            {
                continue;
            }
            self.verifying.insert(id);
            let env = self.env_for(id);
            let stands_still = self.failing.contains_key(&id);
            let interval = self.env.config.verify_structure_interval;
            let structure = !interval.is_zero()
                && !stands_still
                && self.structure_at.get(&id).is_none_or(|at| at.elapsed() >= interval);
            if structure {
                self.structure_at.insert(id, Instant::now());
            }
            self.spawn(Task::Verify(id), async move {
                TaskResult::Verified(verify_one(&env, &mapping, stands_still, structure).await)
            });
        }
    }

    pub(super) fn verified(&mut self, id: MappingId, result: Result<()>) {
        self.verifying.remove(&id);
        let turn = self.verified.values().max().map_or(0, |last| last + 1);
        self.verified.insert(id, turn);
        // It is reached again.
        if !result.as_ref().is_err_and(is_away)
            && let Some(error) = self.unsaid.remove(&id)
        {
            self.verification_failed(id, &error);
        }
        match result {
            Ok(()) if self.settled.insert(Some(id)) => {
                self.log_sender.resolve(Resolution::Code(Some(id), ErrorCode::VerificationNotRun))
            }
            Ok(()) => {}
            Err(error) if error.kind == Kind::Cancelled => {}
            Err(error) if is_away(&error) => drop(self.unsaid.insert(id, error)),
            Err(error) => self.verification_failed(id, &error),
        }
        // a full sync may have waited for it
        self.start_waiting();
        self.verify_more();
    }

    /// A place was polled. Where it is away, that is one word, and not one per mapping; where it is
    /// not, what verifications met there since the last poll is told.
    pub(super) fn verifications_met(&mut self, place: &SourceDatabase, away: bool) {
        let here: Vec<_> = self
            .unsaid
            .extract_if(|id, _| {
                self.mappings.get(id).is_none_or(|mapping| place_of(mapping) == *place)
            })
            .collect();
        for (id, error) in here.into_iter().filter(|_| !away) {
            self.verification_failed(id, &error);
        }
    }

    fn verification_failed(&mut self, id: MappingId, error: &Error) {
        // what is wrong with a mapping that fails was said when it failed
        let Some(mapping) = self.mappings.get(&id).filter(|_| !self.failing.contains_key(&id))
        else {
            return;
        };
        let error_type = match error.kind.error_type() {
            "SYNC" | "OTHER" => "VERIFICATION",
            other => other,
        };
        tracing::error!(
            mapping_id = id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::Verification.as_str(),
            error_type,
            // resolved by the next verification that comes to a result
            error_code = ErrorCode::VerificationNotRun.as_str(),
            error_details = %error.details(1, "tried again at the next verification"),
            %error,
            "verification failed to run"
        );
        self.settled.remove(&Some(id));
    }

    /// Whether a source is known to be out of reach.
    pub(super) fn is_out_of_reach(&self, place: &SourceDatabase) -> bool {
        self.failing_servers.contains_key(&place.0) || self.failing_places.contains_key(place)
    }
}

/// A mapping's turn: its rows, and now and then its columns and the number of its rows.
async fn verify_one(
    env: &Env,
    mapping: &Mapping,
    stands_still: bool,
    structure: bool,
) -> Result<()> {
    if structure {
        verify::schema(env, mapping).await?;
    }
    verify::run(env, mapping, verify::Scope::Next { stands_still }, &mut |_, _| {}).await?;
    if structure {
        verify::row_count(env, mapping).await?;
    }
    Ok(())
}
