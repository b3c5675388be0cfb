//! Large values are compared by hashes that the servers compute, and repaired in pieces.

use super::rows;
use crate::harness::World;

/// One byte of 5 MB and one character of a text differ: both are found, named by key, and repaired.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_in_a_large_value_is_found_and_repaired() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.L (ID INT NOT NULL PRIMARY KEY, Doc NVARCHAR(MAX) NULL, Img VARBINARY(MAX) NULL)").await;
    world
        .shop()
        .await
        .run(
            "INSERT INTO dbo.L SELECT n, REPLICATE(CAST(N'e' AS nvarchar(max)), 600000), CAST(REPLICATE(CAST('01234567' AS varchar(max)), 600000) AS varbinary(max)) \
             FROM (VALUES (1), (2), (3)) AS v (n)",
        )
        .await;
    world.enable_cdc(&["L"]).await;
    let mapping = world.map("L", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    rows(&world, mapping, "PASSED", &[]).await;
    let mut copy = world.copy().await;
    copy.run("UPDATE dbo.L SET Doc = STUFF(Doc, 599999, 1, N'é') WHERE ID = 1").await;
    copy.run("UPDATE dbo.L SET Img = SUBSTRING(Img, 1, 4799999) + 0x00 WHERE ID = 2").await;
    let failed = rows(&world, mapping, "FAILED", &["1", "2"]).await;
    assert_eq!(failed.column("mismatches_found"), ["2"], "{failed}");
    let _ = daemon.terminate().await;
    let _daemon = world.daemon_with(&[("DATAFLOW_REPAIR", "on")]);
    rows(&world, mapping, "PASSED", &[]).await;
    let hashes = "SELECT ID, HASHBYTES('MD5', CAST(Doc AS varbinary(max))), HASHBYTES('MD5', Img) FROM dbo.L ORDER BY ID";
    assert_eq!(world.shop().await.query(hashes).await.rows, copy.query(hashes).await.rows);
}
