//! For as long as you like: `cargo run --release --example soak -- --minutes N`.
//!
//! Several source servers with many tables, a writer on each (one of them as fast as it can),
//! capture that lags by a random time, networks and servers that fail at random, full syncs now and
//! then, and verification all along. The daemon is a process of its own, so that its memory is its
//! own. In the end every table is compared. Exit code 1 when anything differs, when a verification
//! cried wolf, when the daemon ended or panicked, when it does not stop, or when its memory grew by
//! more than a tenth (and 8 MiB) after warming up.

#[path = "../../tests/it/harness/client.rs"]
mod client;
mod field;
mod trouble;
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

use field::Field;
use watch::Watch;

/// When the soak gives up waiting for the destination to catch up, and for the daemon to stop.
const PATIENCE: Duration = Duration::from_secs(300);
/// The part of the time that goes by without faults in the end: memory is compared between two
/// stretches of the same kind.
const CALM: f64 = 0.2;
/// Where the daemon's own words go.
const LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/soak-daemon.log");

#[derive(Parser)]
struct Args {
    /// How long the writers write.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Of everything random; a new one each time unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// The process that is watched: the daemon alone.
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

/// What the binary does, until SIGTERM.
#[cfg(unix)]
async fn only_daemon() -> anyhow::Result<()> {
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let shutdown = async move {
        stop.recv().await;
    };
    Ok(daemon::run(Config::from_vars(std::env::vars())?, shutdown).await?)
}

/// Nobody starts it: see [`soak`].
#[cfg(not(unix))]
async fn only_daemon() -> anyhow::Result<()> {
    Ok(daemon::run(Config::from_vars(std::env::vars())?, std::future::pending()).await?)
}

async fn soak(args: &Args) -> anyhow::Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "the soak reads /proc and sends SIGTERM: it runs on Linux alone"
    );
    let seed = args.seed.unwrap_or_else(|| rand::rng().random());
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    println!("== soak of {} min, --seed {seed}", args.minutes);
    let mut random = StdRng::seed_from_u64(seed);
    let field = Field::new(&mut random).await?;
    println!(
        "   {} sources, {} tables each, {} mappings",
        field.sources.len(),
        field::TABLES,
        field.mappings()
    );

    let log = std::fs::File::create(LOG).context(LOG)?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--daemon")
        .envs(field.variables())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().context("the daemon runs")?;

    let (stop, stopped) = signal::channel(false);
    let writing: Vec<_> = (0..field.sources.len())
        .map(|source| tokio::spawn(field.writer(source, random.random(), stopped.clone())))
        .collect();
    let mut watch = Watch::new(&field, pid).await?;
    let began = Instant::now();
    let calm_from = length.mul_f64(1.0 - CALM);
    let mut trouble = trouble::Source::new(random.random());
    while began.elapsed() < length {
        if began.elapsed() < calm_from {
            trouble.maybe(&field).await?;
        } else {
            trouble.end(&field).await;
        }
        watch.look(&field, began.elapsed()).await?;
        if let Some(status) = child.try_wait()? {
            bail!("the daemon ended by itself ({status}); its words are in {LOG}");
        }
    }
    stop.send_replace(true);
    let mut transactions = 0;
    for writer in writing {
        transactions += writer.await??;
    }
    println!(
        "== {transactions} transactions written, {} faults made; waiting until everything is there",
        trouble.made
    );
    trouble.end(&field).await;

    let behind = Instant::now();
    field.equal(PATIENCE).await?;
    println!(
        "   every table is equal, {:.1} s after the last commit",
        behind.elapsed().as_secs_f64()
    );
    // What arrived after the last look.
    watch.look(&field, began.elapsed()).await?;
    field.verified(PATIENCE).await?;
    watch.report(&field).await?;

    let terminated = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
    ensure!(terminated.success(), "SIGTERM was not sent");
    let status = tokio::time::timeout(PATIENCE, child.wait())
        .await
        .context("the daemon does not stop")??;
    ensure!(status.success(), "the daemon ended with {status}; its words are in {LOG}");
    field.nobody_left(PATIENCE).await?;
    let words = std::fs::read_to_string(LOG)?;
    ensure!(!words.contains("panicked"), "something panicked; see {LOG}");
    ensure!(!words.contains("stopped without waiting"), "a task did not end; see {LOG}");
    watch.judge()?;
    println!("== well, after {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
