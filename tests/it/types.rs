//! Every type with its extreme values: full sync, CDC and verification carry it exactly.

mod row_size;
mod times;

use crate::harness::{World, daemon::command, eventually};

/// A column's declaration and its values as literals; NULL is added to each list.
const TYPES: &[(&str, &[&str])] = &[
    ("BIT", &["0", "1"]),
    ("TINYINT", &["0", "255"]),
    ("SMALLINT", &["-32768", "32767"]),
    ("INT", &["-2147483648", "2147483647"]),
    ("BIGINT", &["-9223372036854775808", "9223372036854775807"]),
    (
        "DECIMAL(38,0)",
        &["99999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "0"],
    ),
    (
        "DECIMAL(38,38)",
        &["0.99999999999999999999999999999999999999", "-0.00000000000000000000000000000000000001"],
    ),
    ("DECIMAL(9,9)", &["0.999999999", "-0.000000001", "0"]),
    ("DECIMAL(19,19)", &["0.9999999999999999999", "-0.0000000000000000001"]),
    ("DECIMAL(28,28)", &["0.9999999999999999999999999999", "-0.0000000000000000000000000001"]),
    ("NUMERIC(9,2)", &["9999999.99", "-0.01"]),
    ("MONEY", &["922337203685477.5807", "-922337203685477.5808", "0.0001"]),
    ("SMALLMONEY", &["214748.3647", "-214748.3648"]),
    ("REAL", &["3.4028235E38", "-1.17549435E-38", "1.401298E-45", "1.1E0"]),
    ("FLOAT", &["1.7976931348623157E308", "-2.2250738585072014E-308", "1.1E0", "0.1E0"]),
    ("DATE", &["'0001-01-01'", "'9999-12-31'", "'2024-02-29'"]),
    ("TIME(0)", &["'00:00:00'", "'23:59:59'"]),
    ("TIME(7)", &["'00:00:00.0000001'", "'23:59:59.9999999'"]),
    (
        "DATETIME",
        &["'1753-01-01T00:00:00.000'", "'9999-12-31T23:59:59.997'", "'2024-02-29T12:34:56.123'"],
    ),
    ("SMALLDATETIME", &["'1900-01-01T00:00:00'", "'2079-06-06T23:59:00'"]),
    ("DATETIME2(0)", &["'0001-01-01T00:00:00'", "'9999-12-31T23:59:59'"]),
    ("DATETIME2(3)", &["'2024-02-29T12:34:56.789'"]),
    ("DATETIME2(7)", &["'0001-01-01T00:00:00.0000001'", "'9999-12-31T23:59:59.9999999'"]),
    (
        "DATETIMEOFFSET(7)",
        &[
            "'0001-01-01T14:00:00.0000001 +14:00'",
            "'9999-12-31T09:59:59.9999999 -14:00'",
            "'2024-02-29T12:00:00 +05:30'",
        ],
    ),
    ("DATETIMEOFFSET(0)", &["'2024-02-29T12:00:00 -03:30'"]),
    ("CHAR(10)", &["'abc'", "''", "'äöü€'", "'trailing  '"]),
    ("VARCHAR(20)", &["''", "'x '", "'äöü€ß'"]),
    ("VARCHAR(8000)", &["REPLICATE('v', 8000)", "''"]),
    ("VARCHAR(30) COLLATE Cyrillic_General_CI_AS", &["N'Привет, мир'"]),
    ("VARCHAR(60) COLLATE Latin1_General_100_CI_AS_SC_UTF8", &["N'Grüße 東京 🚚'", "N''"]),
    ("VARCHAR(30) COLLATE Japanese_CI_AS", &["N'東京タワー'"]),
    ("NCHAR(10)", &["N'abc'", "N'東京'", "N'🚚𝄞'"]),
    ("NVARCHAR(20)", &["N''", "N' '", "N'x  '", "N'𝄞🚚e\u{301}'"]),
    ("NVARCHAR(4000)", &["REPLICATE(N'東', 4000)"]),
    (
        "VARCHAR(MAX)",
        &[
            "''",
            "REPLICATE(CAST('a' AS varchar(max)), 8000)",
            "REPLICATE(CAST('b' AS varchar(max)), 8001)",
        ],
    ),
    ("NVARCHAR(MAX)", &["N''", "REPLICATE(CAST(N'東🚚' AS nvarchar(max)), 20000)"]),
    (
        "VARBINARY(MAX)",
        &["0x", "0x00FF", "CAST(REPLICATE(CAST('z' AS varchar(max)), 1000000) AS varbinary(max))"],
    ),
    ("BINARY(4)", &["0x01", "0xDEADBEEF", "0x00000000"]),
    ("VARBINARY(10)", &["0x", "0x00", "0x0100", "0x01"]),
    (
        "UNIQUEIDENTIFIER",
        &["'00112233-4455-6677-8899-aabbccddeeff'", "'00000000-0000-0000-0000-000000000000'"],
    ),
    ("XML", &["N'<a b=\"1\">text<c/></a>'"]),
    ("TEXT", &["''", "'some text äöü'"]),
    ("NTEXT", &["N''", "N'some text 東京'"]),
    ("IMAGE", &["0x", "0x0102030405"]),
];

/// Code pages that tiberius cannot decode, and types that are transferred as bytes.
const AS_BYTES: &[(&str, &[&str])] = &[
    ("VARCHAR(30) COLLATE SQL_Latin1_General_CP437_CI_AS", &["N'äöüßñ½▒Ωπ∞'", "'x  '"]),
    ("CHAR(12) COLLATE SQL_Latin1_General_CP850_CI_AS", &["N'äöüßñÐ©'"]),
    (
        "VARCHAR(MAX) COLLATE SQL_Latin1_General_CP850_BIN",
        &["N'±¾§÷'", "REPLICATE(CAST(N'ý' AS nvarchar(max)), 9000)"],
    ),
    ("CHAR(10) COLLATE Latin1_General_100_CI_AS_SC_UTF8", &["N'é東'", "N''"]),
    ("VARBINARY(8000)", &["CAST(REPLICATE('z', 8000) AS varbinary(8000))"]),
    (
        "HIERARCHYID",
        &["CAST(0x AS hierarchyid)", "CAST(0x58 AS hierarchyid)", "CAST(0x5AC0 AS hierarchyid)"],
    ),
    ("GEOMETRY", &["CAST(0x00000000010C000000000000F03F0000000000000040 AS geometry)"]),
    ("GEOGRAPHY", &["CAST(0xE6100000010C17D9CEF753D347407593180456965EC0 AS geography)"]),
];

/// A batch that makes one table per type.
fn tables(types: &[(&str, &[&str])]) -> String {
    types
        .iter()
        .enumerate()
        .map(|(i, (ty, _))| {
            format!(
                "CREATE TABLE dbo.T{i} (ID INT NOT NULL PRIMARY KEY, N INT NULL, V {ty} NULL)\nGO\n"
            )
        })
        .collect()
}

/// Inserts a type's values with keys from `first` on.
fn rows(types: &[(&str, &[&str])], i: usize, first: usize) -> String {
    let (_, values) = types[i];
    values
        .iter()
        .chain(&["NULL"])
        .enumerate()
        .map(|(n, value)| {
            format!("INSERT INTO dbo.T{i} (ID, N, V) VALUES ({}, 0, {value});\n", first + n)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_carried_exactly() {
    carried_exactly(TYPES).await;
}

/// The same values by a full sync through the driver, which decodes and encodes each value.
#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_carried_exactly_by_the_driver() {
    let types: Vec<_> = TYPES.iter().chain(AS_BYTES).copied().collect();
    let world = World::new().await;
    let mut shop = world.shop().await;
    world.both(&tables(&types)).await;
    let mut mappings = Vec::new();
    for i in 0..types.len() {
        shop.run(&rows(&types, i, 1)).await;
        let mapping = world.map(&format!("T{i}"), "ID", None, false).await;
        world.request_full_sync(mapping).await;
        mappings.push(mapping);
    }
    let _daemon =
        world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0"), ("DATAFLOW_COPY_LANE", "driver")]);
    for (i, mapping) in mappings.into_iter().enumerate() {
        world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
        let (source, dest) = world.both_tables(&format!("dbo.T{i}"), "ID").await;
        assert_eq!(source, dest, "{} by the driver", types[i].0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dos_code_pages_and_clr_types_are_carried_exactly() {
    carried_exactly(AS_BYTES).await;
}

async fn carried_exactly(types: &[(&str, &[&str])]) {
    let world = World::new().await;
    world.both(&tables(types)).await;
    let mut shop = world.shop().await;
    for i in 0..types.len() {
        shop.run(&rows(types, i, 1)).await;
    }
    let names: Vec<String> = (0..types.len()).map(|i| format!("T{i}")).collect();
    world.enable_cdc(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut mappings = Vec::new();
    for name in &names {
        let mapping = world.map(name, "ID", None, true).await;
        world.request_full_sync(mapping).await;
        mappings.push(mapping);
    }
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    for (i, mapping) in mappings.iter().enumerate() {
        let ended = world.run_ends(*mapping, "FULL_SYNC", "COMPLETED").await;
        assert_eq!(ended.column("records_failed"), ["0"]);
        let (source, dest) = world.both_tables(&format!("dbo.T{i}"), "ID").await;
        assert_eq!(source, dest, "{} after the full sync", types[i].0);
    }
    // the copy lane supports every type, so it never falls back to the driver
    assert!(!daemon.output().contains("copied by the driver"), "{}", daemon.output());
    // New rows, every value moved to another row, and an update that leaves V alone.
    for (i, (_, values)) in types.iter().enumerate() {
        shop.run(&rows(types, i, 101)).await;
        shop.run(&format!(
            "UPDATE dbo.T{i} SET N = 1 WHERE ID = 1; UPDATE dbo.T{i} SET V = NULL WHERE ID = 101"
        ))
        .await;
        shop.run(&format!("UPDATE dbo.T{i} SET V = {} WHERE ID = {}", values[0], values.len() + 1))
            .await;
        shop.run(&format!("DELETE dbo.T{i} WHERE ID = 2")).await;
    }
    for (i, (ty, _)) in types.iter().enumerate() {
        eventually(&format!("{ty} to follow by CDC"), async || {
            let (source, dest) = world.both_tables(&format!("dbo.T{i}"), "ID").await;
            if source == dest {
                Ok(())
            } else {
                Err(crate::harness::world::difference(&source, &dest))
            }
        })
        .await;
    }
    verify_all(&world).await;
}

/// Verifies every row of every mapping once through the copy lane and once through the driver: both
/// compute the same hashes. (Verifying 50 tables every second would take most of a scenario's time.)
async fn verify_all(world: &World) {
    let mut hashes = Vec::new();
    for lane in ["wire", "driver"] {
        let mut variables = world.variables();
        variables.push(("DATAFLOW_COPY_LANE", lane));
        let verified = command(&variables, &["verify", "--full"]).output().await.expect("verify");
        let printed = [verified.stdout, verified.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert!(
            verified.status.success() && printed.contains("PASSED") && !printed.contains("PARTIAL"),
            "{printed}"
        );
        assert!(!printed.contains("read by the driver"), "{printed}");
        let mut control = world.control().await;
        let sql = "SELECT mapping_id, source_md5, dest_md5 FROM verification_logs AS v WHERE verification_type = 'MD5_COMPARISON' AND \
             verification_id = (SELECT MAX(w.verification_id) FROM verification_logs AS w WHERE w.mapping_id = v.mapping_id AND \
             w.verification_type = v.verification_type) ORDER BY mapping_id";
        hashes.push(control.query(sql).await);
    }
    assert_eq!(hashes[0], hashes[1]);
    assert!(hashes[0].rows.iter().flatten().all(|cell| cell != "NULL"), "{}", hashes[0]);
}

/// Special kinds of columns: identity, alias types, computed and sparse columns, rowversion, period
/// columns, defaults.
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
    // C is computed at the destination too, RV becomes BINARY(8), Extra has a default, and the
    // destination has a period of its own
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
    assert_eq!(
        copy.scalar("SELECT COUNT(*) FROM dbo.DecHistory").await,
        "2",
        "history rows of one update and one delete"
    );
    copy.run("INSERT INTO dbo.Down (P) VALUES (N'next')").await;
    assert_eq!(
        copy.scalar("SELECT MIN(ID) FROM dbo.Down").await,
        "-5",
        "the identity's next value"
    );
    copy.run("DELETE dbo.Down WHERE P = N'next'").await;
    for mapping in mappings {
        world.verified(mapping, "PASSED").await;
    }
}

/// The current rows of a system-versioned source are copied; its period columns are copied as values
/// into plain columns of the destination.
#[tokio::test(flavor = "multi_thread")]
async fn a_temporal_source_is_carried_with_its_period() {
    let world = World::new().await;
    let mut shop = world.shop().await;
    shop.run(
        "CREATE TABLE dbo.Aged (ID INT NOT NULL PRIMARY KEY, A INT NULL, F DATETIME2 GENERATED ALWAYS AS ROW START HIDDEN NOT NULL, \
         T DATETIME2 GENERATED ALWAYS AS ROW END HIDDEN NOT NULL, PERIOD FOR SYSTEM_TIME (F, T)) \
         WITH (SYSTEM_VERSIONING = ON (HISTORY_TABLE = dbo.AgedHistory))",
    )
    .await;
    world
        .copy()
        .await
        .run("CREATE TABLE dbo.Aged (ID INT NOT NULL PRIMARY KEY, A INT NULL, F DATETIME2 NOT NULL, T DATETIME2 NOT NULL)")
        .await;
    shop.run("INSERT INTO dbo.Aged (ID, A) VALUES (1, 1), (2, 2), (3, 3); UPDATE dbo.Aged SET A = 4 WHERE ID = 2").await;
    world.enable_cdc(&["Aged"]).await;
    let mapping = world.map("Aged", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Aged", "ID").await;
    shop.run("UPDATE dbo.Aged SET A = 5 WHERE ID = 1; DELETE dbo.Aged WHERE ID = 3; INSERT INTO dbo.Aged (ID, A) VALUES (9, 9)").await;
    world.in_sync("dbo.Aged", "ID").await;
    world.verified(mapping, "PASSED").await;
}

/// -0.0 and denormals: they have no portable literal, and `=` does not tell -0.0 from 0.0. The
/// scenario compares bits.
#[tokio::test(flavor = "multi_thread")]
async fn floats_keep_every_bit() {
    const BITS: &str =
        "SELECT ID, CAST(R AS binary(4)), CAST(F AS binary(8)) FROM dbo.Floats ORDER BY ID";
    const FLOATS: [(f32, f64); 7] = [
        (0.0, 0.0),
        (-0.0, -0.0),
        (f32::from_bits(1), f64::from_bits(1)),
        (-f32::from_bits(0x007f_ffff), -f64::from_bits(0x000f_ffff_ffff_ffff)),
        (f32::MIN_POSITIVE, f64::MIN_POSITIVE),
        (f32::MAX, f64::MIN),
        (0.1, 0.1),
    ];
    let world = World::new().await;
    world
        .both("CREATE TABLE dbo.Floats (ID INT NOT NULL PRIMARY KEY, R REAL NULL, F FLOAT NULL)")
        .await;
    let mut shop = world.shop().await;
    let mut copy = world.copy().await;
    for (id, (real, float)) in (1i32..).zip(FLOATS) {
        shop.execute("INSERT INTO dbo.Floats VALUES (@P1, @P2, @P3)", &[&id, &real, &float]).await;
        // the destination has the same row with negated values
        copy.execute("INSERT INTO dbo.Floats VALUES (@P1, @P2, @P3)", &[&id, &(-real), &(-float)])
            .await;
    }
    world.enable_cdc(&["Floats"]).await;
    let mapping = world.map("Floats", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    assert_eq!(shop.query(BITS).await, copy.query(BITS).await, "after the full sync");
    for (id, (real, float)) in (1i32..).zip(FLOATS) {
        shop.execute(
            "UPDATE dbo.Floats SET R = @P2, F = @P3 WHERE ID = @P1",
            &[&id, &(-real), &(-float)],
        )
        .await;
        shop.execute(
            "INSERT INTO dbo.Floats VALUES (@P1, @P2, @P3)",
            &[&(id + 100), &real, &float],
        )
        .await;
    }
    eventually("every bit to follow by CDC", async || {
        let (source, dest) = (shop.query(BITS).await, copy.query(BITS).await);
        if source == dest { Ok(()) } else { Err(crate::harness::world::difference(&source, &dest)) }
    })
    .await;
    world.verified(mapping, "PASSED").await;
    copy.execute("UPDATE dbo.Floats SET F = @P1 WHERE ID = 101", &[&-0.0f64]).await;
    let failed = world.verified(mapping, "FAILED").await;
    assert!(failed.column("verification_details")[0].contains("different (1): 101"), "{failed}");
}

/// Values around and above the limit of one cell in the driver's bulk load (64 KiB), and of 20 MB, by
/// full sync, CDC and verification. The daemon's memory does not grow with the table.
#[tokio::test(flavor = "multi_thread")]
async fn long_values_are_carried() {
    const DIGEST: &str = "SELECT ID, N, DATALENGTH(T), DATALENGTH(B), DATALENGTH(V), HASHBYTES('SHA2_256', T), HASHBYTES('SHA2_256', B), \
                          HASHBYTES('SHA2_256', V) FROM dbo.L ORDER BY ID";
    const MB: usize = 1_000_000;
    let world = World::new().await;
    world.both("CREATE TABLE dbo.L (ID INT NOT NULL PRIMARY KEY, N INT NULL, T NVARCHAR(MAX) NULL, B VARBINARY(MAX) NULL, V VARCHAR(MAX) NULL)").await;
    let mut shop = world.shop().await;
    let text = |times: usize| format!("REPLICATE(CAST(N'東京🚚x ' AS nvarchar(max)), {times})");
    let bytes = |times: usize| {
        format!("CAST(REPLICATE(CAST('0123456789' AS varchar(max)), {times}) AS varbinary(max))")
    };
    let narrow = |times: usize| format!("REPLICATE(CAST('äöü€ ' AS varchar(max)), {times})");
    let wide = |times: usize| format!("REPLICATE(CAST(N'0123456789' AS nvarchar(max)), {times})");
    let plain = |times: usize| format!("REPLICATE(CAST('0123456789' AS varchar(max)), {times})");
    // just below, at and above 64 KiB of each
    for (id, around) in [(1, 65_530usize), (2, 65_536), (3, 65_548)] {
        shop.run(&format!(
            "INSERT INTO dbo.L VALUES ({id}, 1, {}, {}, {})",
            text(around / 12),
            bytes(around / 10),
            narrow(around / 5)
        ))
        .await;
    }
    // 20 MB of text and of bytes, each in a row of its own
    shop.run(&format!(
        "INSERT INTO dbo.L VALUES (4, 1, {}, NULL, NULL), (5, 1, NULL, {}, NULL)",
        wide(MB),
        bytes(2 * MB)
    ))
    .await;
    shop.run("INSERT INTO dbo.L VALUES (6, 6, NULL, NULL, NULL), (7, 7, N'', 0x, '')").await;
    world.enable_cdc(&["L"]).await;
    let mapping = world.map("L", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    // the command verifies once, instead of the daemon every second
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let mut copy = world.copy().await;
    assert_eq!(shop.query(DIGEST).await, copy.query(DIGEST).await);
    shop.run(&format!("INSERT INTO dbo.L VALUES (11, 1, NULL, NULL, {})", plain(2 * MB))).await;
    shop.run("UPDATE dbo.L SET N = 2; UPDATE dbo.L SET T = T + N'!' WHERE ID = 3; DELETE dbo.L WHERE ID = 2").await;
    eventually("long values to follow", async || {
        let seen = copy.query("SELECT ID, N FROM dbo.L ORDER BY ID").await;
        let follows = seen.column("ID") == ["1", "3", "4", "5", "6", "7", "11"]
            && seen.column("N").iter().all(|n| *n == "2");
        if follows { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    eventually("the last change to follow", async || {
        let (source, dest) = (
            shop.scalar("SELECT DATALENGTH(T) FROM dbo.L WHERE ID = 3").await,
            copy.scalar("SELECT DATALENGTH(T) FROM dbo.L WHERE ID = 3").await,
        );
        if source == dest { Ok(()) } else { Err(format!("{source} and {dest} bytes")) }
    })
    .await;
    assert_eq!(shop.query(DIGEST).await, copy.query(DIGEST).await, "after CDC");
    #[cfg(target_os = "linux")]
    daemon.assert_peak_memory_below(LONG_VALUES_KIB_MAX);
    verify_all(&world).await;
    drop(daemon);
}

/// A value of 20 MB is in memory a few times (as received, in its batch, as sent); further rows must
/// not add to that.
#[cfg(target_os = "linux")]
const LONG_VALUES_KIB_MAX: u64 = 256 * 1024;
