//! The built binary of the daemon as a child process.

use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use super::{
    servers::{self, with_scenario_names},
    wait::{WAIT_MAX, eventually},
};

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// The binary with only these `DEST_*` and `DATAFLOW_*` variables: those of the test run, and what
/// a service manager sets, are removed.
pub fn command(variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbaops-dataflow"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for (name, _) in std::env::vars() {
        if name.starts_with("DEST_")
            || name.starts_with("DATAFLOW_")
            || name == "RUST_LOG"
            || name == "NOTIFY_SOCKET"
            || name.starts_with("WATCHDOG_")
        {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().copied());
    command
}

impl Daemon {
    pub fn start(variables: &[(&str, &str)]) -> Daemon {
        let mut child = command(variables, &[]).spawn().expect("start the daemon");
        let output = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(collect(stdout, output.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(collect(stderr, output.clone()));
        }
        Daemon { child, output, readers }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("the daemon runs")
    }

    /// Asserts that the peak resident memory of the process (`VmHWM`) is below `kib_max`.
    #[cfg(target_os = "linux")]
    pub fn assert_peak_memory_below(&self, kib_max: u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the daemon's status");
        let peak_kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse().ok())
            .expect("VmHWM");
        assert!(
            peak_kib < kib_max,
            "peak memory of the daemon: {peak_kib} KiB, limit {kib_max} KiB"
        );
        println!("peak memory of the daemon: {peak_kib} KiB");
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        self.output.lock().expect("output").join("\n")
    }

    /// Waits until an output line contains all of `expected`, and returns the line.
    pub async fn wait_for_line(&self, expected: &[&str]) -> String {
        eventually(&format!("a line with {expected:?}"), async || {
            let lines = self.output.lock().expect("output");
            let found = lines.iter().find(|line| expected.iter().all(|part| line.contains(part)));
            found.cloned().ok_or_else(|| lines.join("\n"))
        })
        .await
    }

    /// Sends SIGTERM and does not wait for the exit.
    pub async fn send_sigterm(&self) {
        self.signal("TERM").await;
    }

    /// Sends SIGSTOP: the process stops running, and its connections stay open.
    pub async fn freeze(&self) {
        self.signal("STOP").await;
    }

    /// Sends SIGCONT.
    pub async fn wake(&self) {
        self.signal("CONT").await;
    }

    async fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .await
            .expect("kill");
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// The process's directory in /proc. On systems without /proc, prints that `what` is not
    /// checked.
    pub fn proc_dir(&self, what: &str) -> Option<PathBuf> {
        if !cfg!(target_os = "linux") {
            servers::print_uncaptured(&format!(
                "no /proc here: {what} of the daemon is not checked"
            ));
            return None;
        }
        Some(PathBuf::from(format!("/proc/{}", self.pid())))
    }

    /// Resident memory, in KiB.
    pub fn memory_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(self.proc_dir("the memory")?.join("status"))
            .expect("the daemon's /proc entry");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        Some(line.trim().trim_end_matches(" kB").parse().expect("a number of KiB"))
    }

    /// The number of open TCP sockets (Tokio's own socket pair for signals is not TCP and does not
    /// count).
    pub fn sockets(&self) -> Option<usize> {
        let proc_dir = self.proc_dir("the sockets")?;
        let table = |name: &str| {
            std::fs::read_to_string(proc_dir.join("net").join(name)).unwrap_or_default()
        };
        let inodes: std::collections::HashSet<String> = [table("tcp"), table("tcp6")]
            .iter()
            .flat_map(|table| {
                table.lines().skip(1).filter_map(|line| {
                    line.split_whitespace().nth(9).map(|inode| format!("socket:[{inode}]"))
                })
            })
            .collect();
        let Ok(open) = std::fs::read_dir(proc_dir.join("fd")) else { return Some(0) };
        let links = open.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
        Some(links.filter(|link| inodes.contains(&link.to_string_lossy().into_owned())).count())
    }

    /// Sends SIGTERM and waits for the exit; returns the exit status and all output.
    pub async fn terminate(mut self) -> (ExitStatus, String) {
        self.send_sigterm().await;
        let status = tokio::time::timeout(WAIT_MAX, self.child.wait())
            .await
            .expect("the daemon ends after SIGTERM")
            .expect("wait");
        self.read_to_end().await;
        (status, self.output())
    }

    /// Sends SIGKILL and waits for the exit; returns all output.
    pub async fn kill(mut self) -> String {
        self.child.kill().await.expect("kill -9");
        self.read_to_end().await;
        self.output()
    }

    /// Waits for the process to exit without a signal from here; returns the exit status and all
    /// output.
    pub async fn wait_for_exit(mut self) -> (ExitStatus, String) {
        let status = tokio::time::timeout(WAIT_MAX, self.child.wait())
            .await
            .expect("the daemon ends by itself")
            .expect("wait");
        self.read_to_end().await;
        (status, self.output())
    }

    async fn read_to_end(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.await;
        }
    }
}

impl Drop for Daemon {
    /// A scenario that fails prints the daemon's output.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's output ---\n{}", self.output());
        }
    }
}

fn collect(
    stream: impl AsyncRead + Unpin + Send + 'static,
    output: Arc<Mutex<Vec<String>>>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            output.lock().expect("output").push(with_scenario_names(&line));
        }
    })
}
