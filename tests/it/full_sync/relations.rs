//! Foreign keys of the destination: rows that other tables refer to, and rows that refer to others.

use crate::harness::{World, eventually};

const SOURCE: &str =
    "CREATE TABLE dbo.Users (ID INT NOT NULL PRIMARY KEY, GroupID INT NULL, BossID INT NULL)";

const DEST: &str = "CREATE TABLE dbo.Groups (ID INT NOT NULL PRIMARY KEY)
GO
INSERT INTO dbo.Groups VALUES (1), (2)
GO
CREATE TABLE dbo.Users (ID INT NOT NULL PRIMARY KEY, GroupID INT NULL CONSTRAINT FK_Group REFERENCES dbo.Groups (ID),
    BossID INT NULL CONSTRAINT FK_Boss REFERENCES dbo.Users (ID))
GO
CREATE TABLE dbo.Orders (ID INT NOT NULL PRIMARY KEY, UserID INT NOT NULL CONSTRAINT FK_User REFERENCES dbo.Users (ID))
GO";

async fn mapped(rows: &str) -> (World, i32) {
    let world = World::new().await;
    world.shop().await.script(SOURCE).await;
    world.copy().await.script(DEST).await;
    world.shop().await.run(&format!("INSERT INTO dbo.Users VALUES {rows}")).await;
    let mapping = world.map("Users", "ID", None, false).await;
    (world, mapping)
}

async fn refused(world: &World, mapping: i32, expected: &[&str]) {
    world.request_full_sync(mapping).await;
    let run = world.run_ends(mapping, "FULL_SYNC", "ERROR").await;
    let message = run.column("error_message")[0].to_owned();
    for word in expected {
        assert!(message.contains(word), "{word} in: {message}");
    }
}

/// Two violations at once: rows that the source deleted are still referred to, and new rows have no
/// parent at the destination.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_foreign_key_refuses_is_named_with_keys_and_a_fix() {
    let (world, mapping) = mapped("(1, 1, NULL), (2, 7, NULL), (3, 8, 1), (4, NULL, 3)").await;
    let mut copy = world.copy().await;
    copy.run("INSERT INTO dbo.Users VALUES (1, 2, NULL), (90, 1, NULL), (91, 1, 90), (92, NULL, NULL); INSERT INTO dbo.Orders VALUES (1, 90), (2, 92), (3, 1)").await;
    let before = copy.query("SELECT * FROM dbo.Users ORDER BY ID").await;
    let _daemon = world.daemon();
    refused(
        &world,
        mapping,
        &[
            "FK_",
            "still referred to by [dbo].[Orders] (foreign key [FK_User]): keys 90, 92",
            "[dbo].[Groups] has no row that these refer to ([FK_Group]): keys 2, 3",
            "Nothing was changed",
        ],
    )
    .await;
    assert_eq!(copy.query("SELECT * FROM dbo.Users ORDER BY ID").await, before);
    // the fix that the error names: the request is still there and is fulfilled
    copy.run("DELETE dbo.Orders WHERE UserID <> 1; INSERT INTO dbo.Groups VALUES (7), (8)").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Users", "ID").await;
    assert_eq!(copy.scalar("SELECT COUNT(*) FROM dbo.Orders").await, "1");
}

/// Mode DIRECT used to delete rows batch by batch until a foreign key refused one.
#[tokio::test(flavor = "multi_thread")]
async fn mode_direct_checks_references_before_it_deletes_the_first_row() {
    let (world, mapping) = mapped("(1, 1, NULL), (5, 2, 1)").await;
    let mut copy = world.copy().await;
    copy.run("INSERT INTO dbo.Users VALUES (1, 1, NULL), (2, 1, NULL), (3, 1, 2); INSERT INTO dbo.Orders VALUES (1, 3)").await;
    let mut control = world.control().await;
    control.run("UPDATE table_mappings SET full_sync_mode = 'DIRECT'").await;
    let _daemon = world.daemon_with(&[("DATAFLOW_BATCH_SIZE", "1")]);
    refused(
        &world,
        mapping,
        &[
            "mode DIRECT",
            "[dbo].[Orders] (foreign key [FK_User]): keys 3",
            "full_sync_mode = 'STAGED'",
        ],
    )
    .await;
    assert_eq!(copy.scalar("SELECT COUNT(*) FROM dbo.Users").await, "3", "nothing was deleted");
    copy.run("DELETE dbo.Orders").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Users", "ID").await;
}

/// The row counts of a trigger's own statements are not counted as rows of the full sync.
#[tokio::test(flavor = "multi_thread")]
async fn triggers_that_write_rows_do_not_change_the_counts() {
    let (world, mapping) = mapped("(1, 1, NULL), (2, 1, NULL)").await;
    let mut copy = world.copy().await;
    copy.script(
        "DROP TABLE dbo.Orders
GO
CREATE TABLE dbo.Seen (ID INT NOT NULL)
GO
CREATE TRIGGER dbo.TR_Loud ON dbo.Users AFTER INSERT, UPDATE, DELETE AS
    INSERT INTO dbo.Seen SELECT i.ID FROM inserted i CROSS JOIN (VALUES (1), (2), (3)) AS three(n)
GO
INSERT INTO dbo.Users VALUES (2, 2, NULL), (3, 1, NULL)
GO
DELETE dbo.Seen
GO",
    )
    .await;
    let daemon = world.daemon();
    world.request_full_sync(mapping).await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    daemon.wait_for_line(&["the destination's trigger [TR_Loud] fires"]).await;
    daemon.wait_for_line(&["swapped in: 1 inserted, 1 updated, 1 deleted"]).await;
    assert_eq!(copy.scalar("SELECT COUNT(*) FROM dbo.Seen").await, "6");
    // mode DIRECT compares the number of loaded rows with the number in the table
    world
        .control()
        .await
        .run("UPDATE table_mappings SET full_sync_mode = 'DIRECT', full_sync_requested = 1")
        .await;
    eventually("the load", async || {
        let done =
            world.control().await.scalar("SELECT COUNT(*) FROM sync_status WHERE sync_type = 'FULL_SYNC' AND status = 'COMPLETED'").await;
        if done == "2" { Ok(()) } else { Err(done) }
    })
    .await;
    world.in_sync("dbo.Users", "ID").await;
}

/// IDENTITY_INSERT stays ON in a session after an error and a rollback. If the session went back to
/// the pool, its next table would fail with Msg 8107.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_identity_insert_on_is_not_used_again() {
    let world = World::new().await;
    for name in ["A", "B"] {
        world
            .both(&format!(
                "CREATE TABLE dbo.{name} (ID INT IDENTITY(1,1) NOT NULL PRIMARY KEY, N INT NULL)"
            ))
            .await;
        world.shop().await.run(&format!("INSERT INTO dbo.{name} (N) VALUES (1), (2)")).await;
    }
    let mut copy = world.copy().await;
    copy.run("ALTER TABLE dbo.A ADD CONSTRAINT CK_N CHECK (N < 2)").await;
    let (a, b) = (world.map("A", "ID", None, false).await, world.map("B", "ID", None, false).await);
    let _daemon = world.daemon();
    refused(&world, a, &["CK_N"]).await;
    world.request_full_sync(b).await;
    world.run_ends(b, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.B", "ID").await;
    copy.run("ALTER TABLE dbo.A DROP CONSTRAINT CK_N").await;
    world.run_ends(a, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.A", "ID").await;
    let errors = world
        .control()
        .await
        .query("SELECT error_message FROM error_logs WHERE error_message LIKE N'%8107%'")
        .await;
    assert!(errors.rows.is_empty(), "{errors}");
}

/// Rows that the destination drops silently (IGNORE_DUP_KEY) are noticed before the commit.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_destination_drops_fail_the_sync() {
    let (world, mapping) = mapped("(1, 1, NULL), (2, 1, NULL)").await;
    world
        .copy()
        .await
        .run("CREATE UNIQUE INDEX UX_Group ON dbo.Users (GroupID) WITH (IGNORE_DUP_KEY = ON)")
        .await;
    let _daemon = world.daemon();
    refused(
        &world,
        mapping,
        &["2 rows are staged, but 1 would be at the destination", "IGNORE_DUP_KEY"],
    )
    .await;
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.Users").await, "0");
}
