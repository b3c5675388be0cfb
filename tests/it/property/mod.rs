//! Property test: random tables, transactions, capture delays and restarts. At every checkpoint the
//! destination table is the source table as of that LSN.
//!
//! A case is a table of 1 to 80 columns of any types with a key of 1 to 3 columns, a destination
//! table that may differ in permitted ways, and a few transactions, some of them rolled back. Many
//! cases share two servers and one daemon, which runs in this process and is stopped or aborted at
//! random times. The oracle uses no code of the daemon: an observer in the source's engine records
//! each table at each commit, and one in the destination's engine compares when a checkpoint
//! commits.
//!
//! `DATAFLOW_PROPERTY_CASES` and `DATAFLOW_PROPERTY_SEED` set the number of cases and the seed. By
//! default both are constants, so that every test run generates the same cases. A failure prints its
//! seed and its case.

mod case;
mod oracle;
mod restarts;
mod setup;
mod types;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::stream::{self, StreamExt};
use mssql_standin::engine::instance::Instance;
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::watch;

use self::{
    case::Case,
    oracle::{Oracle, Precision, difference},
    restarts::{Phase, run_with_restarts, settings},
    setup::{engine, set_up, table_id},
};
use crate::harness::World;

/// Cases that share two servers.
const GROUP: usize = 25;

/// Groups that run at the same time: a group spends much of its time waiting for capture and polls.
const GROUPS_AT_ONCE: usize = 3;

/// How long a group may take to catch up after its writers are done.
const CATCH_UP_MAX: Duration = Duration::from_secs(180);

/// The default number of cases.
const CASES: u64 = 50;
/// The default seed.
const SEED: u64 = 20_261_122;

#[tokio::test(flavor = "multi_thread")]
async fn at_every_checkpoint_the_destination_is_the_source_as_of_that_lsn() {
    crate::only_on_standins!("its engine");
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cases = usize::try_from(number("DATAFLOW_PROPERTY_CASES").unwrap_or(CASES))
        .expect("a count of cases");
    let seed = number("DATAFLOW_PROPERTY_SEED").unwrap_or(SEED);
    println!("DATAFLOW_PROPERTY_SEED={seed}");
    let (mut checkpoints, mut commits) = (0, 0);
    let groups = (0..cases.div_ceil(GROUP))
        .map(|at| (seed.wrapping_add(at as u64), GROUP.min(cases - at * GROUP)));
    let mut reports = stream::iter(groups)
        .map(async |(seed, count)| (seed, count, group(seed, count).await))
        .buffer_unordered(GROUPS_AT_ONCE);
    while let Some((seed, count, report)) = reports.next().await {
        assert!(
            report.failures.is_empty(),
            "DATAFLOW_PROPERTY_SEED={seed} DATAFLOW_PROPERTY_CASES={count}\n{}",
            report.failures.into_iter().take(3).collect::<Vec<_>>().join("\n\n")
        );
        checkpoints += report.checkpoints;
        commits += report.commits;
    }
    println!("{cases} cases, {commits} source commits, {checkpoints} checkpoints compared");
    assert!(commits > cases, "the writers committed almost nothing");
    assert!(checkpoints > cases, "almost no checkpoint was compared");
}

/// The result of a group.
struct Report {
    failures: Vec<String>,
    /// how many checkpoints were compared
    checkpoints: usize,
    /// how many source commits were recorded
    commits: usize,
}

/// Runs a group of cases on two servers of its own.
async fn group(seed: u64, count: usize) -> Report {
    let mut rng = StdRng::seed_from_u64(seed);
    let cases: Arc<Vec<Case>> =
        Arc::new((0..count).map(|number| Case::random(number, &mut rng)).collect());
    let world = World::with(|builder| builder.seed(seed)).await;
    let (at_source, at_dest) = (engine(&world.source), engine(&world.dest));
    let oracle = Oracle::default();
    set_up(&world, &cases, &oracle, &mut rng).await;

    // from here on the oracle observes every commit
    let source_oracle = oracle.clone();
    at_source.lock().observer =
        Some(Arc::new(move |committed| source_oracle.record_source(committed)));
    let checkpoints = table_id(&at_dest, "Copy", "dbaops_dataflow_checkpoints");
    let dest_oracle = oracle.clone();
    at_dest.lock().observer =
        Some(Arc::new(move |committed| dest_oracle.check_dest(committed, checkpoints)));

    let (phase, phases) = watch::channel(Phase::Restarts);
    let variables: Vec<(String, String)> = world
        .variables()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(settings())
        .collect();
    let daemon =
        tokio::spawn(run_with_restarts(variables, phases, StdRng::seed_from_u64(seed ^ 1)));
    let mut transactions: Vec<(usize, usize)> = cases
        .iter()
        .enumerate()
        .flat_map(|(number, case)| (0..case.after.len()).map(move |step| (number, step)))
        .collect();
    // Transactions of one table keep their order; those of different tables are shuffled.
    transactions.sort_by_key(|&(number, step)| (step, (number as u64).wrapping_mul(seed | 1)));
    for (number, step) in transactions {
        // A statement may fail (a duplicate key, NULL in a NOT NULL column, an overflow); the next
        // ones go on.
        let _ = world.source.sql_in("Shop", &cases[number].after[step]).await;
    }
    let _ = phase.send(Phase::CatchUp);
    let behind = catch_up(&at_source, &at_dest, &oracle).await;
    let _ = phase.send(Phase::End);
    let _ = daemon.await;
    let report = {
        let observed = oracle.lock();
        let mut failures: Vec<String> = observed
            .failures
            .iter()
            .map(|(case, wrong)| format!("{wrong}\n{}", cases[*case].describe()))
            .collect();
        if failures.is_empty() {
            failures.extend(behind.iter().map(|(case, wrong)| {
                format!("did not catch up: {wrong}\n{}", cases[*case].describe())
            }));
        }
        Report { failures, checkpoints: observed.compared, commits: observed.commits }
    };
    if !report.failures.is_empty() {
        let errors = world
            .control()
            .await
            .query(
                "SELECT TOP (5) mapping_id, error_message FROM error_logs ORDER BY error_id DESC",
            )
            .await;
        for row in &errors.rows {
            println!("error_logs: {}", row.join(": "));
        }
    }
    report
}

/// Waits until every destination table equals its source table and every checkpoint has reached the
/// last commit of its table. Returns the cases that are still behind after [`CATCH_UP_MAX`], with the
/// reason; none when the oracle has found a failure.
async fn catch_up(source: &Instance, dest: &Instance, oracle: &Oracle) -> Vec<(usize, String)> {
    let start = Instant::now();
    loop {
        let mut behind = Vec::new();
        {
            let dest = dest.lock();
            let observed = oracle.lock();
            if !observed.failures.is_empty() {
                return Vec::new();
            }
            for (mapping, (case, table, to)) in &observed.mappings {
                let last = observed.histories[table].last();
                let source_rows = last.map(|(_, rows)| rows);
                let passed = observed
                    .checkpoints
                    .get(mapping)
                    .is_some_and(|at| last.is_some_and(|(lsn, _)| at >= lsn));
                let wrong = source_rows.zip(dest.tables.get(to)).and_then(|(source, dest)| {
                    difference(source, dest, &observed.ordinals[mapping], Precision::Exact)
                });
                if !passed || wrong.is_some() {
                    behind.push((*case, wrong.unwrap_or_else(|| "the checkpoint lags".to_owned())));
                }
            }
        }
        if behind.is_empty() || start.elapsed() > CATCH_UP_MAX {
            return behind;
        }
        source.notify();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
