//! Which tables have changes: one probe for all of a database, and which of these changes set a
//! trigger.

use super::{
    MappingFacts, PollState, Polled, chunks, is_of_one_table,
    triggers::{self, TriggerState},
};
use crate::{
    error::{Context, Result},
    model::{capture::MaxLsn, lsn::Lsn},
    mssql::{cdc, row::Param, session::Session},
    tsql::poll::{self as poll_sql, BRANCHES_MAX, WatchedInstance},
};

/// Which instances have rows between checkpoint and U, and which of these rows set a trigger.
pub(super) async fn find_changes(
    session: &mut Session,
    mappings_facts: &mut [MappingFacts<'_>],
    max_lsn: Option<&MaxLsn>,
    state: &mut PollState,
    polled: &mut Polled,
) -> Result<()> {
    let Some(max_lsn) = max_lsn else { return Ok(()) };
    let asked: Vec<usize> = (0..mappings_facts.len())
        .filter(|&i| mappings_facts[i].choice.is_some_and(|choice| choice.from < max_lsn.lsn))
        .collect();
    for chunk in chunks(asked, mappings_facts, state, BRANCHES_MAX) {
        let found = match probe(session, mappings_facts, (&chunk, true), max_lsn.lsn, state).await {
            Err(error) if is_of_one_table(&error) && !session.is_cut_off() => {
                session.recover().await?;
                let mut found = Vec::new();
                for &one in &chunk {
                    match probe(session, mappings_facts, (&[one], true), max_lsn.lsn, state).await {
                        Ok(rows) => found.extend(rows),
                        Err(error) if is_of_one_table(&error) && !session.is_cut_off() => {
                            session.recover().await?;
                            let facts = &mappings_facts[one];
                            // is it the trigger column's fault alone?
                            if watches_trigger(facts, state) {
                                match probe(
                                    session,
                                    mappings_facts,
                                    (&[one], false),
                                    max_lsn.lsn,
                                    state,
                                )
                                .await
                                {
                                    Ok(rows) => {
                                        triggers::record_fault(facts.mapping, error, state, polled);
                                        found.extend(rows);
                                        continue;
                                    }
                                    Err(error)
                                        if is_of_one_table(&error) && !session.is_cut_off() =>
                                    {
                                        session.recover().await?
                                    }
                                    Err(error) => return Err(error),
                                }
                            }
                            let instance = facts
                                .choice
                                .and_then(|choice| facts.instances.get(choice.instance));
                            let error = instance.map(|instance| cdc::of_instance(error, instance));
                            polled.failed.extend(error.map(|error| (facts.mapping.id, error)));
                        }
                        Err(error) => return Err(error),
                    }
                }
                found
            }
            other => other?,
        };
        let watched: Vec<usize> = chunk
            .iter()
            .copied()
            .filter(|&place| watches_trigger(&mappings_facts[place], state))
            .collect();
        triggers::record_answered(&watched, mappings_facts, state, polled);
        for (facts, what) in found {
            mappings_facts[facts].has_rows |= what == 0;
            mappings_facts[facts].triggered |= what == 1;
        }
    }
    Ok(())
}

/// Whether the changes that CDC goes by show the trigger column.
fn watches_trigger(facts: &MappingFacts<'_>, state: &PollState) -> bool {
    let instance = facts.choice.and_then(|choice| facts.instances.get(choice.instance));
    let captured_in = state.triggers.get(&facts.mapping.id).and_then(|trigger| trigger.captured_in);
    instance.is_some_and(|instance| captured_in == Some(instance.change_table_id))
}

/// What is found in these places, `with_triggers` or without.
async fn probe(
    session: &mut Session,
    mappings_facts: &[MappingFacts<'_>],
    (asked, with_triggers): (&[usize], bool),
    max_lsn: Lsn,
    state: &PollState,
) -> Result<Vec<(usize, i32)>> {
    let mut watched = Vec::with_capacity(asked.len());
    let mut params = vec![Param::Lsn(max_lsn)];
    let mut places = Vec::with_capacity(asked.len());
    for &place in asked {
        let facts = &mappings_facts[place];
        let Some(choice) = facts.choice else { continue };
        let Some(instance) = facts.instances.get(choice.instance) else { continue };
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
