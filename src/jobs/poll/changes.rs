//! Which tables have changes: one probe for all of a database, and which of these changes set a trigger.

use super::{Look, Memory, Polled, of_one};
use crate::{
    error::{Context, Result},
    model::{capture::Upper, lsn::Lsn},
    mssql::{cdc, row::Param, session::Session},
    tsql::poll::{self as phrases, BRANCHES_MAX, Watched},
};

/// Which instances have rows between checkpoint and U, and which of these rows set a trigger.
pub(super) async fn changed(
    session: &mut Session,
    looks: &mut [Look<'_>],
    upper: Option<&Upper>,
    memory: &Memory,
    polled: &mut Polled,
) -> Result<()> {
    let Some(upper) = upper else { return Ok(()) };
    let asked: Vec<usize> = (0..looks.len()).filter(|&i| looks[i].choice.is_some_and(|choice| choice.from < upper.lsn)).collect();
    for chunk in asked.chunks(BRANCHES_MAX) {
        let found = match probe(session, looks, chunk, upper.lsn, memory).await {
            Err(error) if of_one(&error) && !session.is_cut_off() => {
                session.recover().await?;
                let mut found = Vec::new();
                for &one in chunk {
                    match probe(session, looks, &[one], upper.lsn, memory).await {
                        Ok(rows) => found.extend(rows),
                        Err(error) if of_one(&error) && !session.is_cut_off() => {
                            session.recover().await?;
                            let look = &looks[one];
                            let instance = look.choice.and_then(|choice| look.instances.get(choice.instance));
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
        for (look, what) in found {
            looks[look].has_rows |= what == 0;
            looks[look].triggered |= what == 1;
        }
    }
    Ok(())
}

async fn probe(session: &mut Session, looks: &[Look<'_>], asked: &[usize], upper: Lsn, memory: &Memory) -> Result<Vec<(usize, i32)>> {
    let mut watched = Vec::with_capacity(asked.len());
    let mut params = vec![Param::Lsn(upper)];
    let mut places = Vec::with_capacity(asked.len());
    for &place in asked {
        let look = &looks[place];
        let Some(choice) = look.choice else { continue };
        let Some(instance) = look.instances.get(choice.instance) else { continue };
        let captured = memory.triggers.get(&look.mapping.id).is_some_and(|trigger| trigger.captured_in == Some(instance.change_table_id));
        watched.push(Watched { instance, trigger: look.mapping.trigger_column.as_ref().filter(|_| captured) });
        params.push(Param::Lsn(choice.from));
        places.push(place);
    }
    if watched.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session.rows(&phrases::probe(&watched), &params).await.context("look for changes")?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let item = usize::try_from(row.i32(0)?).unwrap_or(usize::MAX);
        if let Some(&place) = places.get(item) {
            found.push((place, row.i32(1)?));
        }
    }
    Ok(found)
}
