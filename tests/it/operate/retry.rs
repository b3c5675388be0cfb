//! What was mended is noticed: at once by `retry`, and soon without it.

use crate::{
    cdc::{error_of, followed_with, following, start_with},
    harness::{World, daemon::command, eventually},
};
use mssql_standin::{
    error::SqlError,
    fault::{Fault, Point},
};

/// Nothing but a command or a look of its own ends the wait of a parked mapping.
const LONG: &[(&str, &str)] = &[("DATAFLOW_PARKED_INTERVAL", "1h"), ("DATAFLOW_RETRY_DELAY", "1h")];

const TABLE: &str = "CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NULL)";

async fn retry(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["retry"], arguments].concat();
    let output = command(&world.variables(), &arguments).output().await.expect("run retry");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

/// Both would wait long: a deadlock for the time between two attempts, a missing table until somebody
/// looks.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_after_a_failure_is_tried_at_once() {
    crate::only_on_standins!("fault points");
    for deadlock in [true, false] {
        let world = World::new().await;
        world.shop().await.run(TABLE).await;
        world.shop().await.run("INSERT INTO dbo.T VALUES (1, 1)").await;
        let mapping = world.map("T", "ID", None, false).await;
        if deadlock {
            world.copy().await.run(TABLE).await;
            let error = SqlError::new(1205, 13, "Transaction was deadlocked on lock resources.");
            let point = Point::request("FROM [dbo].[T]");
            world.source.faults().once(point, Fault::ErrorBefore(error));
        }
        world.request_full_sync(mapping).await;
        let daemon = start_with(&world, LONG);
        let waits = if deadlock { "will be tried again" } else { "parked=true" };
        daemon.wait_for_line(&[waits]).await;
        if !deadlock {
            world.copy().await.run(TABLE).await;
        }
        let id = mapping.to_string();
        let arguments: &[&str] = if deadlock { &["--all"] } else { &["--mapping", &id] };
        let (code, printed) = retry(&world, arguments).await;
        assert_eq!(code, Some(0), "{printed}");
        world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
        world.in_sync("dbo.T", "ID").await;
        drop(daemon);
    }
    let world = World::new().await;
    let (code, printed) = retry(&world, &["--mapping", "99"]).await;
    assert!(code == Some(2) && printed.contains("no mapping 99"), "{printed}");
    assert_eq!(retry(&world, &[]).await.0, Some(2));
}

/// CDC that was switched off and on again once went on after five minutes.
#[tokio::test(flavor = "multi_thread")]
async fn cdc_that_is_switched_on_again_is_noticed_by_the_next_polls() {
    let (world, mapping, daemon) =
        followed_with(LONG, "T", TABLE, "INSERT INTO dbo.T VALUES (1, 1)", "ID").await;
    let mut shop = world.shop().await;
    shop.run("EXEC sys.sp_cdc_disable_db").await;
    error_of(&world, mapping, &["CDC is not enabled in the source database"]).await;
    shop.run("INSERT INTO dbo.T VALUES (2, 2)").await;
    world.enable_cdc(&["T"]).await;
    world.in_sync("dbo.T", "ID").await;
    eventually("every error to be resolved", async || {
        let open = world
            .control()
            .await
            .query("SELECT error_message FROM error_logs WHERE is_resolved = 0")
            .await;
        if open.rows.is_empty() { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
    let told = daemon.output().matches("CDC is not enabled in the source database").count();
    assert_eq!(told, 1, "looked at at every poll, and logged once: {}", daemon.output());
}

/// A server that cannot be reached is asked ever less often, unless somebody says that it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_touched_row_of_a_server_is_seen() {
    let (world, _, daemon) = following("T", TABLE, "INSERT INTO dbo.T VALUES (1, 1)", "ID").await;
    let mut control = world.control().await;
    let before = control.scalar("SELECT updated_at FROM source_servers").await;
    let (code, printed) = retry(&world, &["--all"]).await;
    assert!(code == Some(0) && printed.contains("servers: 1"), "{printed}");
    assert_ne!(control.scalar("SELECT updated_at FROM source_servers").await, before);
    // healthy mappings go on
    world.shop().await.run("INSERT INTO dbo.T VALUES (2, 2)").await;
    world.in_sync("dbo.T", "ID").await;
    drop(daemon);
}
