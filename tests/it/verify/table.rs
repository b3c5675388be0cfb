//! Beyond the newest rows: the sweep over the whole table, findings that are kept from run to run,
//! row counts, and columns.

use super::{command::verify_with, of_kind, rows, synced};
use crate::harness::{World, eventually};

const SMALL: [(&str, &str); 2] =
    [("DATAFLOW_VERIFY_ROWS", "100"), ("DATAFLOW_VERIFY_SWEEP_ROWS", "400")];

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_compared_and_findings_stay_until_they_are_repaired() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let mut copy = world.copy().await;
    let daemon = world.daemon_with(&SMALL);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    daemon
        .wait_for_line(&[
            "every row of Shop.dbo.V has been compared once more",
            "records_count=3000",
        ])
        .await;

    copy.run("UPDATE dbo.V SET Name = N'x' WHERE ID = 7; DELETE dbo.V WHERE ID = 1500; INSERT INTO dbo.V (ID) VALUES (-3)").await;
    // different runs find them in different ranges, and the last run reports all of them
    of_kind(
        &world,
        mapping,
        "MD5_COMPARISON",
        "FAILED",
        &["only in source (1): 1500", "only in destination (1): -3", "different (1): 7"],
    )
    .await;

    // a new process keeps the findings, although its first run compares other rows
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{output}");
    let mut control = world.control().await;
    let runs = "SELECT COUNT(*) FROM verification_logs WHERE verification_status = 'FAILED'";
    let errors =
        "SELECT COUNT(*) FROM error_logs WHERE error_type = 'VERIFICATION' AND is_resolved = 0";
    let (runs_before, errors_before) = (control.scalar(runs).await, control.scalar(errors).await);
    let _daemon = world.daemon_with(&SMALL);
    eventually("a FAILED run of the new process", async || {
        let now = control.scalar(runs).await;
        if now == runs_before { Err(now) } else { Ok(()) }
    })
    .await;
    of_kind(&world, mapping, "MD5_COMPARISON", "FAILED", &["1500", "-3", "7"]).await;
    assert_eq!(control.scalar(errors).await, errors_before, "the same findings are a new error");

    copy.run("UPDATE dbo.V SET Name = N'row 7' WHERE ID = 7; DELETE dbo.V WHERE ID = -3; INSERT INTO dbo.V (ID, Name, Price, At) VALUES (1500, N'row 1500', 1500.15, '2024-02-29T23:59:59.1234567')").await;
    of_kind(&world, mapping, "MD5_COMPARISON", "PASSED", &[]).await;
    eventually("the errors to be resolved", async || {
        let open = control.scalar(errors).await;
        if open == "0" { Ok(()) } else { Err(open) }
    })
    .await;
}

/// Text keys sort differently at the source and the destination; the sweep leaves no row out.
#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_follows_the_sources_order_of_keys() {
    let world = World::new().await;
    let table = |collation| {
        format!(
            "CREATE TABLE dbo.W (Code VARCHAR(10) COLLATE {collation} NOT NULL PRIMARY KEY, N INT NULL)"
        )
    };
    world.shop().await.run(&table("SQL_Latin1_General_CP1_CI_AS")).await;
    world.copy().await.run(&table("Latin1_General_BIN2")).await;
    world
        .shop()
        .await
        .run(&format!(
            "INSERT INTO dbo.W SELECT CHAR(CASE n % 2 WHEN 0 THEN 65 ELSE 97 END + n % 26) + CAST(n AS varchar(9)), n FROM {}",
            crate::harness::numbers(600)
        ))
        .await;
    world.enable_cdc(&["W"]).await;
    let mapping = world.map("W", "Code", None, true).await;
    world.request_full_sync(mapping).await;
    let daemon =
        world.daemon_with(&[("DATAFLOW_VERIFY_ROWS", "10"), ("DATAFLOW_VERIFY_SWEEP_ROWS", "90")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    daemon
        .wait_for_line(&[
            "every row of Shop.dbo.W has been compared once more",
            "records_count=600",
        ])
        .await;
    let mut copy = world.copy().await;
    copy.run("DELETE dbo.W WHERE N = 301; INSERT INTO dbo.W VALUES ('zz', 1), ('AA', 2)").await;
    of_kind(
        &world,
        mapping,
        "MD5_COMPARISON",
        "FAILED",
        &["only in source (1): p301", "only in destination (2)", "zz", "AA"],
    )
    .await;
    let alarms = world
        .control()
        .await
        .query("SELECT verification_details FROM verification_logs WHERE mismatches_found > 3")
        .await;
    assert!(alarms.rows.is_empty(), "{alarms}");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_counts_and_columns_are_compared_too() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "100ms")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let counts = of_kind(&world, mapping, "ROW_COUNT", "PASSED", &[]).await;
    assert_eq!(
        (counts.column("source_row_count"), counts.column("dest_row_count")),
        (vec!["3000"], vec!["3000"])
    );
    of_kind(&world, mapping, "SCHEMA", "PASSED", &[]).await;

    let mut copy = world.copy().await;
    copy.run("DELETE dbo.V WHERE ID <= 10").await;
    let counts = of_kind(
        &world,
        mapping,
        "ROW_COUNT",
        "FAILED",
        &["3000 rows in source, 2990 in destination"],
    )
    .await;
    assert_eq!(counts.column("mismatches_found"), ["10"]);

    copy.run("ALTER TABLE dbo.V ALTER COLUMN Name NVARCHAR(20) NULL").await;
    of_kind(&world, mapping, "SCHEMA", "FAILED", &["Name"]).await;
    copy.run("ALTER TABLE dbo.V ALTER COLUMN Name NVARCHAR(50) NULL").await;
    of_kind(&world, mapping, "SCHEMA", "PASSED", &[]).await;
    let mut control = world.control().await;
    eventually("the finding about columns to be resolved", async || {
        let open = control.query("SELECT error_message FROM error_logs WHERE error_type = 'VERIFICATION' AND is_resolved = 0").await;
        if open.rows.iter().all(|row| !row[0].starts_with("SCHEMA")) { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
}

/// A table that is too large to be counted row by row is counted by the catalogs; a difference
/// there is not certain, and the command counts when it is asked for every row.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_counted_by_the_catalogs() {
    crate::only_on_standins!("its record of statements");
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let settings =
        [("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "100ms"), ("DATAFLOW_VERIFY_COUNT_ROWS", "2999")];
    world.source.log_statements(true);
    let _daemon = world.daemon_with(&settings);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let counts = of_kind(&world, mapping, "ROW_COUNT", "PASSED", &[]).await;
    assert_eq!(counts.column("source_row_count"), ["3000"], "{counts}");
    world.copy().await.run("DELETE dbo.V WHERE ID <= 10").await;
    let about = "about 3000 rows in source, 2990 in destination";
    let counts = of_kind(&world, mapping, "ROW_COUNT", "PARTIAL", &[about]).await;
    assert_eq!(counts.column("mismatches_found"), ["10"], "{counts}");
    let count = "COUNT_BIG(*) FROM [dbo].[V] AS t";
    let counted = |record: &mssql_standin::server::StatementRecord| record.text.contains(count);
    assert!(!world.source.statements().iter().any(counted), "every row was counted");
    let (_, printed) = verify_with(&world, &settings, &["--full"]).await;
    assert!(printed.contains("3000 rows in source, 2990 in destination"), "{printed}");
    assert!(printed.contains("FAILED  ROW_COUNT"), "{printed}");
}

/// Three runs make a pass over the table, also when they run in different processes.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_goes_on_where_the_sweep_was() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let settings = [("DATAFLOW_VERIFY_ROWS", "100"), ("DATAFLOW_VERIFY_SWEEP_ROWS", "1400")];
    let daemon = world.daemon_with(&settings);
    rows(&world, mapping, "PASSED", &[]).await;
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{output}");
    let _daemon = world.daemon_with(&settings);
    let mut control = world.control().await;
    let passed = "SELECT MIN(log_id) FROM sync_logs WHERE log_message LIKE N'every row of Shop.dbo.V has been compared once more%'";
    let first = eventually("a whole pass", async || {
        let id = control.scalar(passed).await;
        if id.parse::<i64>().is_ok() { Ok(id) } else { Err(id) }
    })
    .await;
    let runs = format!(
        "SELECT COUNT(*) FROM sync_logs WHERE log_message LIKE N'MD5_COMPARISON of%' AND log_id < {first}"
    );
    assert_eq!(
        control.scalar(&runs).await,
        "2",
        "runs logged before the run that completed the pass"
    );
    let counted = control
        .scalar(&format!("SELECT records_count FROM sync_logs WHERE log_id = {first}"))
        .await;
    assert_eq!(counted, "3000");
}

/// A table with fewer rows than a run compares is compared whole by each run: the control table has
/// the time of the newest complete pass, and the log reports the first pass only.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_table_is_compared_whole_by_every_run() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let daemon = world.daemon();
    let mut control = world.control().await;
    let runs = format!(
        "SELECT COUNT(*) FROM verification_logs WHERE mapping_id = {mapping} AND verification_type = 'MD5_COMPARISON'"
    );
    let completed = format!(
        "SELECT sweep_completed_at FROM verification_progress WHERE mapping_id = {mapping}"
    );
    let mut passes = std::collections::HashSet::new();
    // A pass is recorded before the run that completed it.
    eventually("three whole passes, each by a run of its own", async || {
        passes.extend(
            control.query(&completed).await.rows.concat().into_iter().filter(|at| at != "NULL"),
        );
        let runs: usize = control.scalar(&runs).await.parse().expect("a count");
        if passes.len() >= 3 && runs >= 3 {
            Ok(())
        } else {
            Err(format!("{runs} runs, passes {passes:?}"))
        }
    })
    .await;
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{output}");
    let logged = control.query("SELECT records_count FROM sync_logs WHERE log_message LIKE N'every row of Shop.dbo.V has been%'").await;
    assert_eq!(logged.column("records_count"), ["3000"], "{logged}");
}
