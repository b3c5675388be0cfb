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
