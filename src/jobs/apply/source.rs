//! What is asked of the source around a commit group: where the group ends, and whether what was
//! read is complete.

use super::{
    request::{ApplyRequest, ApplyTarget},
    statements::ApplyStatements,
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{capture::Transaction, lsn::Lsn},
    mssql::{
        client::{row::Param, session::Session},
        queries::cdc,
    },
    plan::window::Gap,
};

/// Where a group ends.
pub(super) struct GroupEnd {
    /// Change rows up to the end, counted up to the limit that was asked for; 0: there are none.
    pub rows: i64,
    pub to: Lsn,
    /// The newest source transaction up to `to`, where it is known. A later pass compares it with
    /// the source's, to notice that the source was restored.
    pub transaction: Option<Transaction>,
}

/// Where the group that begins after `from` ends: at the commit of the transaction that has the
/// `rows_max`th change row, or at the window's end.
pub(super) async fn find_group_end(
    source: &mut Session,
    request: &ApplyRequest<'_>,
    statements: &ApplyStatements,
    from: Lsn,
    rows_max: Option<usize>,
) -> Result<GroupEnd> {
    let at_window_end = match &request.target {
        ApplyTarget::Dest { checkpoint, .. } => checkpoint.transaction.clone(),
        ApplyTarget::Staging { .. } => None,
    };
    let Some(rows_max) = rows_max else {
        return Ok(GroupEnd { rows: 1, to: request.to, transaction: at_window_end });
    };
    let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let params = [Param::BigInt(rows_max), Param::Lsn(from), Param::Lsn(request.to)];
    let row = source.row(&statements.boundary, &params).await;
    let row = row
        .map_err(|error| cdc::explain_instance_error(error, &request.capture.instance))
        .context("find the end of a batch of changes")?;
    let rows = row.i64(0)?;
    let to = if rows < rows_max { request.to } else { row.opt_lsn(1)?.unwrap_or(request.to) };
    // A checkpoint beyond the window would skip changes, and one that does not move would never
    // end.
    if to <= from || to > request.to {
        return Err(Error::new(
            Kind::Other,
            format!(
                "the source says that a batch of changes in ({from}, {}] ends at {to}",
                request.to
            ),
        ));
    }
    // The transaction of the last change row. The window's end may be later: other tables' changes.
    let found = cdc::transaction(&row, 1)?.filter(|found| found.lsn <= to);
    let transaction = if to == request.to { at_window_end.or(found) } else { found };
    Ok(GroupEnd { rows, to, transaction })
}

/// Asked after the rows in (`from`, `to`] were read. An error unless cleanup has deleted none of
/// them, the session's server has not gone back in time, and the table has the columns by which
/// they were read.
pub(super) async fn check_source(
    source: &mut Session,
    request: &ApplyRequest<'_>,
    from: Lsn,
    to: Lsn,
) -> Result<()> {
    let (bounds, same) = cdc::recheck(source, request.source, request.map, request.capture).await?;
    let (min, seen) = (bounds.min, bounds.visible_up_to());
    if min > from.next() {
        return Err(Error::new(Kind::Gap, Gap::Retention { from, min }.message()));
    }
    if seen < to {
        return Err(Error::new(
            Kind::Busy,
            format!(
                "the source had captured {to} and has captured {seen} at most now: it went back in time"
            ),
        ));
    }
    if !same {
        return Err(Error::new(
            Kind::Altered,
            format!("{} was altered while its changes were read", request.source.name),
        ));
    }
    Ok(())
}
