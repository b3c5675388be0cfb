//! Bulk loads through the driver.
//!
//! The driver's bulk load refuses a cell of more than 65,535 bytes even where the column is `(max)`:
//! it takes the length `0xffff`, which stands for `(max)`, as a limit. Such rows are collected and
//! sent as one INSERT each ([`Session::insert_wide`]).

use std::sync::OnceLock;

use tiberius::{BulkLoadRequest, SqlBulkCopyOption, SqlBulkCopyOptions, ToSql, TypeInfo};

use super::{
    row::{DriverCell, RowData},
    session::{Session, Wire},
    state::{SessionState, with_timeout},
};
use crate::{
    error::{Error, Kind, Result},
    model::name::Ident,
    mssql::timeout::with_lazy_timeout,
    tsql::staging,
};

/// The options of a bulk load.
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

/// The columns of bulk loads into one table. The caller keeps it for all loads into that table, so
/// that their types are asked for only once.
#[derive(Clone, Debug)]
pub struct BulkColumns {
    quoted_names: Vec<String>,
    /// Their names in messages.
    display_names: Vec<Ident>,
    /// The destination's types of the columns, once they are known.
    types: OnceLock<Vec<TypeInfo>>,
}

impl BulkColumns {
    /// Each column's name in the table, and its name in messages.
    pub fn new(columns: impl IntoIterator<Item = (Ident, Ident)>) -> Self {
        let (quoted_names, display_names) =
            columns.into_iter().map(|(name, shown)| (name.to_string(), shown)).unzip();
        BulkColumns { quoted_names, display_names, types: OnceLock::new() }
    }

    pub fn target(&self) -> BulkTarget<'_> {
        BulkTarget { names: self.quoted_names.iter().map(String::as_str).collect(), columns: self }
    }

    /// The row with its cells converted to the destination's types.
    fn convert(&self, row: RowData) -> Result<RowData> {
        let described = self.types.get().map_or(&[][..], Vec::as_slice);
        row.convert(described).map_err(|(at, why)| {
            let column = self.display_names.get(at).map(Ident::to_string).unwrap_or_default();
            Error::new(Kind::Data, format!("column {column}: {why}"))
        })
    }
}

/// [`BulkColumns`] with the names that a load borrows.
#[derive(Debug)]
pub struct BulkTarget<'a> {
    names: Vec<&'a str>,
    columns: &'a BulkColumns,
}

impl Session {
    /// Starts a bulk load of the target's columns into `table` (from
    /// [`crate::model::name::TableName::local`], or a `#` name).
    pub async fn bulk<'a>(
        &'a mut self,
        table: &'a str,
        target: &'a BulkTarget<'a>,
        options: BulkOptions,
    ) -> Result<BulkLoad<'a>> {
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
                Ok(BulkLoad { request, state, columns: target.columns, wide: WideRows::default() })
            }
            Err(error) => Err(match state.end_request::<()>(Err(error)) {
                Err(error) => error,
                Ok(()) => Error::new(Kind::Other, "the request failed"),
            }),
        }
    }

    /// Asks for the types of the columns, the first time.
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
            let (actual, wanted) = (described.len(), target.names.len());
            return Err(Error::new(
                Kind::Other,
                format!(
                    "the destination describes {actual} columns of {table}, and {wanted} are loaded"
                ),
            ));
        }
        target.columns.types.get_or_init(|| described);
        Ok(())
    }

    /// Inserts the rows that a bulk load into `table` could not take, and returns their number. They
    /// are not in one transaction with the load.
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

/// A bulk load that has begun. When it is dropped before [`BulkLoad::finish`], the session cannot be
/// used any more, and the server rolls the load back.
pub struct BulkLoad<'a> {
    request: BulkLoadRequest<'a, Wire>,
    state: &'a mut SessionState,
    columns: &'a BulkColumns,
    wide: WideRows,
}

impl BulkLoad<'_> {
    /// Sends a row, or keeps it for [`Session::insert_wide`] when it is too wide. When a cell cannot
    /// be converted to its column's type, nothing of the row is sent, and the load can go on without
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

    /// Roughly the bytes of the wide rows so far. A long load is finished now and then, so that they
    /// do not fill the memory.
    pub fn wide_bytes(&self) -> usize {
        self.wide.bytes
    }

    /// Sends the rest and waits for the server. Returns the number of rows it took, and the rows for
    /// [`Session::insert_wide`].
    pub async fn finish(self) -> Result<(u64, WideRows)> {
        let BulkLoad { request, state, wide, .. } = self;
        let result = with_timeout(state, request.finalize()).await?;
        Ok((state.end_request(result)?.total(), wide))
    }
}
