//! The command `status` and the view `v_mapping_status`: what an operator is told is true, short,
//! and says what to do.

use std::collections::BTreeMap;

use crate::harness::{World, daemon::command, eventually, numbers};

/// What a command printed on stdout and on stderr, and its exit code.
struct Printed {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn run(world: &World, arguments: &[&str]) -> Printed {
    let output = command(&world.variables(), arguments).output().await.expect("run the command");
    Printed {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// `status --json`, and its exit code.
async fn json(world: &World) -> (Option<i32>, Vec<serde_json::Value>) {
    let printed = run(world, &["status", "--json"]).await;
    let reports = serde_json::from_str(&printed.stdout)
        .unwrap_or_else(|error| panic!("{error} in {}{}", printed.stdout, printed.stderr));
    (printed.code, reports)
}

/// Six rows are changed at the destination behind the service's back. Verification finds them, and
/// `status`, its exit code and the view say `verification failed`; once it said `following`. The
/// command that it names repairs them, and the mapping follows again.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_differ_are_no_following_until_they_are_repaired() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(20) NULL)").await;
    world
        .shop()
        .await
        .run(&format!("INSERT INTO dbo.T SELECT n, CONCAT(N'row ', n) FROM {}", numbers(100)))
        .await;
    world.enable_cdc(&["T"]).await;
    let mapping = world.map("T", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.shop().await.run("UPDATE dbo.T SET V = N'changed' WHERE ID = 100").await;
    eventually("a mapping that follows", async || {
        let printed = run(&world, &["status"]).await;
        if printed.code == Some(0) && printed.stdout.contains("1 mapping: 1 following") {
            Ok(())
        } else {
            Err(printed.stdout)
        }
    })
    .await;

    world.copy().await.run("UPDATE dbo.T SET V = N'corrupted' WHERE ID <= 6").await;
    world.verified(mapping, "FAILED").await;
    let printed = run(&world, &["status"]).await;
    assert_eq!(printed.code, Some(1), "{}", printed.stdout);
    let repair = format!("dbaops-dataflow verify --mapping {mapping} --full --repair");
    for expected in [
        "1 mapping: 1 verification failed",
        "MD5_COMPARISON: 6 mismatches",
        &format!("to do: {repair}"),
    ] {
        assert!(printed.stdout.contains(expected), "{expected} in\n{}", printed.stdout);
    }
    let mut control = world.control().await;
    assert_eq!(
        control.query("SELECT state, what_to_do FROM v_mapping_status").await.rows,
        [["verification failed".to_owned(), repair.clone()]]
    );
    assert_eq!(
        control
            .query("SELECT what_to_do, mapping_id, source_database, dest_database, source_table, dest_table FROM v_recent_errors WHERE error_code = 'ROWS_DIFFER'")
            .await
            .rows,
        [[&*repair, &*mapping.to_string(), "Shop", "Copy", "T", "T"].map(str::to_owned)]
    );

    let arguments: Vec<&str> = repair.split(' ').skip(1).collect();
    let repaired = run(&world, &arguments).await;
    assert_eq!(repaired.code, Some(0), "{}{}", repaired.stdout, repaired.stderr);
    let printed = run(&world, &["status"]).await;
    assert_eq!(printed.code, Some(0), "{}", printed.stdout);
    assert!(printed.stdout.contains("1 mapping: 1 following"), "{}", printed.stdout);
}

/// A source server with 30 mappings is away: one line for all of them, with the reason and what to
/// do. Another mapping's destination table is missing. When the daemon stops, that is what matters.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_one_line_and_comes_first() {
    let world = World::new().await;
    world.shop().await.run("CREATE TABLE dbo.Gone (ID INT NOT NULL PRIMARY KEY)").await;
    let gone = world.map("Gone", "ID", None, false).await;
    world.request_full_sync(gone).await;
    let mut control = world.control().await;
    control
        .run("INSERT INTO source_servers (server_name, connection_string) VALUES (N'Away', N'server=127.0.0.1,1;user id=x;password=y;encrypt=false')")
        .await;
    control
        .run(&format!(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, cdc_enabled) \
             SELECT s.server_id, N'Shop', CONCAT(N'T', n), N'Copy', CONCAT(N'T', n), N'ID', 1 \
             FROM source_servers AS s CROSS JOIN (SELECT n FROM {}) AS numbers WHERE s.server_name = N'Away'",
            numbers(30)
        ))
        .await;
    let daemon = world.daemon();
    let printed = eventually("both states", async || {
        let printed = run(&world, &["status"]).await;
        let summary = "31 mappings: 30 unreachable, 1 destination missing";
        if printed.stdout.starts_with(summary) { Ok(printed) } else { Err(printed.stdout) }
    })
    .await;
    assert_eq!(printed.code, Some(1));
    let away: Vec<&str> =
        printed.stdout.lines().filter(|line| line.contains("unreachable")).collect();
    assert_eq!(away.len(), 2, "the summary and one line\n{}", printed.stdout);
    assert!(away[1].starts_with("30 mappings") && away[1].contains("Away"), "{}", printed.stdout);
    for expected in [
        "to do: check that the server runs".to_owned(),
        "destination table Copy.dbo.Gone does not exist".to_owned(),
        format!("then: dbaops-dataflow retry --mapping {gone}"),
    ] {
        assert!(printed.stdout.contains(&expected), "{expected} in\n{}", printed.stdout);
    }
    assert!(printed.stdout.lines().count() < 12, "{}", printed.stdout);

    daemon.terminate().await;
    // as after 20 seconds
    control.run("UPDATE daemons SET beat_at = '2026-01-01'").await;
    let printed = run(&world, &["status"]).await;
    assert_eq!(printed.code, Some(1));
    assert!(printed.stdout.starts_with("31 mappings: 31 no daemon\n"), "{}", printed.stdout);
    assert!(printed.stdout.contains("to do: start the service"), "{}", printed.stdout);
    assert_eq!(
        printed.stdout.lines().filter(|line| line.starts_with("31 mappings ")).count(),
        1,
        "{}",
        printed.stdout
    );
}

/// What is so of a mapping, as statements that write it to the control tables, and the state. `$` is
/// its mapping_id.
const STATES: [(&str, &str); 22] = [
    ("following", "$LAG(10)"),
    ("behind", "$LAG(301)"),
    ("waiting", ""),
    ("waiting", "$UNKNOWN(60)"),
    ("stalled", "$UNKNOWN(901)"),
    ("idle", "UPDATE table_mappings SET cdc_enabled = 0 WHERE mapping_id = $"),
    ("disabled", "UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = $"),
    (
        "never synced",
        "UPDATE table_mappings SET last_full_sync_at = NULL, initial_sync = NULL WHERE mapping_id = $",
    ),
    (
        "waiting",
        "UPDATE table_mappings SET last_full_sync_at = NULL, initial_sync = N'NONE' WHERE mapping_id = $",
    ),
    ("full sync due", "UPDATE table_mappings SET full_sync_requested = 1 WHERE mapping_id = $"),
    (
        "full sync due",
        "UPDATE table_mappings SET full_sync_pending_at = '2026-01-03T01:02:03.456', last_full_sync_at = NULL WHERE mapping_id = $",
    ),
    ("full sync", "$RUN('RUNNING')"),
    (
        "full sync",
        "$ERROR('MAPPING_FAILED', 1, '2026-01-01', 'what to do: grant it'); $RUN('RUNNING')",
    ),
    ("parked", "$ERROR('MAPPING_FAILED', 1, '2026-01-01', 'what to do: grant it'); $RUN('ERROR')"),
    ("parked", "$ERROR('MAPPING_ROW_UNUSABLE', 0, '2026-01-01', NULL)"),
    (
        "parked",
        "$ERROR('MAPPING_FAILED', 1, '2026-01-01', NULL); $ERROR('TRIGGER_UNREADABLE', 0, '2026-01-02', NULL)",
    ),
    (
        "failing",
        "$ERROR('MAPPING_FAILED', 0, '2026-01-02', 'kind Data, what to do: it''s {mapping}')",
    ),
    ("destination missing", "$ERROR('DESTINATION_MISSING', 1, '2026-01-02', 'what to do: x')"),
    ("changes lost", "$ERROR('CHANGES_LOST', 0, '2026-01-02', NULL)"),
    (
        "verification failed",
        "$VERIFIED('MD5_COMPARISON', 'FAILED'); $VERIFIED('MD5_COMPARISON', 'PARTIAL'); $LAG(1)",
    ),
    ("verification failed", "$VERIFIED('SCHEMA', 'FAILED'); $VERIFIED('MD5_COMPARISON', 'PASSED')"),
    (
        "following",
        "$VERIFIED('ROW_COUNT', 'FAILED'); $VERIFIED('ROW_COUNT', 'PASSED'); UPDATE cdc_lag SET uncaptured = N'V is not captured' WHERE mapping_id = $; $LAG(1)",
    ),
];

/// The statements behind a `$WORD(…)` of [`STATES`].
fn statement(of: &str, mapping: i32) -> String {
    let (word, arguments) = of.split_once('(').expect("a word and its arguments");
    let arguments = arguments.strip_suffix(')').expect("a bracket at the end");
    match word {
        "$LAG" => format!(
            "DELETE FROM cdc_lag WHERE mapping_id = {mapping}; INSERT INTO cdc_lag (mapping_id, oldest_at, polled_at) \
             VALUES ({mapping}, DATEADD(SECOND, -{arguments}, SYSUTCDATETIME()), SYSUTCDATETIME())"
        ),
        "$UNKNOWN" => format!(
            "INSERT INTO cdc_lag (mapping_id, polled_at, reason) \
             VALUES ({mapping}, DATEADD(SECOND, -{arguments}, SYSUTCDATETIME()), N'nothing has been captured')"
        ),
        "$RUN" => format!(
            "INSERT INTO sync_status (mapping_id, sync_type, status, records_processed, started_at) \
             VALUES ({mapping}, 'FULL_SYNC', {arguments}, 1234, '2026-01-01T10:00:00.1234567')"
        ),
        "$ERROR" => {
            let parts: Vec<&str> = arguments.splitn(4, ", ").collect();
            let [code, parked, at, details] = parts[..] else { panic!("{arguments}") };
            format!(
                "INSERT INTO error_logs (mapping_id, error_type, error_code, is_parked, created_at, error_details, error_message) \
                 VALUES ({mapping}, 'SYNC', {code}, {parked}, {at}, {details}, N'it failed')"
            )
        }
        "$VERIFIED" => format!(
            "INSERT INTO verification_logs (mapping_id, verification_type, verification_status, mismatches_found, verified_at) \
             SELECT {mapping}, {arguments}, 6, '2026-01-02T11:00:00'"
        ),
        other => panic!("{other}"),
    }
}

/// Adds a mapping in each of the [`STATES`]; returns what state each has to be in.
async fn mappings_in_many_states(world: &World) -> BTreeMap<i64, &'static str> {
    let mut control = world.control().await;
    let mut expected = BTreeMap::new();
    for (at, (state, statements)) in STATES.into_iter().enumerate() {
        let mapping = world.map(&format!("T{at}"), "ID", None, true).await;
        control
            .run(&format!(
                "UPDATE table_mappings SET last_full_sync_at = '2026-01-01T09:00:00' WHERE mapping_id = {mapping}"
            ))
            .await;
        for part in statements.split("; ").filter(|part| !part.is_empty()) {
            let sql = match part.starts_with('$') {
                true => statement(part, mapping),
                false => part.replace('$', &mapping.to_string()),
            };
            control.run(&sql).await;
        }
        expected.insert(i64::from(mapping), state);
    }
    expected
}

/// The rows of `v_mapping_status` and `status --json` say the same of every mapping.
async fn compare(world: &World) -> BTreeMap<i64, String> {
    let view = world
        .control()
        .await
        .query(
            "SELECT CAST(mapping_id AS NVARCHAR(10)) AS mapping, server_name AS server, \
             CONCAT(source_database, N'.', source_schema, N'.', source_table) AS source, \
             CONCAT(dest_database, N'.', dest_schema, N'.', dest_table) AS destination, state, \
             CASE WHEN needs_action = 1 THEN N'true' ELSE N'false' END AS needs_action, \
             CONVERT(NVARCHAR(19), since, 126) AS since, reason, what_to_do, \
             CONVERT(NVARCHAR(19), last_full_sync_at, 126) AS last_full_sync_at, last_error, \
             verification_status FROM v_mapping_status ORDER BY mapping_id",
        )
        .await;
    let (_, mut reports) = json(world).await;
    reports.sort_by_key(|report| report["mapping"].as_i64());
    assert_eq!(view.rows.len(), reports.len());
    let mut states = BTreeMap::new();
    for (row, report) in view.rows.iter().zip(&reports) {
        for (column, cell) in view.columns.iter().zip(row) {
            let value = match column.as_str() {
                "last_error" => &report["last_error"]["message"],
                "verification_status" => &report["last_verification"]["status"],
                column => &report[column],
            };
            let mut text = match value {
                serde_json::Value::Null => "NULL".to_owned(),
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            if ["since", "last_full_sync_at"].contains(&column.as_str()) {
                text.truncate("2026-01-01T00:00:00".len());
            }
            assert_eq!(*cell, text, "{column} of {report}\n{view}");
        }
        let mapping = report["mapping"].as_i64().expect("a mapping");
        states.insert(mapping, report["state"].as_str().expect("a state").to_owned());
    }
    states
}

/// A mapping in every state there is, as rows of the control tables: the command and the view decide
/// the same for each, with a server that is away and without a daemon too.
#[tokio::test(flavor = "multi_thread")]
async fn the_view_says_what_the_command_says() {
    let world = World::new().await;
    let expected = mappings_in_many_states(&world).await;
    world.pretend_daemon().await;
    let states = compare(&world).await;
    for (mapping, state) in &expected {
        assert_eq!(states.get(mapping).map(String::as_str), Some(*state), "mapping {mapping}");
    }
    let (code, reports) = json(&world).await;
    assert_eq!(code, Some(1));
    assert!(reports.is_sorted_by_key(|report| report["needs_action"] != true), "worst first");

    let mut control = world.control().await;
    let all_but_disabled = |states: BTreeMap<i64, String>, state: &str| {
        for (mapping, is) in states {
            let disabled = expected.get(&mapping) == Some(&"disabled");
            assert_eq!(is, if disabled { "disabled" } else { state }, "mapping {mapping}");
        }
    };
    control
        .run("INSERT INTO error_logs (server_id, error_type, error_code, error_message, error_details) VALUES (1, 'CONNECTION', 'SERVER_UNREACHABLE', N'away', N'what to do: start it')")
        .await;
    all_but_disabled(compare(&world).await, "unreachable");
    control.run("UPDATE daemons SET gone_at = SYSUTCDATETIME()").await;
    all_but_disabled(compare(&world).await, "no daemon");
    control.run("DELETE FROM daemons").await;
    all_but_disabled(compare(&world).await, "no daemon");
    // what is disabled needs nobody
    control.run("UPDATE source_servers SET is_enabled = 0").await;
    let disabled = compare(&world).await;
    assert!(disabled.values().all(|state| state == "disabled"), "{disabled:?}");
    let printed = run(&world, &["status"]).await;
    assert_eq!(printed.code, Some(0), "{}", printed.stdout);
}

/// `init` was not run again after an upgrade: `status` shows what there is, and says what to run.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_control_database_is_shown_with_a_hint() {
    let world = World::new().await;
    world.pretend_daemon().await;
    let mapping = world.map("T", "ID", None, false).await;
    let mut control = world.control().await;
    control
        .run(&format!(
            "UPDATE table_mappings SET last_full_sync_at = '2026-01-01' WHERE mapping_id = {mapping}"
        ))
        .await;
    let current = run(&world, &["status"]).await;
    assert_eq!((current.code, &*current.stderr), (Some(0), ""));
    control
        .run("DROP VIEW v_mapping_status; DROP TABLE mapping_owners; DROP TABLE daemons; ALTER TABLE table_mappings DROP COLUMN initial_sync")
        .await;
    control
        .run("ALTER TABLE error_logs DROP CONSTRAINT DF_error_logs_is_parked; ALTER TABLE error_logs DROP COLUMN error_code, source_database, is_parked; ALTER TABLE cdc_lag DROP COLUMN uncaptured")
        .await;
    let older = run(&world, &["status"]).await;
    assert_eq!(older.code, Some(0), "{}{}", older.stdout, older.stderr);
    assert_eq!(older.stdout, current.stdout);
    assert!(older.stderr.contains("dbaops-dataflow init"), "{}", older.stderr);
    control
        .run(&format!(
            "INSERT INTO error_logs (mapping_id, error_type, error_message) VALUES ({mapping}, 'SYNC', N'it failed')"
        ))
        .await;
    let older = run(&world, &["status"]).await;
    assert_eq!(older.code, Some(1), "{}{}", older.stdout, older.stderr);
    assert!(older.stdout.contains("1 mapping: 1 failing"), "{}", older.stdout);
    // init brings all of it back
    let init = run(&world, &["init"]).await;
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    world.pretend_daemon().await;
    assert_eq!(compare(&world).await.into_values().collect::<Vec<_>>(), ["failing"]);
}

/// A name and the text of an error hold line breaks, terminal commands and thousands of characters:
/// the table stays a table, a line is one line, and JSON has all of it.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_forges_no_state() {
    let world = World::new().await;
    world.pretend_daemon().await;
    let mapping = world.map("T", "ID", None, false).await;
    let mut control = world.control().await;
    let hostile = "\u{1b}[2J\r\n9 mappings: 9 following\u{202e}";
    control
        .run(&format!(
            "UPDATE source_servers SET server_name = N'S{hostile}'; UPDATE table_mappings SET last_full_sync_at = '2026-01-01'; \
             INSERT INTO error_logs (mapping_id, error_type, error_message, error_details, is_parked) \
             VALUES ({mapping}, 'SYNC', CONCAT(N'{hostile}', REPLICATE(N'x', 4000)), N'what to do: {hostile}', 1)"
        ))
        .await;
    let printed = run(&world, &["status"]).await;
    assert_eq!(printed.code, Some(1));
    let text = &printed.stdout;
    assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{text:?}");
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(text.lines().all(|line| !line.starts_with("9 mappings")), "{text}");
    assert!(text.lines().all(|line| line.chars().count() < 2_100), "{text}");
    assert!(text.contains("to do: \\u{1b}[2J\\r\\n9 mappings"), "{text}");
    let (_, reports) = json(&world).await;
    assert_eq!(reports[0]["server"], format!("S{hostile}"));
    assert!(reports[0]["reason"].as_str().is_some_and(|reason| reason.len() > 4_000));
    assert_eq!(compare(&world).await.into_values().collect::<Vec<_>>(), ["parked"]);
}

/// A new control database: `status` says what to do first.
#[tokio::test(flavor = "multi_thread")]
async fn without_mappings_it_says_how_to_begin() {
    let world = World::new().await;
    let printed = run(&world, &["status"]).await;
    assert_eq!(printed.code, Some(0));
    assert!(printed.stdout.contains("insert a row into source_servers"), "{}", printed.stdout);
}
