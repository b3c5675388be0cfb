//! What a process took: time of processors (user and system), time of the clock, memory.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};

/// A tick of the times in /proc, on every Linux.
const TICK: Duration = Duration::from_millis(10);
const BINARY: &str = env!("CARGO_BIN_EXE_dbaops-dataflow");

/// Processor time and time by the clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub cpu: Duration,
    pub wall: Duration,
}

/// Two fields of a stat file, in ticks, added.
fn ticks(file: &str, first: usize) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    // fields are counted from behind the name, which may have spaces; the first there is the third
    let fields: Vec<&str> =
        text.rsplit_once(')').context("a stat line")?.1.split_whitespace().collect();
    let field = |number: usize| -> anyhow::Result<u32> {
        Ok(fields.get(number - 3).context("a stat field")?.parse()?)
    };
    Ok(TICK * (field(first)? + field(first + 1)?))
}

/// User and system time of a process.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    ticks(&format!("/proc/{pid}/stat"), 14)
}

/// The same of the children that have ended.
fn cpu_of_ended() -> anyhow::Result<Duration> {
    ticks("/proc/self/stat", 16)
}

/// A line of a process's status, in KiB.
fn status_kib(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
    Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
}

/// The most memory that a process ever held, in MiB.
pub fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    Ok(status_kib(pid, "VmHWM")? as f64 / 1024.0)
}

/// The size of the binary, in MiB.
pub fn binary_mib() -> anyhow::Result<f64> {
    Ok(fs::metadata(BINARY)?.len() as f64 / f64::from(1 << 20))
}

/// The daemon's binary, with nothing of the caller's settings.
fn daemon(variables: &[(String, String)], arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for (name, _) in std::env::vars() {
        if ["DEST_", "DATAFLOW_", "RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().cloned());
    command
}

/// Runs a command of the daemon's binary to its end, which must be a good one.
pub async fn finish(variables: &[(String, String)], arguments: &[&str]) -> anyhow::Result<Spent> {
    timed(daemon(variables, arguments)).await.map(|(spent, _)| spent)
}

/// Runs this program in another role, and returns what it printed too.
pub async fn role(arguments: &[&str]) -> anyhow::Result<(Spent, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    timed(command).await
}

async fn timed(mut command: Command) -> anyhow::Result<(Spent, String)> {
    let (before, began) = (cpu_of_ended()?, Instant::now());
    let output = command.output().await?;
    let spent = Spent { wall: began.elapsed(), cpu: cpu_of_ended()?.saturating_sub(before) };
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{:?} ended with {}:\n{words}{}",
        command,
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((spent, words))
}

/// The daemon, running; killed when dropped.
pub struct Running {
    child: Child,
    pub pid: u32,
}

impl Running {
    pub fn start(variables: &[(String, String)]) -> anyhow::Result<Running> {
        // nobody would read what it says
        let child =
            daemon(variables, &[]).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
        let pid = child.id().context("the daemon ended")?;
        Ok(Running { child, pid })
    }

    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(self.pid)
    }

    /// Ends it, and tells the most memory that it held, in MiB.
    pub async fn end(mut self) -> anyhow::Result<f64> {
        let peak = peak_mib(self.pid)?;
        self.child.kill().await?;
        Ok(peak)
    }
}
