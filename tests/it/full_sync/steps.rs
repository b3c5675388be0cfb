//! Commits before, during and after every step of a full sync, with a capture job that lags.

use mssql_standin::{
    cdc::{CaptureMode, capture::capture_now},
    fault::{Fault, FaultHandle, Phase, Point},
};
use std::time::Duration;

use super::{ITEMS, fill};
use crate::harness::{
    WAIT_MAX, World,
    blocked_request::{blocked_request, wait_for_arrival},
    eventually,
};

/// How long a step is delayed: long enough for a few changes to be committed meanwhile.
const DELAY: Duration = Duration::from_millis(700);

/// Makes the source's capture job lag by a random time.
fn delay_capture(world: &World) {
    let instance = world.source.instance().expect("the stand-in's own engine");
    let mut state = instance.lock();
    let shop = state.database_named("Shop").expect("Shop").id;
    state.database_mut(shop).expect("Shop").cdc.mode =
        CaptureMode::Delayed { min_ms: 100, max_ms: 900 };
}

/// Changes that a scan may miss or read twice, and others: keys that move past the scan in both
/// directions; rows that are inserted, deleted and updated.
async fn change(world: &World, round: usize) {
    let mut shop = world.shop().await;
    let n = 40 * round;
    shop.run(&format!(
        "BEGIN TRANSACTION; UPDATE dbo.Items SET ID = ID + 1000000 WHERE ID BETWEEN {} AND {}; \
         UPDATE dbo.Items SET ID = -ID WHERE ID BETWEEN {} AND {}; COMMIT",
        n + 1,
        n + 9,
        20_000 - n - 9,
        20_000 - n
    ))
    .await;
    shop.run(&format!(
        "UPDATE dbo.Items SET Price = Price + 1, Name = UPPER(Name) WHERE ID % 1000 = {}",
        n + 20
    ))
    .await;
    shop.run(&format!(
        "DELETE dbo.Items WHERE ID IN ({}, {}, {})",
        n + 21,
        n + 5022,
        19_000 + round
    ))
    .await;
    shop.run(&format!(
        "INSERT INTO dbo.Items (ID, Name) VALUES (-{}, N'new'), ({}, N'new')",
        100_000 + n,
        2_000_000 + n
    ))
    .await;
    // a row is deleted, and another row is inserted with its key
    shop.run(&format!(
        "DELETE dbo.Items WHERE ID = {0}; INSERT INTO dbo.Items (ID, Name) VALUES ({0}, N'again')",
        n + 30
    ))
    .await;
}

/// Waits until the full sync reaches a step, and commits changes during it.
async fn change_during(world: &World, step: &FaultHandle, round: usize) {
    let fired = tokio::time::timeout(WAIT_MAX, step.fired()).await;
    assert!(fired.expect("the full sync reaches the step"), "the step was disarmed");
    change(world, round).await;
}

/// CDC is off for the mapping, so it cannot add what the full sync itself missed.
#[tokio::test(flavor = "multi_thread")]
async fn what_commits_until_the_copy_ends_is_in_the_swap() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 20_000).await;
    world.enable_cdc(&["Items"]).await;
    delay_capture(&world);
    let mapping = world.map("Items", "ID", None, false).await;
    let (source, dest) = (world.source.faults(), world.dest.faults());
    let steps = [
        dest.once(Point::request("full_sync_pending_at = SYSUTCDATETIME"), Fault::Delay(DELAY)),
        source.once(Point::request("AS is_read_only"), Fault::Delay(DELAY)),
        dest.once(Point::request("CREATE TABLE [dbo].[dbaops_dataflow_stage"), Fault::Delay(DELAY)),
        dest.nth(Point::request("BULK LOAD"), 1, Fault::Delay(DELAY)),
        dest.nth(Point::request("BULK LOAD"), 2, Fault::Delay(DELAY)),
        dest.nth(Point::request("BULK LOAD"), 6, Fault::Delay(DELAY)),
        dest.once(Point::request("CREATE UNIQUE INDEX [dbaops_dataflow_key]"), Fault::Delay(DELAY)),
    ];
    change(&world, 0).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    for (round, step) in steps.iter().enumerate() {
        change_during(&world, step, round + 1).await;
    }
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let (source, dest) = world.both_tables("dbo.Items", "ID").await;
    assert!(source == dest, "{}", crate::harness::world::difference(&source, &dest));
}

/// With CDC on, changes that are committed after the end LSN of the copy are applied by the next CDC
/// passes, each once.
#[tokio::test(flavor = "multi_thread")]
async fn what_commits_during_replay_and_swap_comes_by_cdc() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 20_000).await;
    world.enable_cdc(&["Items"]).await;
    delay_capture(&world);
    let mapping = world.map("Items", "ID", Some("Resync"), true).await;
    let (source, dest) = (world.source.faults(), world.dest.faults());
    let steps = [
        source.once(Point::request("UPDATE TOP"), Fault::Delay(DELAY)),
        dest.nth(Point::request("BULK LOAD"), 3, Fault::Delay(DELAY)),
        source.once(Point::request("tran_end_time >"), Fault::Delay(DELAY)),
        dest.once(Point::request("#changes"), Fault::Delay(DELAY)),
        dest.once(
            Point::request("SELECT CASE WHEN EXISTS (SELECT 1 FROM [dbo].[Items]"),
            Fault::Delay(DELAY),
        ),
        dest.once(Point::request("COUNT_BIG(*)"), Fault::Delay(DELAY)),
    ];
    world.shop().await.run("UPDATE dbo.Items SET Resync = 1 WHERE ID IN (3, 19999)").await;
    let _daemon = world.daemon();
    for (round, step) in steps.iter().enumerate() {
        change_during(&world, step, round + 1).await;
    }
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    change(&world, 8).await;
    world.in_sync("dbo.Items", "ID").await;
    let errors =
        world.control().await.query("SELECT error_type, error_message FROM error_logs").await;
    assert!(errors.rows.is_empty(), "{errors}");
}

/// A source that allows SNAPSHOT isolation is read in one snapshot, and the log says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_source_is_copied_as_of_one_moment() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 20_000).await;
    world.source("master").await.run("ALTER DATABASE Shop SET ALLOW_SNAPSHOT_ISOLATION ON").await;
    let mapping = world.map("Items", "ID", None, false).await;
    let before =
        world.shop().await.query("SELECT ID, Name, Price, Resync FROM dbo.Items ORDER BY ID").await;
    let step = world.dest.faults().nth(Point::request("BULK LOAD"), 3, Fault::Delay(DELAY));
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    change_during(&world, &step, 1).await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let copied =
        world.copy().await.query("SELECT ID, Name, Price, Resync FROM dbo.Items ORDER BY ID").await;
    assert!(copied == before, "{}", crate::harness::world::difference(&before, &copied));
    daemon.wait_for_line(&["one moment", "SNAPSHOT"]).await;
}

/// A heap is read page by page: a row that is deleted and inserted again on a later page is read
/// twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_read_twice_is_there_once() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both("CREATE TABLE dbo.Heap (ID INT NOT NULL PRIMARY KEY NONCLUSTERED, Wide NVARCHAR(2000) NULL)").await;
    let mut shop = world.shop().await;
    // more rows than fit in the buffers while the copy is blocked
    for hundred in 0..50 {
        let rows: Vec<_> = (1..=100)
            .map(|row| format!("({}, REPLICATE(N'x', 2000))", hundred * 100 + row))
            .collect();
        shop.run(&format!("INSERT INTO dbo.Heap VALUES {}", rows.join(", "))).await;
    }
    world.enable_cdc(&["Heap"]).await;
    let mapping = world.map("Heap", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let dropped =
        world.dest.faults().nth(Point::request("[repeated]"), 1, Fault::Delay(Duration::ZERO));
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.dest.faults().nth(Point::request("BULK LOAD"), 1, block);
    let _daemon = world.daemon();
    wait_for_arrival(arrived).await;
    shop.run("DELETE dbo.Heap WHERE ID = 1; INSERT INTO dbo.Heap VALUES (1, N'moved')").await;
    release.send(()).expect("the copy waits");
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    assert!(dropped.count() > 0, "the row was read only once, so the scenario tested nothing");
    world.in_sync("dbo.Heap", "ID").await;
}

/// A full sync waits for a capture job that runs by schedule and keeps its copy meanwhile. The log
/// says how long it waits at most.
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_job_by_schedule_is_waited_for() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 100).await;
    world.enable_cdc(&["Items"]).await;
    let mut shop = world.shop().await;
    shop.run("EXEC sys.sp_cdc_change_job @job_type = N'capture', @continuous = 0").await;
    let instance = world.source.instance().expect("the stand-in's own engine");
    {
        let mut state = instance.lock();
        let shop = state.database_named("Shop").expect("Shop").id;
        state.database_mut(shop).expect("Shop").cdc.mode = CaptureMode::Manual;
    }
    let mapping = world.map("Items", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    daemon.wait_for_line(&["waiting until capture has passed the copy", "86730 s at most"]).await;
    shop.run("INSERT INTO dbo.Items (ID, Name) VALUES (-1, N'later')").await;
    capture_now(instance, "Shop").expect("a capture");
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Items", "ID").await;
}

/// A copy that takes longer than the retention of changes cannot be brought up to date: the error
/// names both times.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_takes_longer_than_changes_are_kept_is_an_error() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 100).await;
    world.enable_cdc(&["Items"]).await;
    let mapping = world.map("Items", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.dest.faults().once(Point::request("CREATE UNIQUE INDEX [dbaops_dataflow_key]"), block);
    let _daemon = world.daemon();
    wait_for_arrival(arrived).await;
    let mut shop = world.shop().await;
    for id in 1..=2 {
        shop.run(&format!("INSERT INTO dbo.Items (ID, Name) VALUES (-{id}, N'meanwhile')")).await;
    }
    eventually("both rows to be captured", async || {
        let rows = shop.scalar("SELECT COUNT(*) FROM cdc.dbo_Items_CT").await;
        if rows == "2" { Ok(()) } else { Err(rows) }
    })
    .await;
    shop.run(
        "DECLARE @mark binary(10) = (SELECT MAX(start_lsn) FROM cdc.lsn_time_mapping); \
         EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'dbo_Items', @low_water_mark = @mark",
    )
    .await;
    release.send(()).expect("the destination waits");
    let error = world.run_ends(mapping, "FULL_SYNC", "ERROR").await;
    for expected in [
        "made since the copy began",
        "the source keeps changes for 4320 minutes",
        "@retention = 4320",
    ] {
        assert!(error.rows[0][3].contains(expected), "{expected}: {error}");
    }
}

/// A column is altered while a full sync, whose copy is done, waits for capture. A value that only
/// the new type can hold is copied exactly.
async fn altered_while_it_waits(mode: &str, before: &str, now: &str, value: &str) {
    let world = World::new().await;
    let create =
        |ty: &str| format!("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, C {ty}, V INT NULL)");
    world.shop().await.run(&create(before)).await;
    world.copy().await.run(&create(now)).await;
    let mut shop = world.shop().await;
    let old = if before.starts_with("DATETIME2") { "'2026-01-01'" } else { "'1'" };
    shop.run(&format!("INSERT INTO dbo.T (ID, C) VALUES (1, {old}), (2, {old})")).await;
    world.enable_cdc(&["T"]).await;
    delay_capture(&world);
    let mapping = world.map("T", "ID", None, true).await;
    world
        .control()
        .await
        .run(&format!(
            "UPDATE table_mappings SET full_sync_mode = '{mode}' WHERE mapping_id = {mapping}"
        ))
        .await;
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.dest.faults().once(
        Point::request(if mode == "STAGED" {
            "CREATE UNIQUE INDEX [dbaops_dataflow_key]"
        } else {
            "TRUNCATE TABLE [dbo].[T]"
        }),
        block,
    );
    world.request_full_sync(mapping).await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    wait_for_arrival(arrived).await;
    shop.run(&format!("ALTER TABLE dbo.T ALTER COLUMN C {now}")).await;
    shop.run(&format!("UPDATE dbo.T SET C = {value} WHERE ID = 1")).await;
    release.send(()).expect("the full sync waits");
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    daemon.wait_for_line(&["was altered while its rows were read"]).await;
    world.in_sync("dbo.T", "ID").await;
    let errors =
        world.control().await.query("SELECT error_type, error_message FROM error_logs").await;
    assert!(errors.rows.is_empty(), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_became_longer_while_a_full_sync_waits_is_not_cut() {
    crate::only_on_standins!("fault points");
    altered_while_it_waits(
        "STAGED",
        "VARCHAR(10) NULL",
        "VARCHAR(50) NULL",
        "'0123456789ABCDEFGHIJ'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decimal_that_got_more_digits_while_a_full_sync_waits_is_not_rounded() {
    crate::only_on_standins!("fault points");
    altered_while_it_waits("STAGED", "DECIMAL(5,2) NULL", "DECIMAL(12,4) NULL", "1.1234").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_got_finer_while_a_full_sync_waits_is_not_rounded() {
    crate::only_on_standins!("fault points");
    altered_while_it_waits(
        "STAGED",
        "DATETIME2(0) NULL",
        "DATETIME2(7) NULL",
        "'2026-01-01 12:00:00.1234567'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_in_a_column_that_became_nullable_while_a_full_sync_waits_is_one() {
    crate::only_on_standins!("fault points");
    altered_while_it_waits("STAGED", "INT NOT NULL", "INT NULL", "NULL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_changed_while_rows_were_loaded_directly_makes_it_begin_again() {
    crate::only_on_standins!("fault points");
    altered_while_it_waits(
        "DIRECT",
        "VARCHAR(10) NULL",
        "VARCHAR(50) NULL",
        "'0123456789ABCDEFGHIJ'",
    )
    .await;
}
