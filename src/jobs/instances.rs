//! Which capture instance a job reads that is not bound to one by a checkpoint: a full sync, and a
//! verification's look at what changed.

use crate::{
    error::Result,
    jobs::shape::Shape,
    model::{
        capture::{Capture, Instance},
        column_map::ColumnMap,
    },
    mssql::{client::session::Session, queries::cdc},
    plan::{
        instances::{Candidates, InstanceCoverage},
        mask,
    },
};

/// What each of a table's instances captures of the carried columns.
pub async fn coverage(
    source: &mut Session,
    map: &ColumnMap,
    instances: &[Instance],
) -> Result<InstanceCoverage> {
    let mut coverage = InstanceCoverage {
        columns: map.columns.iter().map(|carried| carried.source.name.clone()).collect(),
        captured: Vec::new(),
    };
    for instance in instances {
        let capture = cdc::capture(source, instance.clone()).await?;
        coverage.captured.push((
            instance.change_table_id,
            mask::cover(map, &capture).ok().map(|coverage| coverage.captured),
        ));
    }
    Ok(coverage)
}

/// The instances of a shape's source table.
pub async fn of_table(source: &mut Session, shape: &Shape) -> Result<Vec<Instance>> {
    let mut instances = cdc::instances(source).await?;
    instances.retain(|instance| instance.source_id == shape.source.object_id);
    Ok(instances)
}

/// Of a table's instances the one that captures most of what is carried, of equal ones the newest;
/// `None` where there is none. Where none can be read it is the newest.
pub async fn best(
    source: &mut Session,
    shape: &Shape,
    mut instances: Vec<Instance>,
) -> Result<Option<Capture>> {
    instances.sort_by(|a, b| a.age().cmp(&b.age()));
    let coverage = if instances.len() > 1 {
        Some(coverage(source, &shape.map, &instances).await?)
    } else {
        None
    };
    let candidates = Candidates { instances: &instances, coverage: coverage.as_ref() };
    let best = candidates
        .best(&candidates.usable())
        .and_then(|best| instances.get(best))
        .or(instances.last());
    match best {
        Some(best) => cdc::capture(source, best.clone()).await.map(Some),
        None => Ok(None),
    }
}
