//! Staging tables that a daemon left behind when it was killed.

use super::stage_lock;
use crate::{
    error::{Context, Result},
    jobs::Env,
    model::name::{Ident, TableName},
    tsql,
};

/// Drops staging tables in a destination database that nobody fills any more; how many there were.
///
/// The control database has a fixed name, so every staging table of this instance is one of ours,
/// also one whose mapping was deleted since. One that a living session fills is locked, and stays.
pub async fn drop_leftover_stages(env: &Env, database: &Ident) -> Result<usize> {
    let connections = env.dest_connections(1, "leftover staging tables").await?;
    let mut dest = connections.checkout(database).await?;
    let found = dest
        .rows(include_str!("../../../sql/catalog/leftover_stages.sql"), &[])
        .await
        .context("look for leftover staging tables")?;
    let mut dropped = 0;
    for row in found {
        let stage = TableName {
            database: database.clone(),
            schema: Ident::new("dbo"),
            table: Ident::new(row.text(0)?),
        };
        if !tsql::swap::is_stage(&stage) {
            continue;
        }
        if stage_lock::try_take(&mut dest, &stage, 0).await? {
            dest.batch(&tsql::swap::drop_stage(&stage))
                .await
                .with_context(|| format!("drop leftover {stage}"))?;
            stage_lock::release(&mut dest, &stage).await;
            dropped += 1;
        }
    }
    Ok(dropped)
}
