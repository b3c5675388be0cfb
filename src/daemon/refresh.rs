//! A daemon's share of the mappings, and what happens when it changes.
//!
//! Each tick takes the lease along to a task that looks: the control tables are loaded, the share
//! is divided anew, and the lease comes back with what is this daemon's now. A lease that does not
//! come back proven is lost: the work of every mapping is asked to stop at its next batch boundary,
//! and the next tick begins with a new connection and no mappings. Work that could not know it in
//! time fails at its fence; nobody hears of that as an error, since the mapping is in other hands.

use super::{AWAY_REMINDER, Daemon, Mode, PROOF_INTERVAL, Task, TaskResult, failures::is_away};
use crate::{
    control::{ControlSnapshot, ErrorCode, GONE_AFTER, Lease},
    error::{Error, Kind, Result},
    jobs::{
        Env,
        ownership::{self, OwnedMappings, Recovered},
    },
    model::{
        id::{MappingId, ServerId},
        mapping::SyncType,
    },
    plan::{assignment::Holding, retry},
    telemetry::Resolution,
};
use std::collections::HashSet;
use tokio::time::Instant;

/// Logged once by each process.
const NO_HEARTBEAT: &str = "the control database has no tables for the heartbeat: a daemon that is \
    frozen keeps its mappings until it is ended. Run `dbaops-dataflow init`, then restart the daemons";

/// Mappings of others that `--once` names one by one.
const OTHERS_NAMED_MAX: usize = 20;

/// What came of a look.
pub(super) struct ControlRefresh {
    lease: Option<Lease>,
    result: std::result::Result<(ControlSnapshot, OwnedMappings), RefreshError>,
}

/// Why a look saw nothing.
enum RefreshError {
    /// The control tables cannot be read; what was owned is owned.
    Tables(Error),
    /// The lease is lost, or cannot be had.
    Lease(Error),
}

impl ControlRefresh {
    pub(super) fn lost(error: Error) -> Self {
        ControlRefresh { lease: None, result: Err(RefreshError::Lease(error)) }
    }

    /// `leads`: this daemon does what one has to do for all.
    async fn take(
        env: &Env,
        lease: Option<Lease>,
        member: bool,
        leads: bool,
        here: &Holding,
    ) -> Self {
        let lease = match lease {
            Some(lease) => Ok(lease),
            None => env.control.lease(member).await,
        };
        let mut lease = match lease {
            Ok(lease) => lease,
            Err(error) => return ControlRefresh::lost(error),
        };
        let loaded = match load(env, leads).await {
            Ok(loaded) => loaded,
            Err(error) => {
                return match lease.renew().await {
                    Ok(_) => ControlRefresh {
                        lease: Some(lease),
                        result: Err(RefreshError::Tables(error)),
                    },
                    Err(lost) => ControlRefresh::lost(lost),
                };
            }
        };
        env.control.write_pending_completions().await;
        match ownership::refresh(env, &mut lease, &loaded, here).await {
            Ok(owned) => ControlRefresh { lease: Some(lease), result: Ok((loaded, owned)) },
            Err(error) => ControlRefresh::lost(error),
        }
    }
}

impl Daemon {
    /// Looks at the control tables, unless somebody does.
    pub(super) fn tick(&mut self) {
        self.tick_missed |= self.proving;
        if self.looking
            || self.proving
            || self.stopping()
            || self.refused.is_some_and(|(_, until)| Instant::now() < until)
        {
            return;
        }
        self.looking = true;
        self.env.metrics.looking(Some(std::time::Instant::now()));
        let env = self.env.clone();
        let lease = self.lease.take();
        let (member, leads) = (self.mode == Mode::Forever, self.leads);
        let busy = self.running.ids().chain(self.verifying.iter().copied()).collect();
        let here = Holding { busy, leaving: self.leaving.clone() };
        self.spawn(Task::ControlRefresh, async move {
            TaskResult::Looked(Box::new(
                ControlRefresh::take(&env, lease, member, leads, &here).await,
            ))
        });
    }

    /// Has the lease proven, unless a look does it, or has just done it: a tick may be an hour
    /// away.
    pub(super) fn prove(&mut self) {
        if self.proving || self.proven.elapsed() < PROOF_INTERVAL {
            return;
        }
        let Some(mut lease) = self.lease.take() else { return };
        self.proving = true;
        self.spawn(Task::Proof, async move {
            TaskResult::Proven(lease.renew().await.map(|_| Box::new(lease)))
        });
    }

    pub(super) fn lease_proven(&mut self, proven: Result<Box<Lease>>) {
        self.proving = false;
        self.proven = Instant::now();
        match proven {
            Ok(lease) => {
                self.lease = Some(*lease);
                // what waited for the proof
                self.start_waiting();
            }
            Err(_) if self.stopping() => {}
            Err(error) => {
                self.env.metrics.leased(false);
                self.lease_lost(&error);
                // by a new connection, as soon as one can be had
                self.tick_missed |= self.mode == Mode::Forever;
            }
        }
        if std::mem::take(&mut self.tick_missed) {
            self.tick();
        }
    }

    /// Whether nobody can have taken this daemon to be gone yet. After a pause of the process (it
    /// was stopped, its machine slept) nothing starts before the lease is proven anew.
    pub(super) fn lease_is_fresh(&self) -> bool {
        self.proven.elapsed() < GONE_AFTER
    }

    fn lease_lost(&mut self, error: &Error) {
        self.stop_all();
        self.cannot_look(error, ErrorCode::LeaseLost);
    }

    /// What the look says is so from now on.
    pub(super) fn looked(&mut self, look: ControlRefresh) {
        self.looking = false;
        self.env.metrics.looking(None);
        self.lease = look.lease;
        self.proven = Instant::now();
        if let Some(lease) = &self.lease
            && !lease.notices_frozen_daemons()
            && !std::mem::replace(&mut self.no_heartbeat_logged, true)
        {
            tracing::warn!("{NO_HEARTBEAT}");
        }
        self.env.metrics.leased(!matches!(look.result, Err(RefreshError::Lease(_))));
        if self.stopping() {
            return;
        }
        let (mut loaded, owned) = match look.result {
            Ok(seen) => seen,
            Err(RefreshError::Tables(error)) => {
                return self.cannot_look(&error, ErrorCode::ControlTablesUnreadable);
            }
            Err(RefreshError::Lease(error)) => return self.lease_lost(&error),
        };
        self.refused = None;
        self.unforget();
        if self.control_away.take().is_some() {
            tracing::info!("the control tables can be read again");
            // whatever verifications met meanwhile was that
            self.unsaid.clear();
        }
        // Also what a process before this one left behind.
        if self.settled.insert(None) {
            for code in [ErrorCode::ControlTablesUnreadable, ErrorCode::LeaseLost] {
                self.log_sender.resolve(Resolution::Code(None, code));
            }
        }
        self.follow_owned(&mut loaded, owned);
        self.follow_servers(&loaded.servers);
        self.follow_rejected(&loaded);
        self.mappings.clear();
        self.mappings.extend(loaded.mappings.into_iter().map(|mapping| (mapping.id, mapping)));
        self.forget();
        self.forget_claims();
        self.forget_waiting();
        self.start_waiting();
        self.poll_due(|_| true);
        self.env.metrics.ticked();
        self.verify_more();
    }

    /// What the control tables did not take, although it was given once and for all, is given again
    /// in time: a resolution that they refused when the thing works next, an error that found no
    /// place when it next fails.
    fn unforget(&mut self) {
        for refused in self.log_sender.take_refused() {
            match refused {
                Resolution::Mapping(id) => drop(self.troubled.mappings.insert(id)),
                Resolution::Server(id) => drop(self.troubled.servers.insert(id)),
                Resolution::Code(of, _) => drop(self.settled.remove(&of)),
            }
        }
        if self.log_sender.take_errors_dropped() {
            self.rejected.clear();
            self.failing_servers
                .values_mut()
                .chain(self.failing_places.values_mut())
                .for_each(|failing| failing.words.clear());
        }
    }

    /// Nothing can be looked at. The error is resolved when something can.
    fn cannot_look(&mut self, error: &Error, code: ErrorCode) {
        self.well = false;
        // A password that was changed: an attempt at every tick would lock the login.
        if error.kind == Kind::Login {
            let times = self.refused.map_or(0, |(times, _)| times + 1);
            self.refused = Some((
                times,
                Instant::now() + retry::back_off(times, self.env.config.check_interval),
            ));
        }
        if self.control_away.is_none_or(|told| told.elapsed() >= AWAY_REMINDER) {
            self.control_away = Some(Instant::now());
            self.settled.remove(&None);
            let message = if code == ErrorCode::LeaseLost {
                "no mapping is owned: the lease connection is lost, or cannot be made"
            } else {
                "the control tables cannot be read"
            };
            tracing::error!(
                error_type = error.kind.error_type(),
                error_code = code.as_str(),
                error_details = %error.details(1, "tried again, ever less often where the login is refused"),
                %error,
                "{message}"
            );
        }
    }

    /// Leaves in `loaded` what is this daemon's, and stops the work of what is not any more.
    fn follow_owned(&mut self, loaded: &mut ControlSnapshot, owned: OwnedMappings) {
        if self.mode == Mode::Once {
            tell_of_others(loaded, &owned);
        }
        loaded.mappings.retain(|mapping| owned.mappings.contains_key(&mapping.id));
        loaded.rejected.retain(|row| owned.mappings.contains_key(&row.mapping));
        if owned.members.leads() != self.leads {
            self.leads = owned.members.leads();
            self.retire();
        }
        let used: HashSet<ServerId> = loaded
            .mappings
            .iter()
            .map(|mapping| mapping.server)
            .chain(loaded.rejected.iter().map(|row| row.server))
            .collect();
        // one of them tells of servers that no mapping uses
        loaded.servers.retain(|server| self.leads || used.contains(&server.id));
        if let Some(Recovered { open_errors, to_sweep }) = owned.recovered {
            let env = self.env.clone();
            self.spawn(Task::Sweep, async move {
                ownership::sweep(&env, to_sweep).await;
                TaskResult::Swept
            });
            self.troubled.mappings.extend(open_errors.mappings);
            self.troubled.servers.extend(open_errors.servers);
            // what was verified here is in that order, too
            self.verified = open_errors
                .verification_order
                .into_iter()
                .enumerate()
                .map(|(turn, id)| (id, turn))
                .collect();
        }
        self.generations.clone_from(&owned.mappings);
        self.leaving = owned.leaving;
        let stay: HashSet<MappingId> = loaded
            .mappings
            .iter()
            .map(|mapping| mapping.id)
            .filter(|id| self.tokens.contains_key(id))
            .collect();
        let running = &self.running;
        self.tokens.retain(|id, token| {
            // a full sync sees by itself that its mapping was switched off, and says so
            let sees =
                owned.mappings.contains_key(id) && running.of(*id) == Some(SyncType::FullSync);
            if stay.contains(id) || sees {
                return true;
            }
            token.cancel();
            false
        });
    }

    /// Everything stops at its next batch boundary, and nothing new starts until a lease is back.
    fn stop_all(&mut self) {
        for (_, token) in self.tokens.drain() {
            token.cancel();
        }
        self.mappings.clear();
        self.waiting.clear();
        self.leads = false;
    }

    /// What work for one mapping gets: asked to stop, it stops for this mapping.
    pub(super) fn env_for(&mut self, id: MappingId) -> Env {
        let cancel = self.tokens.entry(id).or_insert_with(|| self.env.cancel.child_token()).clone();
        let generation = self.generations.get(&id).copied().unwrap_or_default();
        Env { cancel, generation, ..self.env.clone() }
    }
}

/// What the control tables say. Errors of what is switched off are resolved before that: what is
/// found to be off there is not found on here (and known to fail), unless somebody is that quick.
async fn load(env: &Env, leads: bool) -> Result<ControlSnapshot> {
    if leads && let Err(error) = env.control.resolve_abandoned().await {
        if is_away(&error) {
            env.metrics.control(Err(error.to_string()));
            return Err(error);
        }
        tracing::warn!(%error, "errors of what is gone or switched off are resolved at a later look");
    }
    env.control.load().await
}

/// One tick beside running daemons does what they leave, and says what it left to them.
fn tell_of_others(loaded: &ControlSnapshot, owned: &OwnedMappings) {
    let others: Vec<MappingId> = loaded
        .mappings
        .iter()
        .map(|mapping| mapping.id)
        .filter(|id| !owned.mappings.contains_key(id))
        .collect();
    for id in others.iter().take(OTHERS_NAMED_MAX) {
        tracing::info!(mapping_id = id.0, "left to the daemon that owns the mapping");
    }
    if others.len() > OTHERS_NAMED_MAX {
        tracing::info!(others = others.len(), "mappings are left to the daemons that own them");
    }
}
