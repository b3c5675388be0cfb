//! What `v_cdc_lag` shows, written once per poll.

use super::Control;
use crate::{
    error::{Context, Kind, Result},
    metrics,
    model::id::MappingId,
    mssql::client::row::Param,
};
use std::time::Instant;

/// Rows of one statement: 20 bytes each in one varbinary(8000).
const ROWS_MAX: usize = 400;

/// How far a mapping is, in milliseconds of UTC since 2000-01-01.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LagRow {
    pub mapping: MappingId,
    /// When the transaction at its checkpoint was committed.
    pub committed: Option<i64>,
    /// When the oldest transaction that is left was committed; `None`: nothing is left.
    pub oldest: Option<i64>,
    /// Why these numbers mean nothing.
    pub reason: Option<String>,
}

impl Control {
    /// What `status` says of carried columns that the mapping's capture instance does not have;
    /// `None`: it has all. A control database that `init` has not brought up to date does without.
    pub async fn note_uncaptured(&self, mapping: MappingId, note: Option<&str>) -> Result<()> {
        let mut session = self.session().await?;
        match session
            .execute(
                include_str!("../../sql/control/note_uncaptured.sql"),
                &[Param::Int(mapping.0), Param::OptText(note)],
            )
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind, Kind::Missing | Kind::Schema) => {
                session.recover().await
            }
            Err(error) => Err(error).context("write cdc_lag"),
        }
    }

    /// Writes what a poll found: one statement for those with the same reason, which is mostly
    /// none.
    pub async fn lag(&self, lags: &mut [LagRow]) -> Result<()> {
        let polled = Instant::now();
        self.metrics.lags(lags.iter().map(|lag| {
            let seen = match (&lag.reason, lag.oldest) {
                (Some(_), _) => None,
                (None, Some(oldest_ms)) => Some(metrics::Lag::Since { oldest_ms }),
                (None, None) => Some(metrics::Lag::None { polled }),
            };
            (lag.mapping, seen)
        }));
        lags.sort_by(|a, b| a.reason.cmp(&b.reason));
        for lags in
            lags.chunk_by(|a, b| a.reason == b.reason).flat_map(|alike| alike.chunks(ROWS_MAX))
        {
            let reason = lags.first().and_then(|lag| lag.reason.as_deref());
            let mut packed = Vec::with_capacity(lags.len() * 20);
            for lag in lags {
                packed.extend_from_slice(&lag.mapping.0.to_be_bytes());
                packed.extend_from_slice(&lag.committed.unwrap_or(0).to_be_bytes());
                packed.extend_from_slice(&lag.oldest.unwrap_or(0).to_be_bytes());
            }
            let params = [Param::Binary(&packed), Param::OptText(reason)];
            self.session()
                .await?
                .execute(include_str!("../../sql/control/cdc_lag.sql"), &params)
                .await
                .context("write cdc_lag")?;
        }
        Ok(())
    }
}
