//! The copy: source rows into the staging table, through the copy lane where it can be, else
//! through the driver.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{
    SyncRun,
    direct::DirectWriter,
    progress::{Stop, SyncStage},
    replay::ChangeSource,
    stage_lock,
};
use crate::{
    error::{Context, Error, Kind, Result},
    jobs::keys,
    model::{
        column_map::ColumnMap,
        mapping::SyncType,
        name::{Ident, TableName},
        value::Value,
    },
    mssql::{
        client::{
            bulk::{BulkColumns, BulkOptions},
            copy::{self, BatchLimit, BatchObserver, ControlFlow, Copied},
            session::Session,
        },
        pool::Checkout,
        queries::{catalog, cdc},
        tds::{self, CopyStatements},
    },
    plan::verify::key_text,
    tsql::{self, swap::KeyRules},
};

/// How often the session that holds the staging table's lock is asked whether it lives, at most.
const LOCK_PROOF_EVERY: Duration = Duration::from_secs(3);

/// How a copy ended that did not fail.
pub enum Copy {
    /// Every row is there. The source's session may be another one than before.
    Whole(Box<Checkout>),
    Stopped(Stop),
}

/// Copies every row into the staging table, and from there on batch by batch where it is `direct`.
/// The cut may be lower afterwards: where the session that read the rows was.
pub async fn copy(
    work: &SyncRun<'_>,
    mut changes: Option<&mut ChangeSource>,
    direct: Option<&mut DirectWriter<'_>>,
    mut source: Checkout,
    dest: &mut Session,
) -> Result<Copy> {
    let SyncRun { env, mapping, shape, progress, connections, .. } = work;
    progress.expect_rows(
        catalog::row_count(&mut source, &shape.source)
            .await?
            .and_then(|rows| u64::try_from(rows).ok()),
    );
    progress.enter(SyncStage::Copy);
    let snapshot = shape.source_snapshot();
    let query = tsql::swap::read_source(&shape.source.name, &shape.map);
    let limit = BatchLimit { rows_max: env.config.batch_rows, bytes_max: env.config.batch_bytes };
    let mut batches = CopyObserver { work, direct, lock_proven: Instant::now() };
    let (copied_by_lane, source) = if work.copy_lane {
        drop(source);
        (
            lane(work, changes.as_deref_mut(), &query, (snapshot, limit), dest, &mut batches)
                .await
                .context("copy")?,
            None,
        )
    } else {
        (None, Some(source))
    };
    if copied_by_lane.is_some_and(|copied| !copied.complete) {
        return Ok(stopped(work));
    }
    let mut source = match source {
        Some(source) => source,
        None => connections.source(&mapping.source.database).await?,
    };
    if copied_by_lane.is_none() {
        if let Some(changes) = changes {
            let seen = cdc::bounds(&mut source, &changes.capture.instance).await?;
            changes.limit_to_session(seen);
        }
        if !driver(work, &query, snapshot, limit, (&mut source, dest), &mut batches)
            .await
            .context("copy")?
            .complete
        {
            return Ok(stopped(work));
        }
    }
    Ok(Copy::Whole(Box::new(source)))
}

fn stopped(work: &SyncRun<'_>) -> Copy {
    Copy::Stopped(work.progress.stop().unwrap_or(Stop::Cancelled))
}

/// Cells as they are, on connections of their own: the one to the source takes the seat of the
/// job's session. `None` when that is not possible, and nothing was copied.
async fn lane(
    work: &SyncRun<'_>,
    changes: Option<&mut ChangeSource>,
    query: &str,
    (snapshot, limit): (bool, BatchLimit),
    dest: &mut Session,
    batches: &mut CopyObserver<'_, '_>,
) -> Result<Option<Copied>> {
    let SyncRun { env, shape, stage, mapping, connections, .. } = work;
    let names: Vec<Ident> = shape.map.columns.iter().map(|column| column.name().clone()).collect();
    let way = CopyStatements {
        read: if snapshot { &tsql::swap::in_snapshot(query) } else { query },
        columns: &tsql::swap::staged_columns(stage, &shape.map),
        load: &tsql::swap::load_stage(stage, &shape.map),
        key: &shape.map.key,
        names: &names,
    };
    let copied = match connections.copy_lane(mapping).await {
        Ok((mut from, mut to)) => {
            if let Some(changes) = changes {
                let seen = cdc::bounds_over_tds(&mut from, &changes.capture.instance).await?;
                changes.limit_to_session(seen);
            }
            to.set_timeout(env.config.long_statement_timeout);
            to.batch(&stage_lock::load_lock(stage))
                .await
                .context("lock the staging table for loading")?;
            tds::copy(from, to, way, limit, dest, batches).await?
        }
        // the driver reports the same error if the server refuses both
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = &copied {
        warn!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::FullSync.as_str(),
            "{} is copied by the driver, which is slower: {why}",
            mapping.source
        );
    }
    Ok(copied.ok())
}

/// Cells decoded and encoded by the driver, on the job's own sessions.
async fn driver(
    work: &SyncRun<'_>,
    query: &str,
    snapshot: bool,
    limit: BatchLimit,
    (source, dest): (&mut Session, &mut Session),
    batches: &mut CopyObserver<'_, '_>,
) -> Result<Copied> {
    let SyncRun { shape, stage, .. } = work;
    if snapshot {
        source
            .begin_transaction("SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION")
            .await
            .context("begin a snapshot")?;
    }
    let columns = BulkColumns::new(
        shape.map.columns.iter().map(|column| (column.staged_name.clone(), column.name().clone())),
    );
    let table = stage.local();
    let into = copy::CopyTarget {
        table: &table,
        columns: &columns,
        key: &shape.map.key,
        options: BulkOptions { table_lock: true, keep_nulls: true, ..BulkOptions::default() },
    };
    let copied = copy::copy(source, query, &[], dest, into, limit, batches).await?;
    if snapshot && copied.complete {
        source
            .commit_transaction(
                "COMMIT TRANSACTION; SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
            )
            .await
            .context("end the snapshot")?;
    }
    Ok(copied)
}

/// Follows the batches.
struct CopyObserver<'a, 'b> {
    work: &'a SyncRun<'a>,
    direct: Option<&'a mut DirectWriter<'b>>,
    /// When the session with the staging table's lock last answered.
    lock_proven: Instant,
}

impl BatchObserver for CopyObserver<'_, '_> {
    async fn batch_done(
        &mut self,
        dest: &mut Session,
        rows: u64,
        last_key: &[Value],
    ) -> Result<ControlFlow> {
        if let Some(direct) = &mut self.direct {
            direct.batch(dest).await?;
        }
        // The lane writes on a connection of its own: nothing else would notice for hours that this
        // one died, and the lock with it.
        if self.lock_proven.elapsed() >= LOCK_PROOF_EVERY {
            dest.batch("SELECT 1 AS alive")
                .await
                .context("prove that the staging table is still locked")?;
            self.lock_proven = Instant::now();
        }
        self.work.progress.copied(rows, key_text(last_key));
        Ok(if self.work.env.stopping() { ControlFlow::Stop } else { ControlFlow::Continue })
    }

    async fn stopped(&self) {
        self.work.env.cancel.cancelled().await;
    }
}

/// The staging table's key index, after rows that were read twice are out. Where the key cannot be
/// indexed, rows are found without.
pub async fn index(dest: &mut Session, stage: &TableName, map: &ColumnMap) -> Result<()> {
    if is_unique(dest, stage, map, KeyRules::Staged).await? {
        return Ok(());
    }
    let dropped = dest
        .execute(&tsql::swap::delete_repeated(stage, map), &[])
        .await
        .context("drop rows that were read twice")?;
    if is_unique(dest, stage, map, KeyRules::Staged).await? {
        return Ok(());
    }
    let dropped = dropped.iter().sum::<u64>();
    Err(Error::new(
        Kind::Duplicate,
        format!("the source has a key twice ({dropped} repeated reads were dropped before)"),
    ))
}

/// Before the swap, when the staging table is what the source is at one moment: every staged key is
/// a key of its own to the destination, too. The index is also what the swap finds rows by.
pub async fn index_as_dest(dest: &mut Session, stage: &TableName, map: &ColumnMap) -> Result<()> {
    let Some(add) = tsql::swap::add_dest_key(stage, map) else { return Ok(()) };
    dest.batch(&add).await.context("compute the keys as the destination compares them")?;
    if is_unique(dest, stage, map, KeyRules::Dest).await? {
        return Ok(());
    }
    keys::check_no_merged_keys(dest, map, &tsql::swap::merged_in_stage(stage, map), &[]).await?;
    Err(Error::new(Kind::Duplicate, "the source has keys that are one to the destination")
        .with_hint(keys::HINT))
}

/// Whether every staged key is there once: the index says so, or where a key cannot be in one, a
/// count.
async fn is_unique(
    dest: &mut Session,
    stage: &TableName,
    map: &ColumnMap,
    rules: KeyRules,
) -> Result<bool> {
    const DUPLICATE_KEY: i32 = 1505;
    /// of a type that no index has; an entry longer than 1,700 bytes; a computed column that the
    /// server takes for non-deterministic
    const NOT_INDEXED: [i32; 3] = [1919, 1946, 2729];
    let error = match dest.batch(&tsql::swap::index_stage(stage, map, rules)).await {
        Ok(()) => return Ok(true),
        Err(error) => error,
    };
    match error.number {
        Some(DUPLICATE_KEY) => {
            dest.recover().await?;
            Ok(false)
        }
        Some(number) if NOT_INDEXED.contains(&number) => {
            dest.recover().await?;
            let repeated = dest
                .row(&tsql::swap::has_repeated(stage, map, rules), &[])
                .await
                .context("look for repeated keys")?;
            Ok(repeated.i64(0)? == 0)
        }
        _ => Err(error).context("index the staging table"),
    }
}
