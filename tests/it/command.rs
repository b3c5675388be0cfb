//! The commands `status` (shows the state of every mapping) and `sync` (runs a full sync now).

use std::process::Output;

use crate::harness::{WAIT_MAX, World, daemon::command, eventually, numbers};

/// Runs a command; returns its exit code and its output.
async fn run(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let output: Output =
        command(&world.variables(), arguments).output().await.expect("run the command");
    (
        output.status.code(),
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    )
}

/// The object of one mapping in the output of `status --json`.
async fn json(world: &World, mapping: i32) -> serde_json::Value {
    let (_, text) = run(world, &["status", "--json"]).await;
    let all: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let found =
        all.as_array().expect("an array").iter().find(|one| one["mapping"] == mapping).cloned();
    found.unwrap_or_else(|| panic!("mapping {mapping} is not in {text}"))
}

/// One mapping follows, one is parked because its table does not exist, one was never synced, one is
/// disabled: `status` shows each state with its reason, also when no daemon runs.
#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_state_of_every_mapping() {
    let world = World::new().await;
    world
        .both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(20) NULL)\nGO\nCREATE TABLE dbo.U (ID INT NOT NULL PRIMARY KEY)")
        .await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (1, N'a'), (2, N'b')").await;
    world.enable_cdc(&["T"]).await;
    let follows = world.map("T", "ID", None, true).await;
    let broken = world.map("Nowhere", "ID", None, false).await;
    let off = world.map("Off", "ID", None, false).await;
    world.request_full_sync(follows).await;
    world.request_full_sync(broken).await;
    let mut control = world.control().await;
    control
        .run(&format!("UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = {off}"))
        .await;
    let daemon = world.daemon();
    world.run_ends(follows, "FULL_SYNC", "COMPLETED").await;
    // the lag is unknown until something has been captured
    world.shop().await.run("UPDATE dbo.T SET V = N'c' WHERE ID = 2").await;
    eventually("a lag", async || match json(&world, follows).await {
        followed if followed["lag_seconds"].is_number() => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    eventually("the parked mapping", async || match json(&world, broken).await {
        parked if parked["state"] == "parked" => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    let (status, _) = daemon.terminate().await;
    assert!(status.success());
    world.pretend_daemon().await;
    let fresh = world.map("U", "ID", None, false).await;
    control.run("UPDATE table_mappings SET initial_sync = NULL").await;

    let followed = json(&world, follows).await;
    assert_eq!(
        (followed["state"].as_str(), followed["rows"].as_i64()),
        (Some("following"), Some(2)),
        "{followed}"
    );
    assert!(followed["lag_seconds"].as_i64().is_some_and(|lag| lag >= 0), "{followed}");
    assert!(
        followed["last_full_sync_at"].is_string() && followed["last_cdc_lsn"].is_string(),
        "{followed}"
    );
    let parked = json(&world, broken).await;
    assert_eq!(parked["last_error"]["parked"], true, "{parked}");
    assert!(
        parked["reason"].as_str().is_some_and(|reason| reason.contains("Shop.dbo.Nowhere")),
        "{parked}"
    );
    assert_eq!(json(&world, fresh).await["state"], "never synced");
    assert_eq!(json(&world, off).await["state"], "disabled");

    let (code, table) = run(&world, &["status"]).await;
    assert_eq!(code, Some(1), "{table}");
    for expected in [
        "MAPPING",
        "Shop.dbo.T",
        "following",
        "parked",
        "never synced",
        "disabled",
        "does not exist",
    ] {
        assert!(table.contains(expected), "{expected} in\n{table}");
    }
    // when the table exists, the mapping is no longer parked
    world.both("CREATE TABLE dbo.Nowhere (ID INT NOT NULL PRIMARY KEY)").await;
    let _daemon = world.daemon();
    world.run_ends(broken, "FULL_SYNC", "COMPLETED").await;
    eventually("an idle mapping", async || match json(&world, broken).await {
        idle if idle["state"] == "idle" => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
}

/// stdout is on a full disk: each command reports it on stderr and exits with 1. stdout is a closed
/// pipe (`status | head -1`): each command does its work, and exits as it would have. None panics
/// (exit code 101), as some once did.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_stdout_that_cannot_be_written_costs_no_command_its_exit_code() {
    use clap::CommandFactory;
    use std::{fs::File, os::fd::OwnedFd, process::Stdio};
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY)").await;
    let mapping = world.map("T", "ID", None, false).await.to_string();
    world.request_full_sync(mapping.parse().expect("a number")).await;
    let full =
        || Stdio::from(File::options().write(true).open("/dev/full").expect("open /dev/full"));
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        Stdio::from(OwnedFd::from(writer))
    };
    // exit codes with a closed pipe, which each has anyway, and with a full disk; a daemon's log may
    // be lost
    let commands: [(&[&str], i32, i32); 16] = [
        (&["init"], 0, 1),
        (&["check"], 0, 1),
        (&["status"], 1, 1),
        (&["status", "--json"], 1, 1),
        (&["start-from", "--mapping", &mapping, "--lsn", "0x0000002D000000A80003"], 2, 2),
        (&["retry", "--all"], 0, 1),
        (&["sync", "--mapping", &mapping], 0, 1),
        (&["verify"], 0, 1),
        (&["run", "--once"], 0, 0),
        (&["--once"], 0, 0),
        (&["completions", "bash"], 0, 1),
        (&["man"], 0, 1),
        (&["--help"], 0, 1),
        (&["help", "verify"], 0, 1),
        (&["--version"], 0, 1),
        (&["no-such-command"], 2, 2),
    ];
    for name in dbaops_dataflow::cli::Cli::command().get_subcommands().map(clap::Command::get_name)
    {
        assert!(commands.iter().any(|(arguments, ..)| arguments[0] == name), "{name} is not tried");
    }
    for (arguments, code_closed, code_full) in commands {
        for (stdout, code) in [(closed(), code_closed), (full(), code_full)] {
            let child = command(&world.variables(), arguments)
                .stdout(stdout)
                .spawn()
                .expect("start the command");
            let output = child.wait_with_output().await.expect("run the command");
            let printed = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {printed}");
            let is_told = printed.contains("stdout cannot be written: No space left on device");
            assert!(is_told || code_closed == code, "{arguments:?}: {printed}");
            assert!(
                !printed.contains("panicked") && !printed.contains("Broken pipe"),
                "{arguments:?}: {printed}"
            );
        }
    }
}

/// The reader of the daemon's stdout stalls: the daemon goes on replicating, and obeys SIGTERM.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_the_log_that_stalls_stops_neither_replication_nor_shutdown() {
    use std::{os::fd::OwnedFd, process::Stdio};
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&["T"]).await;
    world.map("T", "ID", None, true).await;
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // fill the pipe, whose capacity is 64 KiB
    std::io::Write::write_all(&mut writer, &[b'\n'; 64 * 1024]).expect("fill the pipe");
    let mut child = command(&world.variables(), &[])
        .stdout(Stdio::from(OwnedFd::from(writer)))
        .spawn()
        .expect("start the daemon");
    for id in 1..=3 {
        world.shop().await.run(&format!("INSERT INTO dbo.T VALUES ({id})")).await;
        world.in_sync("dbo.T", "ID").await;
    }
    let pid = child.id().expect("it runs").to_string();
    assert!(
        tokio::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .expect("kill")
            .success()
    );
    let status = tokio::time::timeout(WAIT_MAX, child.wait())
        .await
        .expect("it ends after SIGTERM")
        .expect("wait");
    assert!(status.success(), "{status}");
    let mut printed = String::new();
    tokio::io::AsyncReadExt::read_to_string(
        &mut child.stderr.take().expect("stderr"),
        &mut printed,
    )
    .await
    .expect("read stderr");
    assert!(printed.contains("lines of the log were not printed"), "{printed}");
    drop(reader);
}

/// No daemon runs: the command runs the full sync itself, and prints the result.
#[tokio::test(flavor = "multi_thread")]
async fn sync_without_a_daemon_does_the_work_itself() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(20) NULL)").await;
    world
        .shop()
        .await
        .run(&format!("INSERT INTO dbo.T SELECT n, CONCAT(N'row ', n) FROM {}", numbers(5_000)))
        .await;
    let mapping = world.map("T", "ID", None, false).await.to_string();
    let (code, text) = run(&world, &["sync", "--mapping", &mapping]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("mapping 1: ") && text.contains(".dbo.T: complete, 5000 rows"), "{text}");
    world.in_sync("dbo.T", "ID").await;
    let (code, text) = run(&world, &["sync", "--mapping", "99"]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("there is no enabled mapping 99"), "{text}");
    world.copy().await.run("ALTER TABLE dbo.T ALTER COLUMN V NVARCHAR(10) NULL").await;
    let (code, text) = run(&world, &["sync", "--mapping", &mapping]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("does not fit"), "{text}");
}

/// A daemon owns the mapping: the command requests the full sync and waits for its end.
#[tokio::test(flavor = "multi_thread")]
async fn sync_beside_a_daemon_asks_it_and_follows() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(20) NULL)").await;
    world
        .shop()
        .await
        .run(&format!("INSERT INTO dbo.T SELECT n, CONCAT(N'row ', n) FROM {}", numbers(5_000)))
        .await;
    let mapping = world.map("T", "ID", None, false).await;
    let daemon = world.daemon();
    daemon.wait_for_line(&["works on 1 tables now"]).await;
    let (code, text) = run(&world, &["sync", "--mapping", &mapping.to_string()]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("a daemon owns the mapping and was asked"), "{text}");
    assert!(text.contains("complete, 5000 rows"), "{text}");
    world.in_sync("dbo.T", "ID").await;
    let runs = "SELECT COUNT(*) FROM sync_status WHERE sync_type = 'FULL_SYNC'";
    assert_eq!(world.control().await.scalar(runs).await, "1", "one full sync, not two");
}

/// The daemon is killed before it begins the requested full sync: the command takes the mapping over
/// and runs the full sync itself.
#[tokio::test(flavor = "multi_thread")]
async fn sync_goes_on_by_itself_when_the_daemon_is_killed() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(20) NULL)").await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (1, N'a')").await;
    let mapping = world.map("T", "ID", None, false).await;
    // the daemon owns the mapping after its first tick; its next tick is much later
    let daemon = world.daemon_with(&[("DATAFLOW_CHECK_INTERVAL", "1h")]);
    daemon.wait_for_line(&["works on 1 tables now"]).await;
    let id = mapping.to_string();
    let asked = tokio::spawn(command(&world.variables(), &["sync", "--mapping", &id]).output());
    let mut control = world.control().await;
    eventually("the request", async || {
        let requested =
            control.scalar("SELECT CAST(full_sync_requested AS int) FROM table_mappings").await;
        if requested == "1" { Ok(()) } else { Err(requested) }
    })
    .await;
    daemon.kill().await;
    let output = tokio::time::timeout(WAIT_MAX, asked)
        .await
        .expect("sync ends")
        .expect("joined")
        .expect("run sync");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("complete, 1 rows"), "{text}");
    world.in_sync("dbo.T", "ID").await;
}
