//! From a commit at the source until it can be read at the destination.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::sync::mpsc;

use crate::{
    Scale,
    field::{COPY, Field, SHOP},
    process::Running,
    report::{Goal, Report, percentile},
    rows, sql,
};

const INTERVAL: Duration = Duration::from_millis(100);
/// Between two commits; they fall everywhere between two ticks.
const PAUSE: Duration = Duration::from_millis(37);
/// Between two looks at the destination.
const LOOK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);
/// Commits before the first that counts: connections are made, statements prepared.
const WARM_UP: usize = 20;
const FIRST_KEY: i64 = 1_000_000;

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let field = Field::new().await?;
    field.table("Orders", 1_000, true).await?;
    field.request().await?;
    let daemon = Running::start(&field.variables(&[("DATAFLOW_CHECK_INTERVAL", "100ms")]))?;
    field.synced().await?;

    let mut shop = field.source(SHOP).await?;
    let mut copy = field.dest(COPY).await?;
    let count = WARM_UP + scale.latencies;
    let (commits, mut committed) = mpsc::unbounded_channel();
    let writing = tokio::spawn(async move {
        for i in 0..count as i64 {
            let insert = format!(
                "INSERT INTO dbo.Orders ({}) VALUES ({})",
                rows::NAMES,
                rows::literals(FIRST_KEY + i)
            );
            sql::run(&mut shop, &insert).await?;
            if commits.send((FIRST_KEY + i, Instant::now())).is_err() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(())
    });
    let (mut seen, mut latencies) = (0, Vec::new());
    while let Some((key, at)) = committed.recv().await {
        while seen < key {
            ensure!(
                at.elapsed() < PATIENCE,
                "row {key} has not come within {} s",
                PATIENCE.as_secs()
            );
            seen = sql::number(&mut copy, "SELECT MAX(ID) FROM dbo.Orders").await?;
            if seen < key {
                tokio::time::sleep(LOOK).await;
            }
        }
        latencies.push(at.elapsed());
    }
    writing.await??;
    daemon.end().await?;
    let latencies: Vec<f64> =
        latencies.split_off(WARM_UP).iter().map(|latency| latency.as_secs_f64() * 1000.0).collect();
    let (p50, p99) = (percentile(&latencies, 50), percentile(&latencies, 99));
    report.figure(
        "commit → visible, p99 ms over the interval",
        "latency_p99_over_interval_ms",
        format!("p50 {p50:.0} ms, p99 {p99:.0} ms"),
        p99 - INTERVAL.as_secs_f64() * 1000.0,
        Goal::AtMost(50.0),
    );
    Ok(())
}
