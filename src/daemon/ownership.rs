//! Makes the state agree with a refresh: which mappings are this daemon's, and which rows were
//! added, changed or removed.

use super::{
    state::{Daemon, Mode},
    task::{Task, TaskResult},
};
use crate::{
    control::{ControlSnapshot, ErrorCode, OpenErrors},
    jobs::ownership::{self, OwnedMappings, Recovered},
    model::{
        id::{MappingId, ServerId},
        mapping::{Mapping, Server, SyncType},
    },
    plan::lifecycle::LifecycleEvent,
};
use std::collections::{HashMap, HashSet};
use tokio::time::Instant;

/// Unusable rows that one refresh logs, so that they do not fill the queue of the log tables. The
/// next refreshes log the others.
const REJECTED_LOGGED_MAX: usize = 500;

/// Mappings of other daemons that `--once` names one by one.
const OTHERS_NAMED_MAX: usize = 20;

impl Daemon {
    /// Leaves in `loaded` what is this daemon's, and cancels the work of mappings that are not its
    /// own any more.
    pub fn apply_ownership(&mut self, loaded: &mut ControlSnapshot, owned: OwnedMappings) {
        if self.mode == Mode::Once {
            log_mappings_of_others(loaded, &owned);
        }
        loaded.mappings.retain(|mapping| owned.mappings.contains_key(&mapping.id));
        loaded.rejected.retain(|row| owned.mappings.contains_key(&row.mapping));
        if owned.members.leads() != self.lease.leads {
            self.lease.leads = owned.members.leads();
            self.purge_logs();
        }
        let used: HashSet<ServerId> = loaded
            .mappings
            .iter()
            .map(|mapping| mapping.server)
            .chain(loaded.rejected.iter().map(|row| row.server))
            .collect();
        // only the daemon that leads warns of servers that no mapping uses
        loaded.servers.retain(|server| self.lease.leads || used.contains(&server.id));
        self.apply_locks(&owned);
        self.cancel_disowned(&loaded.mappings);
        if let Some(Recovered { open_errors, to_sweep }) = owned.recovered {
            let env = self.env.clone();
            self.spawn(Task::DropStagingTables, async move {
                ownership::drop_staging_tables(&env, to_sweep).await;
                TaskResult::Maintenance(Ok(()))
            });
            self.apply_open_errors(open_errors);
        }
    }

    fn apply_locks(&mut self, owned: &OwnedMappings) {
        for state in self.mappings.values_mut() {
            (state.lock, state.leaving) = (None, false);
        }
        for (id, generation) in &owned.mappings {
            let state = self.mappings.entry(*id).or_default();
            (state.lock, state.leaving) = (Some(*generation), owned.leaving.contains(id));
        }
    }

    /// Cancels the work of every mapping that is not in `rows`: another daemon's, deleted, disabled
    /// or unusable.
    fn cancel_disowned(&mut self, rows: &[Mapping]) {
        let kept: HashSet<MappingId> = rows.iter().map(|mapping| mapping.id).collect();
        for (id, state) in &mut self.mappings {
            // A full sync notices by itself that its mapping was disabled, and records it.
            let notices =
                state.lock.is_some() && state.lifecycle().running() == Some(SyncType::FullSync);
            if !kept.contains(id)
                && !notices
                && let Some(cancel) = state.cancel.take()
            {
                cancel.cancel();
            }
        }
    }

    /// What daemons before this one left. It covers the mappings of all daemons.
    fn apply_open_errors(&mut self, open: OpenErrors) {
        for id in open.mappings {
            if let Some(state) = self.mappings.get_mut(&id) {
                state.error_open = true;
            }
        }
        for id in open.servers {
            self.servers.entry(id).or_default().error_open = true;
        }
        for state in self.mappings.values_mut() {
            state.verification.turn = None;
        }
        self.verifications.next_turn = open.verification_order.len();
        for (turn, id) in open.verification_order.into_iter().enumerate() {
            if let Some(state) = self.mappings.get_mut(&id) {
                state.verification.turn = Some(turn);
            }
        }
    }

    /// New, changed and removed servers.
    pub fn apply_servers(&mut self, rows: &[Server]) {
        self.log_server_notices(rows);
        let mut removed: HashSet<ServerId> = self.servers.keys().copied().collect();
        for row in rows {
            removed.remove(&row.id);
            let state = self.servers.entry(row.id).or_default();
            let old = state.row.replace(row.clone());
            if old.is_some_and(|old| old != *row) {
                self.on_server_changed(row.id);
            }
        }
        for id in removed {
            if let Some(state) = self.servers.get_mut(&id) {
                state.row = None;
            }
        }
    }

    fn log_server_notices(&mut self, rows: &[Server]) {
        for notice in self.env.sources.update(rows) {
            for warning in &notice.warnings {
                tracing::warn!(server_id = notice.server.0, "server {}: {warning}", notice.name);
            }
            let Some(error) = &notice.error else { continue };
            self.all_worked = false;
            self.servers.entry(notice.server).or_default().error_open = true;
            tracing::error!(
                server_id = notice.server.0,
                error_type = error.kind.error_type(),
                error_code = ErrorCode::ServerRowUnusable.as_str(),
                error_details = %error.details(1, "left out until its row changes"),
                %error,
                "the server {} cannot be used",
                notice.name
            );
        }
    }

    /// A changed row may name another server: what is known of the old one is forgotten.
    fn on_server_changed(&mut self, id: ServerId) {
        if let Some(state) = self.servers.get_mut(&id) {
            (state.logins, state.failure) = (None, None);
        }
        for (_, state) in self.databases.iter_mut().filter(|(database, _)| database.server == id) {
            state.poll_state = Default::default();
            state.failure = None;
        }
        // The change may have removed the reason why its mappings are parked.
        let of_server = |row: &Option<Mapping>| row.as_ref().is_some_and(|row| row.server == id);
        for state in self.mappings.values_mut().filter(|state| of_server(&state.row)) {
            if let Some(failure) = state.failure_mut().filter(|failure| failure.parked_as.is_some())
            {
                failure.due = Instant::now();
            }
        }
    }

    /// Logs each unusable row once, and again when the reason changes.
    pub fn apply_rejected(&mut self, loaded: &ControlSnapshot) {
        let mut logged_before: HashMap<MappingId, String> = self
            .mappings
            .iter_mut()
            .filter_map(|(id, state)| Some((*id, state.rejected.take()?)))
            .collect();
        let mut logged = 0;
        for row in &loaded.rejected {
            let reason = row.error.to_string();
            if logged_before.remove(&row.mapping).as_ref() != Some(&reason) {
                if logged >= REJECTED_LOGGED_MAX {
                    continue;
                }
                logged += 1;
                self.all_worked = false;
                self.mappings.entry(row.mapping).or_default().error_open = true;
                tracing::error!(
                    mapping_id = row.mapping.0,
                    server_id = row.server.0,
                    error_type = row.error.kind.error_type(),
                    error_code = ErrorCode::MappingRowUnusable.as_str(),
                    error_details = %row.error.details(1, "left out until its row changes"),
                    error = %row.error,
                    "mapping {} of table_mappings is left out",
                    row.mapping
                );
            }
            self.mappings.entry(row.mapping).or_default().rejected = Some(reason);
        }
    }

    /// The usable rows of this daemon's mappings.
    pub fn apply_rows(&mut self, rows: Vec<Mapping>) {
        for state in self.mappings.values_mut() {
            state.row = None;
        }
        for row in rows {
            let state = self.mappings.entry(row.id).or_default();
            state.row = Some(row);
        }
    }

    /// Cancels all work at its next batch boundary. Nothing new starts until a lease is acquired.
    pub fn disown_all(&mut self) {
        for state in self.mappings.values_mut() {
            if let Some(cancel) = state.cancel.take() {
                cancel.cancel();
            }
            state.row = None;
            state.apply(LifecycleEvent::Unqueued);
        }
        self.queue.clear();
        self.lease.leads = false;
    }
}

/// `--once` beside running daemons works on the mappings that they do not own, and logs which ones
/// it left to them.
fn log_mappings_of_others(loaded: &ControlSnapshot, owned: &OwnedMappings) {
    let others: Vec<MappingId> = loaded
        .mappings
        .iter()
        .map(|mapping| mapping.id)
        .filter(|id| !owned.mappings.contains_key(id))
        .collect();
    for id in others.iter().take(OTHERS_NAMED_MAX) {
        let row = loaded.mappings.iter().find(|mapping| mapping.id == *id);
        let table = row.map_or_else(String::new, |row| row.source.to_string());
        tracing::info!(mapping_id = id.0, "{table}: left to the daemon that works on it");
    }
    if others.len() > OTHERS_NAMED_MAX {
        tracing::info!("{} tables are left to the daemons that work on them", others.len());
    }
}
