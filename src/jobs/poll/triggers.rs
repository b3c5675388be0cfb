//! Trigger columns: asked as often as they are cheap, all tables of a database in one statement.

use super::{
    batches::{Batches, FailedBatch},
    locked::Failure,
    state::{MappingFacts, PollState, Polled, TriggerState},
};
use crate::{
    error::{Context, Error, Result},
    jobs::full_sync::Triggers,
    model::{
        capture::Instance,
        id::MappingId,
        mapping::{Mapping, SyncType},
    },
    mssql::client::{row::Param, session::Session},
    plan::schedule::{self, TriggerCost},
    tsql::poll::{self as poll_sql, AskedTable, BRANCHES_MAX},
};
use std::{collections::HashSet, time::Duration};
use tokio::time::Instant;

/// Tables whose trigger cost is asked in one statement: three parameters each.
const COSTS_MAX: usize = 200;

/// What asking each trigger costs, and where the change stream shows it: read at start and now and
/// then.
pub(super) async fn read_costs(
    session: &mut Session,
    mappings: &[MappingFacts<'_>],
    state: &mut PollState,
) -> Result<()> {
    let now = Instant::now();
    let with_trigger: HashSet<MappingId> = mappings
        .iter()
        .filter(|facts| facts.mapping.trigger_column.is_some())
        .map(|facts| facts.mapping.id)
        .collect();
    state.triggers.retain(|id, _| with_trigger.contains(id));
    let due: Vec<&MappingFacts<'_>> = mappings
        .iter()
        .filter(|facts| facts.mapping.trigger_column.is_some())
        .filter(|facts| {
            state.triggers.get(&facts.mapping.id).is_none_or(|trigger| {
                let moved = facts
                    .chosen_instance()
                    .is_some_and(|instance| Some(instance.change_table_id) != trigger.followed);
                let renamed = facts.mapping.trigger_column.as_ref() != Some(&trigger.column);
                moved
                    || renamed
                    || trigger.stale
                    || now - trigger.cost_asked >= schedule::TRIGGER_EVERY
            })
        })
        .collect();
    for chunk in due.chunks(COSTS_MAX) {
        let mut names = Vec::with_capacity(3 * chunk.len());
        for facts in chunk {
            let instance = facts.chosen_instance();
            names.push(facts.mapping.source.local());
            names.push(
                facts
                    .mapping
                    .trigger_column
                    .as_ref()
                    .map_or(String::new(), |trigger| trigger.as_str().to_owned()),
            );
            names.push(instance.map_or(String::new(), Instance::change_table));
        }
        let params: Vec<_> = names.iter().map(|name| Param::Text(name)).collect();
        let rows = session
            .rows(&poll_sql::trigger_costs(chunk.len()), &params)
            .await
            .context("ask what triggers cost")?;
        for row in rows {
            let Some(facts) = usize::try_from(row.i32(0)?).ok().and_then(|item| chunk.get(item))
            else {
                continue;
            };
            let Some(column) = facts.mapping.trigger_column.clone() else { continue };
            let instance = facts.chosen_instance();
            let old = state.triggers.remove(&facts.mapping.id).filter(|old| old.column == column);
            state.triggers.insert(
                facts.mapping.id,
                TriggerState {
                    column,
                    asked: old.as_ref().and_then(|old| old.asked),
                    cost: Some(TriggerCost { rows: row.i64(1)?, indexed: row.i64(2)? > 0 }),
                    cost_asked: now,
                    followed: instance.map(|instance| instance.change_table_id),
                    captured_in: instance
                        .filter(|_| row.bool(3).unwrap_or(false))
                        .map(|instance| instance.change_table_id),
                    cost_logged: old.as_ref().is_some_and(|old| old.cost_logged),
                    text: row.i64(4)? > 0,
                    memory_optimized: row.i64(5)? > 0,
                    faulty: old.is_some_and(|old| old.faulty),
                    stale: false,
                },
            );
        }
    }
    Ok(())
}

/// Asks the tables themselves for their triggers, those that are due.
pub(super) async fn ask_due(
    session: &mut Session,
    mappings: &mut [MappingFacts<'_>],
    refused: &Triggers,
    (state, polled): (&mut PollState, &mut Polled),
    lock_timeout: Duration,
) -> Result<()> {
    let now = Instant::now();
    let mut due = Vec::new();
    for (place, facts) in mappings.iter().enumerate() {
        let Some(column) = &facts.mapping.trigger_column else { continue };
        let Some(trigger) = state.triggers.get_mut(&facts.mapping.id) else { continue };
        let in_stream = trigger.captured_in.is_some();
        // a mapping whose capture begins in a moment is about to see its trigger in the stream
        let awaits_capture = facts.mapping.cdc_enabled && trigger.followed.is_none();
        if !in_stream
            && !awaits_capture
            && trigger.cost.is_some_and(TriggerCost::is_expensive)
            && !trigger.cost_logged
        {
            trigger.cost_logged = true;
            tracing::warn!(
                mapping_id = facts.mapping.id.0,
                server_id = facts.mapping.server.0,
                sync_type = SyncType::FullSync.as_str(),
                "{}: the table is large and has no index for its trigger column, so it is asked every {} s only; this helps: {} (with WHERE, the index is small, and sessions that write to the table need the SET options of filtered indexes, or their statements fail with error 1934; without WHERE it needs nothing of them)",
                facts.mapping.source,
                schedule::TRIGGER_EVERY.as_secs(),
                poll_sql::trigger_index(&facts.mapping.source, column)
            );
        }
        if schedule::is_trigger_due(in_stream, trigger.cost, trigger.asked.map(|asked| now - asked))
        {
            trigger.asked = Some(now);
            due.push(place);
        }
    }
    let alone = |id| {
        state.locked_triggers.contains(id)
            || state.triggers.get(&id).is_some_and(|trigger| trigger.faulty)
    };
    let mut batches = Batches::new(due, mappings, BRANCHES_MAX, alone);
    while let Some(batch) = batches.next() {
        let found = match ask(session, mappings, &batch, state, refused).await {
            Ok(found) => found,
            Err(error) => {
                let FailedBatch { place, unasked } = batches.failed(session, &batch, error).await?;
                for place in unasked {
                    ask_again(mappings[place].mapping.id, state);
                }
                let Some((place, error)) = place else { continue };
                let mapping = mappings[place].mapping;
                match state.locked_triggers.failure(mapping.id, error, lock_timeout, now) {
                    Failure::Locked => ask_again(mapping.id, state),
                    Failure::Error(error) => record_fault(mapping, error, state, polled),
                }
                continue;
            }
        };
        for &place in &batch {
            state.locked_triggers.answered(mappings[place].mapping.id);
        }
        for &place in batch.iter().filter(|place| !found.contains(place)) {
            refused.seen_zero(mappings[place].mapping.id);
        }
        record_answered(&batch, mappings, state, polled);
        for place in found {
            mappings[place].triggered = true;
        }
    }
    Ok(())
}

/// The next poll asks for the trigger column again.
fn ask_again(mapping: MappingId, state: &mut PollState) {
    if let Some(trigger) = state.triggers.get_mut(&mapping) {
        trigger.asked = None;
    }
}

/// Trigger columns that could be asked, but for those that this poll found at fault.
pub(super) fn record_answered(
    places: &[usize],
    mappings: &[MappingFacts<'_>],
    state: &mut PollState,
    polled: &mut Polled,
) {
    for id in places.iter().map(|&place| mappings[place].mapping.id) {
        let at_fault =
            polled.failed.iter().chain(&polled.trigger_faults).any(|(other, _)| *other == id);
        if let Some(trigger) = state.triggers.get_mut(&id).filter(|_| !at_fault) {
            trigger.faulty = false;
            polled.triggers_answered.push(id);
        }
    }
}

/// A trigger column that cannot be asked. CDC and a full sync that is wanted go on without it;
/// where nothing else is to be done, the mapping fails.
pub(super) fn record_fault(
    mapping: &Mapping,
    error: Error,
    state: &mut PollState,
    polled: &mut Polled,
) {
    let error = error.context(format!("ask {} for its trigger column", mapping.source));
    let error = match error.number {
        Some(206 | 529 | 402) => {
            error.with_hint("Name a column of type bit or int in full_sync_trigger_column")
        }
        _ => error,
    };
    if let Some(trigger) = state.triggers.get_mut(&mapping.id) {
        // its type may be another one now, and is read again
        (trigger.faulty, trigger.stale, trigger.asked) = (true, true, None);
    }
    if mapping.cdc_enabled || mapping.wants_full_sync() {
        polled.trigger_faults.push((mapping.id, error));
    } else {
        polled.failed.push((mapping.id, error));
    }
}

async fn ask(
    session: &mut Session,
    mappings: &[MappingFacts<'_>],
    asked: &[usize],
    state: &PollState,
    refused: &Triggers,
) -> Result<Vec<usize>> {
    let mut tables = Vec::with_capacity(asked.len());
    let mut places = Vec::with_capacity(asked.len());
    for &place in asked {
        let mapping = mappings[place].mapping;
        if let Some(trigger) = state.triggers.get(&mapping.id) {
            // a trigger that was refused ends with a row that is seen at 0: then none may be skipped
            let skips_locked = !trigger.memory_optimized && !refused.is_refused(mapping.id);
            tables.push(AskedTable {
                table: &mapping.source,
                trigger: trigger.trigger_column(),
                skips_locked,
            });
            places.push(place);
        }
    }
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session.rows(&poll_sql::triggers(&tables), &[]).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        found.extend(usize::try_from(row.i32(0)?).ok().and_then(|item| places.get(item)));
    }
    Ok(found)
}
