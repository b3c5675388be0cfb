//! Changes are applied: rows, keys, large values, large transactions, idle tables.

use super::{following, start};
use crate::harness::{World, eventually, numbers};

#[tokio::test(flavor = "multi_thread")]
async fn inserts_updates_and_deletes_follow() {
    let (world, mapping, _daemon) = following(
        "T",
        "CREATE TABLE dbo.T (ID INT IDENTITY(1,1) PRIMARY KEY, V NVARCHAR(50) NULL, D DECIMAL(10,3) NOT NULL)",
        "INSERT INTO dbo.T (V, D) VALUES (N'a', 1), (N'b', 2), (N'c', 3)",
        "ID",
    )
    .await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.T (V, D) VALUES (N'd', 4), (NULL, 5)").await;
    shop.run("UPDATE dbo.T SET V = N'B', D = D * 1.5 WHERE ID = 2").await;
    shop.run("DELETE dbo.T WHERE ID = 1").await;
    shop.run("BEGIN TRAN; UPDATE dbo.T SET V = N'never'; ROLLBACK").await;
    world.in_sync("dbo.T", "ID").await;
    let run = world.run_ends(mapping, "CDC", "COMPLETED").await;
    assert_eq!(run.column("records_failed"), ["0"]);
}

/// A mapping that starts without a full sync starts at the minimum LSN of its capture instance.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_full_sync_it_starts_at_the_minimum() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    world.enable_cdc(&["T"]).await;
    world
        .shop()
        .await
        .run("INSERT INTO dbo.T VALUES (1, 1), (2, 2); UPDATE dbo.T SET V = 20 WHERE ID = 2")
        .await;
    world.map("T", "ID", None, true).await;
    let _daemon = start(&world);
    world.in_sync("dbo.T", "ID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composite_key_moves_and_swaps() {
    let (world, _, _daemon) = following(
        "K",
        "CREATE TABLE dbo.K (A INT NOT NULL, B NVARCHAR(20) NOT NULL, V INT NULL, CONSTRAINT PK_K PRIMARY KEY (A, B))",
        "INSERT INTO dbo.K VALUES (1, N'x', 1), (1, N'y', 2), (2, N'x', 3), (3, N'z', 4)",
        "A, [B]",
    )
    .await;
    let mut shop = world.shop().await;
    // One statement swaps two keys, another changes a key twice in a transaction, and the third only
    // changes the case of the key's text.
    shop.run("UPDATE dbo.K SET A = CASE A WHEN 1 THEN 2 ELSE 1 END WHERE B = N'x'").await;
    shop.run("BEGIN TRAN; UPDATE dbo.K SET A = 30 WHERE A = 3; UPDATE dbo.K SET A = 300 WHERE A = 30; UPDATE dbo.K SET V = V + 1; COMMIT")
        .await;
    shop.run("UPDATE dbo.K SET B = N'Y' WHERE B = N'y'").await;
    shop.run("DELETE dbo.K WHERE A = 300; INSERT INTO dbo.K VALUES (300, N'z', -1)").await;
    world.in_sync("dbo.K", "A, B").await;
    assert_eq!(
        world
            .copy()
            .await
            .scalar("SELECT COUNT(*) FROM dbo.K WHERE B = N'Y' COLLATE Latin1_General_BIN2")
            .await,
        "1"
    );
}

/// A change row has NULL for a (max) value that the update did not change: the destination keeps its
/// value.
#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_lob_survives_an_update_of_another_column() {
    let (world, _, _daemon) = following(
        "L",
        "CREATE TABLE dbo.L (ID INT NOT NULL PRIMARY KEY, N INT NULL, Doc NVARCHAR(MAX) NULL, Img VARBINARY(MAX) NULL, T NTEXT NULL)",
        "INSERT INTO dbo.L VALUES (1, 1, REPLICATE(CAST(N'long ' AS nvarchar(max)), 5000), 0x0102, N'text'), (2, 2, NULL, 0x, N'')",
        "ID",
    )
    .await;
    let mut shop = world.shop().await;
    shop.run("UPDATE dbo.L SET N = N + 10").await;
    shop.run("UPDATE dbo.L SET Doc = N'short' WHERE ID = 2").await;
    shop.run("UPDATE dbo.L SET N = N + 1 WHERE ID = 2").await;
    shop.run("INSERT INTO dbo.L VALUES (3, 3, N'doc', 0x03, N'three'); UPDATE dbo.L SET N = 33 WHERE ID = 3; UPDATE dbo.L SET Doc = NULL WHERE ID = 3").await;
    world.in_sync("dbo.L", "ID").await;
    assert_eq!(world.copy().await.scalar("SELECT LEN(Doc) FROM dbo.L WHERE ID = 1").await, "24999");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_value_swaps_between_rows_in_one_transaction_and_across() {
    let (world, _, _daemon) = following(
        "U",
        "CREATE TABLE dbo.U (ID INT NOT NULL PRIMARY KEY, Code NVARCHAR(10) NOT NULL CONSTRAINT UQ_U UNIQUE)",
        "INSERT INTO dbo.U VALUES (1, N'a'), (2, N'b'), (3, N'c')",
        "ID",
    )
    .await;
    let mut shop = world.shop().await;
    shop.run("UPDATE dbo.U SET Code = CASE ID WHEN 1 THEN N'b' ELSE N'a' END WHERE ID IN (1, 2)")
        .await;
    shop.run("BEGIN TRAN; UPDATE dbo.U SET Code = N'tmp' WHERE ID = 1; UPDATE dbo.U SET Code = N'b' WHERE ID = 2; UPDATE dbo.U SET Code = N'a' WHERE ID = 1; COMMIT").await;
    shop.run("UPDATE dbo.U SET Code = N't' WHERE ID = 3").await;
    shop.run("UPDATE dbo.U SET Code = N'c' WHERE ID = 1").await;
    shop.run("UPDATE dbo.U SET Code = N'a' WHERE ID = 3").await;
    world.in_sync("dbo.U", "ID").await;
}

/// Ten thousand changes of one transaction arrive in one destination transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_is_applied_whole() {
    let (world, mapping, _daemon) = following(
        "Big",
        "CREATE TABLE dbo.Big (ID INT NOT NULL PRIMARY KEY, V INT NOT NULL)",
        &format!("INSERT INTO dbo.Big SELECT n, 0 FROM {}", numbers(10_000)),
        "ID",
    )
    .await;
    // Each SELECT of the reader then sees one state, not pages of different states.
    world.dest("master").await.run("ALTER DATABASE [Copy] SET READ_COMMITTED_SNAPSHOT ON").await;
    world.shop().await.run("UPDATE dbo.Big SET V = 1").await;
    let mut copy = world.copy().await;
    eventually("the whole update", async || {
        let seen = copy.query("SELECT DISTINCT V FROM dbo.Big").await;
        assert_eq!(seen.rows.len(), 1, "half a transaction is visible");
        if seen.first() == "1" { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    world.run_ends(mapping, "CDC", "COMPLETED").await;
    let mut control = world.control().await;
    let counted =
        control.scalar(&format!("SELECT SUM(records_processed) FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'CDC'")).await;
    assert_eq!(counted, "10000");
}

/// The checkpoint of an idle table advances with the database's maximum LSN, so that cleanup never
/// passes it. No run is recorded for that.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_mapping_moves_its_checkpoint_and_writes_no_rows() {
    let (world, mapping, _daemon) = following(
        "Idle",
        "CREATE TABLE dbo.Idle (ID INT NOT NULL PRIMARY KEY)",
        "INSERT INTO dbo.Idle VALUES (1)",
        "ID",
    )
    .await;
    world.shop().await.run("CREATE TABLE dbo.Busy (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&["Busy"]).await;
    let mut control = world.control().await;
    let lsn = format!("SELECT last_cdc_lsn FROM table_mappings WHERE mapping_id = {mapping}");
    let before = control.scalar(&lsn).await;
    world.shop().await.run("INSERT INTO dbo.Busy VALUES (1)").await;
    eventually("the idle checkpoint to advance", async || {
        let now = control.scalar(&lsn).await;
        if now > before { Ok(()) } else { Err(now) }
    })
    .await;
    let dest_checkpoint = world
        .copy()
        .await
        .scalar(&format!(
            "SELECT lsn FROM dbo.dbaops_dataflow_checkpoints WHERE mapping_id = {mapping}"
        ))
        .await;
    assert!(dest_checkpoint >= before, "{dest_checkpoint}");
    let runs = control
        .scalar(&format!(
            "SELECT COUNT(*) FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'CDC'"
        ))
        .await;
    assert_eq!(runs, "0", "a run with nothing to do writes no row");
}

/// Cleanup removed changes that were never read: a full sync of the table runs, and an error reports
/// the lost changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_retention_gap_is_never_stepped_over() {
    let (world, mapping, daemon) = following(
        "G",
        "CREATE TABLE dbo.G (ID INT NOT NULL PRIMARY KEY, V INT NULL)",
        "INSERT INTO dbo.G VALUES (1, 1)",
        "ID",
    )
    .await;
    let _ = daemon.terminate().await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.G VALUES (2, 2)").await;
    shop.run("INSERT INTO dbo.G VALUES (3, 3)").await;
    eventually("the changes to be captured", async || {
        let captured = shop.scalar("SELECT COUNT(*) FROM cdc.dbo_G_CT").await;
        if captured == "2" { Ok(()) } else { Err(captured) }
    })
    .await;
    shop.run("DECLARE @to BINARY(10) = sys.fn_cdc_get_max_lsn(); EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'dbo_G', @low_water_mark = @to, @threshold = 5000").await;
    let daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    let mut control = world.control().await;
    let gap = control
        .query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {mapping}"))
        .await;
    assert!(gap.rows.iter().any(|row| row[0].contains("full sync")), "{gap}");
    drop(daemon);
}

/// The destination refuses a row: no change is skipped, the run is an ERROR, and the row is applied
/// once the destination accepts it.
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_stops_the_mapping_and_nothing_is_skipped() {
    let (world, mapping, _daemon) = following(
        "B",
        "CREATE TABLE dbo.B (ID INT NOT NULL PRIMARY KEY, V INT NULL)",
        "INSERT INTO dbo.B VALUES (1, 1)",
        "ID",
    )
    .await;
    let mut copy = world.copy().await;
    copy.run("ALTER TABLE dbo.B ADD CONSTRAINT CK_B CHECK (V < 100)").await;
    world.shop().await.run("INSERT INTO dbo.B VALUES (2, 2), (3, 300)").await;
    let run = world.run_ends(mapping, "CDC", "ERROR").await;
    assert!(run.column("error_message")[0].contains("CK_B"), "{run}");
    assert_eq!(
        copy.scalar("SELECT COUNT(*) FROM dbo.B").await,
        "1",
        "a transaction was applied in part"
    );
    copy.run("ALTER TABLE dbo.B DROP CONSTRAINT CK_B").await;
    world.control().await.run("UPDATE table_mappings SET updated_at = GETUTCDATE()").await;
    world.in_sync("dbo.B", "ID").await;
    world.run_ends(mapping, "CDC", "COMPLETED").await;
}

/// Names with blanks, brackets, quotes and reserved words.
#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_just_names() {
    let (world, _, _daemon) = following(
        "Order ]Details'",
        "CREATE TABLE dbo.[Order ]]Details'] ([My Key] INT NOT NULL PRIMARY KEY, [select] INT NULL, [a]]b'c] NVARCHAR(10) NULL)",
        "INSERT INTO dbo.[Order ]]Details'] VALUES (1, 1, N'x')",
        "My Key",
    )
    .await;
    world
        .shop()
        .await
        .run("INSERT INTO dbo.[Order ]]Details'] VALUES (2, 2, N'y'); UPDATE dbo.[Order ]]Details'] SET [a]]b'c] = N'z' WHERE [My Key] = 1")
        .await;
    eventually("the rows", async || {
        let copy = world
            .copy()
            .await
            .query("SELECT [My Key], [select], [a]]b'c] FROM dbo.[Order ]]Details'] ORDER BY 1")
            .await;
        if copy.rows == [["1", "1", "z"], ["2", "2", "y"]] { Ok(()) } else { Err(copy.to_string()) }
    })
    .await;
}
