//! CPU time (user and system), time by the clock, and memory of processes.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};

/// The unit of the times in `/proc/<pid>/stat`: USER_HZ is 100 on every Linux platform.
const TICK: Duration = Duration::from_millis(10);
const BINARY: &str = env!("CARGO_BIN_EXE_dbaops-dataflow");

/// CPU time and time by the clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub cpu: Duration,
    pub wall: Duration,
}

/// The sum of two consecutive fields of a stat file, which are in ticks.
fn ticks(file: &str, first: usize) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    // the second field, the name in parentheses, may contain blanks: after it comes the third field
    let fields: Vec<&str> =
        text.rsplit_once(')').context("a stat line")?.1.split_whitespace().collect();
    let field = |number: usize| -> anyhow::Result<u32> {
        Ok(fields.get(number - 3).context("a stat field")?.parse()?)
    };
    Ok(TICK * (field(first)? + field(first + 1)?))
}

/// The user and system time of a process.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    ticks(&format!("/proc/{pid}/stat"), 14)
}

/// The user and system time of all child processes that have ended.
fn cpu_of_ended() -> anyhow::Result<Duration> {
    ticks("/proc/self/stat", 16)
}

/// A value of `/proc/<pid>/status`, in KiB.
fn status_kib(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
    Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
}

/// The peak resident memory of a process, in MiB.
pub fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    Ok(status_kib(pid, "VmHWM")? as f64 / 1024.0)
}

/// The size of the binary, in MiB.
pub fn binary_mib() -> anyhow::Result<f64> {
    Ok(fs::metadata(BINARY)?.len() as f64 / f64::from(1 << 20))
}

/// The daemon's binary with only these variables, without those of the caller.
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

/// Runs a command of the daemon's binary, which must exit with 0.
pub async fn finish(variables: &[(String, String)], arguments: &[&str]) -> anyhow::Result<Spent> {
    timed(daemon(variables, arguments)).await.map(|(spent, _)| spent)
}

/// Runs this program in another role; returns its output, too.
pub async fn role(arguments: &[&str]) -> anyhow::Result<(Spent, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    timed(command).await
}

async fn timed(mut command: Command) -> anyhow::Result<(Spent, String)> {
    let (before, began) = (cpu_of_ended()?, Instant::now());
    let output = command.output().await?;
    let spent = Spent { wall: began.elapsed(), cpu: cpu_of_ended()?.saturating_sub(before) };
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{:?} ended with {}:\n{stdout}{}",
        command,
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok((spent, stdout))
}

/// A running daemon; killed when dropped.
pub struct Running {
    child: Child,
    pub pid: u32,
}

impl Running {
    pub fn start(variables: &[(String, String)]) -> anyhow::Result<Running> {
        // stdout is not read here; a pipe would fill and block the daemon
        let child =
            daemon(variables, &[]).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn()?;
        let pid = child.id().context("the daemon ended")?;
        Ok(Running { child, pid })
    }

    pub fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(self.pid)
    }

    /// Kills the daemon; returns its peak memory in MiB.
    pub async fn end(mut self) -> anyhow::Result<f64> {
        let peak = peak_mib(self.pid)?;
        self.child.kill().await?;
        Ok(peak)
    }
}
