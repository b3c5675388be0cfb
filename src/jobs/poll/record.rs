//! Writing what was decided: requests, checkpoints, and the lag.

use super::{
    decide::Decided,
    instances, lag,
    stall::unknown_lag_reason,
    state::{MappingFacts, MappingWork, PollContext, PollState, Polled, SourceFacts, reads_cdc},
};
use crate::{
    control::{
        ErrorCode,
        checkpoint::{self, IdleMove},
    },
    error::{Error, Kind, Result},
    model::{
        capture::MaxLsn,
        lsn::Lsn,
        mapping::{Mapping, SyncType},
        name::Ident,
    },
    mssql::{client::session::Session, queries::cdc},
    plan::window::Gap,
};
use std::collections::HashMap;

/// Writes what was decided. Only an error of the source is returned: an error of the destination or
/// of the control tables belongs to the mappings that it concerns, and the lag or a run's status
/// that cannot be written is a warning.
pub(super) async fn record(
    context: PollContext<'_>,
    session: &mut Session,
    mappings: &[MappingFacts<'_>],
    source: &SourceFacts,
    decided: Decided<'_, '_>,
    state: &mut PollState,
    polled: &mut Polled,
) -> Result<()> {
    let PollContext { env, server, database, .. } = context;
    let Decided { work, failed, idle, initial_syncs, gap_syncs, waiting, healthy, not_idle } =
        decided;
    polled.work.extend(work);
    polled.failed.extend(failed);
    let locked = mappings.iter().filter(|facts| facts.locked).map(|facts| facts.mapping.id);
    polled.locked.extend(locked);
    state.healthy.retain(|id| !not_idle.contains(id));
    for mapping in initial_syncs {
        match env.control.request_initial_sync(mapping.id).await {
            Ok(true) => {
                tracing::info!(
                    mapping_id = mapping.id.0,
                    server_id = mapping.server.0,
                    sync_type = SyncType::FullSync.as_str(),
                    "{} has never synced and its destination {} is empty: it is loaded first",
                    mapping.source,
                    mapping.dest
                );
                polled.work.push((mapping.id, MappingWork::FullSync { trigger: false }));
            }
            // somebody has set a checkpoint: the next poll reads it
            Ok(false) => {}
            Err(error) => polled.failed.push((mapping.id, error)),
        }
    }
    for (mapping, stored, gap) in gap_syncs {
        match env.control.request_gap_sync(mapping.id, stored).await {
            Ok(true) => {
                state.healthy.remove(&mapping.id);
                log_gap(mapping, &gap);
                polled.work.push((mapping.id, MappingWork::FullSync { trigger: false }));
            }
            // another process has moved the checkpoint: the next poll reads it
            Ok(false) => {}
            Err(error) => polled.failed.push((mapping.id, error)),
        }
    }
    if !healthy.is_empty() {
        match env.control.settle_cdc(&healthy).await {
            Ok(()) => state.healthy.extend(healthy),
            Err(error) => {
                tracing::warn!(server_id = server.0, %error, "sync_status still shows an error of tables of {} whose CDC works again; the next poll corrects it", database.as_str());
            }
        }
    }
    instances::bind(context, mappings, polled).await?;
    if let (Some(max_lsn), false) = (&source.max_lsn, idle.is_empty()) {
        advance_idle(context, session, &idle, max_lsn, polled).await?;
    }
    if !mappings.iter().any(|facts| reads_cdc(facts.mapping)) {
        return Ok(());
    }
    let reason = unknown_lag_reason(source, state);
    let max_lsn = source.max_lsn.as_ref();
    let rows = lag::measure(session, mappings, max_lsn, reason.as_deref(), &waiting, polled);
    let written = async { env.control.lag(&mut rows.await?).await };
    if let Err(error) = written.await {
        tracing::warn!(server_id = server.0, %error, "cdc_lag was not written for the tables of {}; the next poll tries again", database.as_str());
    }
    Ok(())
}

fn log_gap(mapping: &Mapping, gap: &Gap) {
    let error =
        Error::new(Kind::Gap, format!("{}; a full sync of this table follows", gap.message()))
            .with_hint("nothing now; keep changes longer at the source (sys.sp_cdc_change_job, @retention) if this comes again");
    tracing::error!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::Cdc.as_str(),
        error_type = error.kind.error_type(),
        error_code = ErrorCode::ChangesLost.as_str(),
        error_details = %error.details(1, "a full sync has been requested"),
        "{}: changes are lost: {}",
        mapping.source,
        error.message()
    );
}

/// Moves the checkpoints of idle mappings, after the low watermarks were read again: cleanup may
/// have deleted rows before the poll looked for them.
async fn advance_idle(
    PollContext { env, holder, .. }: PollContext<'_>,
    session: &mut Session,
    idle: &[(&MappingFacts<'_>, Lsn)],
    max_lsn: &MaxLsn,
    polled: &mut Polled,
) -> Result<()> {
    let min: HashMap<i32, Lsn> = cdc::instances(session)
        .await?
        .into_iter()
        .map(|instance| (instance.change_table_id, instance.min))
        .collect();
    let mut moves: HashMap<&Ident, Vec<IdleMove>> = HashMap::new();
    for (facts, to) in idle {
        let (Some(choice), Some(instance)) = (facts.choice, facts.chosen_instance()) else {
            continue;
        };
        // otherwise the next poll finds the gap, or the missing instance
        let safe = min
            .get(&instance.change_table_id)
            .is_some_and(|min| !min.is_zero() && *min <= choice.from.next());
        if safe {
            moves.entry(&facts.mapping.dest.database).or_default().push(IdleMove {
                mapping: facts.mapping.id,
                stored: facts.stored.control,
                to: *to,
            });
        }
    }
    let connections = env.dest_connections(1, holder).await?;
    for (dest, moves) in moves {
        let moved = async {
            let mut session = connections.checkout(dest).await?;
            let transaction = max_lsn
                .transaction
                .as_ref()
                .filter(|known| moves.iter().all(|idle| known.lsn <= idle.to));
            checkpoint::advance_idle(&mut session, &moves, transaction).await
        };
        if let Err(error) = moved.await {
            polled.failed.extend(moves.iter().map(|idle| (idle.mapping, error.clone())));
        }
    }
    Ok(())
}
