//! The memory that a verification takes in the built binary.

use super::rows;
use crate::harness::{World, eventually, numbers};

/// A value in KiB of `/proc/<pid>/status`.
fn status_kib(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Verifying 10,000 rows of 10 columns in one run takes less than 32 MiB more than an idle daemon.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_rows_fit_into_little_memory() {
    const GROWTH_KIB_MAX: u64 = 32 * 1024;
    let world = World::new().await;
    world
        .both(
            "CREATE TABLE dbo.Ten (ID INT NOT NULL PRIMARY KEY, A BIGINT NULL, B DECIMAL(18,4) NULL, C MONEY NULL, D NVARCHAR(50) NULL, \
             E VARCHAR(50) NULL, F DATETIME2(7) NULL, G UNIQUEIDENTIFIER NULL, H FLOAT NULL, I BIT NULL)",
        )
        .await;
    let fill = format!(
        "INSERT INTO dbo.Ten SELECT n, n * CAST(1000003 AS bigint), n * 1.0007, n * 0.0001, N'name of row ' + CAST(n AS nvarchar(10)), 'text', \
         '2024-02-29T23:59:59.1234567', '6F9619FF-8B86-D011-B42D-00C04FC964FF', n / 7.0E0, n % 2 FROM {}",
        numbers(10_000)
    );
    world.shop().await.run(&fill).await;
    world.copy().await.run(&fill).await;
    world.enable_cdc(&["Ten"]).await;
    let mapping = world.map("Ten", "ID", None, false).await;

    let quiet = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    quiet.wait_for_line(&["started"]).await;
    let mut control = world.control().await;
    let connected = "SELECT COUNT(*) FROM source_servers WHERE last_connected_at IS NOT NULL";
    eventually("a tick", async || {
        if control.scalar(connected).await == "1" { Ok(()) } else { Err("none yet".to_owned()) }
    })
    .await;
    let idle = status_kib(quiet.pid(), "VmRSS:").expect("its memory");
    drop(quiet);

    let daemon = world.daemon();
    let passed = rows(&world, mapping, "PASSED", &[]).await;
    assert_eq!(
        (passed.column("source_row_count"), passed.column("dest_row_count")),
        (vec!["10000"], vec!["10000"])
    );
    let peak = status_kib(daemon.pid(), "VmHWM:").expect("its memory");
    let took =
        control.query("SELECT TOP (1) records_count, execution_time_ms FROM sync_logs WHERE log_message LIKE N'MD5_COMPARISON of%'").await;
    println!("verified {took} idle {idle} KiB, peak {peak} KiB");
    assert!(
        peak < idle + GROWTH_KIB_MAX,
        "idle {idle} KiB, peak {peak} KiB: {} KiB more",
        peak - idle
    );
}
