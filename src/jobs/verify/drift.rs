//! A mapping that does not follow its source: its tables may differ without a fault.

use super::Scope;
use crate::{
    control::CurrentMapping,
    error::{Context, Kind, Result},
    model::mapping::Mapping,
    mssql::client::{row::Param, session::Session},
};

/// Why the two sides may differ without a fault, if the mapping does not follow its source.
pub(super) fn drift(
    mapping: &Mapping,
    standing: &CurrentMapping,
    scope: Scope,
) -> Option<&'static str> {
    match scope {
        _ if !standing.enabled => Some("the mapping is switched off"),
        _ if !mapping.cdc_enabled => Some("CDC is off for this mapping"),
        Scope::Next { stands_still: true } => Some("replication of this mapping has stopped"),
        Scope::Next { stands_still: false } | Scope::Whole => None,
    }
}

/// When the destination was last known to be what the source was: its checkpoint's last move, or
/// its last full sync.
pub(super) async fn since(
    mapping: &Mapping,
    standing: &CurrentMapping,
    dest: &mut Session,
) -> Result<String> {
    let moved = match dest
        .opt_row(include_str!("../../../sql/checkpoint/moved.sql"), &[Param::Int(mapping.id.0)])
        .await
    {
        Ok(row) => row
            .map(|row| row.opt_text(0).map(|text| text.map(str::to_owned)))
            .transpose()?
            .flatten(),
        // no table of ours, as no mapping of this database ever had CDC
        Err(error) if error.kind == Kind::Missing => {
            dest.recover().await?;
            None
        }
        Err(error) => return Err(error).context("look when the checkpoint moved"),
    };
    let synced = standing.last_full_sync_at.clone();
    Ok(match moved.filter(|_| mapping.cdc_enabled).or(synced) {
        Some(at) => format!("{at} UTC"),
        None => "its beginning".to_owned(),
    })
}
