//! How far behind each mapping is, for `v_cdc_lag`.
//!
//! A mapping with nothing left is as far behind as its last poll is ago; one with changes left is
//! behind since the oldest commit that it has not applied. When capture stands still nobody can
//! tell, and the reason is all there is to say.

use super::{MappingFacts, PollState, Polled, SourceFacts, follows, standing_still};
use crate::{
    control::LagRow,
    error::{Context, Result},
    model::{capture::MaxLsn, id::MappingId},
    mssql::{row::Param, session::Session},
    plan::time,
    tsql::poll::{self as phrases, BRANCHES_MAX},
};
use std::{collections::HashMap, time::Duration};

/// What this poll knows of its mappings. `reason`: why nobody can tell, for all of them; `waiting`:
/// for some.
pub(super) async fn lags(
    session: &mut Session,
    looks: &[MappingFacts<'_>],
    upper: Option<&MaxLsn>,
    reason: Option<&str>,
    waiting: &HashMap<MappingId, &'static str>,
    polled: &Polled,
) -> Result<Vec<LagRow>> {
    let offset_minutes = upper.map_or(0, |upper| upper.utc_offset_minutes);
    let utc = |local: &str| time::utc_milliseconds(local, offset_minutes);
    let at_upper = upper
        .and_then(|upper| upper.identity.as_ref())
        .and_then(|identity| utc(&identity.end_time));
    let mut lags = Vec::new();
    let mut behind = Vec::new();
    for look in looks.iter().filter(|look| follows(look.mapping)) {
        let failed = polled
            .failed
            .iter()
            .find(|(id, _)| *id == look.mapping.id)
            .map(|(_, error)| error.to_string());
        let own = waiting.get(&look.mapping.id).map(|words| (*words).to_owned());
        let reason = reason.map(str::to_owned).or(failed).or(own);
        let known = look
            .stored
            .twin
            .as_ref()
            .and_then(|twin| twin.transaction.as_ref())
            .and_then(|known| utc(&known.identity.end_time));
        if look.has_rows && reason.is_none() {
            behind.push((lags.len(), look));
        }
        lags.push(LagRow {
            mapping: look.mapping.id,
            committed: if look.has_rows || reason.is_some() { known } else { at_upper },
            oldest: None,
            reason,
        });
    }
    for chunk in behind.chunks(BRANCHES_MAX) {
        let chosen: Vec<_> = chunk
            .iter()
            .filter_map(|(at, look)| {
                Some((*at, look.choice?, look.instances.get(look.choice?.instance)?))
            })
            .collect();
        let params: Vec<_> = chosen.iter().map(|(_, choice, _)| Param::Lsn(choice.from)).collect();
        let instances: Vec<_> = chosen.iter().map(|(_, _, instance)| *instance).collect();
        if instances.is_empty() {
            continue;
        }
        for row in session
            .rows(&phrases::oldest(&instances), &params)
            .await
            .context("look for the oldest change")?
        {
            let place = usize::try_from(row.i32(0)?).ok().and_then(|item| chosen.get(item));
            if let Some((at, _, _)) = place
                && let Some(lag) = lags.get_mut(*at)
            {
                lag.oldest = row.opt_text(1)?.and_then(utc);
            }
        }
    }
    Ok(lags)
}

/// Why nobody can tell.
pub(super) fn reason(source: &SourceFacts, memory: &PollState) -> Option<String> {
    if let Some(refused) = &source.refused {
        return Some(refused.clone());
    }
    if source.upper.is_none() {
        return Some("nothing has been captured yet: CDC was enabled just now, or the capture job does not run".to_owned());
    }
    let watched = memory.upper.map_or(Duration::ZERO, |(_, since)| since.elapsed());
    standing_still(source, watched)
        .map(|minutes| format!("capture has not moved for {minutes} minutes"))
}
