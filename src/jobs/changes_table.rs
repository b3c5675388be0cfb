//! Loading rows of the source into `#changes`, the temp table of the destination's session.
//!
//! Change rows, rows that complete them and rows of a repair take this way.

use crate::{
    error::{Context, Error, Result},
    mssql::client::{
        answer::RowStream,
        bulk::{BulkColumns, BulkOptions},
        row::{Param, Row, RowData},
        session::Session,
    },
};

/// CDC's own columns, which come first in a row of `#changes`.
pub(super) const CDC_COLUMNS: usize = 5;

/// Rows that are too wide for a bulk load are held back and sent one by one: at most this many
/// bytes of them are held.
const WIDE_BYTES_MAX: usize = 4 << 20;

/// Sends the rows of `rows` that `prepare` returns to `#changes`. `reading` says in errors what is
/// read.
///
/// Returns the error of the first row that was refused, by `prepare` or by the load. The rows
/// behind it are read and dropped: both sessions can be used afterwards. `Err` means that one of
/// the sessions failed.
pub(super) async fn load(
    rows: &mut RowStream<'_>,
    reading: &'static str,
    dest: &mut Session,
    columns: &BulkColumns,
    prepare: &mut (dyn FnMut(Row) -> Result<Option<RowData>> + Send),
) -> Result<Option<Error>> {
    const LOADING: &str = "load #changes";
    let columns = columns.target();
    let options = BulkOptions { keep_nulls: true, ..Default::default() };
    let mut next = rows.next().await.context(reading)?;
    if next.is_none() {
        return Ok(None);
    }
    let mut refused = None;
    let mut bulk = dest.bulk("#changes", &columns, options).await.context(LOADING)?;
    while let Some(row) = next {
        if refused.is_none() {
            let sent = match prepare(row) {
                Ok(Some(row)) => bulk.send(row).await.context(LOADING),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            match sent {
                Err(error) if bulk.is_broken() => return Err(error),
                sent => refused = sent.err(),
            }
        }
        if bulk.wide_bytes() >= WIDE_BYTES_MAX {
            let (_, wide) = bulk.finish().await.context(LOADING)?;
            dest.insert_wide("#changes", &columns, wide).await.context(LOADING)?;
            bulk = dest.bulk("#changes", &columns, options).await.context(LOADING)?;
        }
        next = rows.next().await.context(reading)?;
    }
    let (_, wide) = bulk.finish().await.context(LOADING)?;
    dest.insert_wide("#changes", &columns, wide).await.context(LOADING)?;
    Ok(refused)
}

/// The row with its `__$order`, the last column of `#changes`.
pub(super) fn with_order(row: Row, order: i64) -> RowData {
    let mut cells = row.into_cells();
    cells.push(Param::BigInt(order));
    cells
}

/// Checks that the destination's answer to "the rows after number `after`" moves on: otherwise the
/// caller would ask the same question for ever.
pub(super) fn check_order_grows(after: i64, order: i64) -> Result<()> {
    if order > after {
        return Ok(());
    }
    Err(Error::new(
        crate::error::Kind::Other,
        format!("the destination says that a row after number {after} has number {order}"),
    ))
}

/// Drops the temp tables: a session that goes back to its pool must not keep their rows in tempdb.
pub(super) const DROP_TABLES: &str = "IF OBJECT_ID(N'tempdb..#changes') IS NOT NULL DROP TABLE #changes;\nIF OBJECT_ID(N'tempdb..#net') IS NOT NULL DROP TABLE #net;";
