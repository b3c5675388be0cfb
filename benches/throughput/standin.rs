//! A stand-in as a process, and the line to it.
//!
//! It says its address, and then answers lines: `log` begins to count statements, `count` says how many the daemon has sent since. It ends
//! when its input does, so that none outlives the benchmark.

use std::{net::SocketAddr, process::Stdio};

use anyhow::Context;
use mssql_standin::{
    cdc::{CaptureConfig, CaptureMode},
    server::{Encryption, Server},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::{process, sql};

/// The daemon's, as servers see it.
const APPLICATION: &str = "dbaops-dataflow";

/// The process itself.
pub fn serve() -> anyhow::Result<()> {
    crate::runtime(true)?.block_on(async {
        // a commit can be read at once, so that what is measured is the daemon's time
        let capture = CaptureConfig { mode: CaptureMode::Immediate, ..CaptureConfig::default() };
        let server = Server::builder().login(sql::USER, sql::PASSWORD).tls(Encryption::NotSupported).capture(capture).start().await?;
        println!("{}", server.addr());
        // this thread has nothing else to do: connections are served by others
        for line in std::io::stdin().lines() {
            match line?.as_str() {
                "log" => {
                    server.log_statements(true);
                    println!("0");
                }
                "count" => println!("{}", server.statements().iter().filter(|s| s.application == APPLICATION).count()),
                "list" => {
                    let ours: Vec<_> = server.statements().into_iter().filter(|s| s.application == APPLICATION).collect();
                    println!("{}", ours.len());
                    for statement in ours {
                        eprintln!("--\n{}", statement.text);
                    }
                }
                other => anyhow::bail!("{other}: no such word"),
            }
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
        let mut output = BufReader::new(child.stdout.take().context("a stand-in's output")?).lines();
        let addr = output.next_line().await?.context("the stand-in ended")?.parse()?;
        Ok(Standin { addr, child, input, output })
    }

    async fn ask(&mut self, word: &str) -> anyhow::Result<u64> {
        self.input.write_all(format!("{word}\n").as_bytes()).await?;
        Ok(self.output.next_line().await?.context("the stand-in ended")?.parse()?)
    }

    /// From now on statements count.
    pub async fn count_from_here(&mut self) -> anyhow::Result<()> {
        self.ask("log").await.map(drop)
    }

    /// Statements of the daemon since then: one round trip each.
    pub async fn counted(&mut self) -> anyhow::Result<u64> {
        if std::env::var_os("BENCH_LIST").is_some() {
            return self.ask("list").await;
        }
        self.ask("count").await
    }

    /// The server's own processor time.
    pub fn cpu(&self) -> anyhow::Result<std::time::Duration> {
        process::cpu(self.child.id().context("the stand-in ended")?)
    }
}
