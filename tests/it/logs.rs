//! What the log tables and stdout hold of a daemon that works: enough, and not more.

use crate::{
    cdc::{SHORT_PARKED_INTERVAL, followed_with, following},
    harness::{World, eventually},
};

const TABLE: &str = "CREATE TABLE dbo.Busy (ID INT NOT NULL PRIMARY KEY, V INT NULL)";

/// Waits until the CDC rows of `sync_status` read like this, oldest first.
async fn sessions_are(world: &World, mapping: i32, expected: &[[&str; 2]]) {
    let mut control = world.control().await;
    eventually(&format!("the rows {expected:?} of sync_status"), async || {
        let rows = control
            .query(&format!(
                "SELECT status, records_processed FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'CDC' ORDER BY status_id"
            ))
            .await;
        if rows.rows == expected { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
}

async fn insert(world: &World, ids: std::ops::RangeInclusive<i32>) {
    for id in ids {
        world.shop().await.run(&format!("INSERT INTO dbo.Busy VALUES ({id}, {id})")).await;
        world.in_sync("dbo.Busy", "ID").await;
    }
}

/// A row for each pass would be millions a day. One row covers the passes of a mapping until one
/// fails, and is COMPLETED between them.
#[tokio::test(flavor = "multi_thread")]
async fn one_row_of_sync_status_for_many_passes_and_a_new_one_after_an_error_and_a_restart() {
    let (world, mapping, daemon) =
        followed_with(SHORT_PARKED_INTERVAL, "Busy", TABLE, "", "ID").await;
    insert(&world, 1..=5).await;
    sessions_are(&world, mapping, &[["COMPLETED", "5"]]).await;
    let mut copy = world.copy().await;
    copy.run("ALTER TABLE dbo.Busy ADD CONSTRAINT CK_Busy CHECK (V < 100)").await;
    world.shop().await.run("INSERT INTO dbo.Busy VALUES (100, 100)").await;
    world.run_ends(mapping, "CDC", "ERROR").await;
    copy.run("ALTER TABLE dbo.Busy DROP CONSTRAINT CK_Busy").await;
    world.in_sync("dbo.Busy", "ID").await;
    insert(&world, 6..=7).await;
    let run = world.run_ends(mapping, "CDC", "COMPLETED").await;
    assert_ne!(run.column("completed_at"), ["NULL"], "{run}");
    let mut control = world.control().await;
    eventually("an empty v_sync_summary", async || {
        let rows = control.query("SELECT * FROM v_sync_summary").await;
        if rows.rows.is_empty() { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
    let all = format!(
        "SELECT SUM(records_processed) FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'CDC'"
    );
    eventually("every change to be counted", async || {
        let counted = control.scalar(&all).await;
        if counted == "8" { Ok(()) } else { Err(counted) }
    })
    .await;
    let rows = format!("SELECT COUNT(*) FROM sync_status WHERE mapping_id = {mapping}");
    let before: i32 = control.scalar(&rows).await.parse().expect("a count");
    daemon.kill().await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    insert(&world, 8..=8).await;
    world.run_ends(mapping, "CDC", "COMPLETED").await;
    assert_eq!(control.scalar(&rows).await, (before + 1).to_string());
}

/// The counts of the last passes are not lost when the daemon is asked to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_leaves_the_counts_of_all_passes() {
    let (world, mapping, daemon) = following("Busy", TABLE, "", "ID").await;
    insert(&world, 1..=3).await;
    daemon.terminate().await;
    let rows = world
        .control()
        .await
        .query(&format!(
            "SELECT status, records_processed FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'CDC'"
        ))
        .await;
    assert_eq!(rows.rows, [["COMPLETED", "3"]], "{rows}");
}

/// So few rows a day that the start uses them up.
const USED_UP: &[(&str, &str)] = &[("DATAFLOW_LOG_ROWS_PER_DAY", "8")];

/// Beyond `DATAFLOW_LOG_ROWS_PER_DAY`, passes have no lines of their own, in neither sink. Their sums
/// and everything else have; what was not summed yet is summed at the end.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_budget_passes_are_summed_and_errors_are_not() {
    let settings = [USED_UP, SHORT_PARKED_INTERVAL].concat();
    let (world, mapping, daemon) = followed_with(&settings, "Busy", TABLE, "", "ID").await;
    insert(&world, 1..=4).await;
    let mut copy = world.copy().await;
    copy.run("ALTER TABLE dbo.Busy ADD CONSTRAINT CK_Busy CHECK (V < 100)").await;
    world.shop().await.run("INSERT INTO dbo.Busy VALUES (100, 100)").await;
    world.run_ends(mapping, "CDC", "ERROR").await;
    daemon.wait_for_line(&["ERROR", "CK_Busy"]).await;
    copy.run("ALTER TABLE dbo.Busy DROP CONSTRAINT CK_Busy").await;
    world.in_sync("dbo.Busy", "ID").await;
    world.run_ends(mapping, "CDC", "COMPLETED").await;
    let (_, output) = daemon.terminate().await;
    assert!(!output.contains("changes applied up to"), "{output}");
    let mut control = world.control().await;
    for line in [
        "DATAFLOW_LOG_ROWS_PER_DAY (8) allows for now",
        "changes of 1 tables applied in",
        "Shop.dbo.Busy: 5 changes applied in",
        "full sync of Shop.dbo.Busy completed",
    ] {
        assert_eq!(output.matches(line).count(), 1, "{line}: {output}");
        let like = format!("SELECT COUNT(*) FROM sync_logs WHERE log_message LIKE N'%{line}%'");
        assert_eq!(control.scalar(&like).await, "1", "{line}");
    }
}

/// Verifications that find nothing again have neither rows nor lines beyond the budget; one that
/// finds something has both.
#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_budget_verifications_have_rows_when_they_find_something() {
    let settings =
        [USED_UP, &[("DATAFLOW_VERIFY_INTERVAL", "200ms"), ("RUST_LOG", "dbaops_dataflow=debug")]]
            .concat();
    let (world, mapping, daemon) =
        followed_with(&settings, "Busy", TABLE, "INSERT INTO dbo.Busy VALUES (1, 1)", "ID").await;
    let passed = "MD5_COMPARISON of Shop.dbo.Busy: PASSED";
    eventually("five verifications", async || {
        let verifications = daemon.output().matches(passed).count();
        if verifications >= 5 { Ok(()) } else { Err(verifications.to_string()) }
    })
    .await;
    let rows = "SELECT COUNT(*) FROM verification_logs WHERE verification_type = 'MD5_COMPARISON'";
    assert_eq!(world.control().await.scalar(rows).await, "1");
    world.copy().await.run("UPDATE dbo.Busy SET V = 2").await;
    world.verified(mapping, "FAILED").await;
    daemon.wait_for_line(&["ERROR", "MD5_COMPARISON of Shop.dbo.Busy: FAILED"]).await;
    world.copy().await.run("UPDATE dbo.Busy SET V = 1").await;
    world.verified(mapping, "PASSED").await;
    let (_, output) = daemon.terminate().await;
    assert!(output.contains("verifications of 1 tables found nothing new in"), "{output}");
}

/// A line about a mapping names its table: nobody knows the numbers of 300 mappings.
#[tokio::test(flavor = "multi_thread")]
async fn every_line_about_a_mapping_names_its_table() {
    let (world, mapping, daemon) = followed_with(
        SHORT_PARKED_INTERVAL,
        "Busy",
        TABLE,
        "INSERT INTO dbo.Busy VALUES (1, 1)",
        "ID",
    )
    .await;
    insert(&world, 2..=2).await;
    daemon.wait_for_line(&["Shop.dbo.Busy: 1 changes applied up to LSN 0x"]).await;
    let mut copy = world.copy().await;
    copy.run("ALTER TABLE dbo.Busy ADD CONSTRAINT CK_Busy CHECK (V < 100)").await;
    world.shop().await.run("INSERT INTO dbo.Busy VALUES (100, 100)").await;
    world.run_ends(mapping, "CDC", "ERROR").await;
    copy.run("ALTER TABLE dbo.Busy DROP CONSTRAINT CK_Busy").await;
    world.in_sync("dbo.Busy", "ID").await;
    world.request_full_sync(mapping).await;
    daemon.wait_for_line(&["full sync of Shop.dbo.Busy completed"]).await;
    let (_, output) = daemon.terminate().await;
    let about = |line: &&str| line.contains("mapping_id=");
    let lines: Vec<&str> = output.lines().filter(about).collect();
    assert!(lines.len() >= 6, "{output}");
    for line in lines {
        assert!(line.contains("Shop.dbo.Busy"), "{line}");
        let (text, fields) = line.split_once(" mapping_id=").expect("a line about a mapping");
        assert!(
            !text.contains("error=") && !fields.contains("error="),
            "the cause is last: {line}"
        );
    }
}
