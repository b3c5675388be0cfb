//! The size of the binary, the time that it takes to start, and its memory when idle.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::{
    fixture::Fixture,
    process::{self, Running},
    report::{Goal, Report, median},
    scale::Scale,
};

const STARTS: usize = 5;
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long an idle daemon runs before its memory is measured.
const REST: Duration = Duration::from_secs(3);

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    report.figure(
        "binary, MiB",
        "binary_mib",
        "release build".into(),
        process::binary_mib()?,
        Goal::AtMost(12.0),
    );
    let mut fixture = Fixture::new().await?;
    fixture.table("Orders", 100, true).await?;
    let mut starts = Vec::new();
    for _ in 0..STARTS.min(scale.rounds * STARTS) {
        fixture.source.start_counting().await?;
        let began = Instant::now();
        let daemon = Running::start(&fixture.variables(&[]))?;
        while fixture.source.counted().await? == 0 {
            ensure!(
                began.elapsed() < WAIT_MAX,
                "the source got no statement within {} s",
                WAIT_MAX.as_secs()
            );
        }
        starts.push(began.elapsed().as_secs_f64() * 1000.0);
        daemon.end().await?;
    }
    report.figure(
        "start to first statement at a source, ms",
        "start_ms",
        format!("{STARTS} starts"),
        median(starts),
        Goal::AtMost(100.0),
    );
    let daemon = Running::start(&fixture.variables(&[]))?;
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
