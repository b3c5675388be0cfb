//! One login: requests, one at a time, each with a time limit.
//!
//! **A session whose answer was not read to the end cannot be used any more.** When a future of the
//! driver is dropped in between, the rest of the answer is still in the stream, and the next request
//! would read it. So every request marks the session, the mark is removed when the answer was read
//! to its end, and a marked session never goes back to its pool. For the same reason no request is
//! in a `select!`: jobs stop between requests.
//!
//! **After a server's error, a session needs [`Session::recover`]**: a transaction may still be open
//! (error 1222 leaves it open without XACT_ABORT) or doomed. `recover` rolls it back. Without it,
//! the session is closed instead of going back to the pool, where it would keep its locks.
//!
//! **Time**: the driver's own limit is off. Each wait for the server (an answer, the next row, a
//! bulk packet) is limited by [`Session::set_timeout`]. After a timeout the statement may or may not
//! have taken effect: the session is closed, and the server rolls back.

use std::{sync::Arc, time::Duration};

use tiberius::{Client, QueryItem, ToSql};
use tokio_util::compat::Compat;

use super::{
    answer::{RowStream, collect, read_to_end},
    row::{Param, Row},
    state::{SessionState, with_timeout},
};
use crate::{
    error::{Error, Kind, Result},
    mssql::connect::{
        budget::{AnswerBudget, AnswerPart},
        permit::ConnectionPermit,
        socket::Socket,
    },
};

pub(in crate::mssql) type Wire = Compat<Socket>;

/// One login with a fixed current database. A job that has it checked out is its only user.
pub struct Session {
    pub(super) client: Client<Wire>,
    pub(super) state: SessionState,
    loopback: bool,
    /// Counts against the server's connection limit. Declared after `client`, so that it is dropped
    /// after the connection is closed.
    _permit: ConnectionPermit,
}

impl Session {
    /// `loopback`: the server is on this machine.
    pub(in crate::mssql) fn new(
        client: Client<Wire>,
        loopback: bool,
        server_database: String,
        timeout: Duration,
        permit: ConnectionPermit,
        budget: Arc<AnswerBudget>,
    ) -> Self {
        Session {
            client,
            loopback,
            state: SessionState::new(server_database, timeout, budget),
            _permit: permit,
        }
    }

    /// The longest wait for any one answer of the server from now on, until the session goes back
    /// to its pool.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.state.timeout = timeout;
    }

    /// Whether the server is on this machine, by the address that was connected to: no other machine
    /// can read or change the traffic.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    pub fn timeout(&self) -> Duration {
        self.state.timeout
    }

    /// This session never goes back to its pool.
    pub fn discard(&mut self) {
        self.state.broken = true;
    }

    /// The session can still be used, but never goes back to its pool: it has settings that the
    /// prologue does not reset.
    pub fn mark_not_reusable(&mut self) {
        self.state.settings_changed = true;
    }

    /// Whether the pool may hand it to another job.
    pub fn is_reusable(&self) -> bool {
        self.state.is_reusable()
    }

    /// Whether the connection itself is lost. (After a server's error it is not.)
    pub fn is_broken(&self) -> bool {
        self.state.broken || self.state.request_open
    }

    /// Rolls back an open transaction, so that the session can be used again after a server's error.
    pub async fn recover(&mut self) -> Result<()> {
        self.batch("IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION").await?;
        (self.state.server_error, self.state.transaction_open) = (false, false);
        Ok(())
    }

    /// A batch that begins a transaction. Until [`Session::commit_transaction`] or [`Session::recover`] this
    /// session does not go back to its pool, where the transaction would stay open for minutes.
    pub async fn begin_transaction(&mut self, sql: &str) -> Result<()> {
        self.state.transaction_open = true;
        self.batch(sql).await
    }

    /// A batch that ends it.
    pub async fn commit_transaction(&mut self, sql: &str) -> Result<()> {
        self.batch(sql).await?;
        self.state.transaction_open = false;
        Ok(())
    }

    /// A plain batch, not in sp_executesql: a `#table`, a setting or a transaction outlives it. The
    /// driver does not report row counts of plain batches; a batch that needs them selects them
    /// ([`Session::batch_rows`]).
    pub async fn batch(&mut self, sql: &str) -> Result<()> {
        self.batch_result_sets(sql).await.map(drop)
    }

    /// A plain batch with results: the rows of the last result set.
    pub async fn batch_rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        Ok(self.batch_result_sets(sql).await?.pop().unwrap_or_default())
    }

    /// A plain batch with results.
    pub async fn batch_result_sets(&mut self, sql: &str) -> Result<Vec<Vec<Row>>> {
        self.state.begin_request()?;
        let Session { client, state, .. } = self;
        let server_database = state.server_database.clone();
        let result = with_timeout(state, async {
            collect(client.simple_query(sql).await?, &server_database).await
        })
        .await?;
        state.end_request(result)?
    }

    /// sp_executesql: the row count of each statement that has one.
    pub async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<u64>> {
        self.state.begin_request()?;
        let Session { client, state, .. } = self;
        let params = as_driver_params(params);
        let result = with_timeout(state, client.execute(sql, &params)).await?;
        Ok(state.end_request(result)?.rows_affected().to_vec())
    }

    /// sp_executesql: the rows of the first result set, at most [`ROWS_MAX`](super::answer::ROWS_MAX).
    pub async fn rows(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let sets = self.result_sets(sql, params).await?;
        Ok(sets.into_iter().next().unwrap_or_default())
    }

    /// sp_executesql: exactly one row.
    pub async fn row(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Row> {
        self.opt_row(sql, params)
            .await?
            .ok_or_else(|| Error::new(Kind::Other, "the server's answer has no row"))
    }

    /// sp_executesql: the first row, if there is one.
    pub async fn opt_row(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Option<Row>> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }

    /// sp_executesql: every result set, at most [`ROWS_MAX`](super::answer::ROWS_MAX) rows in all.
    pub async fn result_sets(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Vec<Row>>> {
        self.state.begin_request()?;
        let Session { client, state, .. } = self;
        let (params, server_database) = (as_driver_params(params), state.server_database.clone());
        let result = with_timeout(state, async {
            collect(client.query(sql, &params).await?, &server_database).await
        })
        .await?;
        state.end_request(result)?
    }

    /// sp_executesql: passes each row to `take` with the index of its result set, at most
    /// [`ROWS_MAX`](super::answer::ROWS_MAX) rows. The first error of `take` is returned after the
    /// answer was read to its end.
    pub async fn for_each_row(
        &mut self,
        sql: &str,
        params: &[Param<'_>],
        mut take: impl FnMut(usize, Row) -> Result<()>,
    ) -> Result<()> {
        self.state.begin_request()?;
        let Session { client, state, .. } = self;
        let params = as_driver_params(params);
        let mut sets = 0usize;
        let taken = |item| match item {
            QueryItem::Metadata(_) => {
                sets += 1;
                Ok(())
            }
            QueryItem::Row(row) => take(sets.saturating_sub(1), Row(row)),
        };
        let request = async { read_to_end(client.query(sql, &params).await?, taken).await };
        let result = with_timeout(state, request).await?;
        state.end_request(result)?
    }

    /// sp_executesql, row by row, for statements with one result set. When the stream is dropped
    /// before its end, the session cannot be used any more.
    pub async fn stream(&mut self, sql: &str, params: &[Param<'_>]) -> Result<RowStream<'_>> {
        self.state.begin_request()?;
        let Session { client, state, .. } = self;
        state.start_part(AnswerPart::Row(0));
        let params = as_driver_params(params);
        let result = match tokio::time::timeout(state.timeout, client.query(sql, &params)).await {
            Ok(result) => result,
            Err(_) => return Err(state.timed_out()),
        };
        match result {
            Ok(stream) => Ok(RowStream { stream: Some(stream), state, rows: 0 }),
            Err(error) => Err(match state.end_request::<()>(Err(error)) {
                Err(error) => error,
                Ok(()) => Error::new(Kind::Other, "the request failed"),
            }),
        }
    }
}

fn as_driver_params<'a>(params: &'a [Param<'a>]) -> Vec<&'a dyn ToSql> {
    params.iter().map(|param| param as &dyn ToSql).collect()
}
