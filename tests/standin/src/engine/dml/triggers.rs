//! The triggers of a table, and their firing.

use crate::{
    engine::{
        catalog::TriggerMeta,
        context::Session,
        instance::Work,
        query::host::Row,
        scope::{Firing, Found},
    },
    error::SqlResult,
    exchange::sink::Sink,
};
use std::sync::Arc;

pub fn triggers(
    work: &Work,
    found: &Found,
    which: impl Fn(&TriggerMeta) -> bool,
) -> Vec<Arc<TriggerMeta>> {
    let state = work.lock();
    let Some(db) = state.databases.get(&found.database) else { return Vec::new() };
    db.catalog
        .triggers_of(found.table.object_id)
        .into_iter()
        .filter(|t| !t.disabled && which(t))
        .collect()
}

pub fn after_triggers(
    work: &Work,
    found: &Found,
    which: impl Fn(&TriggerMeta) -> bool,
) -> Vec<Arc<TriggerMeta>> {
    triggers(work, found, |t| !t.instead_of && which(t))
}

/// Runs triggers one after the other; one that is running already does not fire itself again.
pub fn fire_triggers(
    session: &mut Session,
    found: &Found,
    triggers: &[Arc<TriggerMeta>],
    inserted: Arc<Vec<Arc<Row>>>,
    deleted: Arc<Vec<Arc<Row>>>,
    rows: u64,
    sink: &mut dyn Sink,
) -> SqlResult<()> {
    for trigger in triggers {
        if session.is_firing(trigger.object_id) {
            continue;
        }
        let firing = Firing {
            trigger: trigger.clone(),
            database: found.database,
            table: found.table.clone(),
            inserted: inserted.clone(),
            deleted: deleted.clone(),
            rows,
        };
        session.fire(&firing, sink)?;
    }
    Ok(())
}
