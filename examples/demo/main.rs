//! A demo of the daemon in one command: `cargo run --release --example demo`.
//!
//! Two SQL Server stand-ins start on free ports of this machine. The demo creates and fills the
//! tables of a shop on one of them. The daemon copies them to the other and applies every change that
//! a writer makes meanwhile. In the end every table is compared, cell by cell. Exit code 0 means that
//! all tables are equal.
//!
//! The servers listen on real sockets, the daemon is `daemon::run` of the library, and the tables are
//! compared through separate connections.

#[path = "../../tests/it/harness/client.rs"]
mod client;
mod shop;

use std::{
    collections::HashSet,
    process::ExitCode,
    time::{Duration, Instant},
};

use client::{Grid, Sql};
use dbaops_dataflow::{config::Config, control, daemon};
use mssql_standin::server::Server;
use tokio::sync::oneshot;

const USER: &str = "sa";
const PASSWORD: &str = "Demo-Passw0rd";
/// How long the writer changes the source.
const WRITING: Duration = Duration::from_secs(10);
/// How long the demo waits for the destination at most.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    match demo().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!(
                "\nNOT EQUAL: the destination differs from the source, or a verification failed."
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> anyhow::Result<bool> {
    let start = Instant::now();
    headline("Starting two SQL Server stand-ins");
    let source = Server::builder().port(0).login(USER, PASSWORD).start().await?;
    let dest = Server::builder().port(0).login(USER, PASSWORD).start().await?;
    println!("  source       {}\n  destination  {}", source.addr(), dest.addr());

    headline("Creating the tables of a shop: with rows at the source, empty at the destination");
    Sql::connect(source.addr(), USER, PASSWORD, "master")
        .await?
        .run("CREATE DATABASE SourceDB")
        .await;
    Sql::connect(dest.addr(), USER, PASSWORD, "master").await?.run("CREATE DATABASE DestDB").await;
    let mut at_source = Sql::connect(source.addr(), USER, PASSWORD, "SourceDB").await?;
    let mut at_dest = Sql::connect(dest.addr(), USER, PASSWORD, "DestDB").await?;
    at_source.script(shop::TABLES).await;
    at_dest.script(shop::TABLES).await;
    shop::fill(&mut at_source).await;
    for table in &shop::MAPPED {
        println!(
            "  {:<12} {:>7} rows",
            table.name,
            at_source.scalar(&format!("SELECT COUNT(*) FROM dbo.{}", table.name)).await
        );
    }

    headline(
        "Running dbaops-dataflow init, registering the tables as in docs/setup.md, enabling CDC",
    );
    let config = Config::from_vars(variables(&dest))?;
    control::init(&config).await?;
    let mut at_control = Sql::connect(dest.addr(), USER, PASSWORD, "dbaops_dataflow").await?;
    at_control.run(&shop::register_server(source.addr(), USER, PASSWORD)).await;
    at_source.run("EXEC sys.sp_cdc_enable_db").await;
    for table in &shop::MAPPED {
        at_control.run(&table.register()).await;
        at_source.run(&table.enable_cdc()).await;
        at_source.run(&format!("UPDATE TOP (1) dbo.{} SET FullSyncTrigger = 1", table.name)).await;
    }

    headline("Starting the daemon: full syncs and CDC, while a writer changes the source");
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(daemon::run(config, async move {
        let _ = stopped.await;
    }));
    let mut writer = Sql::connect(source.addr(), USER, PASSWORD, "SourceDB").await?;
    let writing = tokio::spawn(async move { shop::write(&mut writer, WRITING).await });
    let transactions = writing.await?;
    println!("  the writer committed {transactions} transactions in {} s", WRITING.as_secs());

    headline("Waiting until all changes are applied, and comparing every cell");
    let last_commit = Instant::now();
    let mut equal = true;
    let deadline = last_commit + WAIT_MAX;
    for table in &shop::MAPPED {
        loop {
            let (source, dest) = (table.rows(&mut at_source).await, table.rows(&mut at_dest).await);
            if source == dest {
                println!(
                    "  {:<12} {:>7} rows, equal {:.1} s after the last commit",
                    table.name,
                    source.rows.len(),
                    last_commit.elapsed().as_secs_f64()
                );
                break;
            }
            if Instant::now() > deadline {
                let known: HashSet<&Vec<String>> = dest.rows.iter().collect();
                let missing = source.rows.iter().filter(|row| !known.contains(row));
                println!(
                    "  {:<12} DIFFERS: {} rows at the source, {} at the destination; only at the source: {:?}",
                    table.name,
                    source.rows.len(),
                    dest.rows.len(),
                    missing.take(3).collect::<Vec<_>>()
                );
                equal = false;
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    println!(
        "  all tables compared {:.1} s after the last commit",
        last_commit.elapsed().as_secs_f64()
    );

    headline("Waiting until the daemon's own verification has passed for every table");
    equal = equal && verified(&mut at_control).await;

    headline("Stopping the daemon; the control database then shows what it did");
    let _ = stop.send(());
    running.await??;
    print_control_tables(&mut at_control).await;
    println!(
        "\n{}; the demo took {:.0} s",
        if equal { "EQUAL" } else { "DIFFERENT" },
        start.elapsed().as_secs_f64()
    );
    Ok(equal)
}

/// Waits until the next verification of every mapping has passed; false if one failed or
/// [`WAIT_MAX`] is over.
async fn verified(control: &mut Sql) -> bool {
    let since =
        control.scalar("SELECT COALESCE(MAX(verification_id), 0) FROM verification_logs").await;
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let passed = control
            .scalar(&format!(
                "SELECT COUNT(DISTINCT mapping_id) FROM verification_logs WHERE verification_id > {since} AND verification_status = 'PASSED' \
                 AND verification_type = 'MD5_COMPARISON'"
            ))
            .await;
        let failed = control
            .scalar("SELECT COUNT(*) FROM verification_logs WHERE verification_status = 'FAILED'")
            .await;
        if failed != "0" {
            return false;
        }
        if passed == shop::MAPPED.len().to_string() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Prints what an operator would query.
async fn print_control_tables(control: &mut Sql) {
    let shown: [(&str, &str); 5] = [
        (
            "sync_status: full syncs",
            "SELECT m.source_table, s.status, s.records_processed AS [rows], DATEDIFF(millisecond, s.started_at, s.completed_at) AS ms, \
             s.records_processed * 1000 / (DATEDIFF(millisecond, s.started_at, s.completed_at) + 1) AS rows_per_s \
             FROM sync_status s JOIN table_mappings m ON m.mapping_id = s.mapping_id WHERE s.sync_type = 'FULL_SYNC' ORDER BY s.status_id",
        ),
        (
            "sync_status: CDC runs per table",
            "SELECT m.source_table, COUNT(*) AS runs, SUM(s.records_processed) AS changes, SUM(s.records_failed) AS failed, \
             AVG(DATEDIFF(millisecond, s.started_at, s.completed_at)) AS avg_ms \
             FROM sync_status s JOIN table_mappings m ON m.mapping_id = s.mapping_id WHERE s.sync_type = 'CDC' GROUP BY m.source_table ORDER BY 1",
        ),
        (
            "v_sync_summary: what runs or fails now",
            "SELECT source_table, status, sync_type, records_processed, duration_seconds FROM v_sync_summary",
        ),
        (
            "v_recent_errors: open errors",
            "SELECT source_table, error_type, error_message FROM v_recent_errors",
        ),
        (
            "verification_logs: verifications per table",
            "SELECT m.source_table, v.verification_status AS status, COUNT(*) AS runs, MAX(v.records_compared) AS compared, \
             MAX(v.mismatches_found) AS mismatches FROM verification_logs v JOIN table_mappings m ON m.mapping_id = v.mapping_id \
             GROUP BY m.source_table, v.verification_status ORDER BY 1, 2",
        ),
    ];
    for (title, sql) in shown {
        headline(title);
        let grid: Grid = control.query(sql).await;
        if grid.rows.is_empty() {
            println!("  (none)");
        } else {
            print!("{grid}");
        }
    }
}

fn variables(dest: &Server) -> Vec<(String, String)> {
    let addr = dest.addr();
    [
        ("DEST_SERVER", format!("{},{}", addr.ip(), addr.port()).as_str()),
        ("DEST_USER", USER),
        ("DEST_PASS", PASSWORD),
        ("DATAFLOW_CHECK_INTERVAL", "500ms"),
        ("DATAFLOW_VERIFY_INTERVAL", "3s"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn headline(text: &str) {
    println!("\n== {text}");
}
