//! Every fault, during every job, at both servers: when a request fails before or after its effect,
//! the destination equals the source in the end, no row is applied twice, the expected errors are
//! reported and resolved, and no connection leaks.
//!
//! For each job and server one daemon goes through all faults in a row. A leak of one fault (a lost
//! permit, a task that never ends) would stop a later case.

use std::time::Duration;

use mssql_standin::{
    error::SqlError,
    fault::{Fault, Point},
    proxy::{Trouble, Way},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::fixture::{APPLICATION, Fixture, Side, downtime};
use crate::harness::{Daemon, Grid, Sql, WAIT_MAX, eventually};

const HOUR_MS: i64 = 3_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    FullSync,
    /// the same with `DATAFLOW_COPY_LANE=driver`
    FullSyncByDriver,
    Cdc,
    /// of a table with more rows than one comparison takes, which is read through the copy lane
    Verification,
    /// the requests of every tick: the poll of the source, and the control tables
    Poll,
    /// what a full sync writes about itself into the control tables
    RunRecords,
}

impl Job {
    /// Texts that identify the requests which this job sends to that server.
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
            (Job::Poll, Side::Source) => &["AS is_read_only"],
            (Job::Poll, Side::Dest) => &["SELECT server_id, server_name, connection_string"],
            (Job::RunRecords, _) => &[
                "SET full_sync_pending_at = SYSUTCDATETIME",
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
        matches!(self, Job::FullSync | Job::FullSyncByDriver | Job::RunRecords)
    }
}

/// What fails in a case.
#[derive(Clone, Debug)]
enum Failure {
    /// a request of the job
    Request(Fault),
    /// The server restarts while a request of the job waits, in the middle of a transaction.
    RestartDuring,
    /// the next login; all connections of the daemon are killed, so that it logs in again
    Login(Fault),
    /// the next accepted connection; all connections of the daemon are killed
    Accept(Fault),
    /// The server's port is closed for some time.
    Down,
    Restart,
    /// the network, after this number of bytes
    Network(Way, u64, Trouble),
    /// The server's clock is set forward, and back again.
    Clock,
}

/// The errors that `error_logs` must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExpectedErrors {
    /// an error of one of these types, and maybe others that follow from it
    OfType(&'static [&'static str]),
    /// an error of this type with the server's error number, and maybe others that follow from it
    WithNumber(&'static str, i32),
    /// Whether there is an error depends on which request the fault meets; any is of these types.
    Optional(&'static [&'static str]),
}

const ANY: &[&str] = &["CONNECTION", "SYNC", "VERIFICATION", "OTHER"];

fn error(number: i32, class: u8) -> SqlError {
    SqlError::new(number, class, format!("injected error {number}"))
}

/// All cases of a job. `random` chooses where replies are truncated and at which byte the network
/// fails.
fn cases(job: Job, random: &mut StdRng) -> Vec<(Failure, ExpectedErrors)> {
    // a failed write to the control tables is reported in the log only, or written later
    let expected = |types| {
        if job == Job::RunRecords {
            ExpectedErrors::Optional(ANY)
        } else {
            ExpectedErrors::OfType(types)
        }
    };
    let lost = expected(&["CONNECTION"]);
    let timed_out = expected(&["SYNC", "VERIFICATION"]);
    let mut cases = vec![
        (Failure::Request(Fault::CloseBefore), lost),
        (Failure::Request(Fault::CloseAfter), lost),
        (Failure::Request(Fault::ResetBefore), lost),
        (Failure::Request(Fault::ResetAfter), lost),
        (Failure::Request(Fault::HangBefore), timed_out),
        (Failure::Request(Fault::HangAfter), timed_out),
        (
            Failure::Request(Fault::TruncateReply(random.random_range(1..60))),
            ExpectedErrors::Optional(ANY),
        ),
        (Failure::Request(Fault::GarbageReply), lost),
        (
            Failure::Request(Fault::SlowReply(Duration::from_millis(20))),
            ExpectedErrors::Optional(ANY),
        ),
        (Failure::RestartDuring, ExpectedErrors::Optional(ANY)),
        (Failure::Restart, ExpectedErrors::Optional(ANY)),
        (Failure::Down, ExpectedErrors::Optional(ANY)),
        (Failure::Clock, ExpectedErrors::Optional(ANY)),
        (Failure::Login(Fault::ErrorBefore(error(18456, 14))), ExpectedErrors::Optional(ANY)),
        (Failure::Login(Fault::CloseBefore), ExpectedErrors::Optional(ANY)),
        (Failure::Login(Fault::GarbageReply), ExpectedErrors::Optional(ANY)),
        (Failure::Accept(Fault::ResetBefore), ExpectedErrors::Optional(ANY)),
        (Failure::Accept(Fault::GarbageReply), ExpectedErrors::Optional(ANY)),
    ];
    // deadlock, lock timeout, log full, disk full, database offline: each instead of the effect and
    // after it (a verification with a deadlock or lock timeout is PARTIAL, and no error)
    for (number, class) in [(1205, 13), (1222, 16), (9002, 17), (1105, 17), (942, 14), (945, 14)] {
        let expected = match (job, number) {
            (Job::Verification, 1205 | 1222) | (Job::RunRecords, _) => {
                ExpectedErrors::Optional(ANY)
            }
            // an error of the database, whichever request fails with it
            (_, 942) => ExpectedErrors::WithNumber("CONNECTION", number),
            (Job::Verification, _) => ExpectedErrors::WithNumber("VERIFICATION", number),
            _ => ExpectedErrors::WithNumber("SYNC", number),
        };
        cases.push((Failure::Request(Fault::ErrorBefore(error(number, class))), expected));
        cases.push((Failure::Request(Fault::ErrorAfter(error(number, class))), expected));
    }
    for way in [Way::ToServer, Way::ToClient] {
        for trouble in [
            Trouble::Reset,
            Trouble::Close,
            Trouble::Silence,
            Trouble::Slow(Duration::from_secs(1)),
            // All bytes that follow are changed. Without TLS a few changed bytes inside a value
            // cannot be noticed.
            Trouble::Garble { seed: random.random(), bytes: usize::MAX },
        ] {
            cases.push((
                Failure::Network(way, random.random_range(0..4000), trouble),
                ExpectedErrors::Optional(ANY),
            ));
        }
    }
    cases
}

/// The newest rows of the control tables before a case.
struct Mark {
    error: i64,
    verification: i64,
    /// the time of the last full sync
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

async fn run_all_cases(job: Job, side: Side) {
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
    for (number, (failure, expected)) in cases(job, &mut random).into_iter().enumerate() {
        println!("{job:?} at the {side:?}, case {number}: {failure:?}");
        let requests = job.requests(side);
        case(
            &mut fixture,
            &daemon,
            job,
            side,
            requests[number % requests.len()],
            &failure,
            expected,
        )
        .await;
    }
    fixture.link(side).calm();
    fixture.assert_no_leaks(&daemon).await;
    fixture.stop_cleanly(daemon).await;
}

async fn case(
    fixture: &mut Fixture,
    daemon: &Daemon,
    job: Job,
    side: Side,
    request: &str,
    failure: &Failure,
    expected: ExpectedErrors,
) {
    let before = mark(&mut fixture.world.control().await).await;
    let faults = fixture.server(side).faults().clone();
    let arm = |point, fault| faults.arm(point, Some(APPLICATION), 1, Some(1), fault);
    match failure {
        Failure::Request(fault) => {
            let fault = arm(Point::request(request), fault.clone());
            provoke(fixture, job).await;
            assert!(in_time(fault.fired()).await, "the fault was taken away");
        }
        Failure::RestartDuring => {
            let waits = arm(Point::request(request), Fault::Delay(Duration::from_secs(1)));
            provoke(fixture, job).await;
            assert!(in_time(waits.fired()).await, "the fault was taken away");
            fixture.server(side).restart().await;
        }
        Failure::Login(fault) => {
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
        Failure::Accept(fault) => {
            // `provoke` has opened the scenario's own connections, so the next one is the daemon's
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
        Failure::Down => {
            fixture.link(side).down().await;
            provoke(fixture, job).await;
            downtime().await;
            fixture.link(side).up().await;
        }
        Failure::Restart => {
            provoke(fixture, job).await;
            fixture.server(side).restart().await;
        }
        Failure::Network(way, bytes, trouble) => {
            let trouble = fixture.link(side).after(*way, *bytes, *trouble);
            provoke(fixture, job).await;
            assert!(in_time(trouble.comes()).await, "the network fault was cleared");
        }
        Failure::Clock => {
            for shift_ms in [HOUR_MS, -HOUR_MS] {
                fixture.server(side).instance().expect("the engine").clock.shift_ms(shift_ms);
                provoke(fixture, job).await;
                fixture.in_sync().await;
            }
        }
    }
    // A restart has closed the scenario's own connections, too.
    let mut control = fixture.world.control().await;
    works(&mut control, job, &before).await;
    errors_fit(&mut control, &before, expected).await;
    settled(fixture, &mut control).await;
    assert!(!daemon.output().contains("panicked"));
}

/// Waits, with a limit, until a fault occurs.
async fn in_time<T>(occurs: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, occurs).await.expect("the fault occurs")
}

/// Gives the job work to do: a transaction, and a full sync if it is one.
async fn provoke(fixture: &mut Fixture, job: Job) {
    fixture.write().await;
    if job.is_full_sync() {
        fixture.world.request_full_sync(fixture.mapping).await;
    }
}

/// Waits until the job has succeeded again after the fault.
async fn works(control: &mut Sql, job: Job, before: &Mark) {
    let done = match job {
        // Not the run's status: a swap whose reply was lost has committed all the same.
        Job::FullSync | Job::FullSyncByDriver | Job::RunRecords => format!(
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
        Job::Cdc | Job::Poll => "SELECT 1".to_owned(),
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

/// Waits until every cell is equal, every run has ended and every error is resolved; asserts that no
/// verification was FAILED.
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

/// Waits until the expected errors are reported. A request without an answer is an error only after
/// its timeout, which may be after the job has succeeded again.
async fn errors_fit(control: &mut Sql, before: &Mark, expected: ExpectedErrors) {
    let wanted = |kind: &str, message: &str| match expected {
        ExpectedErrors::OfType(types) | ExpectedErrors::Optional(types) => types.contains(&kind),
        ExpectedErrors::WithNumber(wanted, number) => {
            kind == wanted && message.contains(&format!("Msg {number}"))
        }
    };
    let must = !matches!(expected, ExpectedErrors::Optional(_));
    eventually(&format!("errors as {expected:?}"), async || {
        let errors = errors_since(control, before).await;
        let types = errors.column("error_type");
        // On a slow machine further requests may time out.
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

/// A few changed bytes anywhere, in a value or in a header: TLS notices each of them, and the changes
/// are applied correctly all the same.
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
        assert!(in_time(trouble.comes()).await, "the network fault was cleared");
        settled(&fixture, &mut control).await;
    }
    assert!(!daemon.output().contains("panicked"));
    fixture.stop_cleanly(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_survives_its_source() {
    run_all_cases(Job::FullSync, Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_survives_its_destination() {
    run_all_cases(Job::FullSync, Side::Dest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_by_the_driver_survives_its_source() {
    run_all_cases(Job::FullSyncByDriver, Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_by_the_driver_survives_its_destination() {
    run_all_cases(Job::FullSyncByDriver, Side::Dest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_a_full_sync_survive_their_server() {
    run_all_cases(Job::RunRecords, Side::Dest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cdc_survives_its_source() {
    run_all_cases(Job::Cdc, Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cdc_survives_its_destination() {
    run_all_cases(Job::Cdc, Side::Dest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_survives_its_source() {
    run_all_cases(Job::Verification, Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_survives_its_destination() {
    run_all_cases(Job::Verification, Side::Dest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_survives_its_source() {
    run_all_cases(Job::Poll, Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_survives_its_destination() {
    run_all_cases(Job::Poll, Side::Dest).await;
}
