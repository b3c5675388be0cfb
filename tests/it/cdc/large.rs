//! Values that are too large to be held in memory are copied in pieces, and only when needed.

use super::followed_with;
use crate::harness::{Daemon, World, eventually};

/// A piece of text has 2,097,152 UTF-16 code units. A surrogate pair after this number of units is
/// split by the end of the first piece.
const BEFORE_PAIR: usize = 2_097_151;

const TABLE: &str = "CREATE TABLE dbo.L (ID INT NOT NULL PRIMARY KEY, N INT NULL, Doc NVARCHAR(MAX) NULL, Note VARCHAR(MAX) NULL, Img VARBINARY(MAX) NULL, X XML NULL)";

/// Compares values of any size by their hashes.
const HASHES: &str = "SELECT ID, N, HASHBYTES('MD5', CAST(Doc AS varbinary(max))), HASHBYTES('MD5', CAST(Note AS varbinary(max))), HASHBYTES('MD5', Img), \
     CAST(X AS nvarchar(max)) FROM dbo.L ORDER BY ID";

async fn large() -> (World, i32, Daemon) {
    let (world, mapping, daemon) =
        followed_with(&[], "L", TABLE, "INSERT INTO dbo.L (ID, N, Img) VALUES (1, 1, 0x01)", "ID")
            .await;
    (world, mapping, daemon)
}

async fn equal(world: &World) {
    let (mut shop, mut copy) = (world.shop().await, world.copy().await);
    eventually("both sides to be equal", async || {
        let (source, dest) = (shop.query(HASHES).await, copy.query(HASHES).await);
        if source.rows == dest.rows { Ok(()) } else { Err(format!("{source}\n{dest}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_arrive_in_pieces() {
    let (world, _, daemon) = large().await;
    let mut shop = world.shop().await;
    shop.run(&format!(
        "INSERT INTO dbo.L VALUES (2, 2, REPLICATE(CAST(N'x' AS nvarchar(max)), {BEFORE_PAIR}) + N'🚚 end', REPLICATE(CAST('é' AS varchar(max)), 3000000), \
         CAST(REPLICATE(CAST('0123456789' AS varchar(max)), 2000000) AS varbinary(max)), N'<a>text</a>'), (3, 3, N'', '', 0x, NULL)"
    ))
    .await;
    equal(&world).await;
    // an update of another column keeps the large values; then one is replaced, one becomes small
    shop.run("UPDATE dbo.L SET N = 22 WHERE ID = 2").await;
    shop.run(
        "UPDATE dbo.L SET Img = CAST(REPLICATE(CAST('abcde' AS varchar(max)), 1000000) AS varbinary(max)), Note = 'short' WHERE ID = 2",
    )
    .await;
    equal(&world).await;
    // the row is missing at the destination: columns that the change does not have are read from
    // the source, in pieces too
    world.copy().await.run("DELETE dbo.L WHERE ID = 2").await;
    shop.run("UPDATE dbo.L SET N = 23 WHERE ID = 2").await;
    equal(&world).await;
    drop(daemon);
}

/// A value of 32 MB is applied by CDC, and read again when the row is missing at the destination: the
/// daemon's memory does not depend on its size.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_depend_on_the_size_of_a_value() {
    const MEMORY_KIB_MAX: u64 = 64 << 10;
    let (world, _, daemon) = large().await;
    let mut shop = world.shop().await;
    let value =
        "CAST(REPLICATE(CAST('0123456789abcdef' AS varchar(max)), 2097152) AS varbinary(max))";
    shop.run(&format!("UPDATE dbo.L SET Img = {value} WHERE ID = 1")).await;
    equal(&world).await;
    world.copy().await.run("DELETE dbo.L WHERE ID = 1").await;
    shop.run("UPDATE dbo.L SET N = 2 WHERE ID = 1").await;
    equal(&world).await;
    daemon.assert_peak_memory_below(MEMORY_KIB_MAX);
}

/// Of several updates of one row within a pass only the last value is copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_replaced_in_the_same_pass_does_not_travel() {
    let (world, _, daemon) = large().await;
    let _ = daemon.terminate().await;
    let mut shop = world.shop().await;
    for i in 0..5 {
        shop.run(&format!("UPDATE dbo.L SET Img = CAST(REPLICATE(CAST('{i}' AS varchar(max)), 5000000) AS varbinary(max)) WHERE ID = 1"))
            .await;
    }
    world.dest.log_statements(true);
    let pieces = || {
        world
            .dest
            .statements()
            .iter()
            .filter(|statement| statement.text.contains(".WRITE("))
            .count()
    };
    let _daemon = super::start(&world);
    equal(&world).await;
    assert_eq!(pieces(), 2, "5,000,000 bytes are two pieces of at most 4 MiB");
}
