//! A stand-in of SQL Server as a process, and the protocol on its stdin and stdout.
//!
//! It prints its address and then answers each input line with a number. An empty line starts the
//! recording of statements. Any other line returns how many statements with that text the daemon has
//! sent since (`*`: all statements). It ends at the end of its input, so it does not outlive the
//! benchmark.

use std::{net::SocketAddr, process::Stdio};

use anyhow::Context;
use mssql_standin::{
    cdc::{CaptureConfig, CaptureMode},
    server::{Encryption, Server, StatementRecord},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{process, sql};

/// The daemon's application name at a server.
const APPLICATION: &str = "dbaops-dataflow";
/// Every statement.
const ALL: &str = "*";

/// The stand-in's process.
pub async fn serve() -> anyhow::Result<()> {
    // a commit can be read at once, so that what is measured is the daemon's time
    let capture = CaptureConfig { mode: CaptureMode::Immediate, ..CaptureConfig::default() };
    let server = Server::builder()
        .login(sql::USER, sql::PASSWORD)
        .tls(Encryption::NotSupported)
        .capture(capture)
        .start()
        .await?;
    println!("{}", server.addr());
    // this thread has nothing else to do: connections are served by others
    for line in std::io::stdin().lines() {
        let text = line?;
        if text.is_empty() {
            server.log_statements(true);
        }
        let counts = |s: &StatementRecord| {
            s.application == APPLICATION && (text == ALL || s.text.contains(&text))
        };
        println!("{}", server.statements().into_iter().filter(|s| counts(s)).count());
    }
    Ok(())
}

/// A stand-in's process, seen from the benchmark.
pub struct Standin {
    pub addr: SocketAddr,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Standin {
    pub async fn start() -> anyhow::Result<Standin> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("standin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("a stand-in's input")?;
        let mut output =
            BufReader::new(child.stdout.take().context("a stand-in's output")?).lines();
        let addr = output.next_line().await?.context("the stand-in ended")?.parse()?;
        Ok(Standin { addr, child, input, output })
    }

    async fn request(&mut self, line: &str) -> anyhow::Result<u64> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.output.next_line().await?.context("the stand-in ended")?.parse()?)
    }

    /// Starts to count statements.
    pub async fn start_counting(&mut self) -> anyhow::Result<()> {
        self.request("").await.map(drop)
    }

    /// The daemon's statements since [`Standin::start_counting`]; each is one round trip.
    pub async fn counted(&mut self) -> anyhow::Result<u64> {
        self.request(ALL).await
    }

    /// The same, of statements that contain a text.
    pub async fn counted_with(&mut self, text: &str) -> anyhow::Result<u64> {
        self.request(text).await
    }

    /// The CPU time of the stand-in's process.
    pub fn cpu(&self) -> anyhow::Result<std::time::Duration> {
        process::cpu(self.child.id().context("the stand-in ended")?)
    }
}
