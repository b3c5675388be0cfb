//! Rows that are near or above SQL Server's limit of 8,060 bytes when they are staged.

use super::verify_all;
use crate::harness::{World, eventually};

/// `count` columns with the same declaration.
fn many(count: usize, declaration: &str) -> String {
    (0..count).map(|i| format!(", [t{i}] {declaration}")).collect()
}

/// 400 CHAR(10) columns take 4,000 bytes at the source. Staged as nvarchar they would take 8,800
/// bytes in the row, more than SQL Server's limit of 8,060.
#[tokio::test(flavor = "multi_thread")]
async fn many_short_texts_fit_into_the_staging_table() {
    let world = World::new().await;
    // and a binary column that leaves little room in a row for the staging table's own columns
    world
        .both(&format!(
            "CREATE TABLE dbo.W (ID INT NOT NULL PRIMARY KEY{}, L VARCHAR(MAX) NULL)
             GO
             CREATE TABLE dbo.B (ID INT NOT NULL PRIMARY KEY, V BINARY(8000) NOT NULL)",
            many(400, "CHAR(10) NULL")
        ))
        .await;
    let mut shop = world.shop().await;
    let row = |id: i32, text: &str| {
        format!("INSERT INTO dbo.W VALUES ({id}{}, NULL);", format!(", N'{text}'").repeat(400))
    };
    shop.run(
        &[row(1, "ten bytes!"), row(2, "é ü ß €"), "INSERT INTO dbo.W (ID) VALUES (3)".into()]
            .concat(),
    )
    .await;
    shop.run(
        "INSERT INTO dbo.B VALUES (1, 0x0102), (2, CAST(REPLICATE('z', 8000) AS binary(8000)))",
    )
    .await;
    world.enable_cdc(&["W", "B"]).await;
    let mut mappings = Vec::new();
    for table in ["W", "B"] {
        let mapping = world.map(table, "ID", None, true).await;
        world.request_full_sync(mapping).await;
        mappings.push(mapping);
    }
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    for mapping in mappings {
        world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    }
    let tables = [("dbo.W", "ID"), ("dbo.B", "ID")];
    for (table, key) in tables {
        world.in_sync(table, key).await;
    }
    shop.run(&row(4, "\u{2019}ten\u{2019} ÄÖÜ")).await;
    shop.run("UPDATE dbo.W SET t7 = N'œuvre', t399 = NULL WHERE ID = 1; DELETE dbo.W WHERE ID = 2; UPDATE dbo.W SET ID = 5 WHERE ID = 3")
        .await;
    shop.run("INSERT INTO dbo.B VALUES (3, 0xFF); UPDATE dbo.B SET V = 0x03 WHERE ID = 2").await;
    for (table, key) in tables {
        world.in_sync(table, key).await;
    }
    world
        .copy()
        .await
        .run("UPDATE dbo.W SET t1 = 'spoilt'; UPDATE dbo.B SET V = 0x00 WHERE ID = 1")
        .await;
    let (code, printed) = crate::verify::command::verify(&world, &["--repair"]).await;
    assert_eq!(code, Some(0), "{printed}");
    for (table, key) in tables {
        world.in_sync(table, key).await;
    }
    verify_all(&world).await;
}

/// A row that is too wide for the staging table is refused by its computed size, before anything is
/// written.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_wide_is_refused_before_anything_is_written() {
    let world = World::new().await;
    let columns = many(400, "CHAR(10) COLLATE Cyrillic_General_CI_AS NOT NULL");
    world.both(&format!("CREATE TABLE dbo.W (ID INT NOT NULL PRIMARY KEY{columns})")).await;
    let mapping = world.map("W", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    let mut control = world.control().await;
    eventually("an error with the computed row size", async || {
        let errors =
            control.query("SELECT error_message FROM error_logs WHERE error_type = 'SCHEMA'").await;
        let refused = errors.first().contains("a row takes at least 89")
            && errors.first().contains("SQL Server has room for 8060");
        if refused { Ok(()) } else { Err(errors.to_string()) }
    })
    .await;
    let staged = world
        .copy()
        .await
        .scalar("SELECT COUNT(*) FROM sys.tables WHERE name LIKE 'dbaops_dataflow_stage%'")
        .await;
    assert_eq!(staged, "0", "a staging table was created");
}
