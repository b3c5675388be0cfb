//! Databases that were restored or failed over: another history is a gap, the same history is none.

use mssql_standin::{
    cdc::backup,
    fault::{Fault, Point},
};

use super::{error_of, following, gaps::TABLE, start, start_with};
use crate::harness::{World, eventually};

/// The source is restored from a backup: the same LSNs then belong to other transactions.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_restored_to_another_history_is_a_gap() {
    crate::only_on_standins!("its engine");
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let engine = world.source.instance().expect("the source's engine").clone();
    let saved = backup::snapshot_database(&engine, "Shop").expect("a backup");
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.G VALUES (2, 2)").await;
    world.in_sync("dbo.G", "ID").await;
    let _ = daemon.terminate().await;
    drop(shop);
    backup::restore_database(&engine, "Shop", &saved, true).expect("a restore");
    let mut shop = world.shop().await;
    for id in 3..9 {
        shop.run(&format!("INSERT INTO dbo.G VALUES ({id}, {id})")).await;
    }
    let _daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    error_of(&world, mapping, &["changes are lost", "restored"]).await;
    let details =
        "SELECT error_details FROM error_logs WHERE error_message LIKE N'%changes are lost%'";
    let details = world.control().await.scalar(details).await;
    for expected in ["kind Gap", "a full sync has been requested", "what to do: "] {
        assert!(details.contains(expected), "{expected} is not in {details}");
    }
}

/// The same while a backlog is being applied: the checkpoint is at a commit in the middle of the
/// backlog, and the other history is noticed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_restored_while_a_backlog_was_applied_is_a_gap() {
    crate::only_on_standins!("its engine");
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let _ = daemon.terminate().await;
    let engine = world.source.instance().expect("the source's engine").clone();
    let saved = backup::snapshot_database(&engine, "Shop").expect("a backup");
    let mut shop = world.shop().await;
    for id in 2..8 {
        shop.run(&format!("INSERT INTO dbo.G VALUES ({id}, {id})")).await;
    }
    // The third of the destination transactions hangs.
    let slow = &[("DATAFLOW_BATCH_SIZE", "1"), ("DATAFLOW_ON_CDC_GAP", "error")];
    let stuck = world.dest.faults().nth(Point::request("DECLARE @fetched"), 3, Fault::HangBefore);
    let daemon = start_with(&world, slow);
    assert!(stuck.fired().await);
    daemon.kill().await;
    world.dest.faults().clear();
    drop(shop);
    backup::restore_database(&engine, "Shop", &saved, true).expect("a restore");
    let mut shop = world.shop().await;
    for id in 20..30 {
        shop.run(&format!("INSERT INTO dbo.G VALUES ({id}, {id})")).await;
    }
    let _daemon = start_with(&world, slow);
    error_of(&world, mapping, &["changes are lost", "restored"]).await;
}

/// The control database or the destination database was restored alone: their checkpoints differ.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_that_differ_are_a_gap() {
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let _ = daemon.terminate().await;
    world
        .copy()
        .await
        .run(
            "UPDATE dbo.dbaops_dataflow_checkpoints SET lsn = 0x00000001000000010001; DELETE dbo.G",
        )
        .await;
    let _daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    error_of(&world, mapping, &["restored or failed over alone"]).await;
}

/// The source is restored from a backup and nothing is committed there: its maximum LSN is below the
/// checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_restored_to_an_earlier_state_is_a_gap() {
    crate::only_on_standins!("its engine");
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let engine = world.source.instance().expect("the source's engine").clone();
    let saved = backup::snapshot_database(&engine, "Shop").expect("a backup");
    world.shop().await.run("INSERT INTO dbo.G VALUES (2, 2)").await;
    world.in_sync("dbo.G", "ID").await;
    let _ = daemon.terminate().await;
    backup::restore_database(&engine, "Shop", &saved, true).expect("a restore");
    let _daemon = start(&world);
    error_of(&world, mapping, &["changes are lost", "is below the checkpoint"]).await;
    world.in_sync("dbo.G", "ID").await;
    world.shop().await.run("INSERT INTO dbo.G VALUES (3, 3)").await;
    world.in_sync("dbo.G", "ID").await;
}

/// An availability group fails over: another server with the same log. Changes are applied as
/// before, and no error is reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_replica_with_the_same_log_is_no_gap() {
    crate::only_on_standins!("its engine");
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let engine = world.source.instance().expect("the source's engine").clone();
    world.shop().await.run("INSERT INTO dbo.G VALUES (2, 2)").await;
    world.in_sync("dbo.G", "ID").await;
    let _ = daemon.terminate().await;
    let replica = backup::snapshot_database(&engine, "Shop").expect("a replica");
    backup::restore_database(&engine, "Shop", &replica, true).expect("a failover");
    world.shop().await.run("INSERT INTO dbo.G VALUES (3, 3)").await;
    let _daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    let errors = world
        .control()
        .await
        .query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {mapping}"))
        .await;
    assert!(errors.rows.is_empty(), "{errors}");
}

/// On an idle database the capture job writes entries into cdc.lsn_time_mapping that belong to no
/// transaction. Each server writes its own, so a missing entry does not mean another history.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_an_idle_source_that_is_not_there_any_more_is_no_gap() {
    crate::only_on_standins!("its engine");
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.G VALUES (2, 2)").await;
    world.in_sync("dbo.G", "ID").await;
    idle_entry(&world).await;
    let _ = daemon.terminate().await;
    shop.run("DELETE cdc.lsn_time_mapping WHERE tran_id = 0x00").await;
    shop.run("INSERT INTO dbo.G VALUES (3, 3)").await;
    let _daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    let errors = world
        .control()
        .await
        .query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {mapping}"))
        .await;
    assert!(errors.rows.is_empty(), "{errors}");
}

/// The source is restored while the checkpoint is at an idle entry: the daemon compares the
/// transaction before that entry.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_source_restored_to_another_history_is_a_gap() {
    crate::only_on_standins!("its engine");
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let engine = world.source.instance().expect("the source's engine").clone();
    let saved = backup::snapshot_database(&engine, "Shop").expect("a backup");
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.G VALUES (2, 2)").await;
    world.in_sync("dbo.G", "ID").await;
    idle_entry(&world).await;
    let _ = daemon.terminate().await;
    drop(shop);
    backup::restore_database(&engine, "Shop", &saved, true).expect("a restore");
    let mut shop = world.shop().await;
    for id in 3..12 {
        shop.run(&format!("INSERT INTO dbo.G VALUES ({id}, {id})")).await;
    }
    let _daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    error_of(&world, mapping, &["changes are lost", "restored"]).await;
}

/// Makes capture write an idle entry, and waits until the checkpoint is at its LSN.
async fn idle_entry(world: &World) {
    {
        let engine = world.source.instance().expect("the source's engine");
        let now = engine.now();
        let mut state = engine.lock();
        let id = state.database_named("Shop").expect("the source database").id;
        mssql_standin::cdc::capture::dummy(&mut state, id, now);
    }
    let newest = world.shop().await.scalar("SELECT MAX(start_lsn) FROM cdc.lsn_time_mapping").await;
    let mut control = world.control().await;
    eventually("the checkpoint to be at the idle entry", async || {
        let at = control.scalar("SELECT last_cdc_lsn FROM table_mappings").await;
        if at == newest { Ok(()) } else { Err(format!("{at} is not {newest}")) }
    })
    .await;
}
