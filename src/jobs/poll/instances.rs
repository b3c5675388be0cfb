//! Tables with several capture instances: which columns each captures, which of them is read, and a
//! warning for those that are not. Also a warning for tables with changes that no instance records.
//!
//! Almost every table has one instance, and then nothing is read here. What an instance captures
//! never changes, but the mapped columns do, so the comparison is repeated now and then. It costs a
//! few round trips per table, so the number of comparisons per poll is limited: until its turn a
//! mapping stays with the instance that its checkpoint names.

use super::state::{MappingFacts, PollContext, PollState, Polled};
use crate::{
    control::checkpoint::{self, Binding},
    error::{Kind, Result},
    jobs::{instances, shape},
    model::{capture::Instance, id::MappingId, mapping::SyncType, name::Ident},
    mssql::{client::session::Session, queries::cdc},
    plan::instances::Candidates,
};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// How long a comparison is believed.
const COMPARED_FOR: Duration = Duration::from_secs(600);

/// Tables compared at one poll: about ten round trips each.
const COMPARISONS_MAX: usize = 50;

/// Finds out what the instances capture where a table has several.
pub(super) async fn compare(
    session: &mut Session,
    PollContext { env, holder, .. }: PollContext<'_>,
    mappings: &mut [MappingFacts<'_>],
    state: &mut PollState,
    polled: &mut Polled,
) -> Result<()> {
    let now = Instant::now();
    let several: HashSet<MappingId> = mappings
        .iter()
        .filter(|facts| facts.instances.len() > 1)
        .map(|facts| facts.mapping.id)
        .collect();
    state.coverage_cache.coverage.retain(|id, _| several.contains(id));
    let mut left = COMPARISONS_MAX;
    for facts in mappings.iter_mut().filter(|facts| facts.instances.len() > 1) {
        let ids: Vec<i32> =
            facts.instances.iter().map(|instance| instance.change_table_id).collect();
        let known =
            state.coverage_cache.coverage.get(&facts.mapping.id).filter(|(of, _, _)| *of == ids);
        let fresh = known.is_some_and(|(_, at, _)| now - *at < COMPARED_FOR);
        if let Some((_, _, coverage)) = known.filter(|_| fresh || left == 0) {
            facts.coverage = Some(coverage.clone());
            continue;
        }
        if left == 0 {
            continue;
        }
        left -= 1;
        let compared_now = async {
            let shape = {
                let mut dest = env
                    .dest_connections(1, holder)
                    .await?
                    .checkout(&facts.mapping.dest.database)
                    .await?;
                shape::gather(session, &mut dest, facts.mapping).await?
            };
            instances::coverage(session, &shape.map, &facts.instances).await
        };
        match compared_now.await {
            Ok(coverage) => {
                facts.coverage = Some(coverage.clone());
                state.coverage_cache.coverage.insert(facts.mapping.id, (ids, now, coverage));
            }
            Err(error) if session.is_broken() => return Err(error),
            Err(error) => {
                session.recover().await?;
                // a mapping that reads an instance already continues without the comparison
                if facts
                    .stored
                    .dest_checkpoint
                    .as_ref()
                    .is_none_or(|dest_checkpoint| dest_checkpoint.instance.is_none())
                {
                    polled.failed.push((facts.mapping.id, error));
                }
            }
        }
    }
    Ok(())
}

/// A warning for each instance that is newer than the one that is read and not gone over to.
pub(super) fn warn_passed_over(mappings: &[MappingFacts<'_>], state: &mut PollState) {
    for facts in mappings.iter().filter(|facts| facts.instances.len() > 1) {
        let Some(present) = facts.choice.map(|choice| choice.instance) else { continue };
        let Some(read) = facts.instances.get(present) else { continue };
        let candidates =
            Candidates { instances: &facts.instances, coverage: facts.coverage.as_ref() };
        for (at, why) in candidates.passed_over(present) {
            let Some(instance) = facts.instances.get(at) else { continue };
            if state.coverage_cache.warned.insert((facts.mapping.id, instance.change_table_id)) {
                tracing::warn!(
                    mapping_id = facts.mapping.id.0,
                    server_id = facts.mapping.server.0,
                    sync_type = SyncType::Cdc.as_str(),
                    "{}: capture instance {} is newer, but it {}: changes are read from {} as before",
                    facts.mapping.source,
                    instance.name.as_str(),
                    why.reason(),
                    read.name.as_str()
                );
            }
        }
    }
}

/// A warning for each table whose rows can come and go by partition, whenever the database's
/// instances are others than before.
pub(super) async fn warn_switchable(
    session: &mut Session,
    all: &[Instance],
    mappings: &[MappingFacts<'_>],
    state: &mut PollState,
) -> Result<()> {
    let mut ids: Vec<i32> = all.iter().map(|instance| instance.change_table_id).collect();
    ids.sort_unstable();
    if ids.is_empty() || state.coverage_cache.switchable_of.as_ref() == Some(&ids) {
        return Ok(());
    }
    let before = state.coverage_cache.switchable_of.replace(ids).unwrap_or_default();
    let switchable = match cdc::switchable(session).await {
        Err(error)
            if matches!(error.kind, Kind::Permission | Kind::Missing) && !session.is_broken() =>
        {
            session.recover().await?;
            return Ok(());
        }
        other => other?,
    };
    for facts in mappings {
        let new = |instance: &Instance| {
            switchable.contains(&instance.source_id) && !before.contains(&instance.change_table_id)
        };
        if facts.instances.iter().any(new) {
            tracing::warn!(
                mapping_id = facts.mapping.id.0,
                server_id = facts.mapping.server.0,
                sync_type = SyncType::Cdc.as_str(),
                "{} has partitions, and its capture instance allows ALTER TABLE … SWITCH: rows that it moves in or out are in no change table and \
                 reach the destination by a full sync only; an instance made with @allow_partition_switch = 0 forbids it",
                facts.mapping.source
            );
        }
    }
    Ok(())
}

/// Binds the checkpoints that are not bound to a source table and an instance yet to those that are
/// read.
pub(super) async fn bind(
    PollContext { env, holder, .. }: PollContext<'_>,
    mappings: &[MappingFacts<'_>],
    polled: &mut Polled,
) -> Result<()> {
    let mut bindings: HashMap<&Ident, Vec<Binding>> = HashMap::new();
    for facts in mappings.iter().filter(|facts| facts.stored.is_unbound()) {
        let Some(instance) = facts.choice.and_then(|choice| facts.instances.get(choice.instance))
        else {
            continue;
        };
        bindings.entry(&facts.mapping.dest.database).or_default().push(Binding {
            mapping: facts.mapping.id,
            lsn: facts.stored.control,
            source: instance.source_mark(),
            instance: instance.mark(),
        });
    }
    if bindings.is_empty() {
        return Ok(());
    }
    let connections = env.dest_connections(1, holder).await?;
    for (dest, bindings) in bindings {
        let bound =
            async { checkpoint::bind(&mut *connections.checkout(dest).await?, &bindings).await };
        if let Err(error) = bound.await {
            polled.failed.extend(bindings.iter().map(|binding| (binding.mapping, error.clone())));
        }
    }
    Ok(())
}
