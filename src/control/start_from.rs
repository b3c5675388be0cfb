//! `start-from`: sets a mapping's checkpoint, for a destination that was restored from a backup.
//!
//! A checkpoint is in two places, `table_mappings.last_cdc_lsn` and the destination's checkpoint
//! table. One that is in the first place alone counts as a gap; this command writes both in one
//! transaction.

use super::{DATABASE, single_connection_pools};
use crate::{
    config::Config,
    error::{Context, Error, Kind, Result},
    model::{id::MappingId, lsn::Lsn, name::Ident},
    mssql::client::row::Param,
};

/// Sets the checkpoint: everything up to and including `lsn` is in the mapping's destination.
pub async fn start_from(config: &Config, mapping: MappingId, lsn: Lsn) -> Result<()> {
    if lsn.is_zero() {
        return Err(Error::new(
            Kind::Config,
            "an LSN of zero is no position: give the __$start_lsn of the last transaction that is in the destination",
        ));
    }
    let pools = single_connection_pools(config);
    let database = {
        let mut control = pools.checkout(&Ident::new(DATABASE), "start-from").await?;
        let row = control
            .opt_row(
                include_str!("../../sql/checkpoint/start_from_mapping.sql"),
                &[Param::Int(mapping.0)],
            )
            .await
            .context("read table_mappings")?;
        let Some(row) = row else {
            return Err(Error::new(Kind::Config, format!("there is no mapping {mapping}")));
        };
        if !row.bool(1)? {
            return Err(Error::new(
                Kind::Config,
                format!("mapping {mapping} has cdc_enabled = 0, so no LSN means anything to it"),
            ));
        }
        if row.bool(2)? {
            return Err(Error::new(
                Kind::Config,
                format!("a full sync of mapping {mapping} is requested or under way, and would set the LSN by itself"),
            )
            .with_hint(format!(
                "UPDATE table_mappings SET full_sync_requested = 0, full_sync_pending_at = NULL WHERE mapping_id = {mapping}"
            )));
        }
        // the limit is one connection: it has to be closed before one to another database is opened
        control.mark_not_reusable();
        Ident::new(row.text(0)?)
    };
    let mut dest = pools.checkout(&database, "start-from").await?;
    super::checkpoint::ensure_table(&mut dest).await?;
    let sql = format!(
        "{}{}COMMIT TRANSACTION;",
        include_str!("../../sql/checkpoint/start_from.sql"),
        super::checkpoint::TWIN_SQL
    );
    dest.execute(&sql, &[Param::Int(mapping.0), Param::Lsn(lsn)])
        .await
        .context("write the checkpoint")?;
    Ok(())
}
