//! `start-from`: places that are refused, and the forms in which a place is given.

use super::start;
use crate::harness::{World, daemon::command, eventually};

const TABLE: &str = "CREATE TABLE dbo.B (ID INT NOT NULL PRIMARY KEY, V INT NULL)";

/// Two captured rows, a mapping, and the LSNs of the rows.
async fn two_rows() -> (World, i32, [String; 2]) {
    let world = World::new().await;
    world.both(TABLE).await;
    world.enable_cdc(&["B"]).await;
    let mapping = world.map_as_users_do("B", "ID", None, true).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.B VALUES (1, 1)").await;
    shop.run("INSERT INTO dbo.B VALUES (2, 2)").await;
    let lsns = eventually("both rows to be captured", async || {
        let rows = shop.query("SELECT __$start_lsn FROM cdc.dbo_B_CT ORDER BY __$start_lsn").await;
        match rows.rows.as_slice() {
            [first, second] => Ok([first[0].clone(), second[0].clone()]),
            _ => Err(rows.to_string()),
        }
    })
    .await;
    // as if the destination was restored from a backup that had the first row
    world.copy().await.run("INSERT INTO dbo.B VALUES (1, 100)").await;
    (world, mapping, lsns)
}

/// The exit code, and everything that was printed.
async fn start_from(world: &World, mapping: i32, place: [&str; 2]) -> (Option<i32>, String) {
    let id = mapping.to_string();
    let arguments = ["start-from", "--mapping", &id, place[0], place[1]];
    let output = command(&world.variables(), &arguments).output().await.expect("run start-from");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

async fn second_row_alone_is_applied(world: &World) {
    let _daemon = start(world);
    let mut copy = world.copy().await;
    eventually("only the second row to be applied", async || {
        let rows = copy.query("SELECT ID, V FROM dbo.B ORDER BY ID").await;
        if rows.rows == [["1", "100"], ["2", "2"]] { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
}

/// A digit too many once set a checkpoint that no change ever reached, or that was a gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_the_source_cannot_go_on_from_is_refused() {
    let (world, mapping, [first, _]) = two_rows().await;
    let beyond = first.replacen("0x0000", "0x1000", 1);
    let (code, printed) = start_from(&world, mapping, ["--lsn", &beyond]).await;
    assert!(code == Some(2) && printed.contains("is beyond the newest captured LSN"), "{printed}");
    let (code, printed) = start_from(&world, mapping, ["--lsn", "0x00000000000000000001"]).await;
    assert!(code == Some(2) && printed.contains("is before the oldest change"), "{printed}");
    let (code, printed) = start_from(&world, mapping, ["--time", "2001-01-01T00:00:00"]).await;
    assert!(code == Some(2) && printed.contains("no captured transaction"), "{printed}");
    let (code, _) = start_from(&world, mapping, ["--time", "yesterday"]).await;
    assert_eq!(code, Some(2));
    let mut control = world.control().await;
    let untouched = control
        .scalar("SELECT COUNT(*) FROM table_mappings WHERE last_cdc_lsn IS NULL AND initial_sync IS NULL")
        .await;
    assert_eq!(untouched, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decimal_lsn_as_backup_headers_have_it() {
    let (world, mapping, [first, _]) = two_rows().await;
    let part = |from: usize, to: usize| u64::from_str_radix(&first[from..to], 16).expect("hex");
    let decimal = format!("{}{:010}{:05}", part(2, 10), part(10, 18), part(18, 22));
    let (code, printed) = start_from(&world, mapping, ["--lsn", &decimal]).await;
    assert!(code == Some(0) && printed.contains(&first), "{printed}");
    second_row_alone_is_applied(&world).await;
}

/// By the source's clock, and by an offset.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_the_newest_transaction_up_to_then() {
    let (world, mapping, [first, second]) = two_rows().await;
    let mut shop = world.shop().await;
    // the first row is an hour older than the second one
    let older = format!(
        "UPDATE cdc.lsn_time_mapping SET tran_end_time = DATEADD(HOUR, -1, tran_end_time) WHERE start_lsn <= {first}"
    );
    shop.run(&older).await;
    let time = shop
        .scalar(&format!(
            "SELECT CONVERT(nvarchar(30), DATEADD(MINUTE, 30, tran_end_time), 126) FROM cdc.lsn_time_mapping WHERE start_lsn = {first}"
        ))
        .await;
    let (code, printed) = start_from(&world, mapping, ["--time", &time]).await;
    assert!(code == Some(0) && printed.contains(&first), "{printed}");
    // the same clock reading nine hours to the west is later
    let (code, printed) = start_from(&world, mapping, ["--time", &format!("{time}-09:00")]).await;
    assert!(code == Some(0) && !printed.contains(&first), "{printed}");
    assert!(printed.contains("goes on after 0x") && second <= printed, "{printed}");
    let (code, _) = start_from(&world, mapping, ["--time", &time]).await;
    assert_eq!(code, Some(0));
    second_row_alone_is_applied(&world).await;
}
