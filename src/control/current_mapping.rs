//! A mapping's row as it is now, for jobs that run for a long time.

use super::Control;
use crate::{
    error::{Context, Result},
    model::{id::MappingId, lsn::Lsn},
    mssql::client::row::Param,
    plan::sharing::Sharer,
};

/// A mapping's row as it is now. The copy that the job was started with may be hours old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentMapping {
    /// It and its server are enabled.
    pub enabled: bool,
    /// A full sync was claimed and not fulfilled.
    pub pending: bool,
    /// A full sync is requested and not claimed yet.
    pub requested: bool,
    pub last_cdc_lsn: Option<Lsn>,
    /// ISO 8601, UTC
    pub last_full_sync_at: Option<String>,
}

impl Control {
    /// Reads the row; `None` when the mapping was deleted.
    pub async fn current_mapping(&self, mapping: MappingId) -> Result<Option<CurrentMapping>> {
        let row = self
            .session()
            .await?
            .opt_row(include_str!("../../sql/checkpoint/mapping.sql"), &[Param::Int(mapping.0)])
            .await
            .context("read table_mappings")?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(CurrentMapping {
            enabled: row.bool(0)?,
            pending: row.bool(1)?,
            requested: row.bool(4)?,
            last_cdc_lsn: row.opt_lsn(2)?,
            last_full_sync_at: row.opt_text(3)?.map(str::to_owned),
        }))
    }

    /// This mapping and the enabled ones that bring rows to the same destination table.
    pub async fn same_destination(&self, mapping: MappingId) -> Result<Vec<Sharer>> {
        let rows = self
            .session()
            .await?
            .rows(include_str!("../../sql/control/same_destination.sql"), &[Param::Int(mapping.0)])
            .await
            .context("read table_mappings")?;
        rows.iter()
            .map(|row| Ok(Sharer { mapping: MappingId(row.i32(0)?), has_synced: row.bool(1)? }))
            .collect()
    }
}
