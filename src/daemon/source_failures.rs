//! Failures of source servers and their databases: each is logged here, once, and the source is tried
//! again after longer and longer delays.
//!
//! A server that cannot be reached is one failure, not one per mapping or database.

use super::{
    failure::{SourceFailure, concerns_server},
    source_state::SourceDatabase,
    state::Daemon,
    task::{Task, TaskResult},
};
use crate::{
    control::ErrorCode,
    error::{Error, Kind},
    model::{id::ServerId, mapping::Server},
    plan::retry,
    telemetry::Resolution,
};
use tokio::time::Instant;

impl Daemon {
    /// A database could not be polled, or its server could not be reached: logged once, then tried
    /// again after longer and longer delays.
    pub fn database_failed(&mut self, database: &SourceDatabase, error: &Error) {
        if error.kind == Kind::Cancelled {
            return;
        }
        self.all_worked = false;
        let Some(row) = self.servers.get(&database.server).and_then(|state| state.row.clone())
        else {
            return;
        };
        let of_server = concerns_server(error);
        if !of_server && error.number.is_some() {
            self.server_answered(database.server);
        }
        let failure = if of_server {
            &mut self.servers.entry(database.server).or_default().failure
        } else {
            &mut self.databases.entry(database.clone()).or_default().failure
        };
        let failure = failure.get_or_insert_with(|| SourceFailure::new(row.clone()));
        // a poll that began before another one failed for the same reason
        if failure.attempts > 0 && Instant::now() < failure.due {
            return;
        }
        failure.attempts += 1;
        failure.due =
            Instant::now() + retry::back_off(failure.attempts - 1, self.env.config.check_interval);
        failure.server = row.clone();
        let attempts = failure.attempts;
        if failure.logged != error.message() {
            failure.logged = error.message().to_owned();
            log_source_failure(database, &row, error, attempts);
            self.servers.entry(database.server).or_default().error_open = true;
        }
    }

    /// The server can be reached, even if it answered with an error: its other databases need not
    /// be tried one at a time.
    fn server_answered(&mut self, server: ServerId) {
        let state = self.servers.entry(server).or_default();
        if state.failure.take().is_some() {
            let name = self.server_name(server);
            tracing::info!(server_id = server.0, "the source server {name} can be reached again");
        }
    }

    /// A database was polled.
    pub fn database_worked(&mut self, database: &SourceDatabase) {
        self.server_answered(database.server);
        let state = self.databases.entry(database.clone()).or_default();
        if state.failure.take().is_some() {
            tracing::info!(
                server_id = database.server.0,
                "the database {} of {} can be polled again",
                database.name.as_str(),
                self.server_name(database.server)
            );
        }
        let all_work = !self
            .databases
            .iter()
            .any(|(other, state)| other.server == database.server && state.failure.is_some());
        let server = self.servers.entry(database.server).or_default();
        if all_work && std::mem::take(&mut server.error_open) {
            self.log_sender.resolve(Resolution::Server(database.server));
        }
        self.record_logins(database.server);
    }

    /// Writes `last_connected_at` when there was a new login.
    fn record_logins(&mut self, id: ServerId) {
        let Ok(connections) = self.env.sources.connections(id) else { return };
        let logins = Some(connections.pools().logins());
        let server = self.servers.entry(id).or_default();
        if server.logins != logins {
            server.logins = logins;
            let control = self.env.control.clone();
            self.spawn(Task::RecordConnected, async move {
                TaskResult::Maintenance(control.record_connected(id).await)
            });
        }
    }
}

fn log_source_failure(database: &SourceDatabase, row: &Server, error: &Error, attempts: u32) {
    let (code, message) = if concerns_server(error) {
        (ErrorCode::ServerUnreachable, format!("the source server {} cannot be reached", row.name))
    } else {
        let database = database.name.as_str();
        let message = format!("the database {database} of {} cannot be polled", row.name);
        (ErrorCode::SourceDatabaseUnavailable, message)
    };
    tracing::error!(
        error_code = code.as_str(),
        server_id = row.id.0,
        error_type = error.kind.error_type(),
        error_details = %error.details(attempts, "tried again, ever less often, down to once a minute"),
        retry_count = attempts,
        server = row.name,
        database = database.name.as_str(),
        %error,
        "{message}"
    );
}
