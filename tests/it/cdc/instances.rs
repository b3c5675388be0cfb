//! Capture instances: two of one table, added and dropped columns, a dropped instance, an instance
//! behind a gating role.

use super::{SHORT_PARKED_INTERVAL, error_of, followed_with, following, mark, partition, start};
use crate::harness::{PASSWORD, World, daemon::command, eventually};

/// A column is added with a default, rows are written, and then a second instance is created: all
/// rows get their value of the new column.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_added_between_two_instances_arrives_everywhere() {
    let (world, _, _daemon) = following(
        "I",
        "CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY, V INT NULL)",
        "INSERT INTO dbo.I VALUES (1, 1), (2, 2)",
        "ID",
    )
    .await;
    let mut shop = world.shop().await;
    world.copy().await.run("ALTER TABLE dbo.I ADD W INT NULL").await;
    shop.run("ALTER TABLE dbo.I ADD W INT NOT NULL DEFAULT 7").await;
    shop.run("INSERT INTO dbo.I (ID, V, W) VALUES (3, 3, 33)").await;
    shop.run("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'I_two', @role_name = NULL")
        .await;
    shop.run(
        "INSERT INTO dbo.I (ID, V, W) VALUES (4, 4, 44); UPDATE dbo.I SET V = 10 WHERE ID = 1",
    )
    .await;
    world.in_sync("dbo.I", "ID").await;
    shop.run("UPDATE dbo.I SET W = 70 WHERE ID = 2").await;
    world.in_sync("dbo.I", "ID").await;
    assert_eq!(
        world.copy().await.scalar("SELECT SUM(W) FROM dbo.I").await,
        (7 + 70 + 33 + 44).to_string()
    );
}

/// A column that is dropped at the source keeps its values at the destination.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_never_writes_nulls() {
    let (world, _, _daemon) = following(
        "I",
        "CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY, V INT NULL, W INT NULL)",
        "INSERT INTO dbo.I VALUES (1, 1, 11)",
        "ID",
    )
    .await;
    let mut shop = world.shop().await;
    shop.run("ALTER TABLE dbo.I DROP COLUMN W").await;
    shop.run("UPDATE dbo.I SET V = 2 WHERE ID = 1; INSERT INTO dbo.I VALUES (2, 2)").await;
    let mut copy = world.copy().await;
    eventually("the changes without the column", async || {
        let rows = copy.query("SELECT ID, V, W FROM dbo.I ORDER BY ID").await;
        if rows.rows == [["1", "2", "11"], ["2", "2", "NULL"]] {
            Ok(())
        } else {
            Err(rows.to_string())
        }
    })
    .await;
}

/// A dropped capture instance is an error that says so. When it is created again, a full sync brings
/// the changes that were missed.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_dropped_under_us_is_an_error_that_says_so() {
    let (world, mapping, _daemon) = followed_with(
        SHORT_PARKED_INTERVAL,
        "I",
        "CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY)",
        "INSERT INTO dbo.I VALUES (1)",
        "ID",
    )
    .await;
    let mut shop = world.shop().await;
    shop.run("EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'all'").await;
    error_of(&world, mapping, &["dbo.I", "capture instance", "sp_cdc_enable_table"]).await;
    shop.run("INSERT INTO dbo.I VALUES (2)").await;
    world.enable_cdc(&["I"]).await;
    world.in_sync("dbo.I", "ID").await;
}

/// The daemon reads the instance's name from the catalog and does not assume the default name.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_any_name() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&[]).await;
    world
        .shop()
        .await
        .run("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'my own [name]', @role_name = NULL; INSERT INTO dbo.I VALUES (1)")
        .await;
    world.map("I", "ID", None, true).await;
    let _daemon = start(&world);
    world.in_sync("dbo.I", "ID").await;
}

/// The instance has a gating role that the login is not a member of: the error names the role and
/// the statement that fixes it. The parked mapping is retried every five minutes, and at once when
/// its row or its server's row changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_gated_instance_is_named_with_its_fix() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&[]).await;
    let mut shop = world.shop().await;
    shop.run("CREATE ROLE cdc_readers").await;
    shop.run("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'I', @role_name = N'cdc_readers'").await;
    shop.run(&format!("CREATE LOGIN reader WITH PASSWORD = '{}'", PASSWORD.replace('\'', "''")))
        .await;
    shop.run("CREATE USER reader FOR LOGIN reader").await;
    shop.run("ALTER ROLE db_datareader ADD MEMBER reader").await;
    shop.run("GRANT SELECT ON SCHEMA::cdc TO reader").await;
    shop.run("INSERT INTO dbo.I VALUES (1)").await;
    world.connect_as("reader", PASSWORD).await;
    let mapping = world.map("I", "ID", None, true).await;
    let _daemon = start(&world);
    error_of(&world, mapping, &["minimum LSN is zero", "cdc_readers", "ADD MEMBER", "GRANT"]).await;
    shop.run("ALTER ROLE cdc_readers ADD MEMBER reader").await;
    let mut control = world.control().await;
    let lag = control
        .query(&format!(
            "SELECT seconds_behind, reason FROM v_cdc_lag WHERE mapping_id = {mapping}"
        ))
        .await;
    assert!(lag.first() == "NULL" && lag.rows[0][1].contains("cdc_readers"), "{lag}");
    control
        .run("UPDATE source_servers SET connection_string = connection_string + N';app name=again'")
        .await;
    world.in_sync("dbo.I", "ID").await;
}

/// Waits until the checkpoint has passed everything captured so far, and cleans it up from one
/// instance of the mapped table.
async fn clean(world: &World, instance: &str) {
    let mut shop = world.shop().await;
    mark(&mut shop, "Mark").await;
    let newest = shop.scalar("SELECT MAX(__$start_lsn) FROM cdc.dbo_Mark_CT").await;
    let mut control = world.control().await;
    eventually("the checkpoint to be past the mark", async || {
        let at = control.scalar("SELECT last_cdc_lsn FROM table_mappings").await;
        if at >= newest { Ok(()) } else { Err(at) }
    })
    .await;
    shop.run(&format!("EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'{instance}', @low_water_mark = {newest}")).await;
    assert_eq!(shop.scalar(&format!("SELECT sys.fn_cdc_get_min_lsn(N'{instance}')")).await, newest);
}

/// The number of full syncs of a mapping, as text.
async fn full_syncs(world: &World, mapping: i32) -> String {
    let runs = format!(
        "SELECT COUNT(*) FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'FULL_SYNC'"
    );
    world.control().await.scalar(&runs).await
}

/// Waits until the mapping has had this number of full syncs.
async fn copied(world: &World, mapping: i32, times: usize) {
    eventually("another full sync", async || {
        let full = full_syncs(world, mapping).await;
        if full == times.to_string() { Ok(()) } else { Err(full) }
    })
    .await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
}

/// Cleanup of the old instance alone gives it a later start LSN than the new instance, which is the
/// one that has the new column.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_instance_that_was_cleaned_does_not_take_over_again() {
    let (world, mapping, daemon) = following(
        "I",
        "CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY, V INT NULL)",
        "INSERT INTO dbo.I VALUES (1, 1), (2, 2)",
        "ID",
    )
    .await;
    let mut shop = world.shop().await;
    shop.run("CREATE TABLE dbo.Mark (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&["Mark"]).await;
    world.copy().await.run("ALTER TABLE dbo.I ADD W INT NULL").await;
    shop.run("ALTER TABLE dbo.I ADD W INT NULL").await;
    shop.run("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'I_two', @role_name = NULL")
        .await;
    shop.run("UPDATE dbo.I SET V = 10 WHERE ID = 1").await;
    daemon.wait_for_line(&["INFO", "changes are read from capture instance I_two"]).await;
    Box::pin(copied(&world, mapping, 2)).await;
    Box::pin(clean(&world, "dbo_I")).await;
    // Changes of the column that the old instance lacks.
    shop.run("UPDATE dbo.I SET W = 70 WHERE ID = 2").await;
    world.in_sync("dbo.I", "ID").await;
    let _ = daemon.terminate().await;
    shop.run("UPDATE dbo.I SET W = 71 WHERE ID = 2").await;
    let daemon = start(&world);
    world.in_sync("dbo.I", "ID").await;
    // A full sync chooses an instance again, and does not choose the one with the later start.
    world.request_full_sync(mapping).await;
    Box::pin(copied(&world, mapping, 3)).await;
    shop.run("UPDATE dbo.I SET W = 72 WHERE ID = 2").await;
    world.in_sync("dbo.I", "ID").await;
    assert!(!daemon.output().contains("takes over"), "{}", daemon.output());
    // Both are cleaned up, the old one last.
    Box::pin(clean(&world, "I_two")).await;
    Box::pin(clean(&world, "dbo_I")).await;
    shop.run("UPDATE dbo.I SET W = 73 WHERE ID = 2").await;
    world.in_sync("dbo.I", "ID").await;
    assert_eq!(full_syncs(&world, mapping).await, "3");
}

/// The checkpoint table has the columns of an earlier version: the daemon continues at the stored
/// LSN, and stores source table and capture instance from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_an_earlier_version_goes_on_and_is_bound() {
    let (world, mapping, daemon) = following(
        "I",
        "CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY, V INT NULL)",
        "INSERT INTO dbo.I VALUES (1, 1)",
        "ID",
    )
    .await;
    let _ = daemon.terminate().await;
    let mut copy = world.copy().await;
    copy.run("ALTER TABLE dbo.dbaops_dataflow_checkpoints DROP COLUMN tran_lsn, source_object, capture_instance").await;
    world.shop().await.run("INSERT INTO dbo.I VALUES (2, 2)").await;
    let daemon = start(&world);
    world.in_sync("dbo.I", "ID").await;
    let bound = "SELECT COUNT(*) FROM dbo.dbaops_dataflow_checkpoints WHERE capture_instance LIKE N'% dbo_I' AND source_object IS NOT NULL";
    assert_eq!(copy.scalar(bound).await, "1");
    let _ = daemon.terminate().await;
    // They are stored also when there is nothing to apply.
    copy.run("UPDATE dbo.dbaops_dataflow_checkpoints SET tran_lsn = NULL, source_object = NULL, capture_instance = NULL").await;
    let _daemon = start(&world);
    eventually("the checkpoint to name its table and instance", async || {
        let rows = copy.scalar(bound).await;
        if rows == "1" { Ok(()) } else { Err(rows) }
    })
    .await;
    assert_eq!(full_syncs(&world, mapping).await, "1");
    assert_eq!(world.control().await.scalar("SELECT COUNT(*) FROM error_logs").await, "0");
}

/// Further instances are created for other purposes: with fewer columns, without the key, with a
/// gating role. The daemon reads the same instance as before, and logs each of the others once.
#[tokio::test(flavor = "multi_thread")]
async fn a_less_suitable_instance_is_passed_over_and_reported_once() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY, V INT NULL, W INT NULL)").await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.I VALUES (1, 1, 1)").await;
    world.enable_cdc(&["I"]).await;
    shop.run(&format!("CREATE LOGIN reader WITH PASSWORD = '{}'", PASSWORD.replace('\'', "''")))
        .await;
    shop.run("CREATE USER reader FOR LOGIN reader").await;
    shop.run("ALTER ROLE db_datareader ADD MEMBER reader").await;
    shop.run("GRANT SELECT ON SCHEMA::cdc TO reader; GRANT VIEW DATABASE STATE TO reader").await;
    world.connect_as("reader", PASSWORD).await;
    let mapping = world.map("I", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let daemon = start(&world);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    // Before anything is captured no instance is chosen.
    shop.run("UPDATE dbo.I SET W = 0").await;
    world.in_sync("dbo.I", "ID").await;
    let mut times = 1;
    for (i, (options, why)) in [
        ("@captured_column_list = N'ID, V', @role_name = NULL", "does not capture [W]"),
        (
            "@captured_column_list = N'V, W', @supports_net_changes = 0, @role_name = NULL",
            "does not capture the key",
        ),
        ("@role_name = N'auditors'", "may not be read by this login"),
    ]
    .into_iter()
    .enumerate()
    {
        shop.run(&format!(
            "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'audit{i}', {options}"
        ))
        .await;
        let warning = format!("capture instance audit{i} is newer");
        daemon.wait_for_line(&["WARN", &warning, why]).await;
        for value in 1..4 {
            shop.run(&format!("UPDATE dbo.I SET W = {}", 10 * i + value)).await;
            world.in_sync("dbo.I", "ID").await;
        }
        // A full sync does not choose the new instance, either.
        world.request_full_sync(mapping).await;
        times += 1;
        Box::pin(copied(&world, mapping, times)).await;
        shop.run(&format!("UPDATE dbo.I SET W = {}", 10 * i + 9)).await;
        world.in_sync("dbo.I", "ID").await;
        assert_eq!(daemon.output().matches(&warning).count(), 1, "{}", daemon.output());
        shop.run(&format!("EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'audit{i}'"))
            .await;
    }
    assert_eq!(world.control().await.scalar("SELECT COUNT(*) FROM error_logs").await, "0");
}

/// The instance that was read is dropped, and the remaining one has fewer columns: a full sync runs
/// first, then changes are read from the remaining instance.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_less_is_moved_to_when_the_other_is_gone() {
    let (world, mapping, daemon) = following(
        "I",
        "CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY, V INT NULL, W INT NULL)",
        "INSERT INTO dbo.I VALUES (1, 1, 1)",
        "ID",
    )
    .await;
    let mut shop = world.shop().await;
    shop.run("UPDATE dbo.I SET V = 0").await;
    world.in_sync("dbo.I", "ID").await;
    shop.run(
        "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'audit', \
         @captured_column_list = N'ID, V', @role_name = NULL",
    )
    .await;
    daemon.wait_for_line(&["WARN", "capture instance audit is newer"]).await;
    let _ = daemon.terminate().await;
    shop.run("UPDATE dbo.I SET W = 2").await;
    shop.run("EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'dbo_I'").await;
    let _daemon = start(&world);
    world.in_sync("dbo.I", "ID").await;
    error_of(&world, mapping, &["changes are lost", "capture instance dbo_I", "full sync"]).await;
    shop.run("UPDATE dbo.I SET V = 3, W = 3; INSERT INTO dbo.I VALUES (2, 2, 2)").await;
    let mut copy = world.copy().await;
    eventually("the change to arrive", async || {
        let rows = copy.query("SELECT ID, V FROM dbo.I ORDER BY ID").await;
        if rows.rows == [["1", "3"], ["2", "2"]] { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
}

/// Rows that ALTER TABLE … SWITCH moves are in no change table: `check` and the first poll warn
/// about tables where SWITCH is allowed.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_can_be_switched_are_reported() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    world.enable_cdc(&[]).await;
    let mut shop = world.shop().await;
    for (table, allowed) in [("Free", 1), ("Fixed", 0)] {
        world.both(&format!("CREATE TABLE dbo.{table} (ID INT NOT NULL PRIMARY KEY)")).await;
        partition(&world, table, 3);
        shop.run(&format!(
            "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'{table}', @role_name = NULL, @allow_partition_switch = {allowed}"
        ))
        .await;
        world.map(table, "ID", None, true).await;
    }
    let daemon = start(&world);
    daemon.wait_for_line(&["WARN", "Shop.dbo.Free has partitions", "SWITCH"]).await;
    for table in ["Free", "Fixed"] {
        shop.run(&format!("INSERT INTO dbo.{table} VALUES (1)")).await;
        world.in_sync(&format!("dbo.{table}"), "ID").await;
    }
    assert_eq!(daemon.output().matches("has partitions").count(), 1, "{}", daemon.output());
    let checked = command(&world.variables(), &["check"]).output().await.expect("run check");
    let checked = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.matches("SWITCH").count(), 1, "{checked}");
}
