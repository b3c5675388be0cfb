//! Completing change rows: values that a change row does not have are read from the source table.

use super::statements::ApplyStatements;
use crate::{
    error::{Context, Result},
    jobs::changes_table::{self, check_order_grows, with_order},
    mssql::client::{
        row::{Param, Row},
        session::Session,
    },
    tsql::changes::{FETCH_MAX, FETCHED},
};

/// What completing did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Completion {
    /// The source was asked for rows.
    pub asked: bool,
    /// Some of the fetched rows have large values, which are not in `#changes` yet.
    pub large: bool,
}

/// Fetches the source's rows for effects that lack a value. A row that is no longer at the source
/// is left out: the change that deleted it comes later.
pub(super) async fn complete(
    source: &mut Session,
    dest: &mut Session,
    statements: &ApplyStatements,
) -> Result<Completion> {
    let mut completed = Completion::default();
    let Some(incomplete) = &statements.incomplete else { return Ok(completed) };
    let mut after = 0i64;
    loop {
        let params = [Param::BigInt(FETCH_MAX as i64), Param::BigInt(after)];
        let wanted = dest.rows(incomplete, &params).await.context("look for incomplete rows")?;
        let Some(last) = wanted.last() else { return Ok(completed) };
        completed.asked = true;
        let order = last.i64(0)?;
        check_order_grows(after, order)?;
        after = order;
        completed.large |= fetch(source, dest, statements, &wanted).await?;
        if wanted.len() < FETCH_MAX {
            return Ok(completed);
        }
    }
}

/// Fetches the source's rows for at most [`FETCH_MAX`] change rows; whether some have large values.
async fn fetch(
    source: &mut Session,
    dest: &mut Session,
    statements: &ApplyStatements,
    wanted: &[Row],
) -> Result<bool> {
    const FETCHING: &str = "fetch rows from the source";
    let mut orders = Vec::with_capacity(wanted.len());
    let mut params = Vec::with_capacity(3 * FETCH_MAX);
    for row in wanted {
        orders.push(Some(row.i64(0)?));
        params.extend([
            Param::OptLsn(row.opt_lsn(1)?),
            Param::OptLsn(row.opt_lsn(2)?),
            Param::OptInt(row.opt_i32(3)?),
        ]);
    }
    // the statement always has the same number of slots
    while params.len() < 3 * FETCH_MAX {
        params.extend([Param::OptLsn(None), Param::OptLsn(None), Param::OptInt(None)]);
    }
    let mut large = false;
    let mut rows = source.stream(&statements.fetch, &params).await.context(FETCHING)?;
    let mut number = |row: Row| {
        let slot = usize::try_from(row.i64(4)?).unwrap_or(usize::MAX);
        large |= statements.has_large_values(&row)?;
        // One row per slot: sequence values are unique, but a second row would break the load.
        let order = orders.get_mut(slot).and_then(Option::take);
        Ok(order.map(|order| with_order(row, order + FETCHED)))
    };
    let refused =
        changes_table::load(&mut rows, FETCHING, dest, &statements.columns, &mut number).await?;
    refused.map_or(Ok(large), Err)
}
