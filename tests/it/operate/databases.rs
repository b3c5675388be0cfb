//! Databases that exist and cannot be used: offline, read-only.

use crate::{
    cdc::{error_of, following},
    harness::{World, daemon::command, eventually},
};

async fn check(world: &World) -> String {
    let output = command(&world.variables(), &["check"]).output().await.expect("run check");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn all_resolved(world: &World, mapping: i32) {
    let mut control = world.control().await;
    eventually("every error to be resolved", async || {
        let open = control.query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {mapping} AND is_resolved = 0")).await;
        if open.rows.is_empty() { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
}

/// The mapping was once parked for five minutes, and nothing retried it when the database was online
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_database_that_was_offline_at_the_start_is_used_soon_after_it_is_back() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (1, 1)").await;
    world.enable_cdc(&["T"]).await;
    let mapping = world.map("T", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let mut master = world.dest("master").await;
    master.run("ALTER DATABASE [Copy] SET OFFLINE WITH ROLLBACK IMMEDIATE").await;
    let daemon = world.daemon();
    error_of(&world, mapping, &["4060"]).await;
    let checked = check(&world).await;
    assert!(
        checked.contains("it is offline") && checked.contains("ALTER DATABASE [Copy] SET ONLINE;"),
        "{checked}"
    );
    assert!(!checked.contains("CREATE DATABASE"), "{checked}");
    master.run("ALTER DATABASE [Copy] SET ONLINE").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (2, 2)").await;
    world.in_sync("dbo.T", "ID").await;
    all_resolved(&world, mapping).await;
    assert!(!daemon.output().contains("parked=true"), "{}", daemon.output());
}

/// A mapping without changes was once reported as following until the next change and three failed
/// attempts.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_destination_database_is_reported_by_the_next_poll_although_nothing_changes() {
    let (world, mapping, daemon) = following(
        "T",
        "CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NULL)",
        "INSERT INTO dbo.T VALUES (1, 1)",
        "ID",
    )
    .await;
    let mut master = world.dest("master").await;
    master.run("ALTER DATABASE [Copy] SET READ_ONLY WITH ROLLBACK IMMEDIATE").await;
    error_of(&world, mapping, &["3906", "read-only"]).await;
    let checked = check(&world).await;
    assert!(checked.contains("ALTER DATABASE [Copy] SET READ_WRITE;"), "{checked}");
    world.shop().await.run("INSERT INTO dbo.T VALUES (2, 2)").await;
    master.run("ALTER DATABASE [Copy] SET READ_WRITE WITH ROLLBACK IMMEDIATE").await;
    world.in_sync("dbo.T", "ID").await;
    all_resolved(&world, mapping).await;
    assert!(!daemon.output().contains("parked=true"), "{}", daemon.output());
}
