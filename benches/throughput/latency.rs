//! The time from a commit at the source until it can be read at the destination.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::sync::mpsc;

use crate::{
    fixture::{COPY, Fixture, SHOP},
    process::Running,
    report::{Goal, Report, percentile},
    rows,
    scale::Scale,
    sql,
};

const INTERVAL: Duration = Duration::from_millis(100);
/// The time between two commits. It does not divide the interval, so commits fall on all times
/// between two ticks.
const PAUSE: Duration = Duration::from_millis(37);
/// The time between two reads of the destination.
const POLL: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Commits that are not measured, during which connections are opened and statements prepared.
const WARM_UP: usize = 20;
const FIRST_KEY: i64 = 1_000_000;

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    fixture.table("Orders", 1_000, true).await?;
    fixture.request_full_sync().await?;
    let daemon = Running::start(&fixture.variables(&[("DATAFLOW_CHECK_INTERVAL", "100ms")]))?;
    fixture.synced().await?;

    let mut shop = fixture.source(SHOP).await?;
    let mut copy = fixture.dest(COPY).await?;
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
                at.elapsed() < WAIT_MAX,
                "row {key} was not visible at the destination within {} s",
                WAIT_MAX.as_secs()
            );
            seen = sql::number(&mut copy, "SELECT MAX(ID) FROM dbo.Orders").await?;
            if seen < key {
                tokio::time::sleep(POLL).await;
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
