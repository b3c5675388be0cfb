//! Hostile content of the control tables: an invalid row stops only its own mapping, and no text is
//! ever executed as SQL.

use crate::harness::{Sql, World, eventually, numbers};

/// Text that would be executed if it was not quoted properly, in brackets, in quotes or unquoted.
const PAYLOADS: &[&str] = &[
    "x]; DROP TABLE dbo.Marker; --",
    "x'; DROP TABLE dbo.Marker; --",
    "x\"; DROP TABLE dbo.Marker; --",
    "x'']]; EXEC(N'DROP TABLE dbo.Marker'); --",
    "x\r\nGO\r\nDROP TABLE dbo.Marker",
    "x; DROP TABLE dbo.Marker",
    "%s {0} $(x) \u{202e}",
];

/// Creates a table `Marker`, which the payloads try to drop, in every database.
async fn create_markers(world: &World) {
    for (server, database) in
        [(&world.source, "Shop"), (&world.dest, "Copy"), (&world.dest, "dbaops_dataflow")]
    {
        server
            .sql_in(database, "CREATE TABLE dbo.Marker (ID INT NOT NULL)")
            .await
            .expect("a marker");
    }
}

async fn assert_markers_exist(world: &World) {
    for (server, database) in
        [(&world.source, "Shop"), (&world.dest, "Copy"), (&world.dest, "dbaops_dataflow")]
    {
        server
            .sql_in(database, "SELECT ID FROM dbo.Marker")
            .await
            .unwrap_or_else(|error| panic!("the marker in {database}: {error:?}"));
    }
}

fn quoted(text: &str) -> String {
    text.replace('\'', "''")
}

/// The text columns of a control table and their maximum lengths, read from the catalog so that
/// columns that are added later are tested too.
async fn text_columns(control: &mut Sql, table: &str) -> Vec<(String, usize)> {
    let columns = control
        .query(&format!(
            "SELECT c.name, CAST(c.max_length AS int) AS bytes FROM sys.columns AS c JOIN sys.types AS t ON t.user_type_id = c.user_type_id \
             WHERE c.object_id = OBJECT_ID(N'dbo.{table}') AND t.name IN (N'nvarchar', N'varchar', N'sysname', N'nchar', N'char') ORDER BY c.column_id"
        ))
        .await;
    let fits = |bytes: &str| bytes.parse::<usize>().map_or(usize::MAX, |bytes| bytes / 2);
    let names: Vec<_> = columns
        .column("name")
        .into_iter()
        .zip(columns.column("bytes"))
        .map(|(name, bytes)| (name.to_owned(), fits(bytes)))
        .collect();
    assert!(names.len() > 1, "{table}: {names:?}");
    names
}

/// A valid mapping, which must go on beside the invalid ones.
async fn good_mapping(world: &World) -> i32 {
    world.both("CREATE TABLE dbo.Good (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    world.shop().await.run("INSERT INTO dbo.Good VALUES (1, 1)").await;
    world.enable_cdc(&["Good"]).await;
    let good = world.map("Good", "ID", None, true).await;
    world.request_full_sync(good).await;
    good
}

/// Asserts that the valid mapping still follows changes.
async fn good_mapping_follows(world: &World, value: i32) {
    world.shop().await.run(&format!("UPDATE dbo.Good SET V = {value}")).await;
    world.in_sync("dbo.Good", "ID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_a_control_table_is_executed() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    create_markers(&world).await;
    let good = good_mapping(&world).await;
    let mut control = world.control().await;
    // A control database that was created by hand may lack the constraints of `init`.
    control.run("ALTER TABLE dbo.table_mappings DROP CONSTRAINT UQ_table_mappings_source").await;
    for table in ["source_servers", "table_mappings"] {
        let checks =
            control.query(&format!("SELECT name FROM sys.check_constraints WHERE parent_object_id = OBJECT_ID(N'dbo.{table}')")).await;
        for check in checks.column("name") {
            control.run(&format!("ALTER TABLE dbo.{table} DROP CONSTRAINT [{check}]")).await;
        }
    }
    let mut rows = 0;
    for (column, fits) in text_columns(&mut control, "table_mappings").await {
        for payload in PAYLOADS {
            let payload: String = payload.chars().take(fits).collect();
            rows += 1;
            // Each row is valid except for this column, and has CDC and a full sync enabled.
            control
                .run(&format!(
                    "INSERT INTO table_mappings (server_id, source_database, source_schema, source_table, dest_database, dest_schema, dest_table, \
                     primary_key_column, cdc_enabled, full_sync_requested) VALUES (1, N'Shop', N'dbo', N'Good', N'Copy', N'dbo', N'Other{rows}', N'ID', 1, 1); \
                     UPDATE table_mappings SET [{column}] = N'{}' WHERE mapping_id = SCOPE_IDENTITY()",
                    quoted(&payload)
                ))
                .await;
        }
    }
    let string = quoted(&world.source_connection_string("Shop"));
    let mut servers = 0;
    for (column, _) in text_columns(&mut control, "source_servers").await {
        for payload in PAYLOADS {
            servers += 1;
            let value = if column == "connection_string" {
                format!("{string};app name={{{}}}", quoted(payload))
            } else {
                quoted(payload)
            };
            control
                .run(&format!(
                    "INSERT INTO source_servers (server_name, connection_string) VALUES (N'Server{servers}', N'{string}'); \
                     DECLARE @id int = SCOPE_IDENTITY(); UPDATE source_servers SET [{column}] = N'{value}' WHERE server_id = @id; \
                     INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, full_sync_requested) \
                     VALUES (@id, N'Shop', N'Good', N'Copy', N'Far{servers}', N'ID', 1)"
                ))
                .await;
        }
    }
    let daemon = world.daemon_with(&[("DATAFLOW_MAX_TASKS", "4")]);
    world.run_ends(good, "FULL_SYNC", "COMPLETED").await;
    eventually("an error of every other mapping", async || {
        let without_error = control
            .query(
                "SELECT m.mapping_id, m.source_database, m.source_table FROM table_mappings AS m \
                 WHERE m.dest_table <> N'Good' AND NOT EXISTS (SELECT 1 FROM error_logs AS e WHERE e.mapping_id = m.mapping_id OR e.server_id = m.server_id)",
            )
            .await;
        if without_error.rows.is_empty() { Ok(()) } else { Err(without_error.to_string()) }
    })
    .await;
    good_mapping_follows(&world, 2).await;
    assert_markers_exist(&world).await;
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{output}");
    assert!(!output.contains("panicked"), "{output}");
}

/// The same names, of tables and columns that exist: they are copied, followed and verified like any
/// other.
#[tokio::test(flavor = "multi_thread")]
async fn names_with_brackets_and_quotes_are_names() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    create_markers(&world).await;
    let table = "we]ird 'na\"me; DROP TABLE dbo.Marker; --";
    let (id, trigger, value) = ("I]D '\"", "Re]sync '", "V]]al'ue\" --");
    let bracketed = |name: &str| format!("[{}]", name.replace(']', "]]"));
    world
        .both(&format!(
            "CREATE TABLE dbo.{} ({} INT NOT NULL PRIMARY KEY, {} BIT NOT NULL DEFAULT 0, {} NVARCHAR(50) NULL)",
            bracketed(table),
            bracketed(id),
            bracketed(trigger),
            bracketed(value)
        ))
        .await;
    let mut shop = world.shop().await;
    shop.run(&format!("INSERT INTO dbo.{} VALUES (1, 1, N'a'), (2, 0, N'b')", bracketed(table)))
        .await;
    world.enable_cdc(&[table]).await;
    let mapping = world.map(table, &bracketed(id), Some(trigger), true).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    shop.run(&format!(
        "UPDATE dbo.{table} SET {value} = N'changed' WHERE {id} = 2; INSERT INTO dbo.{table} VALUES (3, 0, N'it''s'); DELETE dbo.{table} WHERE {id} = 1",
        table = bracketed(table),
        value = bracketed(value),
        id = bracketed(id)
    ))
    .await;
    world.in_sync(&format!("dbo.{}", bracketed(table)), &bracketed(id)).await;
    world.verified(mapping, "PASSED").await;
    assert_markers_exist(&world).await;
}

/// Each invalid row is one error, which is resolved when the row is corrected.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_makes_no_sense_is_reported_once_until_it_does() {
    let world = World::new().await;
    let good = good_mapping(&world).await;
    world.both("CREATE TABLE dbo.Late (ID INT NOT NULL PRIMARY KEY)").await;
    let mut control = world.control().await;
    control
        .run(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column) VALUES \
             (1, N'Shop', N'Late', N'Copy', N'Late', N'ID, ID'), (1, N' ', N'T', N'msdb', N'T', N'ID'), (1, N'Shop', N'T', N'Copy', N'T', N'[ID')",
        )
        .await;
    let daemon = world.daemon();
    world.run_ends(good, "FULL_SYNC", "COMPLETED").await;
    let unresolved = "SELECT COUNT(*) FROM error_logs WHERE is_resolved = 0 AND error_message LIKE N'%cannot be used%'";
    eventually("three errors", async || {
        let errors = control.scalar(unresolved).await;
        if errors == "3" { Ok(()) } else { Err(errors) }
    })
    .await;
    // The valid mapping follows two changes, so some ticks have passed.
    good_mapping_follows(&world, 2).await;
    good_mapping_follows(&world, 3).await;
    assert_eq!(control.scalar("SELECT COUNT(*) FROM error_logs").await, "3");
    assert_eq!(
        control.scalar("SELECT MAX(retry_count) FROM error_logs").await,
        "0",
        "the error is counted once, not at every tick"
    );
    control.run("UPDATE table_mappings SET primary_key_column = N'ID', full_sync_requested = 1 WHERE source_table = N'Late'").await;
    eventually("the error of the corrected row to be resolved", async || {
        let errors = control.scalar(unresolved).await;
        if errors == "2" { Ok(()) } else { Err(errors) }
    })
    .await;
    drop(daemon);
}

/// A mapping is deleted and a server is switched off while their full syncs run: the runs end at a
/// batch boundary, and the daemon goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_during_its_full_sync_stops_nothing_else() {
    let world = World::new().await;
    let good = good_mapping(&world).await;
    world.both("CREATE TABLE dbo.Doomed (ID INT NOT NULL PRIMARY KEY)\nGO\nCREATE TABLE dbo.Gone (ID INT NOT NULL PRIMARY KEY)").await;
    let mut shop = world.shop().await;
    for table in ["Doomed", "Gone"] {
        shop.run(&format!("INSERT INTO dbo.{table} SELECT n FROM {}", numbers(3500))).await;
    }
    let doomed = world.map("Doomed", "ID", None, false).await;
    let off = world.map("Gone", "ID", None, false).await;
    let mut control = world.control().await;
    let string = quoted(&world.source_connection_string("Shop"));
    control
        .run(&format!(
            "INSERT INTO source_servers (server_name, connection_string) VALUES (N'Second', N'{string}'); \
             UPDATE table_mappings SET full_sync_requested = 1; UPDATE table_mappings SET server_id = 2 WHERE mapping_id = {off}"
        ))
        .await;
    shop.run(
        "BEGIN TRANSACTION; DECLARE @n int; SELECT @n = COUNT(*) FROM dbo.Doomed WITH (TABLOCKX); SELECT @n = COUNT(*) FROM dbo.Gone WITH (TABLOCKX)",
    )
    .await;
    let daemon = world.daemon();
    let mut copy = world.copy().await;
    eventually("both copies to wait", async || {
        let stages = copy
            .scalar(
                "SELECT COUNT(*) FROM sys.tables WHERE name LIKE N'dbaops[_]dataflow[_]stage[_]%'",
            )
            .await;
        if stages == "2" { Ok(()) } else { Err(stages) }
    })
    .await;
    control
        .run(&format!("DELETE table_mappings WHERE mapping_id = {doomed}; UPDATE source_servers SET is_enabled = 0 WHERE server_id = 2"))
        .await;
    shop.run("ROLLBACK TRANSACTION").await;
    world.run_ends(off, "FULL_SYNC", "PAUSED").await;
    world.run_ends(good, "FULL_SYNC", "COMPLETED").await;
    good_mapping_follows(&world, 2).await;
    eventually("the staging tables to be dropped", async || {
        let stages = copy
            .scalar(
                "SELECT COUNT(*) FROM sys.tables WHERE name LIKE N'dbaops[_]dataflow[_]stage[_]%'",
            )
            .await;
        if stages == "0" { Ok(()) } else { Err(stages) }
    })
    .await;
    assert_eq!(
        copy.scalar("SELECT (SELECT COUNT(*) FROM dbo.Doomed) + (SELECT COUNT(*) FROM dbo.Gone)")
            .await,
        "0"
    );
    control.run("UPDATE source_servers SET is_enabled = 1").await;
    world.run_ends(off, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Gone", "ID").await;
    let (status, output) = daemon.terminate().await;
    assert!(status.success() && !output.contains("panicked"), "{output}");
}
