//! Setting a checkpoint by hand, for a destination that was initialised from a backup.
//!
//! An LSN that stands in `table_mappings` alone was not written by us and is a gap; this writes
//! both the row and its twin, in one transaction.

use super::DATABASE;
use crate::{
    config::Config,
    error::{Context, Error, Kind, Result},
    model::{id::MappingId, lsn::Lsn, name::Ident},
    mssql::{
        client::row::Param,
        pool::{PoolOptions, Pools},
    },
};
use std::time::Duration;

/// Says that everything up to and including `lsn` is in the mapping's destination.
pub async fn start_from(config: &Config, mapping: MappingId, lsn: Lsn) -> Result<()> {
    if lsn.is_zero() {
        return Err(Error::new(
            Kind::Config,
            "an LSN of zero is no position: give the __$start_lsn of the last transaction that is in the destination",
        ));
    }
    let pools = Pools::new(
        config.dest.clone(),
        PoolOptions {
            connections_max: 1,
            statement_timeout: config.statement_timeout,
            lock_timeout: config.lock_timeout,
            deadlock_priority_low: false,
            idle_timeout: Duration::from_secs(60),
        },
    );
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
        // a connection of one pool at a time
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
