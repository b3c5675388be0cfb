//! Samples of the daemon's memory, its connections, and the lag of the destination.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    client::Sql,
    fixture::{APPLICATION, DEST_CONNECTIONS, Fixture, SOURCE_CONNECTIONS},
};

/// The time between two samples.
const PAUSE: Duration = Duration::from_millis(50);
/// The time between two printed lines.
const LINE: Duration = Duration::from_secs(10);
/// The first part of the samples, in which the daemon warms up.
const WARM_UP: f64 = 0.35;
/// The part of the samples after the warm-up, and the part at the end, whose medians are compared.
const COMPARED: f64 = 0.15;
/// Memory growth below this is permitted, whatever its percentage.
const GROWTH_KIB: u64 = 8 * 1024;

pub struct Watch {
    pid: u32,
    copies: Vec<Option<Sql>>,
    memory_kib: Vec<u64>,
    lag_ms: Vec<u64>,
    line: Instant,
}

impl Watch {
    pub async fn new(fixture: &Fixture, pid: u32) -> anyhow::Result<Watch> {
        let copies = (0..fixture.sources.len()).map(|_| None).collect();
        Ok(Watch { pid, copies, memory_kib: Vec::new(), lag_ms: Vec::new(), line: Instant::now() })
    }

    /// Takes one sample, after a pause.
    pub async fn sample(&mut self, fixture: &Fixture, at: Duration) -> anyhow::Result<()> {
        tokio::time::sleep(PAUSE).await;
        self.memory_kib.push(memory_kib(self.pid)?);
        for number in 0..self.copies.len() {
            let copy = match &mut self.copies[number] {
                Some(copy) => copy,
                none => match fixture.copy(number).await {
                    Ok(copy) => none.insert(copy),
                    // the destination restarts
                    Err(_) => continue,
                },
            };
            match copy.try_query("SELECT COALESCE(MAX(ID), 0) FROM dbo.Heartbeat").await {
                Ok(newest) => {
                    let newest: i64 = newest.first().parse().context("the newest heartbeat")?;
                    let mut heartbeats = fixture.sources[number]
                        .heartbeats
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    while heartbeats.front().is_some_and(|(id, _)| *id <= newest) {
                        if let Some((_, committed)) = heartbeats.pop_front() {
                            self.lag_ms.push(
                                u64::try_from(committed.elapsed().as_millis()).unwrap_or(u64::MAX),
                            );
                        }
                    }
                }
                Err(_) => self.copies[number] = None,
            }
        }
        for (number, (server, _)) in fixture.servers().iter().enumerate() {
            let limit =
                if number == fixture.sources.len() { DEST_CONNECTIONS } else { SOURCE_CONNECTIONS };
            let now = server.connection_count_of(APPLICATION).now;
            // The server also counts connections that the daemon has closed, until it notices; while
            // the network hangs it does not notice.
            ensure!(
                now <= 2 * limit,
                "server {number} has {now} connections of the daemon, more than twice the limit {limit}"
            );
        }
        if self.line.elapsed() >= LINE {
            self.line = Instant::now();
            println!(
                "   {:>5.0} s  memory {:>6} KiB  connections {:?}  lag ms {}",
                at.as_secs_f64(),
                self.memory_kib.last().copied().unwrap_or_default(),
                fixture
                    .servers()
                    .iter()
                    .map(|(server, _)| server.connection_count_of(APPLICATION).now)
                    .collect::<Vec<_>>(),
                percentiles(&self.lag_ms)
            );
        }
        Ok(())
    }

    /// Prints the lag, and what the control database says of runs, verifications and errors.
    pub async fn report(&self, fixture: &Fixture) -> anyhow::Result<()> {
        println!("== lag from commit to destination, ms: {}", percentiles(&self.lag_ms));
        for (title, sql) in [
            (
                "runs",
                "SELECT sync_type, status, COUNT(*) AS runs, SUM(records_processed) AS [rows] FROM sync_status GROUP BY sync_type, status ORDER BY 1, 2",
            ),
            (
                "verifications",
                "SELECT verification_type, verification_status, COUNT(*) AS runs, SUM(records_compared) AS [rows] FROM verification_logs \
                 GROUP BY verification_type, verification_status ORDER BY 1, 2",
            ),
            (
                "errors",
                "SELECT error_type, is_resolved, COUNT(*) AS errors FROM error_logs GROUP BY error_type, is_resolved ORDER BY 1, 2",
            ),
        ] {
            println!("== {title}");
            print!("{}", fixture.control().await?.query(sql).await);
        }
        Ok(())
    }

    /// Fails if memory grew too much after the warm-up, or no lag was measured.
    pub fn check_memory(&self) -> anyhow::Result<()> {
        let count = self.memory_kib.len() as f64;
        let part = |from: f64, to: f64| {
            median(&self.memory_kib[(count * from) as usize..(count * to) as usize])
        };
        let (warm, end) = (part(WARM_UP, WARM_UP + COMPARED), part(1.0 - COMPARED, 1.0));
        let allowed = (warm / 10).max(GROWTH_KIB);
        println!(
            "== memory: {warm} KiB after the warm-up, {end} KiB at the end; growth of {allowed} KiB is permitted"
        );
        ensure!(end <= warm + allowed, "memory grew from {warm} to {end} KiB");
        ensure!(!self.lag_ms.is_empty(), "no heartbeat arrived at the destination");
        Ok(())
    }
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn percentiles(values: &[u64]) -> String {
    let mut values = values.to_vec();
    values.sort_unstable();
    let at = |percent: usize| {
        values
            .get((values.len() * percent / 100).min(values.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    format!("p50 {} p95 {} p99 {} max {}", at(50), at(95), at(99), at(100))
}

fn memory_kib(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .context("the daemon's /proc entry")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
