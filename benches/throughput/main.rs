//! How fast, how small: `cargo bench --bench throughput`.
//!
//! Source and destination are stand-ins in processes of their own, and the daemon is the binary
//! that users run, as a process, so that its processor time and its memory are its own. What it is
//! measured against (draining a SELECT, loading rows from memory, one statement per row) runs as a
//! process as well, in the same round, so that a machine that is busy slows both alike. Figures are
//! medians.
//!
//! This program is all of those processes: it starts itself again in a [`Role`].

mod against;
mod changes;
mod field;
mod idle;
mod large;
mod latency;
mod memory;
mod process;
mod report;
mod rows;
mod sql;
mod standin;
mod start;
mod transfer;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use report::Report;

#[derive(Parser)]
struct Args {
    /// A smaller run, to see that everything works
    #[arg(long)]
    quick: bool,
    /// Only these measurements (transfer, changes, latency, verify, idle, memory, large, start)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// What cargo passes
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What else this program is, for itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Role {
    /// A server.
    Standin,
    /// What the daemon is measured against.
    Against {
        #[command(subcommand)]
        work: against::Work,
    },
}

/// How much of everything.
pub struct Scale {
    pub rounds: usize,
    pub rows: u64,
    /// for what is done row by row
    pub rows_slow: u64,
    pub changes: u64,
    pub changes_slow: u64,
    pub latencies: usize,
    /// mappings on one source, and sources with a hundred mappings each
    pub mappings: usize,
    pub sources: usize,
    pub rows_big: u64,
    /// of one large value
    pub value_bytes: u64,
}

impl Scale {
    fn new(quick: bool) -> Scale {
        if quick {
            Scale {
                rounds: 1,
                rows: 20_000,
                rows_slow: 2_000,
                changes: 5_000,
                changes_slow: 1_000,
                latencies: 50,
                mappings: 1_000,
                sources: 10,
                rows_big: 100_000,
                value_bytes: 64 << 20,
            }
        } else {
            Scale {
                rounds: 3,
                rows: 200_000,
                rows_slow: 10_000,
                changes: 50_000,
                changes_slow: 4_000,
                latencies: 300,
                mappings: 1_000,
                sources: 100,
                rows_big: 1_000_000,
                value_bytes: 1 << 30,
            }
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.role {
        Some(Role::Standin) => standin::serve(),
        // on one thread, whose processor time is then all there is
        Some(Role::Against { work }) => {
            runtime(false).and_then(|runtime| runtime.block_on(against::run(work)))
        }
        None if args.bench => runtime(true).and_then(|runtime| runtime.block_on(measure(&args))),
        None => {
            println!("this is a benchmark: cargo bench --bench throughput");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

pub fn runtime(threads: bool) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = if threads {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    Ok(builder.enable_all().build()?)
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let scale = Scale::new(args.quick);
    let mut report = Report::new();
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    if wanted("start") {
        start::measure(&scale, &mut report).await?;
    }
    if wanted("idle") {
        idle::measure(&scale, &mut report).await?;
    }
    if wanted("latency") {
        latency::measure(&scale, &mut report).await?;
    }
    if wanted("transfer") {
        transfer::measure(&scale, &mut report).await?;
    }
    if wanted("changes") {
        changes::measure(&scale, &mut report).await?;
    }
    if wanted("verify") {
        verify::measure(&scale, &mut report).await?;
    }
    if wanted("memory") {
        memory::measure(&scale, &mut report).await?;
    }
    if wanted("large") {
        large::measure(&scale, &mut report).await?;
    }
    report.print();
    Ok(())
}
