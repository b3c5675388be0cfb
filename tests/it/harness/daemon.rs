//! The built binary as a child process.

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
    PATIENCE, eventually,
    servers::{self, as_said},
};

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// The binary with an environment of its own: nothing of the caller's `DEST_*` or `DATAFLOW_*`
/// reaches it.
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

    /// That the process never held more memory than this (`VmHWM`).
    #[cfg(target_os = "linux")]
    pub fn assert_high_water(&self, kib_max: u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the daemon's status");
        let high_water: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kib| kib.parse().ok())
            .expect("VmHWM");
        assert!(high_water < kib_max, "the daemon held {high_water} KiB, more than {kib_max}");
        println!("the daemon held {high_water} KiB at most");
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        self.output.lock().expect("output").join("\n")
    }

    /// Waits until a line contains all of `words`.
    pub async fn says(&self, words: &[&str]) -> String {
        eventually(&format!("a line with {words:?}"), async || {
            let lines = self.output.lock().expect("output");
            let found = lines.iter().find(|line| words.iter().all(|word| line.contains(word)));
            found.cloned().ok_or_else(|| lines.join("\n"))
        })
        .await
    }

    /// SIGTERM, and no more.
    pub async fn asked_to_stop(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status()
            .await
            .expect("kill");
        assert!(sent.success(), "SIGTERM was not sent");
    }

    /// What Linux knows of the process, below /proc; elsewhere a word about what is not looked at.
    pub fn proc(&self, what: &str) -> Option<PathBuf> {
        if !cfg!(target_os = "linux") {
            servers::say(&format!(
                "not looked at, as there is no /proc here: {what} of the daemon"
            ));
            return None;
        }
        Some(PathBuf::from(format!("/proc/{}", self.pid())))
    }

    /// Resident memory, in KiB.
    pub fn memory_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(self.proc("the memory")?.join("status"))
            .expect("the daemon's /proc entry");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        Some(line.trim().trim_end_matches(" kB").parse().expect("a number of KiB"))
    }

    /// Network sockets that are open (the runtime has a pair of its own for signals, which is not
    /// one).
    pub fn sockets(&self) -> Option<usize> {
        let own = self.proc("the sockets")?;
        let table =
            |name: &str| std::fs::read_to_string(own.join("net").join(name)).unwrap_or_default();
        let inodes: std::collections::HashSet<String> = [table("tcp"), table("tcp6")]
            .iter()
            .flat_map(|table| {
                table.lines().skip(1).filter_map(|line| {
                    line.split_whitespace().nth(9).map(|inode| format!("socket:[{inode}]"))
                })
            })
            .collect();
        let Ok(open) = std::fs::read_dir(own.join("fd")) else { return Some(0) };
        let links = open.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
        Some(links.filter(|link| inodes.contains(&link.to_string_lossy().into_owned())).count())
    }

    /// SIGTERM, and the exit status.
    pub async fn terminate(mut self) -> (ExitStatus, String) {
        self.asked_to_stop().await;
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("the daemon ends after SIGTERM")
            .expect("wait");
        self.drain().await;
        (status, self.output())
    }

    /// kill -9.
    pub async fn kill(mut self) -> String {
        self.child.kill().await.expect("kill -9");
        self.drain().await;
        self.output()
    }

    /// Waits for it to end by itself.
    pub async fn ends(mut self) -> (ExitStatus, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("the daemon ends by itself")
            .expect("wait");
        self.drain().await;
        (status, self.output())
    }

    async fn drain(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.await;
        }
    }
}

impl Drop for Daemon {
    /// A scenario that fails shows what the daemon said.
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
            output.lock().expect("output").push(as_said(&line));
        }
    })
}
