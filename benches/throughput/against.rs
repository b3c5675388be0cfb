//! The clients that the daemon is compared with, each in a process of its own on one thread: tiberius
//! reading a SELECT, tiberius with a bulk load, and one statement per row, as the first
//! implementation of this service did it.

use std::{fs, net::SocketAddr, time::Instant};

use anyhow::Context;
use clap::Subcommand;
use futures_util::TryStreamExt;
use tiberius::{ColumnData, QueryItem, ToSql};

use crate::{
    process::{self, Spent},
    rows,
    sql::{self, Wire},
    workload::{self, Change, Keys},
};

/// Rows in a transaction of the first implementation's full sync.
const TRANSACTION_ROWS: u64 = 1000;

#[derive(Subcommand)]
pub enum Work {
    /// Reads the rows of a SELECT and drops them.
    Drain { addr: SocketAddr, database: String, sql: String },
    /// Loads rows from memory, in one bulk load.
    Load { addr: SocketAddr, database: String, table: String, rows: u64 },
    /// Inserts rows one by one, 1,000 in a transaction.
    Insert { addr: SocketAddr, database: String, table: String, rows: u64 },
    /// Applies changes one by one, each in a transaction of its own.
    Apply {
        addr: SocketAddr,
        database: String,
        table: String,
        seed: u64,
        rows: u64,
        count: usize,
        keys: Keys,
    },
}

/// In the child process: does the work, and prints the CPU time and the time in ns, without those of
/// connecting and preparing rows.
pub async fn run(work: &Work) -> anyhow::Result<()> {
    let (addr, database) = match work {
        Work::Drain { addr, database, .. }
        | Work::Load { addr, database, .. }
        | Work::Insert { addr, database, .. }
        | Work::Apply { addr, database, .. } => (*addr, database),
    };
    let mut client = sql::connect(addr, database).await?;
    let watch;
    let done = match work {
        Work::Drain { sql, .. } => {
            watch = Watch::start()?;
            drain(&mut client, sql).await?
        }
        Work::Load { table, rows, .. } => {
            let made: Vec<_> = (1..=i64::try_from(*rows)?).map(rows::row).collect();
            watch = Watch::start()?;
            rows::load(&mut client, table, made.into_iter()).await?
        }
        Work::Insert { table, rows, .. } => {
            let made: Vec<_> = (1..=i64::try_from(*rows)?).map(rows::cells).collect();
            watch = Watch::start()?;
            insert(&mut client, table, &made).await?
        }
        Work::Apply { table, seed, rows, count, keys, .. } => {
            let changes = workload::changes(*seed, *rows, *count, *keys);
            watch = Watch::start()?;
            apply(&mut client, table, &changes).await?
        }
    };
    println!("{}", watch.stop(done)?);
    Ok(())
}

/// In the parent process: runs the child, and returns the times that it printed.
pub async fn measured(arguments: &[&str]) -> anyhow::Result<Spent> {
    let (_, output) = process::role(&[&["against"], arguments].concat()).await?;
    let mut numbers = output.split_whitespace().map(str::parse::<u64>);
    let mut next = || -> anyhow::Result<std::time::Duration> {
        Ok(std::time::Duration::from_nanos(
            numbers.next().with_context(|| format!("too few numbers in {output}"))??,
        ))
    };
    Ok(Spent { cpu: next()?, wall: next()? })
}

/// Measures the CPU time of this thread and the time by the clock.
struct Watch {
    cpu_ns: u64,
    wall: Instant,
}

fn thread_cpu_ns() -> anyhow::Result<u64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split_whitespace().next().context("CPU time in schedstat")?.parse()?)
}

impl Watch {
    fn start() -> anyhow::Result<Watch> {
        Ok(Watch { cpu_ns: thread_cpu_ns()?, wall: Instant::now() })
    }

    fn stop(self, done: u64) -> anyhow::Result<String> {
        Ok(format!("{} {} {done}", thread_cpu_ns()? - self.cpu_ns, self.wall.elapsed().as_nanos()))
    }
}

async fn drain(client: &mut Wire, sql: &str) -> anyhow::Result<u64> {
    let mut stream = client.query(sql, &[]).await?;
    let mut rows = 0;
    while let Some(item) = stream.try_next().await? {
        rows += u64::from(matches!(item, QueryItem::Row(_)));
    }
    Ok(rows)
}

/// A cell as a parameter.
struct Cell<'a>(&'a ColumnData<'static>);

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> ColumnData<'_> {
        self.0.clone()
    }
}

async fn execute(
    client: &mut Wire,
    sql: &str,
    cells: &[ColumnData<'static>],
) -> anyhow::Result<()> {
    let cells: Vec<_> = cells.iter().map(Cell).collect();
    let params: Vec<&dyn ToSql> = cells.iter().map(|cell| cell as &dyn ToSql).collect();
    client.execute(sql, &params).await?;
    Ok(())
}

fn insert_one(table: &str) -> String {
    let params: Vec<_> = (1..=rows::NAMES.split(", ").count()).map(|i| format!("@P{i}")).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", rows::NAMES, params.join(", "))
}

async fn insert(
    client: &mut Wire,
    table: &str,
    rows: &[[ColumnData<'static>; 10]],
) -> anyhow::Result<u64> {
    let statement = insert_one(table);
    for rows in rows.chunks(usize::try_from(TRANSACTION_ROWS)?) {
        client.begin_transaction().await?;
        for row in rows {
            execute(client, &statement, row).await?;
        }
        client.commit_transaction().await?;
    }
    Ok(rows.len() as u64)
}

async fn apply(client: &mut Wire, table: &str, changes: &[Change]) -> anyhow::Result<u64> {
    let insert = insert_one(table);
    let assignments: Vec<_> = rows::NAMES
        .split(", ")
        .enumerate()
        .skip(1)
        .map(|(i, name)| format!("{name} = @P{}", i + 1))
        .collect();
    let update = format!("UPDATE {table} SET {} WHERE ID = @P1", assignments.join(", "));
    let delete = format!("DELETE FROM {table} WHERE ID = @P1");
    for change in changes {
        match change {
            Change::Insert(key) => execute(client, &insert, &rows::cells(*key)).await?,
            Change::Update(key, version) => {
                let mut cells = rows::cells(*version);
                cells[0] = ColumnData::I64(Some(*key));
                execute(client, &update, &cells).await?;
            }
            Change::Delete(key) => execute(client, &delete, &[ColumnData::I64(Some(*key))]).await?,
        }
    }
    Ok(changes.len() as u64)
}
