//! Objects that depend on the destination's rows: foreign keys, check constraints, views, triggers,
//! the next identity value.

use crate::harness::{World, eventually};

const SOURCE: &str = "CREATE TABLE dbo.Users (ID INT IDENTITY(1,1) NOT NULL PRIMARY KEY, Code NVARCHAR(10) NOT NULL, GroupID INT NULL, Age INT NULL)";

/// Users refers to Groups, and Orders to Users; some constraints are disabled or not trusted from
/// the start.
const DEST: &str = "CREATE TABLE dbo.Groups (ID INT NOT NULL PRIMARY KEY)
GO
INSERT INTO dbo.Groups VALUES (1), (2)
GO
CREATE TABLE dbo.Users (ID INT IDENTITY(1,1) NOT NULL PRIMARY KEY, Code NVARCHAR(10) NOT NULL CONSTRAINT UQ_Code UNIQUE, GroupID INT NULL, Age INT NULL,
    CONSTRAINT FK_Group FOREIGN KEY (GroupID) REFERENCES dbo.Groups (ID),
    CONSTRAINT FK_Loose FOREIGN KEY (GroupID) REFERENCES dbo.Groups (ID),
    CONSTRAINT CK_Age CHECK (Age >= 0), CONSTRAINT CK_Off CHECK (Age < 5), CONSTRAINT CK_Untrusted CHECK (Age < 1000))
GO
ALTER TABLE dbo.Users NOCHECK CONSTRAINT CK_Off
GO
ALTER TABLE dbo.Users NOCHECK CONSTRAINT FK_Loose
GO
ALTER TABLE dbo.Users NOCHECK CONSTRAINT CK_Untrusted
GO
ALTER TABLE dbo.Users WITH NOCHECK CHECK CONSTRAINT CK_Untrusted
GO
CREATE TABLE dbo.Orders (ID INT NOT NULL PRIMARY KEY, UserID INT NOT NULL CONSTRAINT FK_User REFERENCES dbo.Users (ID))
GO";

const STATES: &str = "SELECT name, CAST(is_disabled AS int), CAST(is_not_trusted AS int) FROM sys.foreign_keys \
                      UNION ALL SELECT name, CAST(is_disabled AS int), CAST(is_not_trusted AS int) FROM sys.check_constraints ORDER BY name";

async fn world() -> World {
    let world = World::new().await;
    world.shop().await.script(SOURCE).await;
    world.copy().await.script(DEST).await;
    world
        .shop()
        .await
        .run(
            "INSERT INTO dbo.Users (Code, GroupID, Age) VALUES (N'a', 1, 30), (N'b', 2, 40), (N'c', NULL, NULL), (N'd', 1, 4); \
             SET IDENTITY_INSERT dbo.Users ON; INSERT INTO dbo.Users (ID, Code) VALUES (500, N'top'); SET IDENTITY_INSERT dbo.Users OFF",
        )
        .await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_stay_as_they_were_and_child_rows_are_not_touched() {
    let world = world().await;
    let mut copy = world.copy().await;
    // a and b have swapped their unique codes, an order refers to c, and the source lacks z
    copy.run(
        "SET IDENTITY_INSERT dbo.Users ON; INSERT INTO dbo.Users (ID, Code) VALUES (1, N'b'), (2, N'a'), (3, N'c'), (9, N'z'); \
         SET IDENTITY_INSERT dbo.Users OFF; INSERT INTO dbo.Orders VALUES (1, 3)",
    )
    .await;
    let before = copy.query(STATES).await;
    let mapping = world.map("Users", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let (source, dest) = world.both_tables("dbo.Users", "ID").await;
    assert_eq!(source, dest);
    assert_eq!(copy.query(STATES).await, before);
    copy.run("INSERT INTO dbo.Users (Code) VALUES (N'next')").await;
    assert_eq!(
        copy.scalar("SELECT ID FROM dbo.Users WHERE Code = N'next'").await,
        "501",
        "the identity's next value"
    );
    assert_eq!(copy.scalar("SELECT COUNT(*) FROM dbo.Orders").await, "1");
    // the same in mode DIRECT, which requires that no foreign key refers to a row
    copy.run("DELETE dbo.Orders").await;
    let mut control = world.control().await;
    control
        .run("UPDATE table_mappings SET full_sync_mode = 'DIRECT', full_sync_requested = 1")
        .await;
    world.in_sync("dbo.Users", "ID").await;
    eventually("the second full sync", async || {
        let done = control.scalar("SELECT COUNT(*) FROM sync_status WHERE status = 'COMPLETED' AND sync_type = 'FULL_SYNC'").await;
        if done == "2" { Ok(()) } else { Err(done) }
    })
    .await;
    assert_eq!(copy.query(STATES).await, before);
    copy.run("INSERT INTO dbo.Users (Code) VALUES (N'next')").await;
    let next = copy.scalar("SELECT ID FROM dbo.Users WHERE Code = N'next'").await;
    assert!(
        next.parse::<i32>().is_ok_and(|next| next > 500),
        "the identity's next value is {next:?}, and 500 is taken"
    );
}

/// A row is deleted at the source, and another table of the destination still refers to it: nothing
/// is changed, and the error names the foreign key.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_still_referred_to_is_an_error_that_names_the_key() {
    let world = world().await;
    let mut copy = world.copy().await;
    copy.run(
        "SET IDENTITY_INSERT dbo.Users ON; INSERT INTO dbo.Users (ID, Code) VALUES (9, N'z'); SET IDENTITY_INSERT dbo.Users OFF; \
         INSERT INTO dbo.Orders VALUES (1, 9)",
    )
    .await;
    let mapping = world.map("Users", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    let run = world.run_ends(mapping, "FULL_SYNC", "ERROR").await;
    assert!(
        run.column("error_message")[0].contains("FK_User"),
        "{}",
        run.column("error_message")[0]
    );
    assert_eq!(copy.scalar("SELECT COUNT(*) FROM dbo.Users").await, "1");
    copy.run("DELETE dbo.Orders").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Users", "ID").await;
}

/// Triggers fire only for rows that changed; an INSTEAD OF trigger is refused, and the error names it.
#[tokio::test(flavor = "multi_thread")]
async fn triggers_fire_for_what_changed_or_refuse() {
    let world = world().await;
    let mut copy = world.copy().await;
    copy.script(
        "CREATE TABLE dbo.Seen (What NVARCHAR(10) NOT NULL, ID INT NOT NULL)
GO
CREATE TRIGGER dbo.TR_Seen ON dbo.Users AFTER INSERT, UPDATE, DELETE AS
    INSERT INTO dbo.Seen SELECT N'in', ID FROM inserted UNION ALL SELECT N'out', ID FROM deleted
GO",
    )
    .await;
    let mapping = world.map("Users", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    daemon.wait_for_line(&["TR_Seen", "fires"]).await;
    assert_eq!(copy.scalar("SELECT COUNT(*) FROM dbo.Seen").await, "5");
    world.shop().await.run("UPDATE dbo.Users SET Age = 31 WHERE ID = 1").await;
    copy.run("DELETE dbo.Seen").await;
    world.request_full_sync(mapping).await;
    world.in_sync("dbo.Users", "ID").await;
    let seen = copy.query("SELECT What, ID FROM dbo.Seen ORDER BY What").await;
    assert_eq!(seen.rows, [["in", "1"], ["out", "1"]]);
    copy.script("CREATE TRIGGER dbo.TR_Instead ON dbo.Users INSTEAD OF DELETE AS RETURN").await;
    world.request_full_sync(mapping).await;
    let run = world.run_ends(mapping, "FULL_SYNC", "ERROR").await;
    assert!(run.column("error_message")[0].contains("TR_Instead"), "{run}");
}

/// An indexed view forbids TRUNCATE and requires its SET options of every session that writes. Its
/// rows are right in both modes.
#[tokio::test(flavor = "multi_thread")]
async fn an_indexed_view_of_the_destination_follows() {
    let world = world().await;
    let mut copy = world.copy().await;
    copy.script(
        "INSERT INTO dbo.Users (Code, GroupID) VALUES (N'z', 2)
GO
CREATE VIEW dbo.PerGroup WITH SCHEMABINDING AS SELECT ID, GroupID FROM dbo.Users WHERE GroupID > 0
GO
CREATE UNIQUE CLUSTERED INDEX UX_PerGroup ON dbo.PerGroup (ID)
GO",
    )
    .await;
    let mapping = world.map("Users", "ID", None, false).await;
    let _daemon = world.daemon();
    for (round, mode) in [(1, "STAGED"), (2, "DIRECT")] {
        let mut control = world.control().await;
        control.run(&format!("UPDATE table_mappings SET full_sync_mode = '{mode}'")).await;
        world
            .shop()
            .await
            .run("UPDATE dbo.Users SET GroupID = 3 - GroupID WHERE GroupID IS NOT NULL")
            .await;
        world.request_full_sync(mapping).await;
        eventually(&format!("the full sync in mode {mode}"), async || {
            let done = control.scalar("SELECT COUNT(*) FROM sync_status WHERE status = 'COMPLETED' AND sync_type = 'FULL_SYNC'").await;
            if done == round.to_string() { Ok(()) } else { Err(done) }
        })
        .await;
        world.in_sync("dbo.Users", "ID").await;
        let expected = world
            .shop()
            .await
            .query("SELECT ID, GroupID FROM dbo.Users WHERE GroupID > 0 ORDER BY ID")
            .await;
        assert_eq!(copy.query("SELECT ID, GroupID FROM dbo.PerGroup ORDER BY ID").await, expected);
    }
}

/// The staging table cannot have an index on this key (it is staged as nvarchar(max)): rows are
/// matched without an index, and CDC goes on.
#[tokio::test(flavor = "multi_thread")]
async fn rows_with_a_key_that_cannot_be_indexed_are_told_apart() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.Long (K VARCHAR(3000) NOT NULL UNIQUE, V INT NULL)").await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.Long (K, V) SELECT REPLICATE('k', n) + 'é', n FROM (VALUES (1), (2), (1000)) AS v (n)").await;
    world.copy().await.run("INSERT INTO dbo.Long (K, V) VALUES ('ké', 7), ('gone', 8)").await;
    world.enable_cdc(&["Long"]).await;
    let mapping = world.map("Long", "K", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Long", "V").await;
    shop.run("UPDATE dbo.Long SET V = 7 WHERE V = 1000; DELETE dbo.Long WHERE V = 1; INSERT INTO dbo.Long (K, V) VALUES ('new', 9)").await;
    world.in_sync("dbo.Long", "V").await;
}
