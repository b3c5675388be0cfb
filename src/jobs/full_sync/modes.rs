//! The two modes of a full sync, from the copy to the end.

use super::{
    SyncEnd, SyncRun,
    copy::{self, Copy},
    direct::DirectWriter,
    progress::{Stop, SwapStep, SyncStage},
    replay::{self, ChangeSource},
    swap,
};
use crate::{
    error::{Context, Result},
    jobs::shape,
    model::{
        lsn::Lsn,
        mapping::{Mapping, SyncType},
    },
    mssql::{client::session::Session, pool::Checkout, queries::cdc},
};
use tracing::info;

/// Mode STAGED: copy, fence, replay, swap.
pub(super) async fn run_staged(
    work: &SyncRun<'_>,
    mut changes: Option<&mut ChangeSource>,
    stored: Option<Lsn>,
    source: Checkout,
    dest: &mut Session,
) -> Result<SyncEnd> {
    let SyncRun { env, mapping, shape, stage, progress, .. } = work;
    let mut source = match copy::copy(work, changes.as_deref_mut(), None, source, dest).await? {
        Copy::Whole(source) => source,
        Copy::Stopped(stop) => return Ok(SyncEnd::Stopped(stop)),
    };
    let changes = changes.as_deref();
    progress.enter(SyncStage::Index);
    copy::index(dest, stage, &shape.map).await?;
    let checkpoint = match changes {
        Some(changes) => replay::replay(work, changes, &mut source, dest).await?,
        None => None,
    };
    shape::prove(&mut source, dest, mapping, shape).await?;
    if checkpoint.is_none() {
        log_guarantee(work, false);
    }
    let transaction = match checkpoint {
        Some(lsn) => cdc::newest_transaction(&mut source, lsn).await?,
        None => None,
    };
    copy::index_as_dest(dest, stage, &shape.map).await?;
    if !env.control.current_mapping(mapping.id).await?.is_some_and(|current| current.enabled) {
        return Ok(SyncEnd::Stopped(Stop::Paused));
    }
    let instance =
        changes.map(|changes| &changes.capture.instance).filter(|_| checkpoint.is_some());
    let end = swap::SwapRecord {
        mapping: mapping.id,
        claim: work.claim,
        stored,
        checkpoint,
        transaction,
        instance,
    };
    let swapped = swap::swap(work, &end, dest).await.context("swap the staged rows in")?;
    progress.finish_with(swapped.rows);
    info!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::FullSync.as_str(),
        records_count = i64::try_from(swapped.rows).unwrap_or(i64::MAX),
        "full sync of {}: rows swapped in: {} inserted, {} updated, {} deleted",
        work.mapping.source,
        swapped.inserted,
        swapped.updated,
        swapped.deleted
    );
    Ok(SyncEnd::Completed)
}

/// Mode DIRECT: load; CDC goes on from the cut.
pub(super) async fn run_direct(
    work: &SyncRun<'_>,
    mut changes: Option<&mut ChangeSource>,
    stored: Option<Lsn>,
    source: Checkout,
    dest: &mut Session,
) -> Result<SyncEnd> {
    let mut direct = DirectWriter::new(work);
    let mut source =
        match copy::copy(work, changes.as_deref_mut(), Some(&mut direct), source, dest).await? {
            Copy::Whole(source) => source,
            Copy::Stopped(stop) => return Ok(SyncEnd::Stopped(stop)),
        };
    let changes = changes.as_deref();
    shape::prove(&mut source, dest, work.mapping, work.shape).await?;
    // no rows have arrived where there are none
    direct.clear(dest).await?;
    work.progress.finish_with(direct.inserted);
    work.progress.enter(SyncStage::Swap(SwapStep::Check));
    let checkpoint = changes.map(|changes| changes.copy_start_lsn);
    let transaction = match checkpoint {
        Some(lsn) => cdc::newest_transaction(&mut source, lsn).await?,
        None => None,
    };
    let instance = changes.map(|changes| &changes.capture.instance);
    let end = swap::SwapRecord {
        mapping: work.mapping.id,
        claim: work.claim,
        stored,
        checkpoint,
        transaction,
        instance,
    };
    swap::finish_direct(work, direct.inserted, &end, dest).await.context("end the load")?;
    log_guarantee(work, checkpoint.is_some() && work.mapping.cdc_enabled);
    Ok(SyncEnd::Completed)
}

/// What the copy can promise of rows that changed while it ran; `followed`: their changes come
/// through CDC next.
fn log_guarantee(work: &SyncRun<'_>, followed: bool) {
    let guarantee = if followed {
        "rows that changed during the copy are mended by the changes that CDC brings next"
    } else if work.shape.source_database.snapshot || work.shape.source.memory_optimized {
        "the rows are those of one moment (SNAPSHOT)"
    } else {
        "rows that changed during the copy may be missing or old (no CDC, no SNAPSHOT at the source)"
    };
    let Mapping { id, server, source, .. } = work.mapping;
    info!(
        mapping_id = id.0,
        server_id = server.0,
        sync_type = SyncType::FullSync.as_str(),
        "full sync of {source}: {guarantee}"
    );
}
