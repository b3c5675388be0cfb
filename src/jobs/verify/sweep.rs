//! Reading what is compared at a time.

use super::{limit::Limit, record::long, rows::RowReader};
use crate::{
    control::SweepProgress,
    error::{Context, Result},
    jobs::Env,
    mssql::client::session::Session,
    plan::verify::RowSet,
    tsql::lookup::TableSide,
};

/// How far the rows that were read reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SweepReach {
    /// There are rows that later runs read.
    Part,
    /// The sweep came to the table's end.
    End,
    /// The newest rows are the whole table.
    AtOnce,
}

/// Reads what is compared at a time: the newest rows, the next range, and what earlier runs left
/// open.
pub(super) async fn read_part(
    env: &Env,
    reader: &mut RowReader<'_>,
    whole: bool,
    progress: &mut SweepProgress,
    (source, dest): (&mut Session, &mut Session),
    (left, right): (&mut RowSet, &mut RowSet),
    limit: &Limit<'_>,
) -> Result<SweepReach> {
    limit.check().await?;
    let rows_max = env.config.verify_rows;
    let mut reach = SweepReach::Part;
    if !whole {
        *left = reader
            .newest(TableSide::Source, source, rows_max)
            .await
            .context("read the newest source rows")?;
        *right = reader
            .newest(TableSide::Dest, dest, rows_max)
            .await
            .context("read the newest destination rows")?;
    }
    // newest rows that are fewer than asked for are the whole table
    let sweeps = whole || left.len() >= rows_max || right.len() >= rows_max;
    if !sweeps {
        (progress.sweep_after, progress.sweep_rows) = (None, long(left.len()));
        reach = SweepReach::AtOnce;
    } else if whole || env.config.verify_sweep_rows > 0 {
        let rows_max = if whole { rows_max } else { env.config.verify_sweep_rows };
        let range = reader
            .range(
                source,
                dest,
                progress.sweep_after.as_deref(),
                rows_max,
                (&mut *left, &mut *right),
            )
            .await?;
        progress.sweep_rows += long(range.rows);
        progress.sweep_after = range.next;
        if progress.sweep_after.is_none() {
            reach = SweepReach::End;
        }
    }
    let carried = std::mem::take(&mut progress.carried);
    left.extend(
        reader
            .by_keys(TableSide::Source, source, &carried, limit)
            .await
            .context("read carried source rows")?,
    );
    right.extend(
        reader
            .by_keys(TableSide::Dest, dest, &carried, limit)
            .await
            .context("read carried destination rows")?,
    );
    reader.complete(source, dest, left, right, limit).await?;
    Ok(reach)
}
