//! Bringing large values: piece by piece from the row that has them at the source into its row of
//! `#changes`.
//!
//! The rows themselves came with an empty value in place of each large one and with the lengths
//! ([`crate::tsql::large`]). What is wanted is asked of the destination, after netting: of ten
//! updates of a row only the last one's value travels. A value never is in memory as a whole.

use md5::{Digest, Md5};
use tokio_util::sync::CancellationToken;

use super::changes_table::check_order_grows;
use crate::{
    error::{Context, Error, Kind, Result},
    model::value::Value,
    mssql::client::{
        row::{Param, Row},
        session::Session,
    },
    tsql::large::{CHARACTERS, LENGTH_BYTES, LargeValues, PieceStatements},
};

/// Rows whose lengths are asked for at a time: at most 8 KiB of lengths each.
const ROWS_MAX: i64 = 500;

/// Brings every value that is wanted. An error leaves a part of one: the group must not be written
/// then.
pub async fn copy_values(
    source: &mut Session,
    dest: &mut Session,
    statements: &LargeValues,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut after = 0i64;
    loop {
        let rows = dest
            .rows(&statements.wanted, &[Param::BigInt(ROWS_MAX), Param::BigInt(after)])
            .await
            .context("look for large values")?;
        let Some(last) = rows.last() else { return Ok(()) };
        let last = last.i64(0)?;
        check_order_grows(after, last)?;
        for row in &rows {
            copy_row_values(source, dest, statements, row, cancel).await?;
        }
        after = last;
    }
}

async fn copy_row_values(
    source: &mut Session,
    dest: &mut Session,
    statements: &LargeValues,
    row: &Row,
    cancel: &CancellationToken,
) -> Result<()> {
    let order = row.i64(0)?;
    let place = (2..row.len()).map(|i| row.value(i)).collect::<Result<Vec<_>>>()?;
    for (pieces, length) in statements.columns.iter().zip(row.bytes(1)?.chunks_exact(LENGTH_BYTES))
    {
        let length = length.iter().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
        if length > 0 {
            let value = LargeValue {
                pieces,
                order,
                length,
                place: &place,
                can_change: statements.can_change,
            };
            value.copy_values(source, dest, cancel).await.context("bring a large value")?;
        }
    }
    Ok(())
}

/// One value on its way.
struct LargeValue<'a> {
    pieces: &'a PieceStatements,
    /// Of its row in `#changes`.
    order: i64,
    /// The length that came with its row.
    length: u64,
    /// What finds its row at the source.
    place: &'a [Value],
    can_change: bool,
}

impl LargeValue<'_> {
    async fn copy_values(
        &self,
        source: &mut Session,
        dest: &mut Session,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let (mut at, mut total, mut hash) = (1i64, 0u64, Md5::new());
        loop {
            if cancel.is_cancelled() {
                return Err(Error::new(
                    Kind::Cancelled,
                    "asked to stop between two pieces of a large value",
                ));
            }
            let row =
                source.opt_row(&self.pieces.read, &self.params(at)).await?.ok_or_else(changed)?;
            let bytes = row.opt_bytes(0)?.ok_or_else(changed)?;
            if bytes.is_empty() {
                break;
            }
            let appended = dest
                .execute(&self.pieces.append, &[Param::Binary(bytes), Param::BigInt(self.order)])
                .await?;
            if appended.iter().sum::<u64>() != 1 {
                return Err(Error::new(
                    Kind::Other,
                    "the destination did not append a piece of a large value to one row",
                ));
            }
            hash.update(bytes);
            total = total.saturating_add(bytes.len() as u64);
            let units = self
                .pieces
                .unit_bytes
                .map(|unit| i64::try_from(bytes.len()).unwrap_or(i64::MAX) / unit);
            at = at.saturating_add(units.unwrap_or(CHARACTERS));
            if self.pieces.has_exact_length && total >= self.length {
                break;
            }
        }
        if self.pieces.has_exact_length && total != self.length {
            return Err(changed());
        }
        if self.can_change {
            let row =
                source.opt_row(&self.pieces.hash, &self.params(1)).await?.ok_or_else(changed)?;
            if row.opt_bytes(0)? != Some(hash.finalize().as_slice()) {
                return Err(changed());
            }
        }
        Ok(())
    }

    /// `@P1` where the piece begins, then what finds the row.
    fn params(&self, at: i64) -> Vec<Param<'_>> {
        std::iter::once(Param::BigInt(at)).chain(self.place.iter().map(Param::Value)).collect()
    }
}

/// The row is another one by now, or gone: what is read at the next attempt is right again.
fn changed() -> Error {
    Error::new(Kind::Busy, "a row changed at the source while its large value was read")
}
