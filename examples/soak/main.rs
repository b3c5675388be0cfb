//! A soak test of any length: `cargo run --release --example soak -- --minutes N`.
//!
//! Several source servers with many tables, a writer on each (one of them almost without pauses),
//! capture that lags by random times, random faults of networks and servers, full syncs, and
//! continuous verification. The daemon is a process of its own, whose memory can be measured. In the
//! end every table is compared. The exit code is 1 if a table differs, a verification was FAILED, the
//! daemon ended by itself or panicked, it does not stop, or its memory grew by more than a tenth and
//! more than 8 MiB after warming up.

#[path = "../../tests/it/harness/client.rs"]
mod client;
mod faults;
mod fixture;

mod watch;

use std::{
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use dbaops_dataflow::{config::Config, daemon};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{process::Command, sync::watch as signal};

use fixture::Fixture;
use watch::Watch;

/// How long the soak waits at most for the destination to catch up, and for the daemon to stop.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// The last part of the time, in which no faults are injected and the final memory is measured.
const WITHOUT_FAULTS: f64 = 0.2;
/// The file for the daemon's output.
const LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/soak-daemon.log");

#[derive(Parser)]
struct Args {
    /// How long the writers write.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The seed of all random choices; a new one for each run by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs the daemon only: the soak starts itself with this argument.
    #[arg(long, hide = true)]
    daemon: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.daemon { only_daemon().await } else { soak(&args).await };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the daemon until SIGTERM, as the binary does.
#[cfg(unix)]
async fn only_daemon() -> anyhow::Result<()> {
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let shutdown = async move {
        stop.recv().await;
    };
    Ok(daemon::run(Config::from_vars(std::env::vars())?, shutdown).await?)
}

/// Not used: [`soak`] refuses to run on other systems than Linux.
#[cfg(not(unix))]
async fn only_daemon() -> anyhow::Result<()> {
    Ok(daemon::run(Config::from_vars(std::env::vars())?, std::future::pending()).await?)
}

async fn soak(args: &Args) -> anyhow::Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "the soak reads /proc and sends SIGTERM: it runs on Linux only"
    );
    let seed = args.seed.unwrap_or_else(|| rand::rng().random());
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    println!("== soak of {} min, --seed {seed}", args.minutes);
    let mut random = StdRng::seed_from_u64(seed);
    let fixture = Fixture::new(&mut random).await?;
    println!(
        "   {} sources, {} tables each, {} mappings",
        fixture.sources.len(),
        fixture::TABLES,
        fixture.mappings()
    );

    let log = std::fs::File::create(LOG).context(LOG)?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--daemon")
        .envs(fixture.variables())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().context("the daemon runs")?;

    let (stop, stopped) = signal::channel(false);
    let writing: Vec<_> = (0..fixture.sources.len())
        .map(|source| tokio::spawn(fixture.writer(source, random.random(), stopped.clone())))
        .collect();
    let mut watch = Watch::new(&fixture, pid).await?;
    let began = Instant::now();
    let faults_until = length.mul_f64(1.0 - WITHOUT_FAULTS);
    let mut injector = faults::Injector::new(random.random());
    while began.elapsed() < length {
        if began.elapsed() < faults_until {
            injector.inject_when_due(&fixture).await?;
        } else {
            injector.end(&fixture).await;
        }
        watch.sample(&fixture, began.elapsed()).await?;
        if let Some(status) = child.try_wait()? {
            bail!("the daemon ended by itself ({status}); its output is in {LOG}");
        }
    }
    stop.send_replace(true);
    let mut transactions = 0;
    for writer in writing {
        transactions += writer.await??;
    }
    println!(
        "== {transactions} transactions committed, {} faults injected; waiting until every table is equal",
        injector.injected
    );
    injector.end(&fixture).await;

    let last_commit = Instant::now();
    fixture.wait_until_equal(WAIT_MAX).await?;
    println!(
        "   every table is equal, {:.1} s after the last commit",
        last_commit.elapsed().as_secs_f64()
    );
    // the lag of the heartbeats that arrived after the last sample
    watch.sample(&fixture, began.elapsed()).await?;
    fixture.wait_until_verified(WAIT_MAX).await?;
    watch.report(&fixture).await?;

    let terminated = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
    ensure!(terminated.success(), "SIGTERM was not sent");
    let status = tokio::time::timeout(WAIT_MAX, child.wait())
        .await
        .context("the daemon does not stop")??;
    ensure!(status.success(), "the daemon ended with {status}; its output is in {LOG}");
    fixture.wait_until_disconnected(WAIT_MAX).await?;
    let output = std::fs::read_to_string(LOG)?;
    ensure!(!output.contains("panicked"), "a task of the daemon panicked; see {LOG}");
    ensure!(!output.contains("stopped without waiting"), "a task did not end; see {LOG}");
    watch.check_memory()?;
    println!("== passed after {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
