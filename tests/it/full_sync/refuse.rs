//! Tables that cannot be copied exactly are refused before any row is written; one error names all
//! reasons.

use crate::harness::{PASSWORD, World, eventually};

async fn refused(world: &World, mapping: i32, expected: &[&str]) {
    let mut control = world.control().await;
    eventually(&format!("mapping {mapping} to be refused with {expected:?}"), async || {
        let errors = control
            .query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {mapping}"))
            .await;
        let found = errors.rows.iter().any(|row| expected.iter().all(|part| row[0].contains(part)));
        if found { Ok(()) } else { Err(format!("{errors:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_reasons_to_refuse_a_table_are_one_error() {
    let world = World::new().await;
    world
        .shop()
        .await
        .script(
            "CREATE TABLE dbo.R (ID INT NOT NULL PRIMARY KEY, Wide NVARCHAR(50) NULL, Any1 SQL_VARIANT NULL, Num BIGINT NOT NULL, Opt INT NULL, Uni NVARCHAR(9) NULL)",
        )
        .await;
    world
        .copy()
        .await
        .script(
            "CREATE TABLE dbo.R (ID INT NOT NULL, Wide NVARCHAR(20) NULL, Any1 SQL_VARIANT NULL, Num INT NOT NULL, Opt INT NOT NULL, Uni VARCHAR(9) NULL, Must INT NOT NULL)
GO
CREATE TRIGGER dbo.TR_R ON dbo.R INSTEAD OF INSERT AS RETURN
GO
INSERT INTO dbo.R (ID, Num, Opt, Must) SELECT 1, 1, 1, 1 WHERE 1 = 0",
        )
        .await;
    let mapping = world.map("R", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    let expected = [
        "[Wide]: nvarchar(50) does not fit into nvarchar(20)",
        "sql_variant",
        "[Num]: bigint does not fit into int",
        "[Opt] may be NULL",
        "[Uni]: nvarchar(9) does not fit",
        "[Must] is NOT NULL without a default",
        "INSTEAD OF trigger [TR_R]",
        "destination has no primary key",
    ];
    refused(&world, mapping, &expected).await;
    let errors = world.control().await.query("SELECT error_type FROM error_logs").await;
    assert_eq!(errors.rows, [["SCHEMA"]]);
    let staged = world
        .copy()
        .await
        .scalar("SELECT COUNT(*) FROM sys.tables WHERE name LIKE 'dbaops_dataflow_stage%'")
        .await;
    assert_eq!(staged, "0", "nothing was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_that_no_rows_may_be_written_to_are_refused() {
    crate::only_on_standins!("its address");
    let world = World::new().await;
    let table = "CREATE TABLE dbo.P (ID INT NOT NULL PRIMARY KEY)
GO
CREATE TABLE dbo.P2 (ID INT NOT NULL PRIMARY KEY)
GO
CREATE TABLE dbo.P3 (ID INT NOT NULL PRIMARY KEY)
GO";
    world.both(table).await;
    let mut control = world.control().await;
    // a source that is the destination server itself
    let itself = world
        .source_connection_string("Copy")
        .replace(&world.source.addr().port().to_string(), &world.dest.addr().port().to_string());
    control
        .run(&format!(
            "INSERT INTO source_servers (server_name, connection_string) VALUES (N'Itself', N'{}')",
            itself.replace('\'', "''")
        ))
        .await;
    control
        .run(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, full_sync_requested) VALUES \
             (1, N'Shop', N'P', N'MSDB', N'P', N'ID', 1), (1, N'Shop', N'P2', N'Copy', N'p2', N'ID', 1), (1, N'Shop', N'P3', N'COPY', N'P2', N'ID', 1), \
             (2, N'Copy', N'P3', N'Copy', N'P3', N'ID', 1), (1, N'Shop', N'Nope', N'Copy', N'Nope', N'ID', 1)",
        )
        .await;
    let _daemon = world.daemon();
    refused(&world, 1, &["MSDB", "is a system database"]).await;
    world.run_ends(2, "FULL_SYNC", "COMPLETED").await;
    refused(&world, 3, &["mappings 2 and 3", "is_enabled = 0 WHERE mapping_id = 3"]).await;
    refused(&world, 4, &["source and destination are the same table"]).await;
    refused(&world, 5, &["source table", "Nope", "does not exist"]).await;
}

/// A login that sees masked values would copy the masks, and a verification would find no difference.
#[tokio::test(flavor = "multi_thread")]
async fn masked_columns_need_unmask() {
    let world = World::new().await;
    world
        .shop()
        .await
        .run("CREATE TABLE dbo.S (ID INT NOT NULL PRIMARY KEY, Mail NVARCHAR(100) MASKED WITH (FUNCTION = 'email()') NULL)")
        .await;
    world
        .copy()
        .await
        .run("CREATE TABLE dbo.S (ID INT NOT NULL PRIMARY KEY, Mail NVARCHAR(100) NULL)")
        .await;
    world.shop().await.run("INSERT INTO dbo.S VALUES (1, N'a@example.com')").await;
    world
        .source("master")
        .await
        .run(&format!("CREATE LOGIN reader WITH PASSWORD = '{}'", PASSWORD.replace('\'', "''")))
        .await;
    world
        .shop()
        .await
        .run("CREATE USER reader FOR LOGIN reader; GRANT SELECT ON SCHEMA::dbo TO reader")
        .await;
    let mut control = world.control().await;
    world.connect_as("reader", PASSWORD).await;
    let mapping = world.map("S", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    refused(&world, mapping, &["Mail", "UNMASK"]).await;
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.S").await, "0");
    world.shop().await.run("GRANT UNMASK TO reader").await;
    control.run("UPDATE table_mappings SET updated_at = SYSUTCDATETIME()").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.S", "ID").await;
}

/// The catalog is enough to refuse a table: no row is read or written.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_would_be_copied_wrong_are_refused_by_name() {
    crate::only_on_standins!("its log of statements");
    let world = World::new().await;
    let plain = "CREATE TABLE dbo.NAME (ID INT NOT NULL PRIMARY KEY, Who NVARCHAR(50) NULL)";
    world
        .shop()
        .await
        .script(&format!(
            "{}
GO
CREATE FUNCTION dbo.mine(@who AS NVARCHAR(50)) RETURNS TABLE WITH SCHEMABINDING AS
    RETURN SELECT 1 AS ok WHERE @who = USER_NAME()
GO
CREATE SECURITY POLICY dbo.Own ADD FILTER PREDICATE dbo.mine(Who) ON dbo.Filtered WITH (STATE = ON)
GO
CREATE TABLE dbo.Secret (ID INT NOT NULL PRIMARY KEY, Who NVARCHAR(50) COLLATE Latin1_General_BIN2
    ENCRYPTED WITH (COLUMN_ENCRYPTION_KEY = CEK1, ENCRYPTION_TYPE = DETERMINISTIC, ALGORITHM = 'AEAD_AES_256_CBC_HMAC_SHA_256') NULL)
GO
{}
GO",
            plain.replace("NAME", "Filtered"),
            plain.replace("NAME", "InMemory")
        ))
        .await;
    let mut copy = world.copy().await;
    for name in ["Filtered", "Secret"] {
        copy.run(&plain.replace("NAME", name)).await;
    }
    copy.run("CREATE TABLE dbo.InMemory (ID INT NOT NULL PRIMARY KEY NONCLUSTERED, Who NVARCHAR(50) NULL) WITH (MEMORY_OPTIMIZED = ON, DURABILITY = SCHEMA_AND_DATA)")
        .await;
    let mut mappings = Vec::new();
    for name in ["Filtered", "Secret", "InMemory"] {
        let mapping = world.map(name, "ID", None, false).await;
        world.request_full_sync(mapping).await;
        mappings.push(mapping);
    }
    world.source.log_statements(true);
    let _daemon = world.daemon();
    refused(&world, mappings[0], &["row-level security filters the source"]).await;
    refused(&world, mappings[1], &["[Who] is encrypted with Always Encrypted"]).await;
    refused(&world, mappings[2], &["the destination is memory-optimized"]).await;
    let read = world
        .source
        .statements()
        .iter()
        .filter(|statement| statement.text.contains("FROM [dbo].[Filtered] AS s"))
        .count();
    assert_eq!(read, 0, "nothing was read");
    let staged = copy
        .scalar("SELECT COUNT(*) FROM sys.tables WHERE name LIKE 'dbaops_dataflow_stage%'")
        .await;
    assert_eq!(staged, "0", "nothing was touched");
}

/// A login without VIEW DEFINITION cannot see security policies, so it cannot know whether it sees
/// every row.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_cannot_see_security_policies_is_a_warning() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.S (ID INT NOT NULL PRIMARY KEY)").await;
    world
        .source("master")
        .await
        .run(&format!("CREATE LOGIN reader WITH PASSWORD = '{}'", PASSWORD.replace('\'', "''")))
        .await;
    world
        .shop()
        .await
        .run("CREATE USER reader FOR LOGIN reader; GRANT SELECT ON SCHEMA::dbo TO reader")
        .await;
    world.connect_as("reader", PASSWORD).await;
    let mapping = world.map("S", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    daemon
        .wait_for_line(&[
            "WARN",
            "cannot see whether row-level security filters",
            "GRANT VIEW DEFINITION",
        ])
        .await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.shop().await.run("GRANT VIEW DEFINITION TO reader").await;
    let warnings = daemon.output().matches("row-level security").count();
    world.shop().await.run("INSERT INTO dbo.S VALUES (1)").await;
    world.request_full_sync(mapping).await;
    world.in_sync("dbo.S", "ID").await;
    assert_eq!(
        daemon.output().matches("row-level security").count(),
        warnings,
        "no warning after VIEW DEFINITION was granted"
    );
}

/// A cloned machine has the server name of its original, and its databases have the same creation
/// dates and object ids. The catalogs do not show that the two servers differ.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_of_the_destination_is_a_source_like_any_other() {
    crate::only_on_standins!("dates of creation that are set");
    let world = World::new().await;
    world.source("master").await.run("CREATE DATABASE [Copy]").await;
    {
        let (source, dest) = (world.source.instance().unwrap(), world.dest.instance().unwrap());
        let created = dest.lock().database_named("Copy").unwrap().create_date;
        let mut state = source.lock();
        let id = state.database_named("Copy").unwrap().id;
        state.database_mut(id).unwrap().create_date = created;
    }
    let (mut here, mut there) = (world.source("Copy").await, world.copy().await);
    for sql in [&mut here, &mut there] {
        sql.run("CREATE TABLE dbo.P (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    }
    here.run("EXEC sys.sp_cdc_enable_db; EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'P', @role_name = NULL")
        .await;
    here.run("INSERT INTO dbo.P VALUES (1, 1), (2, 2)").await;
    let identity = "SELECT CONCAT(@@SERVERNAME, CONVERT(varchar(30), create_date, 121), OBJECT_ID(N'dbo.P')) FROM sys.databases WHERE database_id = DB_ID()";
    assert_eq!(
        here.scalar(identity).await,
        there.scalar(identity).await,
        "the catalogs are the same"
    );
    // a login that may only read
    world
        .source("master")
        .await
        .run(&format!("CREATE LOGIN reader WITH PASSWORD = '{}'", PASSWORD.replace('\'', "''")))
        .await;
    here.run("CREATE USER reader FOR LOGIN reader; GRANT SELECT ON SCHEMA::dbo TO reader; GRANT SELECT ON SCHEMA::cdc TO reader; GRANT VIEW DATABASE STATE TO reader").await;
    world.connect_as("reader", PASSWORD).await;
    let mut control = world.control().await;
    control
        .run(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, cdc_enabled, full_sync_requested) \
             VALUES (1, N'Copy', N'P', N'Copy', N'P', N'ID', 1, 1)",
        )
        .await;
    let _daemon = world.daemon();
    world.run_ends(1, "FULL_SYNC", "COMPLETED").await;
    here.run("UPDATE dbo.P SET V = 3 WHERE ID = 2").await;
    eventually("the change to arrive", async || {
        let there = there.query("SELECT ID, V FROM dbo.P ORDER BY ID").await;
        if there.rows == [["1", "1"], ["2", "3"]] { Ok(()) } else { Err(there.to_string()) }
    })
    .await;
    let locks = world.dest("master").await.scalar("SELECT COUNT(*) FROM sys.dm_tran_locks WHERE resource_type = N'APPLICATION' AND resource_description LIKE N'%dbaops-dataflow/same%'").await;
    assert_eq!(locks, "0", "the application locks that told the servers apart are released");
}
