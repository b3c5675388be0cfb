//! Ticks without work: the statements that the servers get, and the daemon's CPU time.

use std::time::Duration;

use anyhow::ensure;

use crate::{
    fixture::{COPY, Fixture},
    process::Running,
    report::{Goal, Report},
    scale::Scale,
    sql,
};

const INTERVAL: Duration = Duration::from_secs(1);
/// Ticks that are measured.
const TICKS: u32 = 20;
/// A text that each tick sends to the destination once.
const TICK_TEXT: &str = "FROM dbo.source_servers";
/// A text that each poll sends to its source once.
const POLL_TEXT: &str = "AS is_read_only";
/// Tables of each source, when there are many.
const TABLES: usize = 100;
/// Tables that one batch creates.
const BATCH_TABLES: usize = 100;

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let one = ticks(1, scale.mappings).await?;
    report.figure(
        &format!("idle tick, {} mappings on one source: statements", scale.mappings),
        "idle_tick_statements_per_source",
        format!("and {:.1} to the destination", one.dest),
        one.source,
        Goal::AtMost(5.0),
    );
    report.figure(
        "the same: client CPU ms",
        "idle_tick_cpu_ms",
        "per tick".into(),
        one.cpu_ms,
        Goal::AtMost(20.0),
    );
    // ten times as many sources with as many mappings each
    let (few, many) =
        (ticks(scale.sources / 10, TABLES).await?, ticks(scale.sources, TABLES).await?);
    report.note(
        &format!("idle tick, {} mappings on {} sources, ms", scale.sources * TABLES, scale.sources),
        format!("{:.1} ms CPU", many.cpu_ms),
        format!(
            "{} on {} take {:.1} ms",
            scale.sources / 10 * TABLES,
            scale.sources / 10,
            few.cpu_ms
        ),
        many.cpu_ms / few.cpu_ms,
        Goal::AtMost(10.0),
    );
    report.note(
        "the same: statements per source",
        format!("and {:.1} to the destination in all", many.dest),
        String::new(),
        many.source,
        Goal::AtMost(5.0),
    );
    Ok(())
}

/// The averages of one tick.
struct Tick {
    /// statements per source database
    source: f64,
    dest: f64,
    cpu_ms: f64,
}

async fn ticks(sources: usize, tables: usize) -> anyhow::Result<Tick> {
    let mut fixture = Fixture::new().await?;
    let mut control = fixture.control().await?;
    sql::run(&mut control, "DELETE FROM source_servers").await?;
    let mut copy = fixture.dest(COPY).await?;
    for source in 1..=sources {
        let database = format!("Shop{source}");
        sql::run(&mut fixture.source("master").await?, &format!("CREATE DATABASE {database}"))
            .await?;
        let mut shop = fixture.source(&database).await?;
        sql::run(&mut shop, "EXEC sys.sp_cdc_enable_db").await?;
        let numbers: Vec<usize> = (1..=tables).collect();
        for numbers in numbers.chunks(BATCH_TABLES) {
            let create: String = numbers
                .iter()
                .map(|n| format!("CREATE TABLE dbo.T{n} (ID int NOT NULL PRIMARY KEY);"))
                .collect();
            sql::run(&mut shop, &create).await?;
            let create_copies = create.replace("dbo.T", &format!("dbo.S{source}T"));
            sql::run(&mut copy, &create_copies).await?;
            let enable: String = numbers
                .iter()
                .map(|n| format!("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'T{n}', @role_name = NULL;"))
                .collect();
            sql::run(&mut shop, &enable).await?;
        }
        // capture passes the start LSNs of the instances only when there is a change to read
        sql::run(&mut shop, "CREATE TABLE dbo.Other (ID int NOT NULL PRIMARY KEY)").await?;
        sql::run(&mut shop, "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'Other', @role_name = NULL").await?;
        sql::run(&mut shop, "INSERT INTO dbo.Other VALUES (1)").await?;
        fixture.server(&format!("S{source}"), &database).await?;
    }
    sql::run(
        &mut control,
        &format!(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, cdc_enabled, initial_sync) \
             SELECT s.server_id, REPLACE(s.server_name, N'S', N'Shop'), CONCAT(N'T', n), N'{COPY}', CONCAT(s.server_name, N'T', n), N'ID', 1, N'NONE' \
             FROM source_servers AS s CROSS JOIN {}",
            sql::numbers(tables)
        ),
    )
    .await?;
    let interval = format!("{}ms", INTERVAL.as_millis());
    let daemon = Running::start(&fixture.variables(&[("DATAFLOW_CHECK_INTERVAL", &interval)]))?;
    fixture.until("SELECT COUNT(*) FROM table_mappings WHERE last_cdc_lsn IS NULL", 0).await?;
    tokio::time::sleep(3 * INTERVAL).await;

    fixture.source.start_counting().await?;
    fixture.dest.start_counting().await?;
    let cpu = daemon.cpu()?;
    tokio::time::sleep(TICKS * INTERVAL).await;
    let cpu = daemon.cpu()?.saturating_sub(cpu);
    let (source, dest) = (fixture.source.counted().await?, fixture.dest.counted().await?);
    // a tick may take longer than the interval, so ticks and polls are counted
    let ticks = fixture.dest.counted_with(TICK_TEXT).await? as f64;
    let polls = fixture.source.counted_with(POLL_TEXT).await? as f64;
    ensure!(ticks > 0.0 && polls > 0.0, "no tick has ended");
    daemon.end().await?;
    Ok(Tick {
        source: source as f64 / polls,
        dest: dest as f64 / ticks,
        cpu_ms: cpu.as_secs_f64() * 1000.0 / (polls / sources as f64),
    })
}
