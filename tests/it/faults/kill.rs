//! kill -9 between any two effects of the daemon: the next process goes on from the stored state.
//!
//! The stand-ins kill the daemon. A hook gets every request of the daemon, and kills the process
//! before or after the effect of a chosen request; the connection is reset. A kill is therefore at a
//! defined request, not at a random time.

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

/// The number of kills at random requests, unless `DATAFLOW_TEST_KILLS` is set.
const KILLS: usize = 50;
/// A random kill is at one of the first requests of a process.
const REQUESTS_MAX: u32 = 500;
/// One of this many processes has full syncs to do; the others have CDC only.
const FULL_SYNC_EVERY: usize = 4;
/// A table that is followed by CDC; one whose destination counts inserted and deleted rows in a
/// trigger, which shows a change that is applied twice; one in mode DIRECT; one without CDC whose
/// full syncs are requested by a trigger column.
const TABLES: [&str; 4] = ["A", "Counted", "Direct", "Triggered"];

/// Kills the daemon from the hooks of both stand-ins.
struct Killer {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The process to kill; `None` when no daemon runs or it is to survive.
    target: Option<u32>,
    kill_at: Option<KillAt>,
    kills: usize,
    /// The kinds of requests that were seen.
    seen: BTreeSet<String>,
    /// The kinds and phases at which the daemon was killed.
    killed_at: BTreeSet<(String, Phase)>,
}

/// When to kill.
#[derive(Clone, Copy)]
enum KillAt {
    /// at the nth request from now, in this phase
    Request(u32, Phase),
    /// at the first request with a kind and phase at which the daemon was not killed yet
    NewKind,
}

/// The kind of a request: its text without table names and numbers.
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
    // lists of keys of any length are one kind
    without_repetition(&without_repetition(&kind, " OR "), ", ")
}

/// A list without items that repeat the item before them.
fn without_repetition(text: &str, separator: &str) -> String {
    let mut items: Vec<&str> = Vec::new();
    for item in text.split(separator) {
        if !items.last().is_some_and(|last| last.ends_with(item)) {
            items.push(item);
        }
    }
    items.join(separator)
}

impl Killer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hook: kills the process at the chosen request.
    fn on_request(&self, text: &str, phase: Phase) -> Then {
        let mut state = self.lock();
        let (Some(pid), Some(kill_at)) = (state.target, state.kill_at) else {
            return Then::GoOn;
        };
        let now = match kill_at {
            KillAt::Request(left, wanted) if phase == wanted => {
                state.kill_at = Some(KillAt::Request(left.saturating_sub(1), wanted));
                left <= 1
            }
            KillAt::Request(..) => false,
            KillAt::NewKind => {
                let kind = kind_of(text);
                state.seen.insert(kind.clone());
                state.killed_at.insert((kind, phase))
            }
        };
        if !now {
            return Then::GoOn;
        }
        let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()), "kill -9 {pid}");
        state.kills += 1;
        state.target = None;
        Then::Reset
    }

    fn arm(&self, pid: u32, kill_at: KillAt) {
        let mut state = self.lock();
        state.target = Some(pid);
        state.kill_at = Some(kill_at);
    }

    fn disarm(&self) {
        self.lock().target = None;
    }

    /// The kinds of requests at which the daemon was killed in one phase only.
    fn killed_in_one_phase(&self) -> Vec<String> {
        let state = self.lock();
        let both_phases = |kind: &String| {
            [Phase::Before, Phase::After]
                .iter()
                .all(|phase| state.killed_at.contains(&(kind.clone(), *phase)))
        };
        state.seen.iter().filter(|kind| !both_phases(kind)).cloned().collect()
    }

    /// Whether the armed process has not been killed yet.
    fn is_armed(&self) -> bool {
        self.lock().target.is_some()
    }
}

/// A trigger that records every committed change of a checkpoint.
const AUDIT: &str = "
CREATE TABLE dbo.checkpoint_audit (id INT IDENTITY(1,1) PRIMARY KEY, mapping_id INT NOT NULL, was BINARY(10) NULL, became BINARY(10) NULL)
GO
CREATE TRIGGER dbo.tr_checkpoint_audit ON dbo.table_mappings AFTER UPDATE AS
BEGIN
    SET NOCOUNT ON;
    INSERT INTO dbaops_dataflow.dbo.checkpoint_audit (mapping_id, was, became)
    SELECT d.mapping_id, d.last_cdc_lsn, i.last_cdc_lsn FROM deleted AS d JOIN inserted AS i ON i.mapping_id = d.mapping_id
    WHERE d.last_cdc_lsn IS NOT NULL AND (i.last_cdc_lsn IS NULL OR i.last_cdc_lsn <> d.last_cdc_lsn)
       OR d.last_cdc_lsn IS NULL AND i.last_cdc_lsn IS NOT NULL;
END";

/// A trigger of the destination that counts inserted and deleted rows.
const ROW_COUNTER: &str = "
CREATE TABLE dbo.row_counts (id INT IDENTITY(1,1) PRIMARY KEY, rows INT NOT NULL)
GO
CREATE TRIGGER dbo.tr_counted ON dbo.Counted AFTER INSERT, DELETE AS
BEGIN
    SET NOCOUNT ON;
    INSERT INTO dbo.row_counts (rows) SELECT (SELECT COUNT(*) FROM inserted) - (SELECT COUNT(*) FROM deleted);
END";

/// Two servers with a hook each, four tables, and a writer that runs until the end.
struct KillFixture {
    world: World,
    killer: Arc<Killer>,
    writing: tokio::task::JoinHandle<usize>,
    stop: Arc<AtomicBool>,
}

impl KillFixture {
    async fn new() -> KillFixture {
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
        world.copy().await.script(ROW_COUNTER).await;
        for table in TABLES {
            let triggered = table == "Triggered";
            world.map(table, "ID", triggered.then_some("Again"), !triggered).await;
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
                let hook = Hook::new(move |text, phase| killer.on_request(text, phase));
                server.faults().arm(point, Some(APPLICATION), 1, None, Fault::Call(hook));
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn(write(shop, stop.clone()));
        KillFixture { world, killer, writing, stop }
    }

    /// Starts a daemon that is killed at `kill_at`; with `full_syncs`, every mapping has one to do.
    async fn start_daemon(&self, kill_at: KillAt, full_syncs: bool) -> Daemon {
        for server in [&self.world.source, &self.world.dest] {
            eventually("the connections of the last daemon to be closed", async || {
                match server.connection_count_of(APPLICATION).now {
                    0 => Ok(()),
                    now => Err(now.to_string()),
                }
            })
            .await;
        }
        if full_syncs {
            self.world
                .control()
                .await
                .run("UPDATE table_mappings SET full_sync_requested = 1")
                .await;
            self.world.shop().await.run("UPDATE dbo.Triggered SET Again = 1 WHERE ID = 7").await;
        }
        let daemon = self.world.daemon_with(&[
            ("DATAFLOW_VERIFY_INTERVAL", "250ms"),
            ("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "250ms"),
            ("DATAFLOW_VERIFY_ROWS", "20"),
            ("DATAFLOW_VERIFY_SWEEP_ROWS", "20"),
            ("DATAFLOW_BATCH_SIZE", "50"),
        ]);
        self.killer.arm(daemon.pid(), kill_at);
        daemon
    }

    /// Whether the daemon has done every kind of work once: full syncs of all tables, changes, and a
    /// verification of each table after the verification with id `mark`.
    async fn everything_done_since(&self, mark: &str) -> bool {
        let mut control = self.world.control().await;
        let left =
            control.scalar("SELECT COUNT(*) FROM table_mappings WHERE full_sync_requested = 1 OR full_sync_pending_at IS NOT NULL").await;
        let verified = control
            .scalar(&format!("SELECT COUNT(DISTINCT mapping_id) FROM verification_logs WHERE verification_id > {mark} AND verification_type = 'MD5_COMPARISON'"))
            .await;
        left == "0" && verified == TABLES.len().to_string()
    }

    /// Stops the writer, lets a last daemon catch up, and asserts that all tables are equal and no
    /// checkpoint ever decreased.
    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let transactions = self.writing.await.expect("the writer");
        let daemon = self.world.daemon();
        // The last daemon finishes full syncs that are still pending. The table without CDC needs one
        // more.
        self.world.shop().await.run("UPDATE dbo.Triggered SET Again = 1 WHERE ID = 7").await;
        for table in TABLES {
            self.world.in_sync(&format!("dbo.{table}"), "ID").await;
        }
        let counts = self
            .world
            .copy()
            .await
            .query(
                "SELECT (SELECT SUM(rows) FROM dbo.row_counts), (SELECT COUNT(*) FROM dbo.Counted)",
            )
            .await;
        assert_eq!(
            counts.rows[0][0], counts.rows[0][1],
            "rows by the counting trigger, and rows in the table"
        );
        let mut control = self.world.control().await;
        let decreased = control
            .query("SELECT mapping_id, was, became FROM checkpoint_audit WHERE became IS NULL OR became < was")
            .await;
        assert!(decreased.rows.is_empty(), "checkpoints decreased: {decreased}");
        let advances = control.scalar("SELECT COUNT(*) FROM checkpoint_audit").await;
        let alarms = control
            .query("SELECT verification_type, verification_details FROM verification_logs WHERE verification_status = 'FAILED'")
            .await;
        assert!(alarms.rows.is_empty(), "false alarms: {alarms}");
        let (status, output) = daemon.terminate().await;
        assert!(status.success(), "{output}");
        println!(
            "{} kills, {advances} advances of checkpoints, {transactions} source transactions",
            self.killer.lock().kills
        );
    }
}

/// Updates, inserts and deletes rows, one table after the other, until `stop` is set; returns the
/// number of transactions.
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

/// `DATAFLOW_TEST_KILLS` sets the number of kills for a longer run.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_random_requests() {
    crate::only_on_standins!("hooks at requests");
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("DATAFLOW_TEST_KILLS")
        .map_or(KILLS, |kills| usize::try_from(kills).unwrap_or(KILLS));
    let seed = number("DATAFLOW_TEST_SEED").unwrap_or_else(|| rand::rng().random());
    println!("seed {seed} (DATAFLOW_TEST_SEED), {kills} kills (DATAFLOW_TEST_KILLS)");
    let mut random = StdRng::seed_from_u64(seed);
    let fixture = KillFixture::new().await;
    for process in 0..kills {
        let phase = if random.random() { Phase::Before } else { Phase::After };
        let daemon = fixture
            .start_daemon(
                KillAt::Request(random.random_range(1..=REQUESTS_MAX), phase),
                process % FULL_SYNC_EVERY == 0,
            )
            .await;
        eventually("the daemon to be killed", async || {
            if fixture.killer.is_armed() { Err(daemon.output()) } else { Ok(()) }
        })
        .await;
        daemon.wait_for_exit().await;
    }
    fixture.finish().await;
}

/// Kills the daemon once before and once after the effect of each kind of request that it sends. Each
/// process has full syncs, changes and verifications to do. The scenario goes on until two processes
/// in a row did all their work without sending a new kind of request; it goes on longer while a rare
/// request (one that checks a lost reply, or repairs what a kill left behind) was killed in one phase
/// only.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_around_every_kind_of_request() {
    crate::only_on_standins!("hooks at requests");
    /// Far above the number of kinds: requests whose text is never the same twice would be new kinds
    /// for ever.
    const PROCESSES_MAX: usize = 600;
    /// A lower bound of the number of kinds: fewer would mean that the daemon did not do its work.
    const KINDS_MIN: usize = 40;
    /// After this many processes in a row without a kill, a kind that was killed in one phase only is
    /// not expected again.
    const SURVIVED_MAX: usize = 40;
    let fixture = KillFixture::new().await;
    let (mut processes, mut survived) = (0, 0);
    while survived < 2
        || survived < SURVIVED_MAX && !fixture.killer.killed_in_one_phase().is_empty()
    {
        processes += 1;
        assert!(processes <= PROCESSES_MAX, "{:#?}", fixture.killer.lock().seen);
        let mark = fixture
            .world
            .control()
            .await
            .scalar("SELECT COALESCE(MAX(verification_id), 0) FROM verification_logs")
            .await;
        let daemon = fixture.start_daemon(KillAt::NewKind, true).await;
        let killed =
            eventually("the daemon to be killed, or to have done everything", async || {
                if !fixture.killer.is_armed() {
                    Ok(true)
                } else if fixture.everything_done_since(&mark).await {
                    Ok(false)
                } else {
                    Err(daemon.output())
                }
            })
            .await;
        fixture.killer.disarm();
        if killed {
            daemon.wait_for_exit().await;
            survived = 0;
        } else {
            let (status, output) = daemon.terminate().await;
            assert!(status.success(), "{output}");
            survived += 1;
        }
    }
    let (kinds, killed_at) = {
        let state = fixture.killer.lock();
        (state.seen.len(), state.killed_at.len())
    };
    println!(
        "{kinds} kinds of requests, {killed_at} kinds and phases with a kill, {processes} processes"
    );
    assert!(kinds >= KINDS_MIN, "{kinds} kinds");
    assert_eq!(
        fixture.killer.killed_in_one_phase(),
        Vec::<String>::new(),
        "kinds of requests that were killed in one phase only"
    );
    fixture.finish().await;
}
