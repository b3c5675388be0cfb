//! Names of columns that a driver, a collation or the daemon's own temp tables could fail on.

use mssql_standin::cdc::UntouchedLob;

use crate::{
    cdc::{capture, start},
    harness::{World, eventually},
    verify::command::verify,
};

/// Unusual column names that are valid in brackets, among them the column names of the daemon's own
/// temp tables.
fn columns() -> String {
    let long = "ä".repeat(128);
    [
        "a\tb",
        "line\r\nbreak",
        "c0",
        "c1",
        "__$order",
        "__$p0",
        "x]y",
        "it's \"so\"",
        " lead",
        "--",
        ";",
        "@p",
        "#t",
        "名前",
        &long,
    ]
    .iter()
    .map(|name| format!("[{}] NVARCHAR(20) NULL", name.replace(']', "]]")))
    .collect::<Vec<_>>()
    .join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_control_characters_quotes_and_our_own_names_are_carried() {
    let world = World::new().await;
    world
        .both(&format!(
            "CREATE TABLE dbo.N ([ID] INT NOT NULL PRIMARY KEY, {}, [__$p1] NVARCHAR(MAX) NULL)",
            columns()
        ))
        .await;
    let mut shop = world.shop().await;
    shop.run(
        "INSERT INTO dbo.N ([ID], [a\tb], [c0], [__$order], [__$p1]) VALUES (1, N'one', N'c', N'o', N'long'), (2, NULL, N'', N'p', NULL)",
    )
    .await;
    world.enable_cdc(&["N"]).await;
    if world.source.instance().is_some() {
        capture(&world, |cdc| cdc.untouched_lob = UntouchedLob::Null);
    }
    let mapping = world.map("N", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = start(&world);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.N", "[ID]").await;
    shop.run("INSERT INTO dbo.N ([ID], [c1], [x]]y]) VALUES (3, N'new', N'q')").await;
    shop.run("UPDATE dbo.N SET [a\tb] = N'two', [it's \"so\"] = N'so' WHERE [ID] = 2").await;
    shop.run("UPDATE dbo.N SET [ID] = 10 WHERE [ID] = 1; DELETE dbo.N WHERE [ID] = 3").await;
    world.in_sync("dbo.N", "[ID]").await;
    // a repair writes the same columns
    world
        .copy()
        .await
        .run(
            "UPDATE dbo.N SET [a\tb] = N'spoilt', [__$p1] = N'spoilt'; DELETE dbo.N WHERE [ID] = 2",
        )
        .await;
    let (code, printed) = verify(&world, &["--repair"]).await;
    assert_eq!(code, Some(0), "{printed}");
    world.in_sync("dbo.N", "[ID]").await;
}

/// CDC cannot capture a column with the name of one of its own columns. Such a column is left out of
/// the capture instance, and its values are read from the source.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_named_like_one_of_cdcs_own_is_carried() {
    let world = World::new().await;
    world
        .both("CREATE TABLE dbo.O (ID INT NOT NULL PRIMARY KEY, [__$operation] INT NULL, [__$start_lsn] NVARCHAR(9) NULL, A INT NULL)")
        .await;
    world.enable_cdc(&[]).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.O VALUES (1, 7, N'x', 1)").await;
    shop.run(
        "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'O', @role_name = NULL, @captured_column_list = N'ID, A'",
    )
    .await;
    let mapping = world.map("O", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = start(&world);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    shop.run("INSERT INTO dbo.O VALUES (2, 8, N'y', 2); UPDATE dbo.O SET A = 3 WHERE ID = 1").await;
    world.in_sync("dbo.O", "ID").await;
}

/// A world whose databases are created again with these collations.
async fn collated(source: &str, dest: &str) -> World {
    let world = World::new().await;
    world
        .source("master")
        .await
        .run(&format!("DROP DATABASE Shop; CREATE DATABASE Shop COLLATE {source}"))
        .await;
    world
        .dest("master")
        .await
        .run(&format!("DROP DATABASE [Copy]; CREATE DATABASE [Copy] COLLATE {dest}"))
        .await;
    world
}

const CASED: &str = "CREATE TABLE dbo.C (id INT NOT NULL PRIMARY KEY, [A] INT NULL, [a] NVARCHAR(20) NULL, [ID] BIGINT NULL)";

#[tokio::test(flavor = "multi_thread")]
async fn names_that_differ_in_case_only_are_columns_of_their_own() {
    crate::only_on_standins!("databases of another collation");
    let world = collated("Latin1_General_CS_AS", "Latin1_General_BIN2").await;
    world.both(CASED).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.C VALUES (1, 10, N'ten', 7), (2, 20, N'twenty', 7)").await;
    world.enable_cdc(&["C"]).await;
    let mapping = world.map("C", "id", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = start(&world);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    shop.run("UPDATE dbo.C SET [a] = N'eleven' WHERE id = 1; UPDATE dbo.C SET id = 3, [A] = 21 WHERE id = 2; INSERT INTO dbo.C VALUES (4, 40, NULL, 1)")
        .await;
    world.in_sync("dbo.C", "id").await;
    let (code, printed) = verify(&world, &[]).await;
    assert_eq!(code, Some(0), "{printed}");
}

/// Two source columns have one name under the destination's collation, so the destination can have
/// only one of them: the mapping is refused, and no column is left out silently.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_one_at_the_destination_are_refused() {
    crate::only_on_standins!("databases of another collation");
    let world = collated("Latin1_General_CS_AS", "Latin1_General_CI_AS").await;
    world.shop().await.run(CASED).await;
    world
        .copy()
        .await
        .run("CREATE TABLE dbo.C (id INT NOT NULL PRIMARY KEY, [a] NVARCHAR(20) NULL)")
        .await;
    let mapping = world.map("C", "id", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = start(&world);
    let mut control = world.control().await;
    eventually("a refusal that names the columns", async || {
        let errors =
            control.query("SELECT error_message FROM error_logs WHERE error_type = 'SCHEMA'").await;
        let expected = [
            "source column [A] and others differ in case only",
            "source column [ID] and others differ in case only",
        ];
        if expected.iter().all(|expected| errors.first().contains(expected)) {
            Ok(())
        } else {
            Err(errors.to_string())
        }
    })
    .await;
}
