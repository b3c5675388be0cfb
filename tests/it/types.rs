//! Every type with its extremes, exactly: through full sync, through CDC, and past verification.

use crate::harness::{World, eventually};

/// A column's declaration and the values it is filled with. NULL is added to each.
const TYPES: &[(&str, &[&str])] = &[
    ("BIT", &["0", "1"]),
    ("TINYINT", &["0", "255"]),
    ("SMALLINT", &["-32768", "32767"]),
    ("INT", &["-2147483648", "2147483647"]),
    ("BIGINT", &["-9223372036854775808", "9223372036854775807"]),
    ("DECIMAL(38,0)", &["99999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "0"]),
    ("DECIMAL(38,38)", &["0.99999999999999999999999999999999999999", "-0.00000000000000000000000000000000000001"]),
    ("NUMERIC(9,2)", &["9999999.99", "-0.01"]),
    ("MONEY", &["922337203685477.5807", "-922337203685477.5808", "0.0001"]),
    ("SMALLMONEY", &["214748.3647", "-214748.3648"]),
    ("REAL", &["3.4028235E38", "-1.17549435E-38", "1.401298E-45", "1.1E0"]),
    ("FLOAT", &["1.7976931348623157E308", "-2.2250738585072014E-308", "1.1E0", "0.1E0"]),
    ("DATE", &["'0001-01-01'", "'9999-12-31'", "'2024-02-29'"]),
    ("TIME(0)", &["'00:00:00'", "'23:59:59'"]),
    ("TIME(7)", &["'00:00:00.0000001'", "'23:59:59.9999999'"]),
    ("DATETIME", &["'1753-01-01T00:00:00.000'", "'9999-12-31T23:59:59.997'", "'2024-02-29T12:34:56.123'"]),
    ("SMALLDATETIME", &["'1900-01-01T00:00:00'", "'2079-06-06T23:59:00'"]),
    ("DATETIME2(0)", &["'0001-01-01T00:00:00'", "'9999-12-31T23:59:59'"]),
    ("DATETIME2(3)", &["'2024-02-29T12:34:56.789'"]),
    ("DATETIME2(7)", &["'0001-01-01T00:00:00.0000001'", "'9999-12-31T23:59:59.9999999'"]),
    (
        "DATETIMEOFFSET(7)",
        &["'0001-01-01T14:00:00.0000001 +14:00'", "'9999-12-31T09:59:59.9999999 -14:00'", "'2024-02-29T12:00:00 +05:30'"],
    ),
    ("DATETIMEOFFSET(0)", &["'2024-02-29T12:00:00 -03:30'"]),
    ("CHAR(10)", &["'abc'", "''", "'äöü€'", "'trailing  '"]),
    ("VARCHAR(20)", &["''", "'x '", "'äöü€ß'"]),
    ("VARCHAR(8000)", &["REPLICATE('v', 8000)", "''"]),
    ("VARCHAR(30) COLLATE Cyrillic_General_CI_AS", &["N'Привет, мир'"]),
    ("VARCHAR(60) COLLATE Latin1_General_100_CI_AS_SC_UTF8", &["N'Grüße 東京 🚚'", "N''"]),
    ("VARCHAR(30) COLLATE Japanese_CI_AS", &["N'東京タワー'"]),
    ("NCHAR(10)", &["N'abc'", "N'東京'"]),
    ("NVARCHAR(20)", &["N''", "N' '", "N'x  '", "N'𝄞🚚e\u{301}'"]),
    ("NVARCHAR(4000)", &["REPLICATE(N'東', 4000)"]),
    ("VARCHAR(MAX)", &["''", "REPLICATE(CAST('a' AS varchar(max)), 8000)", "REPLICATE(CAST('b' AS varchar(max)), 8001)"]),
    ("NVARCHAR(MAX)", &["N''", "REPLICATE(CAST(N'東🚚' AS nvarchar(max)), 20000)"]),
    ("VARBINARY(MAX)", &["0x", "0x00FF", "CAST(REPLICATE(CAST('z' AS varchar(max)), 1000000) AS varbinary(max))"]),
    ("BINARY(4)", &["0x01", "0xDEADBEEF", "0x00000000"]),
    ("VARBINARY(10)", &["0x", "0x00", "0x0100", "0x01"]),
    ("UNIQUEIDENTIFIER", &["'00112233-4455-6677-8899-aabbccddeeff'", "'00000000-0000-0000-0000-000000000000'"]),
    ("XML", &["N'<a b=\"1\">text<c/></a>'"]),
    ("TEXT", &["''", "'some text äöü'"]),
    ("NTEXT", &["N''", "N'some text 東京'"]),
    ("IMAGE", &["0x", "0x0102030405"]),
];

/// A batch that makes one table per type.
fn tables() -> String {
    TYPES
        .iter()
        .enumerate()
        .map(|(i, (ty, _))| format!("CREATE TABLE dbo.T{i} (ID INT NOT NULL PRIMARY KEY, N INT NULL, V {ty} NULL)\nGO\n"))
        .collect()
}

/// Inserts a type's values with keys from `first` on.
fn rows(i: usize, first: usize) -> String {
    let (_, values) = TYPES[i];
    values
        .iter()
        .chain(&["NULL"])
        .enumerate()
        .map(|(n, value)| format!("INSERT INTO dbo.T{i} (ID, N, V) VALUES ({}, 0, {value});\n", first + n))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_carried_exactly() {
    let world = World::new().await;
    world.both(&tables()).await;
    let mut shop = world.shop().await;
    for i in 0..TYPES.len() {
        shop.run(&rows(i, 1)).await;
    }
    let names: Vec<String> = (0..TYPES.len()).map(|i| format!("T{i}")).collect();
    world.enable_cdc(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut mappings = Vec::new();
    for name in &names {
        let mapping = world.map(name, "ID", None, true).await;
        world.request_full_sync(mapping).await;
        mappings.push(mapping);
    }
    let _daemon = world.daemon();
    for (i, mapping) in mappings.iter().enumerate() {
        let ended = world.run_ends(*mapping, "FULL_SYNC", "COMPLETED").await;
        assert_eq!(ended.column("records_failed"), ["0"]);
        let (source, dest) = world.sides(&format!("dbo.T{i}"), "ID").await;
        assert_eq!(source, dest, "{} after the full sync", TYPES[i].0);
    }
    // New rows, every value moved to another row, and an update that leaves V alone.
    for (i, (_, values)) in TYPES.iter().enumerate() {
        shop.run(&rows(i, 101)).await;
        shop.run(&format!("UPDATE dbo.T{i} SET N = 1 WHERE ID = 1; UPDATE dbo.T{i} SET V = NULL WHERE ID = 101")).await;
        shop.run(&format!("UPDATE dbo.T{i} SET V = {} WHERE ID = {}", values[0], values.len() + 1)).await;
        shop.run(&format!("DELETE dbo.T{i} WHERE ID = 2")).await;
    }
    for (i, (ty, _)) in TYPES.iter().enumerate() {
        eventually(&format!("{ty} to follow by CDC"), async || {
            let (source, dest) = world.sides(&format!("dbo.T{i}"), "ID").await;
            if source == dest { Ok(()) } else { Err(crate::harness::world::difference(&source, &dest)) }
        })
        .await;
    }
    for mapping in mappings {
        world.verified(mapping, "PASSED").await;
    }
    let failed = world
        .control()
        .await
        .query("SELECT mapping_id, verification_details FROM verification_logs WHERE verification_status = 'FAILED'")
        .await;
    assert!(failed.rows.is_empty(), "{failed}");
}

/// Columns that are more than a type: identities of all kinds, alias types, computed and sparse columns, rowversion, periods, defaults.
#[tokio::test(flavor = "multi_thread")]
async fn columns_of_every_kind_have_a_defined_outcome() {
    let world = World::new().await;
    world
        .both("CREATE TYPE dbo.Phone FROM NVARCHAR(20) NULL\nGO\nCREATE TABLE dbo.Down (ID INT IDENTITY(-1,-1) NOT NULL PRIMARY KEY, P dbo.Phone NULL, S INT SPARSE NULL)\nGO\n")
        .await;
    let mut shop = world.shop().await;
    let mut copy = world.copy().await;
    shop.run(
        "CREATE TABLE dbo.Dec (ID DECIMAL(20,0) IDENTITY(10000000000000000000,1) NOT NULL PRIMARY KEY, A INT NOT NULL, C AS A * 2, RV ROWVERSION, Gone INT NULL)",
    )
    .await;
    // C is computed here too, RV becomes bytes, Extra has a default, and the period belongs to the destination
    copy.run(
        "CREATE TABLE dbo.Dec (ID DECIMAL(20,0) IDENTITY(1,1) NOT NULL PRIMARY KEY, A INT NOT NULL, C AS A * 2, RV BINARY(8) NULL, \
         Extra INT NOT NULL DEFAULT 7, F DATETIME2 GENERATED ALWAYS AS ROW START NOT NULL, T DATETIME2 GENERATED ALWAYS AS ROW END NOT NULL, \
         PERIOD FOR SYSTEM_TIME (F, T)) WITH (SYSTEM_VERSIONING = ON (HISTORY_TABLE = dbo.DecHistory))",
    )
    .await;
    shop.run("INSERT INTO dbo.Down (P, S) VALUES (N'+49 1', 1), (NULL, NULL), (N'', 3)").await;
    shop.run("INSERT INTO dbo.Dec (A) VALUES (1), (2), (3)").await;
    world.enable_cdc(&["Down", "Dec"]).await;
    let mut mappings = Vec::new();
    for table in ["Down", "Dec"] {
        let mapping = world.map(table, "ID", None, true).await;
        world.request_full_sync(mapping).await;
        mappings.push(mapping);
    }
    let _daemon = world.daemon();
    for mapping in &mappings {
        world.run_ends(*mapping, "FULL_SYNC", "COMPLETED").await;
    }
    world.in_sync("dbo.Down", "ID").await;
    let dec = "SELECT ID, A, C, CAST(RV AS binary(8)) AS RV FROM dbo.Dec ORDER BY ID";
    assert_eq!(shop.query(dec).await, copy.query(dec).await);
    shop.run("INSERT INTO dbo.Down (P) VALUES (N'late'); UPDATE dbo.Down SET S = 9 WHERE ID = -2; DELETE dbo.Down WHERE ID = -1").await;
    shop.run("INSERT INTO dbo.Dec (A) VALUES (4); UPDATE dbo.Dec SET A = 20 WHERE A = 2; DELETE dbo.Dec WHERE A = 1").await;
    world.in_sync("dbo.Down", "ID").await;
    eventually("the decimal keys to follow", async || {
        let (source, dest) = (shop.query(dec).await, copy.query(dec).await);
        if source == dest { Ok(()) } else { Err(crate::harness::world::difference(&source, &dest)) }
    })
    .await;
    assert_eq!(copy.scalar("SELECT MIN(Extra) FROM dbo.Dec").await, "7");
    assert_eq!(copy.scalar("SELECT COUNT(*) FROM dbo.DecHistory").await, "2", "one update and one delete, no churn");
    copy.run("INSERT INTO dbo.Down (P) VALUES (N'next')").await;
    assert_eq!(copy.scalar("SELECT MIN(ID) FROM dbo.Down").await, "-5", "the identity's next value");
    copy.run("DELETE dbo.Down WHERE P = N'next'").await;
    for mapping in mappings {
        world.verified(mapping, "PASSED").await;
    }
}

/// Long values, beyond what the driver's bulk load takes in one cell, through full sync and CDC.
#[tokio::test(flavor = "multi_thread")]
async fn long_values_are_carried() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.L (ID INT NOT NULL PRIMARY KEY, N INT NULL, T NVARCHAR(MAX) NULL, B VARBINARY(MAX) NULL, V VARCHAR(MAX) NULL)").await;
    let mut shop = world.shop().await;
    let insert = |id: i32, times: usize| {
        format!(
            "INSERT INTO dbo.L VALUES ({id}, 1, REPLICATE(CAST(N'東京🚚x ' AS nvarchar(max)), {times}), \
             CAST(REPLICATE(CAST('0123456789ab' AS varchar(max)), {times}) AS varbinary(max)), REPLICATE(CAST('äöü€ ' AS varchar(max)), {times}))"
        )
    };
    // a few MB; just below, at and above 64 KiB
    for (id, times) in [(1, 170_000), (2, 5_461), (3, 5_462), (4, 13_107), (5, 13_108)] {
        shop.run(&insert(id, times)).await;
    }
    shop.run("INSERT INTO dbo.L VALUES (6, 6, NULL, NULL, NULL), (7, 7, N'', 0x, '')").await;
    world.enable_cdc(&["L"]).await;
    let mapping = world.map("L", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let digest = "SELECT ID, N, DATALENGTH(T), DATALENGTH(B), DATALENGTH(V), HASHBYTES('MD5', T), HASHBYTES('MD5', B), HASHBYTES('MD5', V) FROM dbo.L ORDER BY ID";
    let mut copy = world.copy().await;
    assert_eq!(shop.query(digest).await, copy.query(digest).await);
    shop.run(&insert(11, 100_000)).await;
    shop.run("UPDATE dbo.L SET N = 2; UPDATE dbo.L SET T = T + N'!' WHERE ID = 3; DELETE dbo.L WHERE ID = 2").await;
    eventually("long values to follow", async || {
        let (source, dest) = (shop.query(digest).await, copy.query(digest).await);
        if source == dest { Ok(()) } else { Err(crate::harness::world::difference(&source, &dest)) }
    })
    .await;
    world.verified(mapping, "PASSED").await;
}
