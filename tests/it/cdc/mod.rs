//! CDC: every change of the source is applied once and in order.

mod columns;
mod errors;
mod follow;
mod foreign_keys;
mod gaps;
mod instances;
mod keys;
mod large;
mod locked;
mod order;
mod replicas;
mod restores;
mod start_from;
mod triggers;
mod window;

use mssql_standin::{cdc::CdcRuntime, engine::catalog::Object};

use crate::harness::{Daemon, Sql, World, eventually};

/// A world in which a table is followed: it exists at both servers, CDC is enabled, the initial full
/// sync, which nobody has to ask for, has completed, and the daemon runs.
pub async fn following(table: &str, create: &str, rows: &str, key: &str) -> (World, i32, Daemon) {
    followed_with(&[], table, create, rows, key).await
}

/// A parked mapping is retried after 200 ms, not after the default of five minutes.
pub const SHORT_PARKED_INTERVAL: &[(&str, &str)] = &[("DATAFLOW_PARKED_INTERVAL", "200ms")];

/// The same as [`following`], with more settings of the daemon.
pub async fn followed_with(
    settings: &[(&'static str, &'static str)],
    table: &str,
    create: &str,
    rows: &str,
    key: &str,
) -> (World, i32, Daemon) {
    let world = World::new().await;
    world.both(create).await;
    if !rows.is_empty() {
        world.shop().await.run(rows).await;
    }
    world.enable_cdc(&[table]).await;
    let mapping = world.map_as_users_do(table, key, None, true).await;
    let daemon = start_with(&world, settings);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    (world, mapping, daemon)
}

/// Starts the daemon without verification: a full sync waits while a verification of its table
/// runs, and verification has scenarios of its own.
pub fn start(world: &World) -> Daemon {
    start_with(world, &[])
}

/// The same as [`start`], with more settings.
pub fn start_with(world: &World, settings: &[(&'static str, &'static str)]) -> Daemon {
    world.daemon_with(&[&[("DATAFLOW_VERIFY_INTERVAL", "0")], settings].concat())
}

/// Changes how the capture job of the source stand-in behaves; no T-SQL statement can.
pub fn capture(world: &World, change: impl FnOnce(&mut CdcRuntime)) {
    let mut state = world.source.instance().expect("the source's engine").lock();
    let id = state.database_named("Shop").expect("the source database").id;
    change(&mut state.database_mut(id).expect("the source database").cdc);
}

/// Partitions a table of the source stand-in, which supports no statement for it.
pub fn partition(world: &World, table: &str, partitions: i32) {
    let mut state = world.source.instance().expect("the source's engine").lock();
    let id = state.database_named("Shop").expect("the source database").id;
    let catalog = &mut state.database_mut(id).expect("the source database").catalog;
    let mut found = catalog.tables().find(|found| found.name == table).expect("the table").clone();
    std::sync::Arc::make_mut(&mut found).partitions = partitions;
    catalog.put(found.object_id, Some(Object::Table(found)));
}

/// Runs capture for one transaction: the oldest that has not been captured.
pub fn capture_one(world: &World) {
    let instance = world.source.instance().expect("the source's engine");
    let now = instance.now();
    let mut state = instance.lock();
    let id = state.database_named("Shop").expect("the source database").id;
    mssql_standin::cdc::capture::scan(&mut state, id, now, 1);
}

/// Waits for an error of the mapping whose message contains all of `expected`, and returns it.
pub async fn error_of(world: &World, mapping: i32, expected: &[&str]) -> String {
    let mut control = world.control().await;
    eventually(&format!("an error with {expected:?}"), async || {
        let errors = control
            .query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {mapping}"))
            .await;
        let found =
            errors.rows.iter().find(|row| expected.iter().all(|part| row[0].contains(part)));
        found.map(|row| row[0].clone()).ok_or_else(|| errors.to_string())
    })
    .await
}

/// Inserts rows into a captured table, whose only column is ID, until the newest row is captured
/// and no other transaction has its commit time. Cleanup up to that row then removes everything
/// before it; of several transactions with one commit time it would stop at the first.
pub async fn mark(shop: &mut Sql, table: &str) {
    eventually("a commit time that no other transaction has", async || {
        shop.run(&format!("INSERT INTO dbo.{table} SELECT COALESCE(MAX(ID), 0) + 1 FROM dbo.{table}")).await;
        let with_that_time = shop
            .scalar(&format!(
                "SELECT COUNT(*) FROM cdc.lsn_time_mapping AS t INNER JOIN cdc.lsn_time_mapping AS m ON m.tran_end_time = t.tran_end_time \
                 WHERE m.start_lsn = (SELECT MAX(__$start_lsn) FROM cdc.dbo_{table}_CT WHERE ID = (SELECT MAX(ID) FROM dbo.{table}))"
            ))
            .await;
        if with_that_time == "1" { Ok(()) } else { Err(with_that_time) }
    })
    .await;
}
