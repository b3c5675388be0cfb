//! Text keys: two keys that differ under the destination's type and collation are two rows; two keys
//! that are equal there are an error.

use super::{SHORT_PARKED_INTERVAL, capture, error_of, following, start, start_with};
use crate::harness::{World, eventually};

/// SQL_ collations compare varchar by other rules than nvarchar: 'ß' and 'ss' differ as varchar.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_code_page_tells_apart_stay_two_rows() {
    let (world, _, _daemon) = following(
        "K",
        "CREATE TABLE dbo.K (Code VARCHAR(20) COLLATE SQL_Latin1_General_CP1_CI_AS NOT NULL PRIMARY KEY, N INT NULL)",
        "INSERT INTO dbo.K VALUES ('Strasse', 1), ('Straße', 2), ('Œuvre', 3)",
        "Code",
    )
    .await;
    world.in_sync("dbo.K", "Code").await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.K VALUES ('Fuß', 4), ('Fuss', 5), ('oeuvre', 6)").await;
    world.in_sync("dbo.K", "Code").await;
    shop.run(
        "UPDATE dbo.K SET N = 7 WHERE Code = 'fuss'; DELETE dbo.K WHERE Code = 'STRASSE'; UPDATE dbo.K SET Code = 'STRAßE' WHERE N = 2",
    )
    .await;
    world.in_sync("dbo.K", "Code").await;
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.K").await, "5");
}

/// The key column's type at the source and at the destination, and two texts that differ at the
/// source and are equal at the destination.
const MERGED: &[(&str, &str, &str, &str)] = &[
    (
        "NVARCHAR(20) COLLATE Latin1_General_BIN2",
        "NVARCHAR(20) COLLATE Latin1_General_CI_AS",
        "œ",
        "oe",
    ),
    (
        "NVARCHAR(20) COLLATE Latin1_General_CS_AS",
        "NVARCHAR(20) COLLATE Latin1_General_CI_AS",
        "Anna",
        "anna",
    ),
    (
        "VARCHAR(20) COLLATE Latin1_General_BIN",
        "VARCHAR(30) COLLATE Latin1_General_CI_AI",
        "resume",
        "résumé",
    ),
    // varchar rules at the source, nvarchar rules at the destination
    (
        "VARCHAR(20) COLLATE SQL_Latin1_General_CP1_CI_AS",
        "NVARCHAR(20) COLLATE SQL_Latin1_General_CP1_CI_AS",
        "Straße",
        "Strasse",
    ),
    // emoji have no weight in collations before version 100
    (
        "NVARCHAR(20) COLLATE Latin1_General_100_CI_AS_SC",
        "NVARCHAR(20) COLLATE Latin1_General_CI_AS",
        "a😀",
        "a🚚",
    ),
    (
        "NVARCHAR(20) COLLATE Latin1_General_BIN2",
        "NVARCHAR(20) COLLATE SQL_Latin1_General_CP1_CI_AS",
        "b😀",
        "b",
    ),
    // width sensitivity, kana sensitivity
    ("NVARCHAR(20) COLLATE Japanese_CI_AS_WS", "NVARCHAR(20) COLLATE Japanese_CI_AS", "Ａ１", "A1"),
    (
        "NVARCHAR(20) COLLATE Japanese_CI_AS_KS",
        "NVARCHAR(20) COLLATE Japanese_CI_AS",
        "カナ",
        "かな",
    ),
];

/// Creates a mapped table for each entry of [`MERGED`], with a row of the first text at the source;
/// returns the mapping ids.
async fn merged(world: &World) -> Vec<i32> {
    let (mut shop, mut copy) = (world.shop().await, world.copy().await);
    let mut mappings = Vec::new();
    for (i, (from, to, first, _)) in MERGED.iter().enumerate() {
        let create = |key: &str| {
            format!(
                "CREATE TABLE dbo.M{i} (Part INT NOT NULL, Code {key} NOT NULL, N INT NULL, PRIMARY KEY (Part, Code))"
            )
        };
        shop.run(&create(from)).await;
        copy.run(&create(to)).await;
        shop.run(&format!("INSERT INTO dbo.M{i} VALUES (1, N'{first}', 1)")).await;
        world.enable_cdc(&[&format!("M{i}")]).await;
        let mapping = world.map(&format!("M{i}"), "Part, Code", None, true).await;
        world.request_full_sync(mapping).await;
        mappings.push(mapping);
    }
    mappings
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_the_destination_takes_for_one_stop_their_table_and_are_named() {
    let world = World::new().await;
    let mappings = merged(&world).await;
    let _daemon = start_with(&world, SHORT_PARKED_INTERVAL);
    let (mut shop, mut copy) = (world.shop().await, world.copy().await);
    for (i, (mapping, (_, _, first, second))) in mappings.iter().zip(MERGED).enumerate() {
        world.run_ends(*mapping, "FULL_SYNC", "COMPLETED").await;
        // an insert whose key equals the existing row's key at the destination
        shop.run(&format!("INSERT INTO dbo.M{i} VALUES (1, N'{second}', 2)")).await;
        let both = format!("(1, {first}) and [Part], [Code] = (1, {second}) for one key");
        let error = error_of(&world, *mapping, &[&both, "the source's type and collation"]).await;
        assert!(!error.contains("row with key"), "{error}");
        let rows = copy.query(&format!("SELECT Code, N FROM dbo.M{i}")).await;
        assert_eq!(rows.rows, [[*first, "1"]], "the existing row is unchanged");
        // two inserts in one transaction whose keys are equal at the destination
        shop.run(&format!("UPDATE dbo.M{i} SET Part = 3")).await;
        error_of(
            &world,
            *mapping,
            &[&format!("= (3, {first})"), &format!("= (3, {second})"), "for one key"],
        )
        .await;
        // the source's rows have different keys at the destination again
        shop.run(&format!("DELETE dbo.M{i} WHERE N = 1")).await;
        eventually("only the row with the second text", async || {
            let rows = copy.query(&format!("SELECT Part, Code, N FROM dbo.M{i} ORDER BY N")).await;
            if rows.rows == [["3", second, "2"]] { Ok(()) } else { Err(rows.to_string()) }
        })
        .await;
    }
}

const CASES: &[(&str, bool)] = &[("1000", false), ("1000", true), ("1", false), ("1", true)];

/// A row is deleted and another one is inserted whose key is equal at the destination, in any order:
/// the destination has the source's row in the end.
#[tokio::test(flavor = "multi_thread")]
async fn texts_that_follow_each_other_under_one_key_of_the_destination() {
    crate::only_on_standins!("its engine");
    for (batch, pairs) in CASES {
        let world = World::new().await;
        let table = |collation| {
            format!(
                "CREATE TABLE dbo.H (Code NVARCHAR(20) COLLATE {collation} NOT NULL PRIMARY KEY, N INT NULL, Doc NVARCHAR(MAX) NULL)"
            )
        };
        let (mut shop, mut copy) = (world.shop().await, world.copy().await);
        shop.run(&table("Latin1_General_BIN2")).await;
        copy.run(&table("Latin1_General_CI_AS")).await;
        let long = |text| format!("REPLICATE(CAST(N'{text}' AS nvarchar(max)), 9000)");
        shop.run(&format!(
            "INSERT INTO dbo.H VALUES (N'anna', 1, {}), (N'œ', 2, {}), (N'x', 3, N'y')",
            long("a"),
            long("b")
        ))
        .await;
        world.enable_cdc(&["H"]).await;
        if *pairs {
            capture(&world, |cdc| cdc.key_updates = mssql_standin::cdc::KeyUpdates::UpdatePair);
        }
        let mapping = world.map("H", "Code", None, true).await;
        world.request_full_sync(mapping).await;
        let _daemon = start_with(
            &world,
            &[("DATAFLOW_BATCH_SIZE", batch), ("DATAFLOW_PARKED_INTERVAL", "200ms")],
        );
        world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
        copy.run("CREATE TABLE dbo.Uses (Code NVARCHAR(20) COLLATE Latin1_General_CI_AS NOT NULL REFERENCES dbo.H (Code))").await;
        copy.run("INSERT INTO dbo.Uses VALUES (N'anna')").await;
        // the key of one row gets another text; a foreign key of the destination refers to the row
        shop.run("UPDATE dbo.H SET Code = N'Anna' WHERE N = 1").await;
        world.in_sync("dbo.H", "N").await;
        shop.run("BEGIN TRAN; DELETE dbo.H WHERE Code = N'œ'; INSERT INTO dbo.H VALUES (N'oe', 4, N'new'); COMMIT").await;
        world.in_sync("dbo.H", "N").await;
        // both rows exist for a time, but not in the end
        capture(&world, |cdc| cdc.running = false);
        shop.run("INSERT INTO dbo.H VALUES (N'Oe', 5, N'newer')").await;
        shop.run("DELETE dbo.H WHERE Code = N'oe'").await;
        shop.run(&format!(
            "INSERT INTO dbo.H VALUES (N'X', 6, {}); UPDATE dbo.H SET N = 66 WHERE Code = N'X'",
            long("x")
        ))
        .await;
        shop.run("UPDATE dbo.H SET Code = N'z' WHERE Code = N'x'").await;
        shop.run("BEGIN TRAN; INSERT INTO dbo.H VALUES (N'ANNA', 7, NULL); UPDATE dbo.H SET N = 77 WHERE N = 7; DELETE dbo.H WHERE N = 77; COMMIT").await;
        capture(&world, |cdc| cdc.running = true);
        world.in_sync("dbo.H", "N").await;
        // one row is inserted and deleted, the other one stays
        capture(&world, |cdc| cdc.running = false);
        shop.run(
            "INSERT INTO dbo.H VALUES (N'œ', 8, N'short'); DELETE dbo.H WHERE Code = N'œ'; UPDATE dbo.H SET N = 55 WHERE Code = N'Oe'",
        )
        .await;
        shop.run("UPDATE dbo.H SET Code = N'oE' WHERE Code = N'Oe'; UPDATE dbo.H SET Code = N'OE' WHERE Code = N'oE'").await;
        capture(&world, |cdc| cdc.running = true);
        world.in_sync("dbo.H", "N").await;
        let codes = copy.query("SELECT Code, N, DATALENGTH(Doc) FROM dbo.H ORDER BY N").await;
        assert_eq!(
            codes.rows,
            [["Anna", "1", "18000"], ["z", "3", "2"], ["OE", "55", "10"], ["X", "66", "18000"]],
            "{batch} {pairs}"
        );
    }
}

/// No collation compares trailing blanks, but they are copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_gets_a_blank_at_its_end_is_the_same_key() {
    let world = World::new().await;
    let table = |collation| {
        format!(
            "CREATE TABLE dbo.B (Code NVARCHAR(20) COLLATE {collation} NOT NULL PRIMARY KEY, N INT NULL)"
        )
    };
    world.shop().await.run(&table("Latin1_General_BIN2")).await;
    world.copy().await.run(&table("Latin1_General_CI_AS")).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.B VALUES (N'a', 1), (N'b', 2)").await;
    world.enable_cdc(&["B"]).await;
    let mapping = world.map("B", "Code", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = start(&world);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    shop.run("UPDATE dbo.B SET Code = N'a  ' WHERE N = 1; DELETE dbo.B WHERE N = 2; INSERT INTO dbo.B VALUES (N'b ', 3)").await;
    world.in_sync("dbo.B", "N").await;
    assert_eq!(
        world.copy().await.query("SELECT DATALENGTH(Code) FROM dbo.B ORDER BY N").await.rows,
        [["6"], ["4"]]
    );
}
