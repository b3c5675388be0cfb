//! One login: requests, one at a time, each bounded in time.
//!
//! **A request that was not read to its end kills its session.** A driver future dropped half-way
//! leaves the stream in the middle of an answer, and the next request would read the rest of the
//! last one. So every request marks the session busy and clears the mark only at its clean end; a
//! marked session never goes back to its pool. For the same reason nothing here is ever raced in a
//! `select!`: whoever wants to stop does so between requests.
//!
//! **A server's error leaves the session readable but suspect**: a transaction may still be open
//! (1222 leaves it so without XACT_ABORT), or doomed. [`Session::recover`] rolls back and makes it
//! good again; a suspect session that nobody recovered is thrown away instead of keeping its locks
//! in an idle pool.
//!
//! **Wide rows**: the driver's bulk load refuses a cell of more than 65,535 bytes even where the
//! column is `(max)`: it takes the `0xffff` that says "no limit" on the wire for one. Such rows are
//! kept aside and sent as an INSERT each ([`Session::insert_wide`]).
//!
//! **Time**: the driver's own limit is off; here each wait for the server (an answer, the next row,
//! a bulk packet) has [`Session::set_timeout`]'s limit. After a timeout the work may have been
//! done: the session is dropped, which rolls back.

use crate::mssql::{
    classify,
    client::row::{DriverCell, Param, Row, RowData},
    connect::{
        budget::{ANSWER_BYTES_MAX, AnswerBudget, AnswerPart},
        permit::ConnectionPermit,
        socket::Socket,
    },
    timeout::with_lazy_timeout,
};
use crate::{
    error::{Error, Kind, Result},
    model::name::Ident,
    tsql::staging,
};
use futures_util::TryStreamExt;
use std::{
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tiberius::{
    BulkLoadRequest, Client, QueryItem, QueryStream, SqlBulkCopyOption, SqlBulkCopyOptions, ToSql,
    TypeInfo,
};
use tokio_util::compat::Compat;

/// Most rows that [`Session::rows`] collects; what may be longer is streamed.
pub const ROWS_MAX: usize = 100_000;
/// Most result sets that are collected: no statement of ours has as many. Each keeps a list of its
/// columns.
const RESULT_SETS_MAX: usize = 64;

pub(in crate::mssql) type Wire = Compat<Socket>;

/// One login with a fixed current database; whoever has it checked out has it alone.
pub struct Session {
    client: Client<Wire>,
    state: SessionState,
    loopback: bool,
    /// Held for as long as the connection exists (it is dropped after the client): what the
    /// physical limit counts.
    _permit: ConnectionPermit,
}

struct SessionState {
    /// A request is under way, or was cut off.
    request_open: bool,
    /// Never to be used again.
    broken: bool,
    /// A server error came since the last clean point: a transaction may be open.
    server_error: bool,
    /// A transaction was begun and not ended: whoever failed in between may never come to it.
    transaction_open: bool,
    /// Its settings are not what the next user expects.
    settings_changed: bool,
    timeout: Duration,
    /// `server/database`, for messages
    server_database: Arc<str>,
    /// What comes from the network counts against it.
    budget: Arc<AnswerBudget>,
    /// What is being read.
    part: AnswerPart,
}

impl SessionState {
    fn begin_request(&mut self) -> Result<()> {
        if self.request_open || self.broken {
            self.broken = true;
            return Err(Error::new(
                Kind::Connection,
                format!("the session to {} was cut off earlier", self.server_database),
            ));
        }
        self.request_open = true;
        self.start_part(AnswerPart::Whole);
        Ok(())
    }

    /// From now on this is read, and has all of its limit.
    fn start_part(&mut self, part: AnswerPart) {
        self.part = part;
        self.budget.reset(part);
    }

    fn driver_error(&self, error: tiberius::error::Error) -> Error {
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

    /// The end of a request: clean, or with a server's error after which the stream is still in
    /// step.
    fn end_request<T>(
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
                // Severity 20 and above ends the connection; everything that is not a server's
                // error may have lost the place.
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

    fn timed_out(&mut self) -> Error {
        self.broken = true;
        Error::new(
            Kind::Timeout,
            format!("no answer from {} within {} s", self.server_database, self.timeout.as_secs()),
        )
    }
}

async fn with_timeout<T>(
    state: &mut SessionState,
    request: impl Future<Output = std::result::Result<T, tiberius::error::Error>>,
) -> std::result::Result<std::result::Result<T, tiberius::error::Error>, Error> {
    match tokio::time::timeout(state.timeout, request).await {
        Ok(result) => Ok(result),
        Err(_) => Err(state.timed_out()),
    }
}

fn as_driver_params<'a>(params: &'a [Param<'a>]) -> Vec<&'a dyn ToSql> {
    params.iter().map(|param| param as &dyn ToSql).collect()
}

/// How a bulk load treats the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct BulkOptions {
    pub table_lock: bool,
    pub keep_identity: bool,
    pub keep_nulls: bool,
    pub check_constraints: bool,
    pub fire_triggers: bool,
}

impl BulkOptions {
    fn driver(self) -> SqlBulkCopyOptions {
        let mut options = SqlBulkCopyOptions::empty();
        for (set, option) in [
            (self.table_lock, SqlBulkCopyOption::TableLock),
            (self.keep_identity, SqlBulkCopyOption::KeepIdentity),
            (self.keep_nulls, SqlBulkCopyOption::KeepNulls),
            (self.check_constraints, SqlBulkCopyOption::CheckConstraints),
            (self.fire_triggers, SqlBulkCopyOption::FireTriggers),
        ] {
            if set {
                options |= option;
            }
        }
        options
    }
}

/// The columns of bulk loads into one table; kept by the caller for as long as such loads run.
#[derive(Clone, Debug)]
pub struct BulkColumns {
    quoted_names: Vec<String>,
    /// What messages call them.
    display_names: Vec<Ident>,
    /// What the destination says they are: asked once.
    types: OnceLock<Vec<TypeInfo>>,
}

impl BulkColumns {
    /// Each column's own name, and the one that messages have.
    pub fn new(columns: impl IntoIterator<Item = (Ident, Ident)>) -> Self {
        let (quoted_names, display_names) =
            columns.into_iter().map(|(name, shown)| (name.to_string(), shown)).unzip();
        BulkColumns { quoted_names, display_names, types: OnceLock::new() }
    }

    pub fn target(&self) -> BulkTarget<'_> {
        BulkTarget { names: self.quoted_names.iter().map(String::as_str).collect(), columns: self }
    }

    /// The row's cells as the destination describes its columns.
    fn convert(&self, row: RowData) -> Result<RowData> {
        let described = self.types.get().map_or(&[][..], Vec::as_slice);
        row.convert(described).map_err(|(at, why)| {
            let column = self.display_names.get(at).map(Ident::to_string).unwrap_or_default();
            Error::new(Kind::Data, format!("column {column}: {why}"))
        })
    }
}

/// [`BulkColumns`] as a load names them.
#[derive(Debug)]
pub struct BulkTarget<'a> {
    names: Vec<&'a str>,
    columns: &'a BulkColumns,
}

impl Session {
    /// `loopback`: it ends on this machine.
    pub(in crate::mssql) fn new(
        client: Client<Wire>,
        loopback: bool,
        place: String,
        timeout: Duration,
        permit: ConnectionPermit,
        budget: Arc<AnswerBudget>,
    ) -> Self {
        Session {
            client,
            loopback,
            state: SessionState {
                request_open: false,
                broken: false,
                server_error: false,
                transaction_open: false,
                settings_changed: false,
                timeout,
                server_database: place.into(),
                budget,
                part: AnswerPart::Whole,
            },
            _permit: permit,
        }
    }

    /// The longest wait for any one answer of the server from now on, until the session goes back
    /// to its pool.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.state.timeout = timeout;
    }

    /// Whether it ends on this machine, by the address that was dialled in the end: nobody can sit
    /// in between.
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

    /// This session goes on for now, but never back to its pool: its settings are not what the
    /// prologue can put right.
    pub fn mark_not_reusable(&mut self) {
        self.state.settings_changed = true;
    }

    /// Whether the pool may hand it to somebody else.
    pub fn is_reusable(&self) -> bool {
        !(self.state.broken
            || self.state.request_open
            || self.state.server_error
            || self.state.transaction_open
            || self.state.settings_changed)
    }

    /// Whether the connection itself is lost (as opposed to a server's error after which it can go
    /// on).
    pub fn is_broken(&self) -> bool {
        self.state.broken || self.state.request_open
    }

    /// After a server's error: rolls back what is open, and makes the session good for another try.
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

    /// A plain batch, outside of sp_executesql: what is created (`#t`), set or begun in it stays.
    /// The driver does not tell row counts of plain batches; a batch that wants them selects them
    /// ([`Session::batch_rows`]).
    pub async fn batch(&mut self, sql: &str) -> Result<()> {
        self.batch_result_sets(sql).await.map(drop)
    }

    /// A plain batch with results, the last result set's rows.
    pub async fn batch_rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        Ok(self.batch_result_sets(sql).await?.pop().unwrap_or_default())
    }

    /// A plain batch with results.
    pub async fn batch_result_sets(&mut self, sql: &str) -> Result<Vec<Vec<Row>>> {
        self.state.begin_request()?;
        let Session { client, state, .. } = self;
        let place = state.server_database.clone();
        let result =
            with_timeout(state, async { collect(client.simple_query(sql).await?, &place).await })
                .await?;
        state.end_request(result)?
    }

    /// sp_executesql: the rows affected by each statement that counts.
    pub async fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<u64>> {
        self.state.begin_request()?;
        let Session { client, state, .. } = self;
        let params = as_driver_params(params);
        let result = with_timeout(state, client.execute(sql, &params)).await?;
        Ok(state.end_request(result)?.rows_affected().to_vec())
    }

    /// sp_executesql: the rows of the first result set, at most [`ROWS_MAX`].
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

    /// sp_executesql: every result set, at most [`ROWS_MAX`] rows in all.
    pub async fn result_sets(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Vec<Row>>> {
        self.state.begin_request()?;
        let Session { client, state, .. } = self;
        let (params, place) = (as_driver_params(params), state.server_database.clone());
        let result =
            with_timeout(state, async { collect(client.query(sql, &params).await?, &place).await })
                .await?;
        state.end_request(result)?
    }

    /// sp_executesql: `take` gets every row as it comes, at most [`ROWS_MAX`], with the place of
    /// its result set; none is kept here. What it refuses is this function's error, after the
    /// answer's end.
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

    /// sp_executesql, row by row. Only rows of the first result set are expected; dropping the
    /// stream early costs the session.
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

    /// Starts a bulk load of the target's columns into `table` (from
    /// [`crate::model::name::TableName::local`], or a `#` name).
    pub async fn bulk<'a>(
        &'a mut self,
        table: &'a str,
        target: &'a BulkTarget<'a>,
        options: BulkOptions,
    ) -> Result<Bulk<'a>> {
        self.load_column_types(table, target).await?;
        self.state.begin_request()?;
        let Session { client, state, .. } = self;
        let load = client.bulk_insert_with_options(table, &target.names, options.driver(), &[]);
        let result = match tokio::time::timeout(state.timeout, load).await {
            Ok(result) => result,
            Err(_) => return Err(state.timed_out()),
        };
        match result {
            Ok(request) => {
                Ok(Bulk { request, state, columns: target.columns, wide: WideRows::default() })
            }
            Err(error) => Err(match state.end_request::<()>(Err(error)) {
                Err(error) => error,
                Ok(()) => Error::new(Kind::Other, "the request failed"),
            }),
        }
    }

    /// Asks what the columns of `table` are, the first time.
    async fn load_column_types(&mut self, table: &str, target: &BulkTarget<'_>) -> Result<()> {
        if target.columns.types.get().is_some() {
            return Ok(());
        }
        self.state.begin_request()?;
        let Session { client, state, .. } = self;
        let result = with_timeout(state, client.column_metadata(table, &target.names)).await?;
        let described: Vec<_> =
            state.end_request(result)?.into_iter().map(|column| column.base.ty).collect();
        if described.len() != target.names.len() {
            let (here, wanted) = (described.len(), target.names.len());
            return Err(Error::new(
                Kind::Other,
                format!(
                    "the destination describes {here} columns of {table}, and {wanted} are loaded"
                ),
            ));
        }
        target.columns.types.get_or_init(|| described);
        Ok(())
    }

    /// The rows that a bulk load into `table` left aside; how many there were. Not one transaction
    /// with the load.
    pub async fn insert_wide(
        &mut self,
        table: &str,
        target: &BulkTarget<'_>,
        wide: WideRows,
    ) -> Result<u64> {
        if wide.rows.is_empty() {
            return Ok(0);
        }
        let sql = staging::insert_one(table, &target.names);
        let count = wide.rows.len() as u64;
        for row in wide.rows {
            self.state.begin_request()?;
            let Session { client, state, .. } = self;
            let cells: Vec<DriverCell> = row.into_params().collect();
            let params: Vec<&dyn ToSql> = cells.iter().map(|cell| cell as &dyn ToSql).collect();
            let result = with_timeout(state, client.execute(sql.as_str(), &params)).await?;
            state.end_request(result)?;
        }
        Ok(count)
    }
}

/// Rows with a cell that is too long for the driver's bulk load.
#[must_use = "these rows are not loaded yet"]
#[derive(Debug, Default)]
pub struct WideRows {
    rows: Vec<RowData>,
    bytes: usize,
}

impl WideRows {
    /// Roughly the bytes these rows hold in memory.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }
}

async fn collect(
    stream: QueryStream<'_>,
    place: &str,
) -> std::result::Result<Result<Vec<Vec<Row>>>, tiberius::error::Error> {
    let mut sets: Vec<Vec<Row>> = Vec::new();
    // a cell may have more bytes in memory than on the wire
    let mut bytes = 0u64;
    let taken = |item| {
        match item {
            QueryItem::Metadata(_) if sets.len() == RESULT_SETS_MAX => {
                return Err(Error::new(
                    Kind::Other,
                    format!("the server's answer has more than {RESULT_SETS_MAX} result sets"),
                ));
            }
            QueryItem::Metadata(_) => sets.push(Vec::new()),
            QueryItem::Row(row) => {
                let row = Row(row);
                bytes = bytes.saturating_add(u64::try_from(row.size_bytes()).unwrap_or(u64::MAX));
                if bytes > ANSWER_BYTES_MAX {
                    return Err(AnswerPart::Whole.too_large(place));
                }
                if let Some(rows) = sets.last_mut() {
                    rows.push(row);
                }
            }
        }
        Ok(())
    };
    let end = read_to_end(stream, taken).await?;
    Ok(end.map(|()| sets))
}

/// An answer to its end, whatever `take` says: the session is in step then. `take` gets at most
/// [`ROWS_MAX`] rows, and nothing after its first error.
async fn read_to_end(
    mut stream: QueryStream<'_>,
    mut take: impl FnMut(QueryItem) -> Result<()>,
) -> std::result::Result<Result<()>, tiberius::error::Error> {
    let (mut count, mut taken) = (0usize, Ok(()));
    while let Some(item) = stream.try_next().await? {
        count += usize::from(matches!(item, QueryItem::Row(_)));
        if taken.is_ok() && count <= ROWS_MAX {
            taken = take(item);
        }
    }
    Ok(if count > ROWS_MAX {
        Err(Error::new(
            Kind::Other,
            format!("the server's answer has {count} rows, more than the {ROWS_MAX} allowed here"),
        ))
    } else {
        taken
    })
}

/// Rows as they arrive.
pub struct RowStream<'a> {
    stream: Option<QueryStream<'a>>,
    state: &'a mut SessionState,
    /// Those that were handed over.
    rows: u64,
}

impl RowStream<'_> {
    /// The next row; `None` once, at the clean end.
    pub async fn next(&mut self) -> Result<Option<Row>> {
        let Some(stream) = self.stream.as_mut() else { return Ok(None) };
        let next = async {
            loop {
                match stream.try_next().await {
                    Ok(Some(QueryItem::Row(row))) => return Ok(Some(Row(row))),
                    Ok(Some(QueryItem::Metadata(_))) => {}
                    Ok(None) => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        };
        match with_lazy_timeout(self.state.timeout, next).await {
            Ok(Ok(Some(row))) => {
                self.rows += 1;
                self.state.start_part(AnswerPart::Row(self.rows));
                Ok(Some(row))
            }
            Ok(end) => {
                self.stream = None;
                self.state.end_request(end)
            }
            Err(_) => {
                self.stream = None;
                Err(self.state.timed_out())
            }
        }
    }
}

/// A bulk load under way. Dropped unfinished, it costs the session, and the server rolls the load
/// back.
pub struct Bulk<'a> {
    request: BulkLoadRequest<'a, Wire>,
    state: &'a mut SessionState,
    columns: &'a BulkColumns,
    wide: WideRows,
}

impl Bulk<'_> {
    /// Sends a row, or keeps it aside when it is too wide. A cell that is no value of its column is
    /// this function's error, and nothing of the row is sent then: the load can be finished without
    /// it.
    pub async fn send(&mut self, row: RowData) -> Result<()> {
        let row = self.columns.convert(row)?;
        if row.is_wide() {
            self.wide.bytes = self.wide.bytes.saturating_add(row.size_bytes());
            self.wide.rows.push(row);
            return Ok(());
        }
        match with_lazy_timeout(self.state.timeout, self.request.send(row.0)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.state.broken = true;
                Err(self.state.driver_error(error))
            }
            Err(_) => Err(self.state.timed_out()),
        }
    }

    /// Whether the connection is lost.
    pub fn is_broken(&self) -> bool {
        self.state.broken
    }

    /// Roughly the bytes kept aside so far: who sends rows without an end finishes now and then.
    pub fn wide_bytes(&self) -> usize {
        self.wide.bytes
    }

    /// Sends what is left and waits for the server: the rows it took, and those for
    /// [`Session::insert_wide`].
    pub async fn finish(self) -> Result<(u64, WideRows)> {
        let Bulk { request, state, wide, .. } = self;
        let result = with_timeout(state, request.finalize()).await?;
        Ok((state.end_request(result)?.total(), wide))
    }
}
