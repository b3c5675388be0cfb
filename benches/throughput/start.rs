//! The binary: how big, and how soon it is at work.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{
    Scale,
    field::Field,
    process::{self, Running},
    report::{Goal, Report, median},
};

const STARTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);
/// An idle daemon is given this time to come to rest.
const REST: Duration = Duration::from_secs(3);

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    report.figure(
        "binary, MiB",
        "binary_mib",
        "as released".into(),
        process::binary_mib()?,
        Goal::AtMost(12.0),
    );
    let mut field = Field::new().await?;
    field.table("Orders", 100, true).await?;
    let mut starts = Vec::new();
    for _ in 0..STARTS.min(scale.rounds * STARTS) {
        field.source.count_from_here().await?;
        let began = Instant::now();
        let daemon = Running::start(&field.variables(&[]))?;
        while field.source.counted().await? == 0 {
            ensure!(began.elapsed() < PATIENCE, "the daemon does not come to its first tick");
        }
        starts.push(began.elapsed().as_secs_f64() * 1000.0);
        daemon.end().await?;
    }
    report.figure(
        "start to first look at a source, ms",
        "start_ms",
        format!("{STARTS} starts"),
        median(starts),
        Goal::AtMost(100.0),
    );
    let daemon = Running::start(&field.variables(&[]))?;
    tokio::time::sleep(REST).await;
    report.figure(
        "memory, idle, MiB",
        "rss_idle_mib",
        "one mapping".into(),
        daemon.end().await?,
        Goal::AtMost(24.0),
    );
    Ok(())
}
