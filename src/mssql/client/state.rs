//! The state of a session between requests, and the time limit of each.

use std::{future::Future, sync::Arc, time::Duration};

use crate::{
    error::{Error, Kind, Result},
    mssql::{
        classify,
        connect::budget::{AnswerBudget, AnswerPart},
    },
};

pub(super) struct SessionState {
    /// A request was sent and its answer was not read to the end.
    pub request_open: bool,
    /// The connection cannot be used any more.
    pub broken: bool,
    /// The server reported an error since the last [`super::session::Session::recover`]: a
    /// transaction may be open.
    pub server_error: bool,
    /// A transaction was begun and not yet committed or rolled back.
    pub transaction_open: bool,
    /// Settings were changed that the pool's prologue does not reset.
    pub settings_changed: bool,
    pub timeout: Duration,
    /// `server/database`, for messages
    pub server_database: Arc<str>,
    /// Limits the bytes of each answer.
    pub budget: Arc<AnswerBudget>,
    /// What is being read, for the limit and for messages.
    pub part: AnswerPart,
}

impl SessionState {
    pub fn new(server_database: String, timeout: Duration, budget: Arc<AnswerBudget>) -> Self {
        SessionState {
            request_open: false,
            broken: false,
            server_error: false,
            transaction_open: false,
            settings_changed: false,
            timeout,
            server_database: server_database.into(),
            budget,
            part: AnswerPart::Whole,
        }
    }

    /// Whether the pool may hand the session to another job.
    pub fn is_reusable(&self) -> bool {
        !(self.broken
            || self.request_open
            || self.server_error
            || self.transaction_open
            || self.settings_changed)
    }

    /// Begins a request, unless the last one was not read to its end.
    pub fn begin_request(&mut self) -> Result<()> {
        if self.request_open || self.broken {
            self.broken = true;
            return Err(Error::new(
                Kind::Connection,
                format!("the session to {} was interrupted earlier", self.server_database),
            ));
        }
        self.request_open = true;
        self.start_part(AnswerPart::Whole);
        Ok(())
    }

    /// Begins a part of an answer, with its full limit.
    pub fn start_part(&mut self, part: AnswerPart) {
        self.part = part;
        self.budget.reset(part);
    }

    pub fn driver_error(&self, error: tiberius::error::Error) -> Error {
        if self.budget.is_exceeded() {
            return self.part.too_large(&self.server_database);
        }
        let error = classify::driver_error(error);
        match (error.kind, self.part) {
            (Kind::TooLarge, AnswerPart::Row(_)) => {
                error.context(self.part.description(&self.server_database))
            }
            _ => error,
        }
    }

    /// Ends a request. After an error of the server, the next answer can still be read.
    pub fn end_request<T>(
        &mut self,
        result: std::result::Result<T, tiberius::error::Error>,
    ) -> Result<T> {
        match result {
            Ok(value) => {
                self.request_open = false;
                Ok(value)
            }
            Err(error) => {
                self.server_error = true;
                // The server closes the connection after an error of severity 20 and above. After
                // any other error, the position in the stream is unknown.
                match &error {
                    tiberius::error::Error::Server(token) if token.class() < 20 => {
                        self.request_open = false
                    }
                    _ => self.broken = true,
                }
                Err(self.driver_error(error))
            }
        }
    }

    pub fn timed_out(&mut self) -> Error {
        self.broken = true;
        Error::new(
            Kind::Timeout,
            format!("no answer from {} within {} s", self.server_database, self.timeout.as_secs()),
        )
    }
}

/// Runs a request with the session's time limit. The outer `Err` is a timeout.
pub(super) async fn with_timeout<T>(
    state: &mut SessionState,
    request: impl Future<Output = std::result::Result<T, tiberius::error::Error>>,
) -> std::result::Result<std::result::Result<T, tiberius::error::Error>, Error> {
    match tokio::time::timeout(state.timeout, request).await {
        Ok(result) => Ok(result),
        Err(_) => Err(state.timed_out()),
    }
}
