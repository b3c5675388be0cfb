//! Tables with several capture instances: what each of them captures, told once, and bound to the
//! checkpoint where it is not yet. And tables with changes that no instance records.
//!
//! Almost every table has one, and then nothing is asked here. What an instance captures never
//! changes; what is carried does, with either table's columns, so it is asked again now and then.
//! That costs a few round trips per table, so only so many tables are asked at a poll: until then a
//! mapping stays with the instance that its checkpoint names.

use super::{MappingFacts, PollState, Polled};
use crate::{
    control::checkpoint::{self, Binding},
    error::{Kind, Result},
    jobs::{Env, instances, shape},
    model::{capture::Instance, id::MappingId, mapping::SyncType, name::Ident},
    mssql::{cdc, session::Session},
    plan::instances::{Candidates, InstanceCoverage},
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

/// What is remembered of the tables with several instances.
#[derive(Debug, Default)]
pub(super) struct CoverageCache {
    coverage: HashMap<MappingId, (Vec<i32>, Instant, InstanceCoverage)>,
    /// Instances that are passed over, by their change tables, of which a warning was given.
    told: HashSet<(MappingId, i32)>,
    /// The database's change tables when it was asked where partitions can be switched.
    switchable_of: Option<Vec<i32>>,
}

/// Finds out what the instances capture where a table has several.
pub(super) async fn compare(
    session: &mut Session,
    (env, who): (&Env, &str),
    looks: &mut [MappingFacts<'_>],
    memory: &mut PollState,
    polled: &mut Polled,
) -> Result<()> {
    let now = Instant::now();
    let several: HashSet<MappingId> =
        looks.iter().filter(|look| look.instances.len() > 1).map(|look| look.mapping.id).collect();
    memory.compared.coverage.retain(|id, _| several.contains(id));
    let mut left = COMPARISONS_MAX;
    for look in looks.iter_mut().filter(|look| look.instances.len() > 1) {
        let ids: Vec<i32> =
            look.instances.iter().map(|instance| instance.change_table_id).collect();
        let known = memory.compared.coverage.get(&look.mapping.id).filter(|(of, _, _)| *of == ids);
        let fresh = known.is_some_and(|(_, at, _)| now - *at < COMPARED_FOR);
        if let Some((_, _, coverage)) = known.filter(|_| fresh || left == 0) {
            look.coverage = Some(coverage.clone());
            continue;
        }
        if left == 0 {
            continue;
        }
        left -= 1;
        let compared = async {
            let shape = {
                let mut dest =
                    env.dest_seats(1, who).await?.checkout(&look.mapping.dest.database).await?;
                shape::gather(session, &mut dest, look.mapping).await?
            };
            instances::coverage(session, &shape.carry, &look.instances).await
        };
        match compared.await {
            Ok(coverage) => {
                look.coverage = Some(coverage.clone());
                memory.compared.coverage.insert(look.mapping.id, (ids, now, coverage));
            }
            Err(error) if session.is_cut_off() => return Err(error),
            Err(error) => {
                session.recover().await?;
                // The instance that is read goes on without; who has none yet is told why.
                if look.stored.twin.as_ref().is_none_or(|twin| twin.instance.is_none()) {
                    polled.failed.push((look.mapping.id, error));
                }
            }
        }
    }
    Ok(())
}

/// A warning for each instance that is newer than the one that is read and not gone over to.
pub(super) fn tell(looks: &[MappingFacts<'_>], memory: &mut PollState) {
    for look in looks.iter().filter(|look| look.instances.len() > 1) {
        let Some(present) = look.choice.map(|choice| choice.instance) else { continue };
        let Some(read) = look.instances.get(present) else { continue };
        let candidates =
            Candidates { instances: &look.instances, coverage: look.coverage.as_ref() };
        for (at, why) in candidates.passed_over(present) {
            let Some(instance) = look.instances.get(at) else { continue };
            if memory.compared.told.insert((look.mapping.id, instance.change_table_id)) {
                tracing::warn!(
                    mapping_id = look.mapping.id.0,
                    server_id = look.mapping.server.0,
                    sync_type = SyncType::Cdc.as_str(),
                    "capture instance {} of {} is newer, but it {}: changes are read from {} as before",
                    instance.name.as_str(),
                    look.mapping.source,
                    why.words(),
                    read.name.as_str()
                );
            }
        }
    }
}

/// A warning for each table whose rows can come and go by partition, whenever the database's
/// instances are others than before.
pub(super) async fn tell_switchable(
    session: &mut Session,
    all: &[Instance],
    looks: &[MappingFacts<'_>],
    memory: &mut PollState,
) -> Result<()> {
    let mut ids: Vec<i32> = all.iter().map(|instance| instance.change_table_id).collect();
    ids.sort_unstable();
    if ids.is_empty() || memory.compared.switchable_of.as_ref() == Some(&ids) {
        return Ok(());
    }
    let before = memory.compared.switchable_of.replace(ids).unwrap_or_default();
    let switchable = match cdc::switchable(session).await {
        Err(error)
            if matches!(error.kind, Kind::Permission | Kind::Missing) && !session.is_cut_off() =>
        {
            session.recover().await?;
            return Ok(());
        }
        other => other?,
    };
    for look in looks {
        let new = |instance: &Instance| {
            switchable.contains(&instance.source_id) && !before.contains(&instance.change_table_id)
        };
        if look.instances.iter().any(new) {
            tracing::warn!(
                mapping_id = look.mapping.id.0,
                server_id = look.mapping.server.0,
                sync_type = SyncType::Cdc.as_str(),
                "{} has partitions, and its capture instance allows ALTER TABLE … SWITCH: rows that it moves in or out are in no change table and \
                 reach the destination by a full sync only; an instance made with @allow_partition_switch = 0 forbids it",
                look.mapping.source
            );
        }
    }
    Ok(())
}

/// Binds the checkpoints that are not bound to a source table and an instance yet to those that are
/// read.
pub(super) async fn bind(
    env: &Env,
    who: &str,
    looks: &[MappingFacts<'_>],
    polled: &mut Polled,
) -> Result<()> {
    let mut bindings: HashMap<&Ident, Vec<Binding>> = HashMap::new();
    for look in looks.iter().filter(|look| look.stored.is_unbound()) {
        let Some(instance) = look.choice.and_then(|choice| look.instances.get(choice.instance))
        else {
            continue;
        };
        bindings.entry(&look.mapping.dest.database).or_default().push(Binding {
            mapping: look.mapping.id,
            lsn: look.stored.control,
            source: instance.source_mark(),
            instance: instance.mark(),
        });
    }
    if bindings.is_empty() {
        return Ok(());
    }
    let seats = env.dest_seats(1, who).await?;
    for (dest, bindings) in bindings {
        let bound = async { checkpoint::bind(&mut *seats.checkout(dest).await?, &bindings).await };
        if let Err(error) = bound.await {
            polled.failed.extend(bindings.iter().map(|binding| (binding.mapping, error.clone())));
        }
    }
    Ok(())
}
