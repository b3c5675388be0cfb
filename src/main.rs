//! The binary: reads arguments and environment, and turns results into exit codes. The only place
//! that prints errors.

// A daemon does not panic: what cannot be is an error with words, or does not compile.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::dbg_macro
    )
)]

use clap::Parser;
use dbaops_dataflow::{
    cli::{self, Cli, Command},
    commands::{
        self,
        verify::{Verdict, VerifyRequest},
    },
    config::{Config, Problems, is_ours},
    control, daemon,
    error::{Error, Kind, Result},
    say,
    stdout::{self, complain},
};
use std::{future::Future, process::ExitCode};
use tokio_util::sync::CancellationToken;

/// It could not be done.
const FAILED: u8 = 1;
/// Arguments or environment cannot be used.
const USAGE: u8 = 2;
/// A verification could not decide everything.
const UNDECIDED: u8 = 3;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return usage(&answer),
    };
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
            for problem in &problems.0 {
                complain(format_args!("{problem}"));
            }
            return ExitCode::from(USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("the runtime cannot be started: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let mut undecided = false;
    let result = match cli.command {
        Some(Command::Init) => runtime.block_on(init(&config)),
        Some(Command::Check { mapping }) => runtime.block_on(commands::check::run(config, mapping)),
        Some(Command::Status { health: true, .. }) => {
            runtime.block_on(commands::status::health(&config))
        }
        Some(Command::Status { json, health: false }) => {
            runtime.block_on(commands::status::run(config, json))
        }
        Some(Command::Sync { mapping }) => {
            runtime.block_on(async { commands::sync::run(config, mapping, stop_signal()?).await })
        }
        Some(Command::StartFrom { mapping, lsn, time }) => {
            runtime.block_on(commands::start_from::run(config, mapping, lsn, time))
        }
        Some(Command::Retry { mapping, .. }) => {
            runtime.block_on(commands::retry::run(config, mapping))
        }
        Some(Command::Verify { mapping, full, repair, limit }) => {
            let wanted = VerifyRequest { mapping, full, repair, limit };
            runtime.block_on(verify(config, &wanted, &mut undecided))
        }
        // done above
        Some(Command::Completions { .. } | Command::Man) => Ok(true),
        Some(Command::Run { once }) => runtime.block_on(run(config, once || cli.once)),
        None => runtime.block_on(run(config, cli.once)),
    };
    // Nobody waits for a driver that is still at it.
    runtime.shutdown_background();
    let dropped = stdout::flush_log();
    if dropped > 0 {
        complain(format_args!(
            "{dropped} lines of the log were not printed: stdout was not read, or cannot be written"
        ));
    }
    let unprinted = unprinted();
    match result {
        Ok(true) if !unprinted && undecided => ExitCode::from(UNDECIDED),
        Ok(true) if !unprinted => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(FAILED),
        Err(error) => {
            complain(format_args!("{error}"));
            // A login that is refused is not mended by another start, which a service manager would
            // try until the login is locked.
            let refused = error.kind == Kind::Login;
            let wrong = error.kind == Kind::Config;
            ExitCode::from(if refused || wrong { USAGE } else { FAILED })
        }
    }
}

/// What the arguments themselves are answered with: help, the version, or what is wrong with them.
fn usage(answer: &clap::Error) -> ExitCode {
    use std::io::Write;
    let printed = answer.print().and_then(|()| std::io::stdout().flush());
    match printed {
        _ if answer.use_stderr() => ExitCode::from(USAGE),
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            complain(format_args!("stdout cannot be written: {error}"));
            ExitCode::from(FAILED)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Prints what `write` writes.
fn written(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> ExitCode {
    let mut text = Vec::new();
    if let Err(error) = write(&mut text) {
        complain(format_args!("the text cannot be made: {error}"));
        return ExitCode::from(FAILED);
    }
    stdout::print_bytes(&text);
    if unprinted() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
}

/// Whether stdout did not take everything, which is told on stderr.
fn unprinted() -> bool {
    if let Some(error) = stdout::failure() {
        complain(format_args!("stdout cannot be written: {error}"));
    }
    stdout::failure().is_some()
}

/// The environment, checked. A variable that is not Unicode is a problem like another.
fn config() -> std::result::Result<Config, Problems> {
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

async fn init(config: &Config) -> Result<bool> {
    control::init(config).await?;
    say!("the database {} at {} is ready", control::DATABASE, config.dest.server_name());
    say!("next, where it has no mappings yet: {}", commands::HOW_TO_BEGIN);
    Ok(true)
}

/// `true`: nothing is known to differ.
async fn verify(config: Config, wanted: &VerifyRequest, undecided: &mut bool) -> Result<bool> {
    let verdict = commands::verify::run(config, wanted, stop_signal()?).await?;
    *undecided = verdict == Verdict::Undecided;
    Ok(verdict != Verdict::Differs)
}

async fn run(config: Config, once: bool) -> Result<bool> {
    let stop = stop_signal()?;
    if once {
        daemon::run_once(config, stop).await
    } else {
        daemon::run(config, stop).await.map(|()| true)
    }
}

/// Resolves at the first SIGINT or SIGTERM (Ctrl-C or Ctrl-Break elsewhere); the second one ends
/// the process at once. The handlers are in place when this returns: no signal is missed because
/// nobody waits for one yet.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    let mut signals = Signals::install().map_err(|error| {
        Error::new(Kind::Other, format!("cannot install signal handlers: {error}"))
    })?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    // A task of its own: it hears signals also while whoever waits for them waits for a reader of
    // stdout.
    tokio::spawn(async move {
        signals.next().await;
        asked.cancel();
        signals.next().await;
        std::process::exit(i32::from(FAILED));
    });
    Ok(stop.cancelled_owned())
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn install() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    terminate: tokio::signal::windows::CtrlBreak,
}

#[cfg(windows)]
impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Signals {
            interrupt: tokio::signal::windows::ctrl_c()?,
            terminate: tokio::signal::windows::ctrl_break()?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
