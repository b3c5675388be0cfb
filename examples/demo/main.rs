//! The whole job in one command: `cargo run --release --example demo`.
//!
//! Two embedded SQL Servers start on free ports. A shop is made on one of them and filled; the real
//! daemon copies it to the other and follows every change that a writer makes meanwhile. In the end
//! every table is compared, cell by cell. Exit code 0 means equal.
//!
//! Nothing is staged: the servers answer on sockets, the daemon is the library's own `daemon::run`,
//! the tables are compared through a client of their own.

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
/// How long the writer keeps changing the source.
const WRITING: Duration = Duration::from_secs(10);
/// When the demo gives up waiting for the destination.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    match demo().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("\nNOT EQUAL: source and destination differ.");
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
    headline("Two SQL Servers start");
    let source = Server::builder().port(0).login(USER, PASSWORD).start().await?;
    let dest = Server::builder().port(0).login(USER, PASSWORD).start().await?;
    println!("  source       {}\n  destination  {}", source.addr(), dest.addr());

    headline("A shop is made on the source, and its empty tables on the destination");
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

    headline("dbaops-dataflow init, then the INSERTs of docs/setup.md, and CDC");
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

    headline("The daemon runs, and a writer keeps changing the source");
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(daemon::run(config, async move {
        let _ = stopped.await;
    }));
    let mut writer = Sql::connect(source.addr(), USER, PASSWORD, "SourceDB").await?;
    let writing = tokio::spawn(async move { shop::write(&mut writer, WRITING).await });
    let transactions = writing.await?;
    println!("  the writer committed {transactions} transactions in {} s", WRITING.as_secs());

    headline("Waiting until everything is applied, then comparing every cell");
    let caught_up = Instant::now();
    let mut equal = true;
    let deadline = caught_up + PATIENCE;
    for table in &shop::MAPPED {
        loop {
            let (here, there) = (table.rows(&mut at_source).await, table.rows(&mut at_dest).await);
            if here == there {
                println!(
                    "  {:<12} {:>7} rows, equal; at most {:.1} s behind the last commit",
                    table.name,
                    here.rows.len(),
                    caught_up.elapsed().as_secs_f64()
                );
                break;
            }
            if Instant::now() > deadline {
                let known: HashSet<&Vec<String>> = there.rows.iter().collect();
                let different =
                    here.rows.iter().filter(|row| !known.contains(row)).take(3).collect::<Vec<_>>();
                println!(
                    "  {:<12} DIFFERS: {} rows here, {} there, e.g. {different:?}",
                    table.name,
                    here.rows.len(),
                    there.rows.len()
                );
                equal = false;
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    println!(
        "  caught up and compared {:.1} s after the writer's last commit",
        caught_up.elapsed().as_secs_f64()
    );
    equal = equal && verified(&mut at_control).await;

    headline("The daemon stops");
    let _ = stop.send(());
    running.await??;
    account(&mut at_control).await;
    println!(
        "\n{} in {:.0} s",
        if equal { "EQUAL" } else { "DIFFERENT" },
        start.elapsed().as_secs_f64()
    );
    Ok(equal)
}

/// Every mapping's next verification must pass.
async fn verified(control: &mut Sql) -> bool {
    let since =
        control.scalar("SELECT COALESCE(MAX(verification_id), 0) FROM verification_logs").await;
    let deadline = Instant::now() + PATIENCE;
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

/// What an operator would look at.
async fn account(control: &mut Sql) {
    let shown: [(&str, &str); 5] = [
        (
            "Full syncs",
            "SELECT m.source_table, s.status, s.records_processed AS [rows], DATEDIFF(millisecond, s.started_at, s.completed_at) AS ms, \
             s.records_processed * 1000 / (DATEDIFF(millisecond, s.started_at, s.completed_at) + 1) AS rows_per_s \
             FROM sync_status s JOIN table_mappings m ON m.mapping_id = s.mapping_id WHERE s.sync_type = 'FULL_SYNC' ORDER BY s.status_id",
        ),
        (
            "CDC",
            "SELECT m.source_table, COUNT(*) AS runs, SUM(s.records_processed) AS changes, SUM(s.records_failed) AS failed, \
             AVG(DATEDIFF(millisecond, s.started_at, s.completed_at)) AS avg_ms \
             FROM sync_status s JOIN table_mappings m ON m.mapping_id = s.mapping_id WHERE s.sync_type = 'CDC' GROUP BY m.source_table ORDER BY 1",
        ),
        (
            "v_sync_summary (what runs or fails now)",
            "SELECT source_table, status, sync_type, records_processed, duration_seconds FROM v_sync_summary",
        ),
        ("v_recent_errors", "SELECT source_table, error_type, error_message FROM v_recent_errors"),
        (
            "Verification",
            "SELECT m.source_table, v.verification_status AS status, COUNT(*) AS runs, MAX(v.records_compared) AS compared, \
             MAX(v.mismatches_found) AS mismatches FROM verification_logs v JOIN table_mappings m ON m.mapping_id = v.mapping_id \
             GROUP BY m.source_table, v.verification_status ORDER BY 1, 2",
        ),
    ];
    for (title, sql) in shown {
        headline(title);
        let grid: Grid = control.query(sql).await;
        if grid.rows.is_empty() {
            println!("  (nothing)");
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
