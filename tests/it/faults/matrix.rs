//! Every fault, at every job, on both sides: whatever breaks, before its effect or after it, the
//! destination equals the source in the end, nothing is there twice, the right errors are told and
//! resolved, and nothing leaks.
//!
//! One lane is a job on a side: a daemon that goes through all faults in a row, so that what one of
//! them left behind (a lost permit, a task that never ends) would stop the next.

use std::time::Duration;

use mssql_standin::{
    error::SqlError,
    fault::{Fault, Point},
    proxy::{Trouble, Way},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::fixture::{APPLICATION, Fixture, Side, a_moment};
use crate::harness::{Daemon, Grid, Sql, WAIT_MAX, eventually};

const HOUR_MS: i64 = 3_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    FullSync,
    /// the same with `DATAFLOW_COPY_LANE=driver`
    FullSyncByDriver,
    Cdc,
    /// of a table that is longer than what is compared at a time: through the copy lane
    Verification,
    /// what is asked every tick: the source's poll, the destination's control tables
    Look,
    /// what a full sync writes down of itself in the control tables
    Books,
}

impl Job {
    /// A part of the requests that this job sends to that side.
    fn requests(self, side: Side) -> &'static [&'static str] {
        match (self, side) {
            (Job::FullSync | Job::FullSyncByDriver, Side::Source) => &["SELECT s.["],
            (Job::FullSync | Job::FullSyncByDriver, Side::Dest) => {
                &["BULK LOAD", "COMMIT TRANSACTION", "full_sync_pending_at = NULL"]
            }
            (Job::Cdc, Side::Source) => &["AS [__$command_id]"],
            (Job::Cdc, Side::Dest) => &["DECLARE @fetched", "BULK LOAD"],
            (Job::Verification, Side::Source) => &["AS t ORDER BY t.["],
            (Job::Verification, Side::Dest) => {
                &["AS t ORDER BY t.[", "INSERT INTO dbo.verification_logs"]
            }
            (Job::Look, Side::Source) => &["AS is_read_only"],
            (Job::Look, Side::Dest) => &["SELECT server_id, server_name, connection_string"],
            (Job::Books, _) => &[
                "SET full_sync_pending_at = COALESCE",
                "INSERT INTO dbo.sync_status (mapping_id, sync_type, status, started_at)",
                "SET status = @P2, records_processed = @P3",
                "DECLARE @epoch datetime2(3)",
                "APPLOCK_TEST(N'public'",
                "m.last_cdc_lsn, CONVERT(NVARCHAR(30), m.last_full_sync_at, 126)",
                "LEFT JOIN dbo.dbaops_dataflow_checkpoints AS t",
                "INSERT INTO dbo.sync_logs",
                "SELECT o.mapping_id",
            ],
        }
    }
}

impl Job {
    fn is_full_sync(self) -> bool {
        matches!(self, Job::FullSync | Job::FullSyncByDriver | Job::Books)
    }
}

/// What goes wrong in a case.
#[derive(Clone, Debug)]
enum Blow {
    /// at a request of the job
    Request(Fault),
    /// The server restarts while such a request waits: a failover in the middle of a transaction.
    RestartDuring,
    /// at the next login, which all connections being killed brings about
    Login(Fault),
    Accept(Fault),
    /// Nobody listens for a moment.
    Down,
    Restart,
    /// after so many bytes
    Network(Way, u64, Trouble),
    /// The server's clock goes forward, and back again.
    Clock,
}

/// What `error_logs` says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// an error of one of these types, and maybe what follows from it
    As(&'static [&'static str]),
    /// an error of this type that says the server's number, and maybe what follows from it
    Number(&'static str, i32),
    /// It depends on whom the fault meets; if anything, of these types.
    Maybe(&'static [&'static str]),
}

const ANY: &[&str] = &["CONNECTION", "SYNC", "VERIFICATION", "OTHER"];

fn error(number: i32, class: u8) -> SqlError {
    SqlError::new(number, class, format!("injected error {number}"))
}

/// Every case of a lane. `random` chooses where replies break off and at which byte the network
/// fails.
fn cases(job: Job, random: &mut StdRng) -> Vec<(Blow, Told)> {
    // what the control tables do not get in time is told by nobody but the log, or comes later
    let told = |types| if job == Job::Books { Told::Maybe(ANY) } else { Told::As(types) };
    let lost = told(&["CONNECTION"]);
    let passing = told(&["SYNC", "VERIFICATION"]);
    let mut cases = vec![
        (Blow::Request(Fault::CloseBefore), lost),
        (Blow::Request(Fault::CloseAfter), lost),
        (Blow::Request(Fault::ResetBefore), lost),
        (Blow::Request(Fault::ResetAfter), lost),
        (Blow::Request(Fault::HangBefore), passing),
        (Blow::Request(Fault::HangAfter), passing),
        (Blow::Request(Fault::TruncateReply(random.random_range(1..60))), Told::Maybe(ANY)),
        (Blow::Request(Fault::GarbageReply), lost),
        (Blow::Request(Fault::SlowReply(Duration::from_millis(20))), Told::Maybe(ANY)),
        (Blow::RestartDuring, Told::Maybe(ANY)),
        (Blow::Restart, Told::Maybe(ANY)),
        (Blow::Down, Told::Maybe(ANY)),
        (Blow::Clock, Told::Maybe(ANY)),
        (Blow::Login(Fault::ErrorBefore(error(18456, 14))), Told::Maybe(ANY)),
        (Blow::Login(Fault::CloseBefore), Told::Maybe(ANY)),
        (Blow::Login(Fault::GarbageReply), Told::Maybe(ANY)),
        (Blow::Accept(Fault::ResetBefore), Told::Maybe(ANY)),
        (Blow::Accept(Fault::GarbageReply), Told::Maybe(ANY)),
    ];
    // deadlock, lock timeout, log full, disk full, database offline: each instead of the effect,
    // and after it (a verification that finds no still moment is PARTIAL, and no error)
    for (number, class) in [(1205, 13), (1222, 16), (9002, 17), (1105, 17), (942, 14), (945, 14)] {
        let told = match (job, number) {
            (Job::Verification, 1205 | 1222) | (Job::Books, _) => Told::Maybe(ANY),
            // of the database, whoever meets it
            (_, 942) => Told::Number("CONNECTION", number),
            (Job::Verification, _) => Told::Number("VERIFICATION", number),
            _ => Told::Number("SYNC", number),
        };
        cases.push((Blow::Request(Fault::ErrorBefore(error(number, class))), told));
        cases.push((Blow::Request(Fault::ErrorAfter(error(number, class))), told));
    }
    for way in [Way::ToServer, Way::ToClient] {
        for trouble in [
            Trouble::Reset,
            Trouble::Close,
            Trouble::Silence,
            Trouble::Slow(Duration::from_secs(1)),
            // All that follows: a few changed bytes in the middle of a value nobody can notice
            // without TLS, which notices every one.
            Trouble::Garble { seed: random.random(), bytes: usize::MAX },
        ] {
            cases.push((
                Blow::Network(way, random.random_range(0..4000), trouble),
                Told::Maybe(ANY),
            ));
        }
    }
    cases
}

/// Where the control tables stand before a case.
struct Mark {
    error: i64,
    verification: i64,
    /// when the last full sync was
    synced: String,
}

async fn mark(control: &mut Sql) -> Mark {
    let synced = control
        .scalar("SELECT CONVERT(nvarchar(40), last_full_sync_at, 121) FROM table_mappings")
        .await;
    let mut newest = async |sql: &str| control.scalar(sql).await.parse().expect("a number");
    Mark {
        synced,
        error: newest("SELECT COALESCE(MAX(error_id), 0) FROM error_logs").await,
        verification: newest("SELECT COALESCE(MAX(verification_id), 0) FROM verification_logs")
            .await,
    }
}

fn seeded() -> StdRng {
    let seed = std::env::var("DATAFLOW_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| rand::rng().random());
    println!("seed {seed} (DATAFLOW_TEST_SEED)");
    StdRng::seed_from_u64(seed)
}

async fn lane(job: Job, side: Side) {
    crate::only_on_standins!("faults, and a network that fails");
    let mut random = seeded();
    let mut fixture = Fixture::new().await;
    let copy_lane = if job == Job::FullSyncByDriver { "driver" } else { "wire" };
    let verify = if job == Job::Verification { "200ms" } else { "0" };
    let daemon = fixture.daemon(&[
        ("DATAFLOW_VERIFY_INTERVAL", verify),
        ("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "0"),
        ("DATAFLOW_VERIFY_ROWS", "100"),
        ("DATAFLOW_VERIFY_SWEEP_ROWS", "100"),
        ("DATAFLOW_COPY_LANE", copy_lane),
    ]);
    fixture.world.run_ends(fixture.mapping, "FULL_SYNC", "COMPLETED").await;
    for (number, (blow, told)) in cases(job, &mut random).into_iter().enumerate() {
        println!("{job:?} at the {side:?}, case {number}: {blow:?}");
        let requests = job.requests(side);
        case(&mut fixture, &daemon, job, side, requests[number % requests.len()], &blow, told)
            .await;
    }
    fixture.link(side).calm();
    fixture.nothing_leaks(&daemon).await;
    fixture.ends_well(daemon).await;
}

async fn case(
    fixture: &mut Fixture,
    daemon: &Daemon,
    job: Job,
    side: Side,
    request: &str,
    blow: &Blow,
    told: Told,
) {
    let before = mark(&mut fixture.world.control().await).await;
    let faults = fixture.server(side).faults().clone();
    let arm = |point, fault| faults.arm(point, Some(APPLICATION), 1, Some(1), fault);
    match blow {
        Blow::Request(fault) => {
            let fault = arm(Point::request(request), fault.clone());
            provoke(fixture, job).await;
            assert!(in_time(fault.fired()).await, "the fault was taken away");
        }
        Blow::RestartDuring => {
            let waits = arm(Point::request(request), Fault::Delay(Duration::from_secs(1)));
            provoke(fixture, job).await;
            assert!(in_time(waits.fired()).await, "the fault was taken away");
            fixture.server(side).restart().await;
        }
        Blow::Login(fault) => {
            let fault = arm(Point::Login, fault.clone());
            for connection in fixture
                .server(side)
                .connections()
                .into_iter()
                .filter(|connection| connection.application == APPLICATION)
            {
                fixture.server(side).kill(connection.spid);
            }
            provoke(fixture, job).await;
            assert!(in_time(fault.fired()).await, "the fault was taken away");
        }
        Blow::Accept(fault) => {
            // the scenario's own connections are made before; this one waits for the daemon's
            provoke(fixture, job).await;
            let fault = faults.once(Point::Accept, fault.clone());
            for connection in fixture
                .server(side)
                .connections()
                .into_iter()
                .filter(|connection| connection.application == APPLICATION)
            {
                fixture.server(side).kill(connection.spid);
            }
            assert!(in_time(fault.fired()).await, "the fault was taken away");
        }
        Blow::Down => {
            fixture.link(side).down().await;
            provoke(fixture, job).await;
            a_moment().await;
            fixture.link(side).up().await;
        }
        Blow::Restart => {
            provoke(fixture, job).await;
            fixture.server(side).restart().await;
        }
        Blow::Network(way, bytes, trouble) => {
            let trouble = fixture.link(side).after(*way, *bytes, *trouble);
            provoke(fixture, job).await;
            assert!(in_time(trouble.comes()).await, "the trouble was called off");
        }
        Blow::Clock => {
            for shift_ms in [HOUR_MS, -HOUR_MS] {
                fixture.server(side).instance().expect("the engine").clock.shift_ms(shift_ms);
                provoke(fixture, job).await;
                fixture.in_sync().await;
            }
        }
    }
    // A restart took the scenario's own connections, too.
    let mut control = fixture.world.control().await;
    works(&mut control, job, &before).await;
    errors_fit(&mut control, &before, told).await;
    settled(fixture, &mut control).await;
    assert!(!daemon.output().contains("panicked"));
}

/// What a fault waits for must come, too.
async fn in_time<T>(comes: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, comes).await.expect("the fault meets what it waits for")
}

async fn provoke(fixture: &mut Fixture, job: Job) {
    fixture.write().await;
    if job.is_full_sync() {
        fixture.world.request_full_sync(fixture.mapping).await;
    }
}

/// The job has succeeded since.
async fn works(control: &mut Sql, job: Job, before: &Mark) {
    let done = match job {
        // Not the run's own word: a swap whose reply was lost is done all the same.
        Job::FullSync | Job::FullSyncByDriver | Job::Books => format!(
            "SELECT COUNT(*) FROM table_mappings WHERE full_sync_requested = 0 AND full_sync_pending_at IS NULL \
             AND CONVERT(nvarchar(40), last_full_sync_at, 121) <> '{}'",
            before.synced
        ),
        Job::Verification => {
            format!(
                "SELECT COUNT(*) FROM verification_logs WHERE verification_id > {} AND verification_status = 'PASSED'",
                before.verification
            )
        }
        Job::Cdc | Job::Look => "SELECT 1".to_owned(),
    };
    eventually(&format!("{job:?} to work again"), async || {
        if control.scalar(&done).await == "0" {
            Err(control.query("SELECT error_type, error_message, error_details FROM error_logs WHERE is_resolved = 0").await.to_string())
        } else {
            Ok(())
        }
    })
    .await;
}

/// Every cell is equal, nothing is said to run that does not, no error is left standing, and nobody
/// cried wolf.
async fn settled(fixture: &Fixture, control: &mut Sql) {
    fixture.in_sync().await;
    eventually("every error to be resolved and every run to have ended", async || {
        let open = control
            .query(
                "SELECT error_type, error_message FROM error_logs WHERE is_resolved = 0 \
                 UNION ALL SELECT sync_type, status FROM sync_status WHERE status = 'RUNNING'",
            )
            .await;
        if open.rows.is_empty() { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
    let alarms = control.query("SELECT verification_details FROM verification_logs WHERE verification_status = 'FAILED'").await;
    assert!(alarms.rows.is_empty(), "false alarm: {alarms}");
}

/// The right errors are told. What is silent is an error only when time is up, which may be after
/// the job has worked again.
async fn errors_fit(control: &mut Sql, before: &Mark, told: Told) {
    let wanted = |kind: &str, message: &str| match told {
        Told::As(types) | Told::Maybe(types) => types.contains(&kind),
        Told::Number(wanted, number) => {
            kind == wanted && message.contains(&format!("Msg {number}"))
        }
    };
    let must = !matches!(told, Told::Maybe(_));
    eventually(&format!("errors as {told:?}"), async || {
        let errors = errors_since(control, before).await;
        let types = errors.column("error_type");
        // A slow machine may run out of time beside the fault.
        let fits = types.iter().all(|kind| ANY.contains(kind));
        let found = types
            .iter()
            .zip(errors.column("error_message"))
            .any(|(kind, message)| wanted(kind, message));
        if fits && (!must || found) { Ok(()) } else { Err(errors.to_string()) }
    })
    .await;
}

async fn errors_since(control: &mut Sql, before: &Mark) -> Grid {
    control
        .query(&format!(
            "SELECT error_type, error_message, error_details FROM error_logs WHERE error_id > {} ORDER BY error_id",
            before.error
        ))
        .await
}

/// A few changed bytes anywhere, in a value as well as in a header: TLS notices every one, and the
/// change is applied right all the same.
#[tokio::test(flavor = "multi_thread")]
async fn changed_bytes_are_noticed_through_tls() {
    crate::only_on_standins!("a network that fails");
    const CASES: usize = 24;
    let mut random = seeded();
    let mut fixture = Fixture::new().await;
    let mut control = fixture.world.control().await;
    control
        .run("UPDATE source_servers SET connection_string = REPLACE(connection_string, N'encrypt=disable', N'encrypt=true;trustservercertificate=true')")
        .await;
    let daemon = fixture.daemon(&[("DEST_ENCRYPT", "true"), ("DATAFLOW_VERIFY_INTERVAL", "0")]);
    fixture.world.run_ends(fixture.mapping, "FULL_SYNC", "COMPLETED").await;
    for case in 0..CASES {
        let side = [Side::Source, Side::Dest][case % 2];
        let way = [Way::ToServer, Way::ToClient][case / 2 % 2];
        let (after, bytes) = (random.random_range(0..12_000), random.random_range(1..40));
        println!("case {case}: {bytes} bytes {way:?} at the {side:?} after {after}");
        let trouble =
            fixture.link(side).after(way, after, Trouble::Garble { seed: random.random(), bytes });
        fixture.write().await;
        // every other time through the copy lane, too
        if case % 8 < 4 {
            fixture.world.request_full_sync(fixture.mapping).await;
        }
        assert!(in_time(trouble.comes()).await, "the trouble was called off");
        settled(&fixture, &mut control).await;
    }
    assert!(!daemon.output().contains("panicked"));
    fixture.ends_well(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_survives_its_source() {
    lane(Job::FullSync, Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_survives_its_destination() {
    lane(Job::FullSync, Side::Dest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_by_the_driver_survives_its_source() {
    lane(Job::FullSyncByDriver, Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_by_the_driver_survives_its_destination() {
    lane(Job::FullSyncByDriver, Side::Dest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_a_full_sync_survive_their_server() {
    lane(Job::Books, Side::Dest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cdc_survives_its_source() {
    lane(Job::Cdc, Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cdc_survives_its_destination() {
    lane(Job::Cdc, Side::Dest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_survives_its_source() {
    lane(Job::Verification, Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_survives_its_destination() {
    lane(Job::Verification, Side::Dest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_survives_its_source() {
    lane(Job::Look, Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_survives_its_destination() {
    lane(Job::Look, Side::Dest).await;
}
