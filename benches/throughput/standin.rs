//! A stand-in as a process, and the line to it.
//!
//! It says its address, and then answers lines: an empty one begins to count statements, any other
//! says how many the daemon has sent since that have its words in them (`*`: all). It ends when its
//! input does, so that none outlives the benchmark.

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

/// The daemon's, as servers see it.
const APPLICATION: &str = "dbaops-dataflow";
/// Every statement.
const ALL: &str = "*";

/// The process itself.
pub fn serve() -> anyhow::Result<()> {
    crate::runtime(true)?.block_on(async {
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
            let words = line?;
            if words.is_empty() {
                server.log_statements(true);
            }
            let counts = |s: &StatementRecord| {
                s.application == APPLICATION && (words == ALL || s.text.contains(&words))
            };
            println!("{}", server.statements().into_iter().filter(|s| counts(s)).count());
        }
        Ok(())
    })
}

/// The other end.
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

    async fn ask(&mut self, word: &str) -> anyhow::Result<u64> {
        self.input.write_all(format!("{word}\n").as_bytes()).await?;
        Ok(self.output.next_line().await?.context("the stand-in ended")?.parse()?)
    }

    /// From now on statements count.
    pub async fn count_from_here(&mut self) -> anyhow::Result<()> {
        self.ask("").await.map(drop)
    }

    /// Statements of the daemon since then: one round trip each.
    pub async fn counted(&mut self) -> anyhow::Result<u64> {
        self.ask(ALL).await
    }

    /// Those of them with these words.
    pub async fn counted_with(&mut self, words: &str) -> anyhow::Result<u64> {
        self.ask(words).await
    }

    /// The server's own processor time.
    pub fn cpu(&self) -> anyhow::Result<std::time::Duration> {
        process::cpu(self.child.id().context("the stand-in ended")?)
    }
}
