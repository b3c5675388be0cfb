//! Readable secondaries: a session may see an older state than another session has seen before.

use mssql_standin::{
    cdc::backup,
    engine::availability,
    fault::{Phase, Point},
};

use super::{capture, error_of, following, start_with};
use crate::harness::{
    Daemon, World,
    blocked_request::{blocked_request, wait_for_arrival},
    eventually,
};

const TABLE: &str = "CREATE TABLE dbo.R (ID INT NOT NULL PRIMARY KEY, V INT NULL)";

/// A followed table whose database is in an availability group; the daemon reads it on a secondary.
async fn read_on_a_secondary(settings: &[(&'static str, &'static str)]) -> (World, i32, Daemon) {
    let (world, mapping, daemon) =
        following("R", TABLE, "INSERT INTO dbo.R VALUES (1, 1)", "ID").await;
    let _ = daemon.terminate().await;
    on_a_secondary(&world).await;
    let daemon = start_with(&world, settings);
    world.shop().await.run("INSERT INTO dbo.R VALUES (2, 2)").await;
    world.in_sync("dbo.R", "ID").await;
    (world, mapping, daemon)
}

async fn on_a_secondary(world: &World) {
    availability::join_group(world.source.instance().expect("the source's engine"), "Shop")
        .expect("a group");
    let string = "UPDATE source_servers SET connection_string = CONCAT(connection_string, N';ApplicationIntent=ReadOnly')";
    world.control().await.run(string).await;
}

/// Sets the state up to which the secondary has redone the log; `None` is the primary's state.
fn redone(world: &World, state: Option<availability::State>) {
    availability::redone(world.source.instance().expect("the source's engine"), "Shop", state)
        .expect("a group");
}

fn state(world: &World) -> availability::State {
    availability::state(world.source.instance().expect("the source's engine"))
}

/// Calls [`redone`] between two polls, so that no session sees the state of its server go back.
async fn redone_between_polls(world: &World, state: availability::State) {
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.source.faults().once(Point::request("AS is_read_only"), block);
    wait_for_arrival(arrived).await;
    redone(world, Some(state));
    release.send(()).expect("the source waits");
}

async fn no_error(world: &World, mapping: i32) {
    let errors = world
        .control()
        .await
        .query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {mapping}"))
        .await;
    assert!(errors.rows.is_empty(), "{errors}");
}

/// The poll reads on one secondary and the pass reads on another, which has not redone the change.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_reading_secondary_has_not_redone_is_not_stepped_over() {
    crate::only_on_standins!("secondaries");
    let (world, mapping, _daemon) = read_on_a_secondary(&[]).await;
    let old = state(&world);
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.source.faults().once(Point::request("FROM cdc.captured_columns"), block);
    world.shop().await.run("INSERT INTO dbo.R VALUES (3, 3)").await;
    wait_for_arrival(arrived).await;
    redone(&world, Some(old));
    release.send(()).expect("the source waits");
    let run = world.run_ends(mapping, "CDC", "PAUSED").await;
    assert!(run.rows[0][3].contains("secondary replica that is behind"), "{run}");
    redone(&world, None);
    world.in_sync("dbo.R", "ID").await;
    no_error(&world, mapping).await;
}

/// A table has no new changes, and polls read on a secondary that lacks the last applied transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_behind_a_checkpoint_at_rest_is_no_gap() {
    crate::only_on_standins!("secondaries");
    let (world, mapping, _daemon) = read_on_a_secondary(&[]).await;
    let old = state(&world);
    world.shop().await.run("INSERT INTO dbo.R VALUES (3, 3)").await;
    world.in_sync("dbo.R", "ID").await;
    redone_between_polls(&world, old).await;
    behind(&world, mapping).await;
    redone(&world, None);
    world.shop().await.run("INSERT INTO dbo.R VALUES (4, 4)").await;
    world.in_sync("dbo.R", "ID").await;
    no_error(&world, mapping).await;
    let syncs = world
        .control()
        .await
        .scalar("SELECT COUNT(*) FROM sync_status WHERE sync_type = 'FULL_SYNC'")
        .await;
    assert_eq!(syncs, "1");
}

async fn behind(world: &World, mapping: i32) {
    let mut control = world.control().await;
    eventually("the lag to say that the secondary is behind", async || {
        let lag = control
            .query(&format!(
                "SELECT seconds_behind, reason FROM v_cdc_lag WHERE mapping_id = {mapping}"
            ))
            .await;
        if lag.first() == "NULL" && lag.rows[0][1].contains("secondary replica") {
            Ok(())
        } else {
            Err(lag.to_string())
        }
    })
    .await;
}

/// The secondary seems to be behind, but the group was restored to an earlier state and then
/// committed other transactions.
#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_of_another_history_is_a_gap_when_it_passes_the_checkpoint() {
    crate::only_on_standins!("its engine");
    let (world, mapping, daemon) = read_on_a_secondary(&[]).await;
    let engine = world.source.instance().expect("the source's engine").clone();
    let saved = backup::snapshot_database(&engine, "Shop").expect("a backup");
    for id in 3..6 {
        world.shop().await.run(&format!("INSERT INTO dbo.R VALUES ({id}, {id})")).await;
    }
    world.in_sync("dbo.R", "ID").await;
    let _ = daemon.terminate().await;
    backup::restore_database(&engine, "Shop", &saved, true).expect("a restore");
    let _daemon = start_with(&world, &[("DATAFLOW_ON_CDC_GAP", "error")]);
    behind(&world, mapping).await;
    for id in 10..20 {
        world.shop().await.run(&format!("INSERT INTO dbo.R VALUES ({id}, {id})")).await;
    }
    error_of(&world, mapping, &["changes are lost", "restored"]).await;
}

/// The start LSN of the copy is read on one secondary and the rows are read on another, which has
/// not redone a change before that LSN.
#[tokio::test(flavor = "multi_thread")]
async fn rows_copied_on_a_secondary_that_is_behind_the_cut_miss_no_change() {
    crate::only_on_standins!("secondaries");
    for lane in ["wire", "driver"] {
        let world = World::new().await;
        world.both(TABLE).await;
        world.shop().await.run("INSERT INTO dbo.R VALUES (1, 1)").await;
        world.enable_cdc(&["R"]).await;
        on_a_secondary(&world).await;
        let mut shop = world.shop().await;
        shop.run("INSERT INTO dbo.R VALUES (2, 2)").await;
        let old = state(&world);
        shop.run("INSERT INTO dbo.R VALUES (3, 3); UPDATE dbo.R SET V = 20 WHERE ID = 2").await;
        // CDC is off for the mapping, so it cannot add what the full sync missed
        let mapping = world.map("R", "ID", None, false).await;
        let (before_copy, at_copy, copy) = blocked_request(Phase::Before);
        world
            .dest
            .faults()
            .once(Point::request("CREATE TABLE [dbo].[dbaops_dataflow_stage"), before_copy);
        let (after_copy, at_index, index) = blocked_request(Phase::Before);
        world
            .dest
            .faults()
            .once(Point::request("CREATE UNIQUE INDEX [dbaops_dataflow_key]"), after_copy);
        let (at_clock, clock_read, release) = blocked_request(Phase::After);
        world.source.faults().once(Point::request("AS in_group"), at_clock);
        world.request_full_sync(mapping).await;
        let _daemon = start_with(&world, &[("DATAFLOW_COPY_LANE", lane)]);
        wait_for_arrival(at_copy).await;
        redone(&world, Some(old));
        copy.send(()).expect("the destination waits");
        wait_for_arrival(at_index).await;
        redone(&world, None);
        index.send(()).expect("the destination waits");
        wait_for_arrival(clock_read).await;
        // a commit that is later by more than the clocks of the two servers may differ
        world.source.instance().expect("the source's engine").clock.shift_ms(150_000);
        shop.run("INSERT INTO dbo.R VALUES (4, 4)").await;
        release.send(()).expect("the source waits");
        world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
        let (source, dest) = world.both_tables("dbo.R", "ID").await;
        assert!(source == dest, "{lane}: {}", crate::harness::world::difference(&source, &dest));
    }
}

/// A verification reads on a secondary that is behind the checkpoint. A change between the two is
/// not in the change table there, so a missing change does not prove that the row is unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_that_has_not_redone_a_change_makes_no_finding() {
    crate::only_on_standins!("secondaries");
    let (world, mapping, daemon) = read_on_a_secondary(&[]).await;
    let _ = daemon.terminate().await;
    let (mut shop, mut copy) = (world.shop().await, world.copy().await);
    copy.run("UPDATE dbo.R SET V = 7 WHERE ID = 1").await;
    let (at_clock, clock_read, capture_goes_on) = blocked_request(Phase::After);
    world.source.faults().once(Point::request("AS in_group"), at_clock);
    let (at_dest, dest_asked, comparison_goes_on) = blocked_request(Phase::Before);
    world
        .dest
        .faults()
        .once(Point::request("FROM [dbo].[R] AS t INNER JOIN (SELECT DISTINCT"), at_dest);
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_WAIT", "20s")]);
    wait_for_arrival(clock_read).await;
    // a commit that is later by more than the clocks of the two servers may differ
    world.source.instance().expect("the source's engine").clock.shift_ms(150_000);
    shop.run("INSERT INTO dbo.R VALUES (3, 3)").await;
    capture_goes_on.send(()).expect("the source waits");
    // the source's row was read, and the destination has every change that this read could see
    wait_for_arrival(dest_asked).await;
    let old = state(&world);
    shop.run("UPDATE dbo.R SET V = 9 WHERE ID = 1").await;
    world.in_sync("dbo.R", "ID").await;
    redone_between_polls(&world, old).await;
    comparison_goes_on.send(()).expect("the destination waits");
    let partial = world.verified(mapping, "PARTIAL").await;
    redone(&world, None);
    world.verified(mapping, "PASSED").await;
    let failed =
        "SELECT verification_details FROM verification_logs WHERE verification_status = 'FAILED'";
    let failed = world.control().await.query(failed).await;
    assert!(failed.rows.is_empty(), "{failed}{partial}");
}

/// The secondaries have not hardened a change: capture may not read it yet, so a capture that finds
/// nothing new has not passed the change.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_not_hardened_is_no_difference() {
    crate::only_on_standins!("its engine");
    let (world, mapping, daemon) =
        following("R", TABLE, "INSERT INTO dbo.R VALUES (1, 1)", "ID").await;
    let _ = daemon.terminate().await;
    availability::join_group(world.source.instance().expect("the source's engine"), "Shop")
        .expect("a group");
    capture(&world, |cdc| cdc.unhardened = true);
    world.shop().await.run("UPDATE dbo.R SET V = 2").await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_WAIT", "1s")]);
    let partial = world.verified(mapping, "PARTIAL").await;
    assert!(
        partial.rows[0][7].contains("availability group")
            || partial.rows[0][7].contains("cannot tell whether capture has passed"),
        "{partial}"
    );
    capture(&world, |cdc| cdc.unhardened = false);
    world.in_sync("dbo.R", "ID").await;
    world.verified(mapping, "PASSED").await;
    let failed =
        "SELECT verification_details FROM verification_logs WHERE verification_status = 'FAILED'";
    let failed = world.control().await.query(failed).await;
    assert!(failed.rows.is_empty(), "{failed}");
}
