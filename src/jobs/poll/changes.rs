//! Which tables have changes: one probe for all of a database, and which of these changes set a
//! trigger.

use super::{
    MappingFacts, PollState, Polled, groups, of_one,
    triggers::{self, TriggerState},
};
use crate::{
    error::{Context, Result},
    model::{capture::MaxLsn, lsn::Lsn},
    mssql::{cdc, row::Param, session::Session},
    tsql::poll::{self as phrases, BRANCHES_MAX, WatchedInstance},
};

/// Which instances have rows between checkpoint and U, and which of these rows set a trigger.
pub(super) async fn changed(
    session: &mut Session,
    looks: &mut [MappingFacts<'_>],
    upper: Option<&MaxLsn>,
    memory: &mut PollState,
    polled: &mut Polled,
) -> Result<()> {
    let Some(upper) = upper else { return Ok(()) };
    let asked: Vec<usize> = (0..looks.len())
        .filter(|&i| looks[i].choice.is_some_and(|choice| choice.from < upper.lsn))
        .collect();
    for chunk in groups(asked, looks, memory, BRANCHES_MAX) {
        let found = match probe(session, looks, (&chunk, true), upper.lsn, memory).await {
            Err(error) if of_one(&error) && !session.is_cut_off() => {
                session.recover().await?;
                let mut found = Vec::new();
                for &one in &chunk {
                    match probe(session, looks, (&[one], true), upper.lsn, memory).await {
                        Ok(rows) => found.extend(rows),
                        Err(error) if of_one(&error) && !session.is_cut_off() => {
                            session.recover().await?;
                            let look = &looks[one];
                            // is it the trigger column's fault alone?
                            if watches_trigger(look, memory) {
                                match probe(session, looks, (&[one], false), upper.lsn, memory)
                                    .await
                                {
                                    Ok(rows) => {
                                        triggers::fault(look.mapping, error, memory, polled);
                                        found.extend(rows);
                                        continue;
                                    }
                                    Err(error) if of_one(&error) && !session.is_cut_off() => {
                                        session.recover().await?
                                    }
                                    Err(error) => return Err(error),
                                }
                            }
                            let instance =
                                look.choice.and_then(|choice| look.instances.get(choice.instance));
                            let error = instance.map(|instance| cdc::of_instance(error, instance));
                            polled.failed.extend(error.map(|error| (look.mapping.id, error)));
                        }
                        Err(error) => return Err(error),
                    }
                }
                found
            }
            other => other?,
        };
        let watched: Vec<usize> =
            chunk.iter().copied().filter(|&place| watches_trigger(&looks[place], memory)).collect();
        triggers::asked_well(&watched, looks, memory, polled);
        for (look, what) in found {
            looks[look].has_rows |= what == 0;
            looks[look].triggered |= what == 1;
        }
    }
    Ok(())
}

/// Whether the changes that CDC goes by show the trigger column.
fn watches_trigger(look: &MappingFacts<'_>, memory: &PollState) -> bool {
    let instance = look.choice.and_then(|choice| look.instances.get(choice.instance));
    let captured_in = memory.triggers.get(&look.mapping.id).and_then(|trigger| trigger.captured_in);
    instance.is_some_and(|instance| captured_in == Some(instance.change_table_id))
}

/// What is found in these places, `with_triggers` or without.
async fn probe(
    session: &mut Session,
    looks: &[MappingFacts<'_>],
    (asked, with_triggers): (&[usize], bool),
    upper: Lsn,
    memory: &PollState,
) -> Result<Vec<(usize, i32)>> {
    let mut watched = Vec::with_capacity(asked.len());
    let mut params = vec![Param::Lsn(upper)];
    let mut places = Vec::with_capacity(asked.len());
    for &place in asked {
        let look = &looks[place];
        let Some(choice) = look.choice else { continue };
        let Some(instance) = look.instances.get(choice.instance) else { continue };
        let trigger = memory
            .triggers
            .get(&look.mapping.id)
            .filter(|_| with_triggers && watches_trigger(look, memory));
        watched.push(WatchedInstance { instance, trigger: trigger.map(TriggerState::flag) });
        params.push(Param::Lsn(choice.from));
        places.push(place);
    }
    if watched.is_empty() {
        return Ok(Vec::new());
    }
    let rows =
        session.rows(&phrases::probe(&watched), &params).await.context("look for changes")?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let item = usize::try_from(row.i32(0)?).unwrap_or(usize::MAX);
        if let Some(&place) = places.get(item) {
            found.push((place, row.i32(1)?));
        }
    }
    Ok(found)
}
