//! What is watched: memory, connections, and how far the destination is behind.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    client::Sql,
    field::{APPLICATION, DEST_CONNECTIONS, Field, SOURCE_CONNECTIONS},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two lines.
const LINE: Duration = Duration::from_secs(10);
/// The part of the samples that warms up, and the parts behind it and at the end that are compared.
const WARM_UP: f64 = 0.35;
const STRETCH: f64 = 0.15;
/// Growth below this is no leak, whatever the percentage.
const GROWTH_KIB: u64 = 8 * 1024;

pub struct Watch {
    pid: u32,
    copies: Vec<Option<Sql>>,
    memory_kib: Vec<u64>,
    lag_ms: Vec<u64>,
    line: Instant,
}

impl Watch {
    pub async fn new(field: &Field, pid: u32) -> anyhow::Result<Watch> {
        let copies = (0..field.sources.len()).map(|_| None).collect();
        Ok(Watch { pid, copies, memory_kib: Vec::new(), lag_ms: Vec::new(), line: Instant::now() })
    }

    /// One look, after a pause.
    pub async fn look(&mut self, field: &Field, at: Duration) -> anyhow::Result<()> {
        tokio::time::sleep(PAUSE).await;
        self.memory_kib.push(memory_kib(self.pid)?);
        for number in 0..self.copies.len() {
            let copy = match &mut self.copies[number] {
                Some(copy) => copy,
                none => match field.copy(number).await {
                    Ok(copy) => none.insert(copy),
                    // The destination restarts.
                    Err(_) => continue,
                },
            };
            match copy.try_query("SELECT COALESCE(MAX(ID), 0) FROM dbo.Beat").await {
                Ok(newest) => {
                    let newest: i64 = newest.first().parse().context("the newest beat")?;
                    let mut beats =
                        field.sources[number].beats.lock().unwrap_or_else(PoisonError::into_inner);
                    while beats.front().is_some_and(|(beat, _)| *beat <= newest) {
                        if let Some((_, committed)) = beats.pop_front() {
                            self.lag_ms.push(
                                u64::try_from(committed.elapsed().as_millis()).unwrap_or(u64::MAX),
                            );
                        }
                    }
                }
                Err(_) => self.copies[number] = None,
            }
        }
        for (place, (server, _)) in field.ends().iter().enumerate() {
            let most =
                if place == field.sources.len() { DEST_CONNECTIONS } else { SOURCE_CONNECTIONS };
            let now = server.connection_count_of(APPLICATION).now;
            // A server counts a connection until it has heard of its end; one that hangs hears of
            // nothing.
            ensure!(
                now <= 2 * most,
                "{now} connections to server {place}, where {most} are allowed"
            );
        }
        if self.line.elapsed() >= LINE {
            self.line = Instant::now();
            println!(
                "   {:>5.0} s  memory {:>6} KiB  connections {:?}  lag ms {}",
                at.as_secs_f64(),
                self.memory_kib.last().copied().unwrap_or_default(),
                field
                    .ends()
                    .iter()
                    .map(|(server, _)| server.connection_count_of(APPLICATION).now)
                    .collect::<Vec<_>>(),
                percentiles(&self.lag_ms)
            );
        }
        Ok(())
    }

    pub async fn report(&self, field: &Field) -> anyhow::Result<()> {
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
            print!("{}", field.control().await?.query(sql).await);
        }
        Ok(())
    }

    /// Whether memory grew after warming up.
    pub fn judge(&self) -> anyhow::Result<()> {
        let count = self.memory_kib.len() as f64;
        let part = |from: f64, to: f64| {
            median(&self.memory_kib[(count * from) as usize..(count * to) as usize])
        };
        let (warm, end) = (part(WARM_UP, WARM_UP + STRETCH), part(1.0 - STRETCH, 1.0));
        let allowed = (warm / 10).max(GROWTH_KIB);
        println!(
            "== memory: {warm} KiB when warm, {end} KiB in the end; {allowed} KiB more are allowed"
        );
        ensure!(end <= warm + allowed, "memory grew from {warm} to {end} KiB");
        ensure!(!self.lag_ms.is_empty(), "nothing arrived");
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
