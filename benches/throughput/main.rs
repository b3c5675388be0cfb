//! The benchmark: `cargo bench --bench throughput`.
//!
//! Source and destination are stand-ins in processes of their own. The daemon is the binary that
//! users run, as a process of its own, whose CPU time and memory can be measured. The clients that it
//! is compared with (reading a SELECT, loading rows from memory, one statement per row) run as
//! processes too, in the same round, so that a busy machine slows both alike. Figures are medians.
//!
//! This program starts itself again, in a [`Role`], for all processes but the daemon.

mod against;
mod changes;
mod fixture;
mod idle;
mod large;
mod latency;
mod memory;
mod process;
mod report;
mod rows;
mod scale;
mod sql;
mod standin;
mod start;
mod transfer;
mod verify;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use report::Report;
use scale::Scale;

#[derive(Parser)]
struct Args {
    /// A smaller run that shows whether everything works
    #[arg(long)]
    quick: bool,
    /// Only these measurements (transfer, changes, latency, verify, idle, memory, large, start)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// cargo bench passes this argument
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The roles in which this program starts itself.
#[derive(Subcommand)]
#[command(hide = true)]
enum Role {
    /// A stand-in of SQL Server.
    Standin,
    /// A client that the daemon is compared with.
    Against {
        #[command(subcommand)]
        work: against::Work,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.role {
        Some(Role::Standin) => runtime(true).and_then(|runtime| runtime.block_on(standin::serve())),
        // on one thread, so that the CPU time of this thread is all of it
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

fn runtime(threads: bool) -> anyhow::Result<tokio::runtime::Runtime> {
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
