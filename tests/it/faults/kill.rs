//! kill -9: the process is gone between any two things it does, and the next one goes on from what
//! is written down.
//!
//! The servers do the killing. A hook sees every request of the daemon; before its effect or after
//! it, the process is killed by its id and the connection is reset. So a moment is not a time but a
//! place in what the daemon does.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mssql_standin::fault::{Fault, Hook, Phase, Point, Then};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::fixture::APPLICATION;
use crate::harness::{Daemon, World, eventually, numbers};

/// Kills at random moments, unless `DATAFLOW_TEST_KILLS` says how many.
const KILLS: usize = 50;
/// Requests that a life may last before it is killed at random.
const REQUESTS_MAX: u32 = 500;
/// Lives of which one has full syncs to do: the others go on with CDC, as most do.
const FULL_SYNC_EVERY: usize = 4;
/// Tables: one that is followed by CDC, one whose destination keeps its own account (what came
/// twice would be counted twice), one that is filled in place, one without CDC that asks for its
/// syncs by trigger.
const TABLES: [&str; 4] = ["A", "Counted", "Direct", "Asked"];

struct Killer {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whom to kill; nobody between two lives.
    target: Option<u32>,
    aim: Option<Aim>,
    strikes: usize,
    /// Kinds of requests that were seen, and at which phases of them somebody was killed.
    seen: BTreeSet<String>,
    struck: BTreeSet<(String, Phase)>,
}

/// When to kill.
#[derive(Clone, Copy)]
enum Aim {
    /// At so many requests from now, counted in this phase.
    Request(u32, Phase),
    /// At the first request of a kind at whose phase nobody was killed yet.
    NewKind,
}

/// A request without what differs from table to table and from time to time.
fn kind_of(text: &str) -> String {
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for table in TABLES {
        text = text.replace(&format!("dbo_{table}_CT"), "ct").replace(&format!("[{table}]"), "[t]");
    }
    let mut kind = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if kind.ends_with('#') => {}
            '0'..='9' => kind.push('#'),
            c => kind.push(c),
        }
    }
    // however many keys it asks for
    once(&once(&kind, " OR "), ", ")
}

/// A list without the items that only repeat the one before them.
fn once(text: &str, between: &str) -> String {
    let mut items: Vec<&str> = Vec::new();
    for item in text.split(between) {
        if !items.last().is_some_and(|last| last.ends_with(item)) {
            items.push(item);
        }
    }
    items.join(between)
}

impl Killer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the process when it is time.
    fn meet(&self, text: &str, phase: Phase) -> Then {
        let mut state = self.lock();
        let (Some(pid), Some(aim)) = (state.target, state.aim) else { return Then::GoOn };
        let now = match aim {
            Aim::Request(left, wanted) if phase == wanted => {
                state.aim = Some(Aim::Request(left.saturating_sub(1), wanted));
                left <= 1
            }
            Aim::Request(..) => false,
            Aim::NewKind => {
                let kind = kind_of(text);
                state.seen.insert(kind.clone());
                state.struck.insert((kind, phase))
            }
        };
        if !now {
            return Then::GoOn;
        }
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()), "kill -9 {pid}");
        state.strikes += 1;
        state.target = None;
        Then::Reset
    }

    fn aim(&self, pid: u32, aim: Aim) {
        let mut state = self.lock();
        state.target = Some(pid);
        state.aim = Some(aim);
    }

    fn spare(&self) {
        self.lock().target = None;
    }

    /// Kinds of which somebody was killed at one phase only.
    fn half_struck(&self) -> Vec<String> {
        let state = self.lock();
        let whole = |kind: &String| {
            [Phase::Before, Phase::After]
                .iter()
                .all(|phase| state.struck.contains(&(kind.clone(), *phase)))
        };
        state.seen.iter().filter(|kind| !whole(kind)).cloned().collect()
    }

    fn is_alive(&self) -> bool {
        self.lock().target.is_some()
    }
}

/// Every change of a checkpoint that was ever committed is written down by the server itself.
const AUDIT: &str = "
CREATE TABLE dbo.climb (id INT IDENTITY(1,1) PRIMARY KEY, mapping_id INT NOT NULL, was BINARY(10) NULL, became BINARY(10) NULL)
GO
CREATE TRIGGER dbo.tr_climb ON dbo.table_mappings AFTER UPDATE AS
BEGIN
    SET NOCOUNT ON;
    INSERT INTO dbaops_dataflow.dbo.climb (mapping_id, was, became)
    SELECT d.mapping_id, d.last_cdc_lsn, i.last_cdc_lsn FROM deleted AS d JOIN inserted AS i ON i.mapping_id = d.mapping_id
    WHERE d.last_cdc_lsn IS NOT NULL AND (i.last_cdc_lsn IS NULL OR i.last_cdc_lsn <> d.last_cdc_lsn)
       OR d.last_cdc_lsn IS NULL AND i.last_cdc_lsn IS NOT NULL;
END";

/// The destination's own account of what comes and goes, kept by a trigger.
const ACCOUNT: &str = "
CREATE TABLE dbo.account (id INT IDENTITY(1,1) PRIMARY KEY, rows INT NOT NULL)
GO
CREATE TRIGGER dbo.tr_counted ON dbo.Counted AFTER INSERT, DELETE AS
BEGIN
    SET NOCOUNT ON;
    INSERT INTO dbo.account (rows) SELECT (SELECT COUNT(*) FROM inserted) - (SELECT COUNT(*) FROM deleted);
END";

/// Two servers with a hook each, four tables, and a writer that never stops.
struct Range {
    world: World,
    killer: Arc<Killer>,
    writing: tokio::task::JoinHandle<usize>,
    stop: Arc<AtomicBool>,
}

impl Range {
    async fn new() -> Range {
        let world = World::new().await;
        let mut shop = world.shop().await;
        for table in TABLES {
            world
                .both(&format!(
                    "CREATE TABLE dbo.{table} (ID INT NOT NULL PRIMARY KEY, V INT NOT NULL, W NVARCHAR(60) NULL, Again BIT NOT NULL)"
                ))
                .await;
            shop.run(&format!("INSERT INTO dbo.{table} (ID, V, W, Again) SELECT n, 0, CONCAT(N'row ', n), 0 FROM {}", numbers(60))).await;
        }
        world.enable_cdc(&["A", "Counted", "Direct"]).await;
        world.copy().await.script(ACCOUNT).await;
        for table in TABLES {
            let asked = table == "Asked";
            world.map(table, "ID", asked.then_some("Again"), !asked).await;
        }
        let mut control = world.control().await;
        control
            .run(
                "UPDATE table_mappings SET full_sync_mode = 'DIRECT' WHERE source_table = 'Direct'",
            )
            .await;
        control.script(AUDIT).await;

        let killer = Arc::new(Killer { state: Mutex::default() });
        for server in [&world.source, &world.dest] {
            for point in [Point::Login, Point::request("")] {
                let killer = killer.clone();
                let hook = Hook::new(move |text, phase| killer.meet(text, phase));
                server.faults().arm(point, Some(APPLICATION), 1, None, Fault::Call(hook));
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn(write(shop, stop.clone()));
        Range { world, killer, writing, stop }
    }

    /// A daemon with a writer beside it, and full syncs to do when `syncs` says so.
    async fn life(&self, aim: Aim, syncs: bool) -> Daemon {
        for server in [&self.world.source, &self.world.dest] {
            eventually("the last life's connections to be gone", async || {
                match server.connection_count_of(APPLICATION).now {
                    0 => Ok(()),
                    now => Err(now.to_string()),
                }
            })
            .await;
        }
        if syncs {
            self.world
                .control()
                .await
                .run("UPDATE table_mappings SET full_sync_requested = 1")
                .await;
            self.world.shop().await.run("UPDATE dbo.Asked SET Again = 1 WHERE ID = 7").await;
        }
        let daemon = self.world.daemon_with(&[
            ("DATAFLOW_VERIFY_INTERVAL", "250ms"),
            ("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "250ms"),
            ("DATAFLOW_VERIFY_ROWS", "20"),
            ("DATAFLOW_VERIFY_SWEEP_ROWS", "20"),
            ("DATAFLOW_BATCH_SIZE", "50"),
        ]);
        self.killer.aim(daemon.pid(), aim);
        daemon
    }

    /// Whether a life has done everything once: full syncs of all tables, changes, and a
    /// verification of each table.
    async fn everything_done_since(&self, mark: &str) -> bool {
        let mut control = self.world.control().await;
        let left =
            control.scalar("SELECT COUNT(*) FROM table_mappings WHERE full_sync_requested = 1 OR full_sync_pending_at IS NOT NULL").await;
        let verified = control
            .scalar(&format!("SELECT COUNT(DISTINCT mapping_id) FROM verification_logs WHERE verification_id > {mark} AND verification_type = 'MD5_COMPARISON'"))
            .await;
        left == "0" && verified == TABLES.len().to_string()
    }

    /// The writer stops, a last life catches up by itself, everything is equal, and no checkpoint
    /// ever fell.
    async fn ends_well(self) {
        self.stop.store(true, Ordering::Relaxed);
        let transactions = self.writing.await.expect("the writer");
        let daemon = self.world.daemon();
        // A full sync that was asked for in the last life is this one's to end; the table without
        // CDC is brought up by one more.
        self.world.shop().await.run("UPDATE dbo.Asked SET Again = 1 WHERE ID = 7").await;
        for table in TABLES {
            self.world.in_sync(&format!("dbo.{table}"), "ID").await;
        }
        let account = self
            .world
            .copy()
            .await
            .query("SELECT (SELECT SUM(rows) FROM dbo.account), (SELECT COUNT(*) FROM dbo.Counted)")
            .await;
        assert_eq!(
            account.rows[0][0], account.rows[0][1],
            "rows by the destination's account, and rows"
        );
        let mut control = self.world.control().await;
        let fallen = control
            .query("SELECT mapping_id, was, became FROM climb WHERE became IS NULL OR became < was")
            .await;
        assert!(fallen.rows.is_empty(), "checkpoints fell: {fallen}");
        let climbs = control.scalar("SELECT COUNT(*) FROM climb").await;
        let alarms = control
            .query("SELECT verification_type, verification_details FROM verification_logs WHERE verification_status = 'FAILED'")
            .await;
        assert!(alarms.rows.is_empty(), "false alarms: {alarms}");
        let (status, output) = daemon.terminate().await;
        assert!(status.success(), "{output}");
        println!(
            "{} kills, {climbs} climbs of checkpoints, {transactions} transactions beside them",
            self.killer.lock().strikes
        );
    }
}

/// Updates, inserts and deletes, one table after the other, until it is told to stop; how many
/// transactions.
async fn write(mut shop: crate::harness::Sql, stop: Arc<AtomicBool>) -> usize {
    const PAUSE: Duration = Duration::from_millis(150);
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let table = TABLES[round % TABLES.len()];
        shop.run(&format!(
            "BEGIN TRANSACTION; UPDATE dbo.{table} SET V = V + 1 WHERE ID % 20 = {}; \
             INSERT INTO dbo.{table} (ID, V, W, Again) VALUES ({}, 0, N'new', 0); DELETE dbo.{table} WHERE ID = {}; COMMIT TRANSACTION",
            round % 20,
            1_000_000 + round,
            1_000_000 + round - 10 * TABLES.len()
        ))
        .await;
        tokio::time::sleep(PAUSE).await;
    }
    round
}

/// At random moments; `DATAFLOW_TEST_KILLS` says how many in a longer run.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_random_moments() {
    crate::only_on_standins!("hooks at requests");
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("DATAFLOW_TEST_KILLS")
        .map_or(KILLS, |kills| usize::try_from(kills).unwrap_or(KILLS));
    let seed = number("DATAFLOW_TEST_SEED").unwrap_or_else(|| rand::rng().random());
    println!("seed {seed} (DATAFLOW_TEST_SEED), {kills} kills (DATAFLOW_TEST_KILLS)");
    let mut random = StdRng::seed_from_u64(seed);
    let range = Range::new().await;
    for life in 0..kills {
        let phase = if random.random() { Phase::Before } else { Phase::After };
        let daemon = range
            .life(
                Aim::Request(random.random_range(1..=REQUESTS_MAX), phase),
                life % FULL_SYNC_EVERY == 0,
            )
            .await;
        eventually("the daemon to be killed", async || {
            if range.killer.is_alive() { Err(daemon.output()) } else { Ok(()) }
        })
        .await;
        daemon.wait_for_exit().await;
    }
    range.ends_well().await;
}

/// Before and after the effect of each kind of request that it ever sends, once each, with full
/// syncs, swaps, changes and verification in every life: it goes on until two lives in a row have
/// done everything and met no kind at which nobody was killed, and for many more where a request
/// that is rare (it looks up what a moment left in doubt, or mends what a kill left behind) was met
/// once only.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_around_every_kind_of_request() {
    crate::only_on_standins!("hooks at requests");
    /// Far above what there are: a kind that is never the same twice would go on for ever.
    const LIVES_MAX: usize = 600;
    /// There are more; fewer would mean that next to nothing was met.
    const KINDS_MIN: usize = 40;
    /// Lives in a row without a kill after which what is still half struck will not be met again.
    const SURVIVED_MAX: usize = 40;
    let range = Range::new().await;
    let (mut lives, mut survived) = (0, 0);
    while survived < 2 || survived < SURVIVED_MAX && !range.killer.half_struck().is_empty() {
        lives += 1;
        assert!(lives <= LIVES_MAX, "{:#?}", range.killer.lock().seen);
        let mark = range
            .world
            .control()
            .await
            .scalar("SELECT COALESCE(MAX(verification_id), 0) FROM verification_logs")
            .await;
        let daemon = range.life(Aim::NewKind, true).await;
        let killed =
            eventually("the daemon to be killed, or to have done everything", async || {
                if !range.killer.is_alive() {
                    Ok(true)
                } else if range.everything_done_since(&mark).await {
                    Ok(false)
                } else {
                    Err(daemon.output())
                }
            })
            .await;
        range.killer.spare();
        if killed {
            daemon.wait_for_exit().await;
            survived = 0;
        } else {
            let (status, output) = daemon.terminate().await;
            assert!(status.success(), "{output}");
            survived += 1;
        }
    }
    let (kinds, struck) = {
        let state = range.killer.lock();
        (state.seen.len(), state.struck.len())
    };
    println!("{kinds} kinds of requests, {struck} places to be killed at, {lives} lives");
    assert!(kinds >= KINDS_MIN, "{kinds} kinds");
    assert_eq!(range.killer.half_struck(), Vec::<String>::new(), "killed at one phase only");
    range.ends_well().await;
}
