//! SIGSTOP: a process that is frozen, as by `docker pause` or a hung machine. Its connections live,
//! and with them its locks; the others take over all the same, and it joins them when it wakes.

use mssql_standin::fault::{Phase, Point};

use crate::harness::{
    Daemon, Sql, World,
    blocked_request::{blocked_request, wait_for_arrival},
    daemon::command,
    eventually, numbers,
};

const QUIET: &[(&str, &str)] = &[("DATAFLOW_VERIFY_INTERVAL", "0")];

/// The destination's own account of the rows that come and go: what is applied twice is counted
/// twice.
const ACCOUNT: &str = "
CREATE TABLE dbo.account (id INT IDENTITY(1,1) PRIMARY KEY, n INT NOT NULL)
GO
CREATE TRIGGER dbo.tr_account ON dbo.T AFTER INSERT, DELETE AS
BEGIN
    SET NOCOUNT ON;
    INSERT INTO dbo.account (n) SELECT (SELECT COUNT(*) FROM inserted) - (SELECT COUNT(*) FROM deleted);
END";

/// `dbo.T` on both sides, with rows at the source; its mapping.
async fn one_table(world: &World, cdc: bool) -> i32 {
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NOT NULL)").await;
    world.shop().await.run(&format!("INSERT INTO dbo.T SELECT n, 0 FROM {}", numbers(50))).await;
    if cdc {
        world.enable_cdc(&["T"]).await;
    }
    world.map("T", "ID", None, cdc).await
}

/// The daemon's beat is as old as if it had been frozen for an hour.
async fn age_beat(control: &mut Sql, daemon: &Daemon) {
    control
        .run(&format!(
            "UPDATE dbo.daemons SET beat_at = DATEADD(HOUR, -1, beat_at) WHERE process_id = {}",
            daemon.pid()
        ))
        .await;
}

/// How many mappings each daemon owns that lives, by what they wrote.
async fn shares(control: &mut Sql) -> Vec<String> {
    let owned = control
        .query(
            "SELECT CAST(COUNT(*) AS varchar(10)) AS n FROM dbo.mapping_owners AS o \
             INNER JOIN dbo.daemons AS d ON d.daemon_id = o.daemon_id WHERE d.gone_at IS NULL GROUP BY d.daemon_id ORDER BY 1",
        )
        .await;
    owned.column("n").into_iter().map(str::to_owned).collect()
}

async fn divided(control: &mut Sql, expected: &[&str]) {
    eventually(&format!("the mappings to be divided {expected:?}"), async || {
        let shares = shares(control).await;
        if shares == expected { Ok(()) } else { Err(format!("{shares:?}")) }
    })
    .await;
}

/// Nothing was applied twice, as the destination counts.
async fn assert_account(world: &World) {
    let account = world
        .copy()
        .await
        .query("SELECT (SELECT SUM(n) FROM dbo.account), (SELECT COUNT(*) FROM dbo.T)")
        .await;
    assert_eq!(account.rows[0][0], account.rows[0][1], "rows by the account, and rows");
}

/// Half a minute of real time: what counts here is the daemon's own limit.
#[tokio::test(flavor = "multi_thread")]
async fn the_others_follow_what_a_frozen_daemon_owned_and_it_gets_a_share_when_it_wakes() {
    let world = World::new().await;
    let tables = ["T", "U"];
    one_table(&world, true).await;
    world.both("CREATE TABLE dbo.U (ID INT NOT NULL PRIMARY KEY, V INT NOT NULL)").await;
    world.enable_cdc(&["U"]).await;
    world.map("U", "ID", None, true).await;
    world.copy().await.script(ACCOUNT).await;
    world.control().await.run("UPDATE table_mappings SET full_sync_requested = 1").await;
    let (first, second) = (world.daemon_with(QUIET), world.daemon_with(QUIET));
    let mut control = world.control().await;
    divided(&mut control, &["1", "1"]).await;
    let mut shop = world.shop().await;
    for table in tables {
        world.in_sync(&format!("dbo.{table}"), "ID").await;
    }

    first.freeze().await;
    for table in tables {
        shop.run(&format!(
            "INSERT INTO dbo.{table} VALUES (1000, 1); DELETE dbo.{table} WHERE ID = 1"
        ))
        .await;
    }
    for table in tables {
        world.in_sync(&format!("dbo.{table}"), "ID").await;
    }

    first.wake().await;
    first.wait_for_line(&["was marked as gone"]).await;
    for table in tables {
        shop.run(&format!(
            "INSERT INTO dbo.{table} VALUES (1001, 1); UPDATE dbo.{table} SET V = 2"
        ))
        .await;
    }
    divided(&mut control, &["1", "1"]).await;
    for table in tables {
        shop.run(&format!("DELETE dbo.{table} WHERE ID = 1000")).await;
        world.in_sync(&format!("dbo.{table}"), "ID").await;
    }
    assert_account(&world).await;
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_alone_goes_on_when_it_wakes() {
    let world = World::new().await;
    one_table(&world, true).await;
    world.control().await.run("UPDATE table_mappings SET full_sync_requested = 1").await;
    let daemon = world.daemon_with(QUIET);
    world.in_sync("dbo.T", "ID").await;
    let mut control = world.control().await;
    let mut shop = world.shop().await;

    // nobody noticed
    daemon.freeze().await;
    age_beat(&mut control, &daemon).await;
    shop.run("INSERT INTO dbo.T VALUES (1000, 1)").await;
    daemon.wake().await;
    world.in_sync("dbo.T", "ID").await;
    assert!(!daemon.output().contains("marked as gone"), "{}", daemon.output());

    // a command did, and worked in its place
    daemon.freeze().await;
    age_beat(&mut control, &daemon).await;
    shop.run("INSERT INTO dbo.T VALUES (1001, 1)").await;
    let once = command(&world.variables(), &["--once"]).output().await.expect("run");
    assert!(once.status.success(), "{}", String::from_utf8_lossy(&once.stdout));
    world.in_sync("dbo.T", "ID").await;
    daemon.wake().await;
    daemon.wait_for_line(&["was marked as gone"]).await;
    shop.run("INSERT INTO dbo.T VALUES (1002, 1)").await;
    world.in_sync("dbo.T", "ID").await;
}

/// The commit group is at the server already when its process is frozen, and arrives there after
/// somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_group_of_a_frozen_daemon_that_comes_too_late_changes_nothing() {
    crate::only_on_standins!("a request that waits");
    let world = World::new().await;
    one_table(&world, true).await;
    world.copy().await.script(ACCOUNT).await;
    world.control().await.run("UPDATE table_mappings SET full_sync_requested = 1").await;
    let first = world.daemon_with(QUIET);
    world.in_sync("dbo.T", "ID").await;
    let mut control = world.control().await;
    let (fault, arrived, release) = blocked_request(Phase::Before);
    world.dest.faults().once(Point::request("SET last_cdc_lsn = @to"), fault);
    world.shop().await.run("INSERT INTO dbo.T VALUES (1000, 1); DELETE dbo.T WHERE ID = 1").await;
    wait_for_arrival(arrived).await;
    first.freeze().await;
    age_beat(&mut control, &first).await;

    let second = world.daemon_with(QUIET);
    world.in_sync("dbo.T", "ID").await;
    assert_account(&world).await;
    release.send(()).expect("the request waits");
    first.wake().await;
    first.wait_for_line(&["was marked as gone"]).await;
    world.shop().await.run("UPDATE dbo.T SET V = 3; DELETE dbo.T WHERE ID = 2").await;
    world.in_sync("dbo.T", "ID").await;
    assert_account(&world).await;
    drop(second);
}

/// Frozen when its rows are staged; the other one does the full sync and is asked for the next.
/// Without CDC no checkpoint tells the two apart: the claim does.
async fn frozen_in_a_full_sync(mode: &str, refused: &str) {
    let world = World::new().await;
    let mapping = one_table(&world, false).await;
    let mut control = world.control().await;
    control
        .run(&format!(
            "UPDATE table_mappings SET full_sync_requested = 1, full_sync_mode = '{mode}'"
        ))
        .await;
    let (fault, arrived, release) = blocked_request(Phase::After);
    world.dest.faults().once(Point::request("BULK LOAD"), fault);
    let first = world.daemon_with(QUIET);
    wait_for_arrival(arrived).await;
    first.freeze().await;
    release.send(()).expect("the request waits");
    age_beat(&mut control, &first).await;

    world.shop().await.run("DELETE dbo.T WHERE ID = 7; UPDATE dbo.T SET V = 1").await;
    let second = world.daemon_with(QUIET);
    world.in_sync("dbo.T", "ID").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;

    // the next one is claimed and waits, when the first wakes
    let (fault, arrived, release) = blocked_request(Phase::After);
    world.dest.faults().once(Point::request("SET full_sync_pending_at = SYSUTCDATETIME"), fault);
    world.shop().await.run("UPDATE dbo.T SET V = 2").await;
    world.request_full_sync(mapping).await;
    wait_for_arrival(arrived).await;
    first.wake().await;
    first.wait_for_line(&[refused]).await;
    let stale =
        world.copy().await.scalar("SELECT COUNT(*) FROM dbo.T WHERE ID = 7 OR V <> 1").await;
    assert_eq!(stale, "0", "rows of the attempt that was overtaken");
    release.send(()).expect("the request waits");
    world.in_sync("dbo.T", "ID").await;
    let mut copy = world.copy().await;
    eventually("the staging tables to be gone", async || {
        let stages = copy
            .scalar(
                "SELECT COUNT(*) FROM sys.tables WHERE name LIKE N'dbaops[_]dataflow[_]stage[_]%'",
            )
            .await;
        if stages == "0" { Ok(()) } else { Err(stages) }
    })
    .await;
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_of_a_frozen_daemon_is_done_by_another_and_swaps_nothing_in_later() {
    crate::only_on_standins!("a request that waits");
    frozen_in_a_full_sync("STAGED", "the checkpoint is no longer what it was").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_load_of_a_frozen_daemon_is_done_by_another_and_inserts_nothing_later() {
    crate::only_on_standins!("a request that waits");
    frozen_in_a_full_sync("DIRECT", "another attempt has claimed this full sync").await;
}

/// A control database of an earlier version has no tables for the heartbeat.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_tables_of_the_heartbeat_locks_alone_decide_and_a_warning_says_so() {
    let world = World::new().await;
    one_table(&world, true).await;
    let mut control = world.control().await;
    control
        .run("UPDATE table_mappings SET full_sync_requested = 1; DROP TABLE dbo.mapping_owners; DROP TABLE dbo.daemons")
        .await;
    let daemon = world.daemon_with(QUIET);
    daemon.wait_for_line(&["no tables for the heartbeat", "dbaops-dataflow init"]).await;
    world.in_sync("dbo.T", "ID").await;
    world.shop().await.run("UPDATE dbo.T SET V = 3").await;
    world.in_sync("dbo.T", "ID").await;
    assert_eq!(daemon.output().matches("no tables for the heartbeat").count(), 1);
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{output}");
}
