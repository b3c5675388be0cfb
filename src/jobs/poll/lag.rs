//! How far behind each mapping is, for `v_cdc_lag`.
//!
//! A mapping without unapplied changes was up to date at its last poll. One with unapplied changes is
//! behind since the oldest commit that it has not applied. While capture does not move the lag is
//! unknown, and the reason is recorded instead.

use super::state::{MappingFacts, Polled, reads_cdc};
use crate::{
    control::LagRow,
    error::{Kind, Result},
    model::{capture::MaxLsn, id::MappingId},
    mssql::client::{row::Param, session::Session},
    plan::time,
    tsql::poll::{self as poll_sql, BRANCHES_MAX},
};
use std::collections::HashMap;

/// The rows of `cdc_lag`. `reason`: why the lag of every mapping is unknown; `waiting`: why the lag
/// of some is.
pub(super) async fn measure(
    session: &mut Session,
    mappings: &[MappingFacts<'_>],
    max_lsn: Option<&MaxLsn>,
    reason: Option<&str>,
    waiting: &HashMap<MappingId, &'static str>,
    polled: &Polled,
) -> Result<Vec<LagRow>> {
    let offset_minutes = max_lsn.map_or(0, |max_lsn| max_lsn.utc_offset_minutes);
    let utc = |local: &str| time::utc_milliseconds(local, offset_minutes);
    let at_max_lsn = max_lsn
        .and_then(|max_lsn| max_lsn.identity.as_ref())
        .and_then(|identity| utc(&identity.end_time));
    let mut lag_rows = Vec::new();
    let mut behind = Vec::new();
    for facts in mappings.iter().filter(|facts| reads_cdc(facts.mapping)) {
        let failed = polled
            .failed
            .iter()
            .find(|(id, _)| *id == facts.mapping.id)
            .map(|(_, error)| error.to_string());
        let own = waiting.get(&facts.mapping.id).map(|words| (*words).to_owned());
        let reason = reason.map(str::to_owned).or(failed).or(own);
        let known = facts
            .stored
            .dest_checkpoint
            .as_ref()
            .and_then(|dest_checkpoint| dest_checkpoint.transaction.as_ref())
            .and_then(|known| utc(&known.identity.end_time));
        if facts.has_rows && reason.is_none() {
            behind.push((lag_rows.len(), facts));
        }
        lag_rows.push(LagRow {
            mapping: facts.mapping.id,
            committed: if facts.has_rows || reason.is_some() { known } else { at_max_lsn },
            oldest: None,
            reason,
        });
    }
    for chunk in behind.chunks(BRANCHES_MAX) {
        let chosen: Vec<_> = chunk
            .iter()
            .filter_map(|(at, facts)| {
                Some((*at, facts.choice?, facts.instances.get(facts.choice?.instance)?))
            })
            .collect();
        let params: Vec<_> = chosen.iter().map(|(_, choice, _)| Param::Lsn(choice.from)).collect();
        let instances: Vec<_> = chosen.iter().map(|(_, _, instance)| *instance).collect();
        if instances.is_empty() {
            continue;
        }
        let rows = match session.rows(&poll_sql::oldest(&instances), &params).await {
            Ok(rows) => rows,
            // the next poll knows more
            Err(error) if error.kind == Kind::LockTimeout && !session.is_broken() => {
                session.recover().await?;
                continue;
            }
            Err(error) => return Err(error.context("look for the oldest change")),
        };
        for row in rows {
            let place = usize::try_from(row.i32(0)?).ok().and_then(|item| chosen.get(item));
            if let Some((at, _, _)) = place
                && let Some(lag) = lag_rows.get_mut(*at)
            {
                lag.oldest = row.opt_text(1)?.and_then(utc);
            }
        }
    }
    Ok(lag_rows)
}
