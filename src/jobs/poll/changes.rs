//! Which tables have changes: one statement for all tables of a database. It also tells which of
//! these changes set a trigger column.

use super::{
    batches::{Batches, FailedBatch, is_of_one_table},
    locked::Failure,
    state::{MappingFacts, PollState, Polled, TriggerState},
    triggers,
};
use crate::{
    error::{Context, Error, Result},
    model::{capture::MaxLsn, lsn::Lsn},
    mssql::{
        client::{row::Param, session::Session},
        queries::cdc,
    },
    tsql::poll::{self as poll_sql, BRANCHES_MAX, WatchedInstance},
};
use std::time::Duration;
use tokio::time::Instant;

/// Notes which capture instances have rows between the checkpoint and the max LSN, and whether one
/// of these rows sets the trigger column.
pub(super) async fn find_changes(
    session: &mut Session,
    mappings: &mut [MappingFacts<'_>],
    max_lsn: Option<&MaxLsn>,
    (state, polled): (&mut PollState, &mut Polled),
    lock_timeout: Duration,
) -> Result<()> {
    let Some(max_lsn) = max_lsn.map(|max_lsn| max_lsn.lsn) else { return Ok(()) };
    let asked: Vec<usize> = (0..mappings.len())
        .filter(|&i| mappings[i].choice.is_some_and(|choice| choice.from < max_lsn))
        .collect();
    let alone = |id| {
        state.locked_changes.contains(id)
            || state.triggers.get(&id).is_some_and(|trigger| trigger.faulty)
    };
    let mut batches = Batches::new(asked, mappings, BRANCHES_MAX, alone);
    while let Some(batch) = batches.next() {
        let found = match probe(session, mappings, (&batch, true), max_lsn, state).await {
            Ok(found) => found,
            Err(error) => {
                let FailedBatch { place, unasked } = batches.failed(session, &batch, error).await?;
                for place in unasked {
                    mappings[place].locked = true;
                }
                let Some((place, error)) = place else { continue };
                let id = mappings[place].mapping.id;
                match state.locked_changes.failure(id, error, lock_timeout, Instant::now()) {
                    Failure::Locked => {
                        mappings[place].locked = true;
                        continue;
                    }
                    Failure::Error(error) => {
                        let failed = (place, error);
                        without_trigger(session, mappings, failed, max_lsn, state, polled).await?
                    }
                }
            }
        };
        for &place in &batch {
            if !polled.has_failed(mappings[place].mapping.id) {
                state.locked_changes.answered(mappings[place].mapping.id);
            }
        }
        let watched: Vec<usize> = batch
            .iter()
            .copied()
            .filter(|&place| watches_trigger(&mappings[place], state))
            .collect();
        triggers::record_answered(&watched, mappings, state, polled);
        for (place, what) in found {
            mappings[place].has_rows |= what == 0;
            mappings[place].triggered |= what == 1;
        }
    }
    Ok(())
}

/// Asks a table that failed once more without its trigger column: if that works, the column is what
/// fails, and CDC goes on. Otherwise the mapping has failed.
async fn without_trigger(
    session: &mut Session,
    mappings: &[MappingFacts<'_>],
    (place, mut error): (usize, Error),
    max_lsn: Lsn,
    state: &mut PollState,
    polled: &mut Polled,
) -> Result<Vec<(usize, i32)>> {
    let facts = &mappings[place];
    if watches_trigger(facts, state) {
        match probe(session, mappings, (&[place], false), max_lsn, state).await {
            Ok(found) => {
                triggers::record_fault(facts.mapping, error, state, polled);
                return Ok(found);
            }
            Err(other) if is_of_one_table(&other) && !session.is_broken() => {
                session.recover().await?;
                error = other;
            }
            Err(other) => return Err(other),
        }
    }
    let instance = facts.chosen_instance();
    let error = instance.map(|instance| cdc::explain_instance_error(error, instance));
    polled.failed.extend(error.map(|error| (facts.mapping.id, error)));
    Ok(Vec::new())
}

/// Whether the change table that CDC reads has the trigger column.
fn watches_trigger(facts: &MappingFacts<'_>, state: &PollState) -> bool {
    let captured_in = state.triggers.get(&facts.mapping.id).and_then(|trigger| trigger.captured_in);
    facts.chosen_instance().is_some_and(|instance| captured_in == Some(instance.change_table_id))
}

/// What is found at these places, with or without the trigger columns: the place, and 0 for a
/// change or 1 for a change that sets the trigger column.
async fn probe(
    session: &mut Session,
    mappings: &[MappingFacts<'_>],
    (asked, with_triggers): (&[usize], bool),
    max_lsn: Lsn,
    state: &PollState,
) -> Result<Vec<(usize, i32)>> {
    let mut watched = Vec::with_capacity(asked.len());
    let mut params = vec![Param::Lsn(max_lsn)];
    let mut places = Vec::with_capacity(asked.len());
    for &place in asked {
        let facts = &mappings[place];
        let (Some(choice), Some(instance)) = (facts.choice, facts.chosen_instance()) else {
            continue;
        };
        let trigger = state
            .triggers
            .get(&facts.mapping.id)
            .filter(|_| with_triggers && watches_trigger(facts, state));
        watched
            .push(WatchedInstance { instance, trigger: trigger.map(TriggerState::trigger_column) });
        params.push(Param::Lsn(choice.from));
        places.push(place);
    }
    if watched.is_empty() {
        return Ok(Vec::new());
    }
    let rows =
        session.rows(&poll_sql::probe(&watched), &params).await.context("look for changes")?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let item = usize::try_from(row.i32(0)?).unwrap_or(usize::MAX);
        if let Some(&place) = places.get(item) {
            found.push((place, row.i32(1)?));
        }
    }
    Ok(found)
}
