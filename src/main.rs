//! The binary: reads arguments and environment, and turns results into exit codes. The only place that prints errors.

use clap::Parser;
use dbaops_dataflow::{
    cli::{self, Cli, Command},
    commands,
    config::{Config, Problems, is_ours},
    control, daemon,
    error::Kind,
    inspect,
    model::{id::MappingId, lsn::Lsn},
};
use std::process::ExitCode;

/// It could not be done.
const FAILED: u8 = 1;
/// Arguments or environment cannot be used.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What needs no environment.
    match cli.command {
        Some(Command::Completions { shell }) => {
            return written(|out| {
                cli::completions(shell, out);
                Ok(())
            });
        }
        Some(Command::Man) => return written(cli::man),
        _ => {}
    }
    let config = match config() {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime cannot be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let result = match cli.command {
        Some(Command::Init) => runtime.block_on(init(&config)),
        Some(Command::Check { mapping }) => runtime.block_on(commands::check::run(config, mapping)),
        Some(Command::Status { health: true, .. }) => runtime.block_on(commands::status::health(&config)),
        Some(Command::Status { json, health: false }) => runtime.block_on(commands::status::run(config, json)),
        Some(Command::Sync { mapping }) => runtime.block_on(commands::sync::run(config, mapping, stop_signal())),
        Some(Command::StartFrom { mapping, lsn }) => runtime.block_on(start_from(&config, mapping, lsn)),
        Some(Command::Verify { mapping, full, repair }) => {
            runtime.block_on(inspect::verify(config, &inspect::Wanted { mapping, full, repair }, stop_signal()))
        }
        // done above
        Some(Command::Completions { .. } | Command::Man) => Ok(true),
        Some(Command::Run { once }) => runtime.block_on(run(config, once || cli.once)),
        None => runtime.block_on(run(config, cli.once)),
    };
    // Nobody waits for a driver that is still at it.
    runtime.shutdown_background();
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("{error}");
            // A login that is refused is not mended by another start, which a service manager would try until the login is locked.
            let refused = error.kind == Kind::Login;
            let wrong = error.kind == Kind::Config;
            ExitCode::from(if refused || wrong { USAGE } else { FAILED })
        }
    }
}

/// Prints what `write` writes. A pipe that was closed early (`… | head`) is nobody's failure.
fn written(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> ExitCode {
    use std::io::Write;
    let mut text = Vec::new();
    let result = write(&mut text).and_then(|()| std::io::stdout().write_all(&text)).and_then(|()| std::io::stdout().flush());
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("stdout cannot be written: {error}");
            ExitCode::from(FAILED)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The environment, checked. A variable that is not Unicode is a problem like another.
fn config() -> Result<Config, Problems> {
    let mut vars = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        if !is_ours(&name) {
            continue;
        }
        match value.into_string() {
            Ok(value) => vars.push((name, value)),
            Err(_) => problems.push(format!("{name} is not Unicode text")),
        }
    }
    match Config::from_vars(vars) {
        Ok(config) if problems.is_empty() => Ok(config),
        Ok(_) => Err(Problems(problems)),
        Err(Problems(more)) => {
            problems.extend(more);
            Err(Problems(problems))
        }
    }
}

async fn init(config: &Config) -> dbaops_dataflow::error::Result<bool> {
    control::init(config).await?;
    println!("the database {} at {} is ready", control::DATABASE, config.dest.place());
    Ok(true)
}

async fn start_from(config: &Config, mapping: i32, lsn: Lsn) -> dbaops_dataflow::error::Result<bool> {
    control::start_from(config, MappingId(mapping), lsn).await?;
    println!("mapping {mapping} goes on after {lsn}");
    Ok(true)
}

async fn run(config: Config, once: bool) -> dbaops_dataflow::error::Result<bool> {
    if once { daemon::run_once(config, stop_signal()).await } else { daemon::run(config, stop_signal()).await.map(|()| true) }
}

/// Resolves at the first SIGINT or SIGTERM (Ctrl-C or Ctrl-Break elsewhere). The second one ends the process at once.
async fn stop_signal() {
    next_signal().await;
    tokio::spawn(async {
        next_signal().await;
        std::process::exit(i32::from(FAILED));
    });
}

#[cfg(unix)]
async fn next_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("signals cannot be heard: {error}");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
async fn next_signal() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        eprintln!("Ctrl-C cannot be heard: {error}");
        std::future::pending::<()>().await;
    }
}
