//! The slower verifications: exact row counts at matching points, and whether the two tables still fit.
//!
//! A count is only compared where nothing moved: the source is counted, a fence taken, and when the checkpoint has passed it the
//! destination. If the change table has no row between the max LSN before the first count and the checkpoint after the second, both
//! counts are of one state (see [`crate::plan::verify`]); else they are taken again, and after three rounds the result is PARTIAL.

use super::{POLL, ROUNDS_MAX, Report, SUSPECTS_WAIT_MAX, Sides, capture, checkpoint, passed, standing, write};
use crate::{
    error::{Context, Kind, Result},
    jobs::{
        Env,
        fence::{self, Patience},
        shape::{self, Shape},
    },
    model::{lsn::Lsn, mapping::Mapping, name::TableName},
    mssql::{cdc, row::Param, session::Session},
    plan::verify::Status,
    tsql::lookup,
};
use std::time::Instant;

pub(super) const SCHEMA: &str = "SCHEMA";
const ROW_COUNT: &str = "ROW_COUNT";

/// Do source and destination still fit?
pub async fn schema(env: &Env, mapping: &Mapping) -> Result<Option<Report>> {
    let began = Instant::now();
    if standing(env, mapping).await?.is_none() {
        return Ok(None);
    }
    let desk = env.desk(mapping, 1, 1).await?;
    let mut source = desk.source(&mapping.source.database).await?;
    let mut dest = desk.dest(&mapping.dest.database).await?;
    let report = match shape::gather(&mut source, &mut dest, mapping).await {
        Ok(shape) => {
            let carried = |column: &crate::model::table::Column| shape.carry.columns.iter().any(|c| c.source.name == column.name);
            let left: Vec<_> = shape.source.columns.iter().filter(|column| !carried(column)).map(|column| column.name.as_str()).collect();
            let details = if left.is_empty() { String::new() } else { format!("not carried: {}", left.join(", ")) };
            Report { kind: SCHEMA, status: Status::Passed, compared: shape.carry.columns.len(), mismatches: 0, details }
        }
        Err(error) if matches!(error.kind, Kind::Schema | Kind::Missing) => {
            Report { kind: SCHEMA, status: Status::Failed, compared: 0, mismatches: 1, details: error.to_string() }
        }
        Err(error) => return Err(error).with_context(|| format!("compare the columns of {}", mapping.source)),
    };
    write(env, mapping, &report, &Sides::default(), began.elapsed()).await?;
    Ok(Some(report))
}

/// Do both sides have as many rows?
pub async fn row_count(env: &Env, mapping: &Mapping) -> Result<Option<Report>> {
    let began = Instant::now();
    let counted = match count(env, mapping).await {
        Ok(Some(counted)) => counted,
        Ok(None) => return Ok(None),
        Err(cause) if matches!(cause.kind, Kind::LockTimeout | Kind::Deadlock) => {
            Counted { why: Some(format!("not counted: {cause}")), ..Counted::default() }
        }
        Err(cause) => return Err(cause).with_context(|| format!("count the rows of {}", mapping.source)),
    };
    let Counted { source, dest, why } = counted;
    let apart = source.abs_diff(dest);
    let (status, details) = match why {
        None if apart == 0 => (Status::Passed, String::new()),
        None => (Status::Failed, format!("{source} rows in source, {dest} in destination")),
        Some(why) => (Status::Partial, why),
    };
    let report =
        Report { kind: ROW_COUNT, status, compared: usize::try_from(source.max(dest)).unwrap_or_default(), mismatches: apart, details };
    let rows = (Some(source), Some(dest));
    write(env, mapping, &report, &Sides { rows, ..Sides::default() }, began.elapsed()).await?;
    Ok(Some(report))
}

/// Both counts, and why they cannot be compared if they cannot.
#[derive(Default)]
struct Counted {
    source: i64,
    dest: i64,
    why: Option<String>,
}

async fn count(env: &Env, mapping: &Mapping) -> Result<Option<Counted>> {
    if standing(env, mapping).await?.is_none() {
        return Ok(None);
    }
    let desk = env.desk(mapping, 1, 1).await?;
    let mut source = desk.source(&mapping.source.database).await?;
    let mut dest = desk.dest(&mapping.dest.database).await?;
    let shape = shape::gather(&mut source, &mut dest, mapping).await?;
    let deadline = Instant::now() + SUSPECTS_WAIT_MAX;
    let mut counted = Counted::default();
    for _ in 0..ROUNDS_MAX {
        let low = if mapping.cdc_enabled { cdc::upper(&mut source).await?.map_or(Lsn::ZERO, |upper| upper.lsn) } else { Lsn::ZERO };
        counted.source = rows(&mut source, &shape.source.name).await.context("count source rows")?;
        if !mapping.cdc_enabled {
            counted.dest = rows(&mut dest, &shape.dest.name).await.context("count destination rows")?;
            counted.why = (counted.source != counted.dest).then(|| "drift: CDC is off for this mapping".to_owned());
            break;
        }
        counted.why = still(env, mapping, &shape, low, deadline, &mut source, &mut dest, &mut counted.dest).await?;
        if counted.why.is_none() || env.stopping() || Instant::now() >= deadline {
            break;
        }
    }
    // a full sync that began meanwhile moves the rows under us
    Ok(standing(env, mapping).await?.map(|_| counted))
}

/// Counts the destination once it has what the source's count has seen; why the two cannot be compared, if they cannot.
#[allow(clippy::too_many_arguments)]
async fn still(
    env: &Env,
    mapping: &Mapping,
    shape: &Shape,
    low: Lsn,
    deadline: Instant,
    source: &mut Session,
    dest: &mut Session,
    dest_rows: &mut i64,
) -> Result<Option<String>> {
    let Some(capture) = capture(source, shape).await? else {
        *dest_rows = rows(dest, &shape.dest.name).await.context("count destination rows")?;
        return Ok(Some("the source table has no capture instance".into()));
    };
    let reading = fence::reading(source).await?;
    let wait_max = deadline.saturating_duration_since(Instant::now());
    let fence = match fence::wait(source, &reading, Patience { wait_max, poll: POLL }, &env.cancel).await {
        Ok(fence) => Some(fence),
        Err(_) if !source.is_cut_off() => {
            source.recover().await?;
            None
        }
        Err(error) => return Err(error),
    };
    let caught_up = match fence {
        Some(fence) => passed(env, mapping, fence, deadline).await?,
        None => false,
    };
    *dest_rows = rows(dest, &shape.dest.name).await.context("count destination rows")?;
    if !caught_up {
        return Ok(Some("drift: replication has not caught up with the count".into()));
    }
    let Some(high) = checkpoint(env, mapping).await? else { return Ok(Some("the mapping has no checkpoint".into())) };
    let changes = source
        .rows(&lookup::any_change(&capture.instance.change_table), &[Param::Lsn(low), Param::Lsn(high)])
        .await
        .context("look for changes during the count")?;
    Ok((!changes.is_empty()).then(|| "no still moment: rows kept changing".to_owned()))
}

async fn rows(session: &mut Session, table: &TableName) -> Result<i64> {
    session.row(&lookup::count(table), &[]).await?.i64(0)
}
