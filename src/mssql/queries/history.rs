//! Which transactions the source's history has at given LSNs.

use std::collections::HashMap;

use crate::{
    error::{Context, Result},
    model::{capture::TranIdentity, lsn::Lsn},
    mssql::client::{row::Param, session::Session},
    plan::window::History,
};

/// LSNs that [`history`] asks about at a time.
const HISTORY_MAX: usize = 8;

/// What the source's `cdc.lsn_time_mapping` has at each of these LSNs.
pub async fn history(source: &mut Session, lsns: &[Lsn]) -> Result<HashMap<Lsn, History>> {
    let mut known = HashMap::new();
    for lsns in lsns.chunks(HISTORY_MAX) {
        let mut params = [Param::OptLsn(None); HISTORY_MAX];
        for (param, lsn) in params.iter_mut().zip(lsns) {
            *param = Param::OptLsn(Some(*lsn));
        }
        let rows = source
            .rows(include_str!("../../../sql/cdc/history.sql"), &params)
            .await
            .context("read cdc.lsn_time_mapping")?;
        let mut lowest = None;
        for row in rows {
            match (row.opt_lsn(0)?, row.opt_bytes(1)?, row.opt_text(2)?) {
                (Some(lsn), Some(tran_id), Some(end_time)) => {
                    known.insert(
                        lsn,
                        History::Present(TranIdentity {
                            tran_id: tran_id.to_vec(),
                            end_time: end_time.to_owned(),
                        }),
                    );
                }
                (lsn, None, None) => lowest = lsn,
                _ => {}
            }
        }
        for lsn in lsns {
            known.entry(*lsn).or_insert(match lowest {
                Some(lowest) if lowest <= *lsn => History::Absent,
                _ => History::Unknown,
            });
        }
    }
    Ok(known)
}
