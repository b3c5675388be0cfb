//! The `verify` command: compares now, shows how far it is, and says what it found.
//!
//! It does what the daemon's own verifications do, on connections of its own, and leaves the same
//! rows in the control tables. A daemon may run beside it, and should: differences in a table that
//! follows its source by CDC are only certain once the checkpoint has passed a fence, and only a
//! running daemon moves checkpoints.
//!
//! `DATAFLOW_VERIFY_CONCURRENCY` tables are verified at the same time, each in a task of its own.
//! With `--limit` a verification ends between two statements when the time is up; a task that a
//! statement holds longer than [`GRACE`] behind that is dropped with its connections.

use super::progress::Board;
use crate::{
    app,
    config::Config,
    error::{Error, Kind, Result},
    jobs::{
        Env,
        verify::{self, Scope, Step, VerificationReport},
    },
    model::{id::MappingId, mapping::Mapping},
    plan::verify::Status,
    say,
};
use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tracing::instrument::WithSubscriber;

/// Between two lines of progress where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(3);
/// Between two drawings where it is one.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// How long behind the limit a statement may end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// How often mappings are looked at after a repair: tables that wait for each other are rarely
/// chained deeper.
const ROUNDS_MAX: u32 = 10;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct VerifyRequest {
    /// Only this mapping.
    pub mapping: Option<i32>,
    /// Every row.
    pub full: bool,
    /// Mend what differs.
    pub repair: bool,
    /// All together take no longer.
    pub limit: Option<Duration>,
}

/// What came of it, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Equal,
    /// Something is PARTIAL or SKIPPED.
    Undecided,
    /// Something is FAILED, or could not be verified.
    Differs,
}

/// Verifies one mapping or all.
pub async fn run(
    mut config: Config,
    wanted: &VerifyRequest,
    stop: impl Future<Output = ()>,
) -> Result<Verdict> {
    config.repair |= wanted.repair;
    app::with_env(config, async move |env| {
        let cancel = env.cancel.clone();
        let mut work = std::pin::pin!(every(env, wanted));
        tokio::select! {
            result = work.as_mut() => return result,
            () = stop => cancel.cancel(),
        }
        work.await
    })
    .await
}

async fn every(env: &Env, wanted: &VerifyRequest) -> Result<Verdict> {
    let until = wanted.limit.map(|limit| Instant::now() + limit);
    let only = wanted.mapping.map(MappingId);
    let loaded = env.control.load_also(only).await?;
    env.sources.update(&loaded.servers);
    let mut verdicts = BTreeMap::new();
    for row in loaded.rejected.iter().filter(|row| only.is_none_or(|only| row.mapping == only)) {
        verdicts.insert(row.mapping, Verdict::Differs);
        say!("mapping {}: left out: {}", row.mapping, row.error);
    }
    let mut mappings: Vec<_> = loaded
        .mappings
        .into_iter()
        .filter(|mapping| only.is_none_or(|only| mapping.id == only))
        .collect();
    mappings.sort_by_key(|mapping| mapping.id);
    if let Some(only) = only
        && mappings.is_empty()
        && verdicts.is_empty()
    {
        return Err(Error::new(
            Kind::Missing,
            format!("there is no mapping {only} of an enabled server"),
        ));
    }
    // what was mended is looked at again, and with it what had to wait for rows of another table
    let mut full = wanted.full;
    for _ in 0..ROUNDS_MAX {
        let ended = Round::new(env, full, until, mappings.len()).run(mappings).await;
        let repaired: u64 = ended.iter().map(|one| one.repaired).sum();
        verdicts.extend(ended.iter().map(|one| (one.mapping.id, one.verdict)));
        mappings = ended.into_iter().filter(|one| one.again).map(|one| one.mapping).collect();
        full = false;
        if repaired == 0 || mappings.is_empty() || env.stopping() {
            break;
        }
    }
    if env.stopping() {
        say!("stopped");
        verdicts.insert(MappingId(0), Verdict::Undecided);
    }
    Ok(verdicts.into_values().max().unwrap_or(Verdict::Equal))
}

/// A mapping that had its turn.
struct Verified {
    mapping: Mapping,
    verdict: Verdict,
    /// Rows that were repaired.
    repaired: u64,
    /// It differed, and repairing was tried.
    again: bool,
    /// What is printed of it.
    lines: Vec<String>,
}

/// Mappings that are verified once.
struct Round<'a> {
    env: &'a Env,
    full: bool,
    until: Option<Instant>,
    board: Arc<Board>,
    running: BTreeMap<MappingId, Mapping>,
    tasks: JoinSet<Verified>,
    ended: Vec<Verified>,
}

impl<'a> Round<'a> {
    fn new(env: &'a Env, full: bool, until: Option<Instant>, mappings: usize) -> Self {
        Round {
            env,
            full,
            until,
            board: Arc::new(Board::new(mappings)),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            ended: Vec::new(),
        }
    }

    async fn run(mut self, mappings: Vec<Mapping>) -> Vec<Verified> {
        let mut waiting = VecDeque::from(mappings);
        let every = if self.board.terminal { DRAW_EVERY } else { LINE_EVERY };
        let mut draw = tokio::time::interval(every);
        let dropped_at = self.until.map(|until| until + GRACE);
        loop {
            while self.tasks.len() < self.env.config.verify_concurrency
                && let Some(mapping) = waiting.pop_front()
            {
                self.start(mapping);
            }
            if self.tasks.is_empty() {
                break;
            }
            tokio::select! {
                // a task that panics is a mapping that is left in `running`
                ended = self.tasks.join_next() => {
                    if let Some(Ok(ended)) = ended {
                        self.running.remove(&ended.mapping.id);
                        self.end(ended);
                    }
                }
                _ = draw.tick() => self.board.draw(),
                () = at(dropped_at) => {
                    self.tasks.shutdown().await;
                    break;
                }
            }
        }
        for (_, mapping) in std::mem::take(&mut self.running) {
            self.skip(mapping, "its last statement did not end in time");
        }
        for mapping in waiting {
            self.skip(mapping, "the time is up");
        }
        self.board.clear();
        self.ended
    }

    fn start(&mut self, mapping: Mapping) {
        if self.env.stopping() {
            return self.skip(mapping, "asked to stop");
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return self.skip(mapping, "the time is up");
        }
        self.running.insert(mapping.id, mapping.clone());
        self.board.show(mapping.id, Step::Compared { rows: 0, total: None });
        let (env, board) = (self.env.clone(), self.board.clone());
        let (full, until) = (self.full, self.until);
        let task = async move { one(&env, &board, mapping, full, until).await };
        self.tasks.spawn(task.with_current_subscriber());
    }

    fn skip(&mut self, mapping: Mapping, why: &str) {
        let lines = vec![heading(&mapping), skipped(why)];
        let verdict = Verdict::Undecided;
        self.end(Verified { mapping, verdict, repaired: 0, again: false, lines });
    }

    fn end(&mut self, ended: Verified) {
        self.board.end(ended.mapping.id);
        for line in &ended.lines {
            say!("{line}");
        }
        self.ended.push(ended);
    }
}

/// A moment, or never.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

fn heading(mapping: &Mapping) -> String {
    format!("mapping {}: {} -> {}", mapping.id, mapping.source, mapping.dest)
}

fn skipped(why: &str) -> String {
    format!("  SKIPPED {why}")
}

/// Verifies a mapping.
async fn one(
    env: &Env,
    board: &Board,
    mapping: Mapping,
    full: bool,
    until: Option<Instant>,
) -> Verified {
    let mut lines = vec![heading(&mapping)];
    let scope = if full { Scope::Whole } else { Scope::Next { stands_still: false } };
    let id = mapping.id;
    let rows = verify::run(env, &mapping, scope, until, &|step| board.show(id, step)).await;
    let repaired = match &rows {
        Ok(Some(report)) if env.config.repair && report.status == Status::Failed => {
            Some(report.repaired)
        }
        Ok(_) | Err(_) => None,
    };
    let skipped = matches!(&rows, Ok(None));
    let mut verdict = told(rows, &mut lines);
    // what was repaired is looked at again, and its columns and row count with it
    if repaired.is_none() && !skipped && !env.stopping() {
        verdict = verdict.max(told(verify::schema(env, &mapping).await, &mut lines));
        verdict =
            verdict.max(told(verify::row_count(env, &mapping, scope, until).await, &mut lines));
    }
    let again = repaired.is_some();
    Verified { mapping, verdict, repaired: repaired.unwrap_or_default(), again, lines }
}

/// Puts a result into lines; what it means.
fn told(result: Result<Option<VerificationReport>>, lines: &mut Vec<String>) -> Verdict {
    match result {
        Ok(Some(report)) => {
            let status = report.status.as_str();
            lines.push(format!("  {status:<7} {:<14} {}", report.kind, report.counts()));
            lines.extend(report.details.lines().map(|line| format!("          {line}")));
            match report.status {
                Status::Passed => Verdict::Equal,
                Status::Partial => Verdict::Undecided,
                Status::Failed => Verdict::Differs,
            }
        }
        Ok(None) => {
            lines.push(skipped("a full sync is due or running, or the mapping was switched off"));
            Verdict::Undecided
        }
        Err(error) if error.kind == Kind::Cancelled => {
            lines.push(skipped("asked to stop"));
            Verdict::Undecided
        }
        Err(error) => {
            lines.push(format!("  ERROR   {error}"));
            Verdict::Differs
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts() {
        assert_eq!(
            [Verdict::Undecided, Verdict::Equal].into_iter().max(),
            Some(Verdict::Undecided)
        );
        assert_eq!(
            [Verdict::Undecided, Verdict::Differs].into_iter().max(),
            Some(Verdict::Differs)
        );
    }
}
