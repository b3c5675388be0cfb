//! What the source and the destinations know, before anything is decided.

use super::{
    instances_by_table::InstancesByTable,
    state::{MappingFacts, PollContext, PollState, Polled, SourceFacts, reads_cdc},
};
use crate::{
    control::checkpoint,
    error::{Error, Kind, Result},
    model::{
        id::{MappingId, ServerId},
        lsn::Lsn,
        mapping::Mapping,
        name::Ident,
    },
    mssql::{
        client::session::Session,
        pool::reservation::Reservation,
        queries::{cdc, history},
    },
    plan::window::{History, StoredCheckpoint},
};
use std::collections::{HashMap, HashSet};

/// The max LSN, and the capture instances with their low watermarks.
pub(super) async fn source_facts(session: &mut Session) -> Result<SourceFacts> {
    if !cdc::enabled(session).await? {
        return Ok(SourceFacts {
            refused: Some("CDC is not enabled in the source database. Enable it there: EXEC sys.sp_cdc_enable_db".to_owned()),
            ..Default::default()
        });
    }
    let answered = async {
        let (max_lsn, instances) = cdc::max_lsn_and_instances(session).await?;
        Ok::<_, Error>(SourceFacts { max_lsn, instances, refused: None })
    };
    match answered.await {
        Err(error)
            if matches!(error.kind, Kind::Permission | Kind::Missing) && !session.is_broken() =>
        {
            session.recover().await?;
            Ok(SourceFacts {
                refused: Some(format!(
                    "{error}. The login needs the change tables: GRANT SELECT ON SCHEMA::cdc TO <user>"
                )),
                ..Default::default()
            })
        }
        other => other,
    }
}

/// The checkpoints of the mappings that use CDC. A destination database that cannot be read fails
/// its own mappings only.
///
/// The connection to the destination is held for these statements alone, so that a source which
/// does not answer keeps none.
pub(super) async fn stored_checkpoints(
    context: PollContext<'_>,
    mappings: &[Mapping],
    state: &mut PollState,
    polled: &mut Polled,
) -> Result<HashMap<MappingId, StoredCheckpoint>> {
    let PollContext { env, holder, server, database } = context;
    let mut stored = HashMap::new();
    let connections = env.dest_connections(1, holder).await?;
    for dest in dest_databases(mappings) {
        let here = |mapping: &&Mapping| mapping.dest.database == dest;
        match checkpoints_of(&connections, &dest, (server, database), state).await {
            Ok(found) => {
                let ids: HashSet<MappingId> =
                    mappings.iter().filter(here).map(|mapping| mapping.id).collect();
                stored.extend(found.into_iter().filter(|(id, _)| ids.contains(id)));
            }
            Err(error) => {
                let failed = mappings.iter().filter(here).filter(|mapping| reads_cdc(mapping));
                polled.failed.extend(failed.map(|mapping| (mapping.id, error.clone())));
            }
        }
    }
    Ok(stored)
}

fn dest_databases(mappings: &[Mapping]) -> Vec<Ident> {
    let mut names: Vec<Ident> = mappings
        .iter()
        .filter(|mapping| reads_cdc(mapping))
        .map(|mapping| mapping.dest.database.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Both checkpoints of the mappings from a source database to a destination database. If the two
/// differ, they are read a second time: a pass may have committed between the two reads.
async fn checkpoints_of(
    connections: &Reservation,
    dest: &Ident,
    source: (ServerId, &Ident),
    state: &mut PollState,
) -> Result<HashMap<MappingId, StoredCheckpoint>> {
    let mut session = connections.checkout(dest).await?;
    if !state.checkpoint_tables.contains(dest) {
        checkpoint::ensure_table(&mut session).await?;
        state.checkpoint_tables.insert(dest.clone());
    }
    let stored = checkpoint::stored(&mut session, source).await;
    let stored = match stored {
        Err(error) if error.kind == Kind::Missing => {
            // dropped, or the database was restored from before it existed
            state.checkpoint_tables.remove(dest);
            return Err(error);
        }
        other => other?,
    };
    if stored.values().all(StoredCheckpoint::agrees) {
        return Ok(stored);
    }
    checkpoint::stored(&mut session, source).await
}

/// One entry per mapping that has not failed.
pub(super) fn mapping_facts<'a>(
    mappings: &'a [Mapping],
    source: &SourceFacts,
    mut stored: HashMap<MappingId, StoredCheckpoint>,
    polled: &Polled,
) -> Vec<MappingFacts<'a>> {
    let tables = InstancesByTable::new(&source.instances);
    mappings
        .iter()
        .filter(|mapping| !polled.has_failed(mapping.id))
        .map(|mapping| MappingFacts {
            mapping,
            instances: if reads_cdc(mapping) {
                tables.instances(&mapping.source)
            } else {
                Vec::new()
            },
            coverage: None,
            // a mapping whose row was deleted a moment ago has no checkpoint
            stored: stored.remove(&mapping.id).unwrap_or_default(),
            history: History::Unknown,
            choice: None,
            has_rows: false,
            locked: false,
            triggered: false,
            initial_load: None,
        })
        .collect()
}

/// Reads which transactions the source has at the checkpoints; idle mappings share one.
pub(super) async fn read_histories(
    session: &mut Session,
    mappings: &mut [MappingFacts<'_>],
) -> Result<()> {
    let lsn_of = |facts: &MappingFacts<'_>| facts.stored.transaction().map(|known| known.lsn);
    let mut lsns: Vec<Lsn> =
        mappings.iter().filter(|facts| !facts.instances.is_empty()).filter_map(lsn_of).collect();
    lsns.sort();
    lsns.dedup();
    if lsns.is_empty() {
        return Ok(());
    }
    let history = history::history(session, &lsns).await?;
    for facts in mappings {
        if let Some(found) = lsn_of(facts).and_then(|lsn| history.get(&lsn)) {
            facts.history = found.clone();
        }
    }
    Ok(())
}
