//! The tick: reads the control tables, then starts what is due.
//!
//! The lease goes with the task that reads ([`ControlRefresh`]) and comes back with its result. When
//! it does not come back it is lost: the work of every mapping is cancelled at its next batch
//! boundary, and the next tick begins with a new connection and no mappings. Work that runs until
//! then fails at its fence, if another daemon went on meanwhile.
//!
//! Between two ticks, which may be an hour apart, the lease is renewed every [`RENEW_INTERVAL`].

use super::{
    control_refresh::{ControlRefresh, RefreshError, RefreshRequest},
    state::{Daemon, Mode, RefusedLogin},
    task::{Task, TaskResult},
};
use crate::{
    control::{ControlSnapshot, ErrorCode, Lease},
    error::{Error, Kind, Result},
    jobs::ownership::OwnedMappings,
    plan::{assignment::Holding, retry},
    telemetry::Resolution,
};
use std::time::Duration;
use tokio::time::Instant;

/// Longest time between two renewals of the lease; a refresh is one as well.
pub(super) const RENEW_INTERVAL: Duration = Duration::from_secs(2);

/// While the control database cannot be reached, this is logged again after so long.
pub(super) const UNREADABLE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Logged once by each process.
const NO_HEARTBEAT: &str = "the control database has no tables for the heartbeat: a daemon that is \
    frozen keeps its mappings until it is ended. Run `dbaops-dataflow init`, then restart the daemons";

impl Daemon {
    /// Starts a refresh, unless one runs.
    pub fn tick(&mut self) {
        self.lease.tick_missed |= self.lease.renewing;
        let refused =
            self.control.login_refused.is_some_and(|login| Instant::now() < login.retry_at);
        if self.control.refreshing || self.lease.renewing || self.stopping() || refused {
            return;
        }
        let request = RefreshRequest {
            lease: self.lease.lease.take(),
            member: self.mode == Mode::Forever,
            leads: self.lease.leads,
            holding: self.holding(),
        };
        self.control.refreshing = true;
        self.env.metrics.looking(Some(std::time::Instant::now()));
        let env = self.env.clone();
        self.spawn(Task::Refresh, async move {
            TaskResult::Refresh(Box::new(ControlRefresh::run(&env, request).await))
        });
    }

    fn holding(&self) -> Holding {
        let ids = |is_so: fn(&super::mapping_state::MappingState) -> bool| {
            self.mappings.iter().filter(move |(_, state)| is_so(state)).map(|(id, _)| *id).collect()
        };
        Holding { busy: ids(|state| state.is_busy()), leaving: ids(|state| state.leaving) }
    }

    /// Renews the lease, unless a refresh does it or has just done it.
    pub fn renew_lease(&mut self) {
        if self.lease.renewing || self.lease.renewed_at.elapsed() < RENEW_INTERVAL {
            return;
        }
        let Some(mut lease) = self.lease.lease.take() else { return };
        self.lease.renewing = true;
        self.spawn(Task::RenewLease, async move {
            TaskResult::RenewLease(lease.renew().await.map(|_| Box::new(lease)))
        });
    }

    pub fn on_renewal_end(&mut self, renewed: Result<Box<Lease>>) {
        self.lease.renewing = false;
        self.lease.renewed_at = Instant::now();
        match renewed {
            Ok(lease) => {
                self.lease.lease = Some(*lease);
                // nothing starts while the lease is older than allowed
                self.start_queued();
            }
            Err(_) if self.stopping() => {}
            Err(error) => {
                self.env.metrics.leased(false);
                self.on_lease_lost(&error);
                // acquire it on a new connection at once
                self.lease.tick_missed |= self.mode == Mode::Forever;
            }
        }
        if std::mem::take(&mut self.lease.tick_missed) {
            self.tick();
        }
    }

    fn on_lease_lost(&mut self, error: &Error) {
        self.disown_all();
        self.on_control_error(error, ErrorCode::LeaseLost);
    }

    pub fn on_refresh_end(&mut self, refresh: ControlRefresh) {
        self.control.refreshing = false;
        self.env.metrics.looking(None);
        self.lease.lease = refresh.lease;
        self.lease.renewed_at = Instant::now();
        self.warn_without_heartbeat();
        self.env.metrics.leased(!matches!(refresh.result, Err(RefreshError::Lease(_))));
        if self.stopping() {
            return;
        }
        match refresh.result {
            Ok((loaded, owned)) => {
                self.on_control_read();
                self.apply_refresh(loaded, owned);
                self.start_due();
            }
            Err(RefreshError::Tables(error)) => {
                self.on_control_error(&error, ErrorCode::ControlTablesUnreadable);
            }
            Err(RefreshError::Lease(error)) => self.on_lease_lost(&error),
        }
    }

    fn warn_without_heartbeat(&mut self) {
        if let Some(lease) = &self.lease.lease
            && !lease.notices_frozen_daemons()
            && !std::mem::replace(&mut self.lease.no_heartbeat_logged, true)
        {
            tracing::warn!("{NO_HEARTBEAT}");
        }
    }

    /// The control tables could be read.
    fn on_control_read(&mut self) {
        self.control.login_refused = None;
        self.reopen_unwritten();
        if self.control.unreadable_logged_at.take().is_some() {
            tracing::info!("the control tables can be read again");
            // verifications failed for the same reason
            for state in self.mappings.values_mut() {
                state.verification.deferred_error = None;
            }
        }
        if std::mem::take(&mut self.control.error_open) {
            for code in [ErrorCode::ControlTablesUnreadable, ErrorCode::LeaseLost] {
                self.log_sender.resolve(Resolution::Code(None, code));
            }
        }
    }

    /// Resolutions and errors that could not be written to the log tables: the resolution is sent
    /// again when the same thing works next, the error is logged again when it occurs next.
    fn reopen_unwritten(&mut self) {
        for unwritten in self.log_sender.take_refused() {
            match unwritten {
                Resolution::Mapping(id) => self.mappings.entry(id).or_default().error_open = true,
                Resolution::Server(id) => self.servers.entry(id).or_default().error_open = true,
                Resolution::Code(None, _) => self.control.error_open = true,
                Resolution::Code(Some(id), _) => {
                    self.mappings.entry(id).or_default().verification.errors_resolved = false;
                }
            }
        }
        if self.log_sender.take_errors_dropped() {
            for state in self.mappings.values_mut() {
                state.rejected = None;
            }
            let of_servers = self.servers.values_mut().filter_map(|state| state.failure.as_mut());
            let of_databases =
                self.databases.values_mut().filter_map(|state| state.failure.as_mut());
            of_servers.chain(of_databases).for_each(|failure| failure.logged.clear());
        }
    }

    /// Makes the state agree with what was read.
    fn apply_refresh(&mut self, mut loaded: ControlSnapshot, owned: OwnedMappings) {
        self.apply_ownership(&mut loaded, owned);
        self.apply_servers(&loaded.servers);
        self.apply_rejected(&loaded);
        self.apply_rows(loaded.mappings);
        self.remove_outdated();
        self.prune();
        self.forget_claimed_requests();
    }

    fn start_due(&mut self) {
        self.start_queued();
        self.poll_due(|_| true);
        self.env.metrics.ticked();
        self.start_verifications();
    }

    /// The control tables cannot be read, or the lease is lost. The error is resolved by the next
    /// refresh that succeeds.
    fn on_control_error(&mut self, error: &Error, code: ErrorCode) {
        self.all_worked = false;
        if error.kind == Kind::Login {
            let repeated = self.control.login_refused.map_or(0, |login| login.repeated + 1);
            let delay = retry::back_off(repeated, self.env.config.check_interval);
            self.control.login_refused =
                Some(RefusedLogin { repeated, retry_at: Instant::now() + delay });
        }
        let logged_at = self.control.unreadable_logged_at;
        if logged_at.is_some_and(|at| at.elapsed() < UNREADABLE_LOG_INTERVAL) {
            return;
        }
        self.control.unreadable_logged_at = Some(Instant::now());
        self.control.error_open = true;
        let message = match (error.kind, code) {
            (Kind::Connection, _) => "nothing is synced: the destination server cannot be reached",
            (Kind::Login, _) => "nothing is synced: the destination server refuses the login",
            (_, ErrorCode::LeaseLost) => {
                "nothing is synced: the connection that holds this daemon's locks at the destination ended"
            }
            _ => "nothing new begins: the control tables cannot be read",
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
