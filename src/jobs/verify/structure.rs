//! The slower verifications: exact row counts at matching points, and whether the two tables still
//! fit.
//!
//! A count is only compared where nothing moved: the source is counted, a fence taken, and when the
//! checkpoint has passed it the destination. If the change table has no row between the max LSN
//! before the first count and the checkpoint after the second, both counts are of one state (see
//! [`crate::plan::verify`], also for rows that replication completes); else they are taken again,
//! and after three rounds the result is PARTIAL.

use super::{
    ROUNDS_MAX, ROW_COUNT, SCHEMA, Scope, VerificationReport,
    confirm::{
        CaptureBefore, capture_before, current_checkpoint, no_full_sync_since, standing,
        wait_captured, wait_caught_up,
    },
    drift::{drift, since},
    limit::Limit,
    record::{ReportedFinding, Sides, long, write},
};
use crate::{
    error::{Context, Kind, Result},
    jobs::{
        Env,
        shape::{self, Shape},
    },
    model::{mapping::Mapping, name::TableName, visible::visible},
    mssql::{
        client::{row::Param, session::Session},
        queries::{catalog, cdc},
    },
    plan::verify::Status,
    tsql::lookup,
};
use std::time::Instant;

/// Do source and destination still fit?
pub async fn schema(env: &Env, mapping: &Mapping) -> Result<Option<VerificationReport>> {
    let began = Instant::now();
    if standing(env, mapping).await?.is_none() {
        return Ok(None);
    }
    let connections = env.connections(mapping, 1, 1).await?;
    let mut source = connections.source(&mapping.source.database).await?;
    let mut dest = connections.dest(&mapping.dest.database).await?;
    let report = match shape::gather(&mut source, &mut dest, mapping).await {
        Ok(shape) => {
            let carried = |column: &crate::model::table::Column| {
                shape.map.columns.iter().any(|c| c.source.name == column.name)
            };
            let left: Vec<_> = shape
                .source
                .columns
                .iter()
                .filter(|column| !carried(column))
                .map(|column| column.name.as_str())
                .collect();
            let details = if left.is_empty() {
                String::new()
            } else {
                visible(&format!("not carried: {}", left.join(", "))).into_owned()
            };
            VerificationReport {
                kind: SCHEMA,
                status: Status::Passed,
                compared: shape.map.columns.len(),
                mismatches: 0,
                details,
                repaired: 0,
                unconfirmed: 0,
            }
        }
        Err(error) if matches!(error.kind, Kind::Schema | Kind::Missing | Kind::DestMissing) => {
            VerificationReport {
                kind: SCHEMA,
                status: Status::Failed,
                compared: 0,
                mismatches: 1,
                details: visible(&error.to_string()).into_owned(),
                repaired: 0,
                unconfirmed: 0,
            }
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("compare the columns of {}", mapping.source));
        }
    };
    let finding = ReportedFinding::of_message(report.details.clone());
    write(env, mapping, &report, finding, &Sides::default(), began.elapsed()).await?;
    Ok(Some(report))
}

/// Do both sides have as many rows?
pub async fn row_count(
    env: &Env,
    mapping: &Mapping,
    scope: Scope,
    until: Option<Instant>,
) -> Result<Option<VerificationReport>> {
    let began = Instant::now();
    let counted = match count(env, mapping, scope, until).await {
        Ok(Some(counted)) => counted,
        Ok(None) => return Ok(None),
        // ended: another time
        Err(cause) if cause.kind == Kind::Cancelled => return Ok(None),
        Err(cause) if matches!(cause.kind, Kind::LockTimeout | Kind::Deadlock | Kind::Altered) => {
            RowCounts {
                why: Some(format!("not counted: {}", visible(&cause.to_string()))),
                ..RowCounts::default()
            }
        }
        Err(cause) => {
            return Err(cause).with_context(|| format!("count the rows of {}", mapping.source));
        }
    };
    let RowCounts { source, dest, why } = counted;
    let apart = source.unwrap_or_default() - dest.unwrap_or_default();
    let (status, details) = match why {
        None if apart == 0 => (Status::Passed, String::new()),
        None => (
            Status::Failed,
            format!(
                "{} rows in source, {} in destination",
                source.unwrap_or_default(),
                dest.unwrap_or_default()
            ),
        ),
        Some(why) => (Status::Partial, why),
    };
    let mismatches = if source.is_some() && dest.is_some() { apart.unsigned_abs() } else { 0 };
    let report = VerificationReport {
        kind: ROW_COUNT,
        status,
        compared: usize::try_from(source.max(dest).unwrap_or_default()).unwrap_or_default(),
        mismatches,
        unconfirmed: if status == Status::Partial { mismatches } else { 0 },
        details,
        repaired: 0,
    };
    // the numbers themselves change with every insert
    let finding = ReportedFinding::of_message(match apart {
        ..0 => format!("the destination has {} rows more", apart.unsigned_abs()),
        0.. => format!("the destination has {apart} rows fewer"),
    });
    write(
        env,
        mapping,
        &report,
        finding,
        &Sides { rows: (source, dest), ..Sides::default() },
        began.elapsed(),
    )
    .await?;
    Ok(Some(report))
}

/// Both counts, where they were taken, and why they cannot be compared if they cannot.
#[derive(Default)]
struct RowCounts {
    source: Option<i64>,
    dest: Option<i64>,
    why: Option<String>,
}

async fn count(
    env: &Env,
    mapping: &Mapping,
    scope: Scope,
    until: Option<Instant>,
) -> Result<Option<RowCounts>> {
    let Some(then) = standing(env, mapping).await? else { return Ok(None) };
    let limit = Limit::new(env, mapping, &then, until);
    let connections = env.connections(mapping, 1, 1).await?;
    let mut source = connections.source(&mapping.source.database).await?;
    let mut dest = connections.dest(&mapping.dest.database).await?;
    let shape = shape::gather(&mut source, &mut dest, mapping).await?;
    let limit = limit.until(Instant::now() + env.config.verify_wait);
    let mut counted = RowCounts::default();
    let large = match scope {
        Scope::Whole => None,
        Scope::Next { .. } => {
            catalog_counts(&mut source, &mut dest, &shape, env.config.verify_count_rows).await?
        }
    };
    if let Some(why) = drift(mapping, &then, Scope::Next { stands_still: false }) {
        counted = match large {
            Some(large) => large,
            None => RowCounts {
                source: Some(
                    rows(&mut source, &shape.source.name).await.context("count source rows")?,
                ),
                dest: Some(
                    rows(&mut dest, &shape.dest.name).await.context("count destination rows")?,
                ),
                ..counted
            },
        };
        if counted.source != counted.dest {
            counted.why =
                Some(format!("drift since {}: {why}", since(mapping, &then, &mut dest).await?));
        }
    } else if let Some(large) = large {
        counted = large;
    } else {
        for _ in 0..ROUNDS_MAX {
            let sessions = (&mut *source, &mut *dest);
            let apart = at_one_moment(env, mapping, &shape, &limit, sessions, &mut counted).await?;
            let moves = matches!(apart, Some(StructureDifference::Moves(_)));
            counted.why = apart.map(StructureDifference::message);
            if !moves || limit.ended().await?.is_some() {
                break;
            }
        }
    }
    shape::prove(&mut source, &mut dest, mapping, &shape).await?;
    Ok(no_full_sync_since(env, mapping, &then).await?.then_some(counted))
}

/// What the catalogs of both sides say of a table that is too large to be counted: of 500 million
/// rows a count reads hundreds of gigabytes. They are not of one moment, so that a difference is
/// none. `None`: the table is small enough, or the catalog does not know.
async fn catalog_counts(
    source: &mut Session,
    dest: &mut Session,
    shape: &Shape,
    exact_max: usize,
) -> Result<Option<RowCounts>> {
    let (Some(at_source), Some(at_dest)) = (
        catalog::row_count(source, &shape.source).await?,
        catalog::row_count(dest, &shape.dest).await?,
    ) else {
        return Ok(None);
    };
    if at_source.max(at_dest) <= long(exact_max) {
        return Ok(None);
    }
    let why = (at_source != at_dest).then(|| {
        format!(
            "about {at_source} rows in source, {at_dest} in destination, as the catalogs say; `verify --full` counts them"
        )
    });
    Ok(Some(RowCounts { source: Some(at_source), dest: Some(at_dest), why }))
}

/// Why two counts are not of one moment.
enum StructureDifference {
    /// Rows changed between them: another time they may not.
    Moves(String),
    /// Replication does not follow.
    Drifts(String),
}

impl StructureDifference {
    fn message(self) -> String {
        match self {
            StructureDifference::Moves(why) => why,
            StructureDifference::Drifts(why) => format!("drift: {why}"),
        }
    }
}

/// Counts the source, and the destination once it has what that count has seen; why the two cannot
/// be compared, if they cannot.
async fn at_one_moment(
    env: &Env,
    mapping: &Mapping,
    shape: &Shape,
    limit: &Limit<'_>,
    (source, dest): (&mut Session, &mut Session),
    counted: &mut RowCounts,
) -> Result<Option<StructureDifference>> {
    let before = capture_before(source, shape).await?;
    counted.source = Some(rows(source, &shape.source.name).await.context("count source rows")?);
    let reads_cdc = match &before {
        Some(before) => wait_caught_up(env, mapping, source, before.oldest, limit).await?,
        None => Err("the source table has no capture instance".to_owned()),
    };
    counted.dest = Some(rows(dest, &shape.dest.name).await.context("count destination rows")?);
    let CaptureBefore { capture, low, completes, .. } = match (reads_cdc, before) {
        (Ok(()), Some(before)) => before,
        (Ok(()), None) => return Ok(None),
        (Err(why), _) => return Ok(Some(StructureDifference::Drifts(why))),
    };
    let Some(mut high) = current_checkpoint(env, mapping).await? else {
        return Ok(Some(StructureDifference::Moves("the mapping has no checkpoint".into())));
    };
    if completes && counted.source != counted.dest {
        match wait_captured(source, limit).await? {
            Ok(fence) => high = high.max(fence),
            Err(why) => return Ok(Some(StructureDifference::Drifts(why))),
        }
    }
    // what this session has not seen captured it does not tell of
    let seen = cdc::bounds(source, &capture.instance).await?.visible_up_to();
    let changes = source
        .rows(
            &lookup::any_change(&capture.instance.change_table),
            &[Param::Lsn(low), Param::Lsn(high)],
        )
        .await
        .context("look for changes during the count")?;
    // an answer is worth something only where the instance still has everything after `low`
    let known = changes.is_empty()
        && seen >= high
        && cdc::bounds(source, &capture.instance).await?.min <= low.next();
    Ok((!known)
        .then(|| StructureDifference::Moves("no still moment: rows kept changing".to_owned())))
}

async fn rows(session: &mut Session, table: &TableName) -> Result<i64> {
    session.row(&lookup::count(table), &[]).await?.i64(0)
}
