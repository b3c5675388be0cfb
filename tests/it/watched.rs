//! Monitoring from outside: health and metrics over HTTP, and notifications to a service manager; and
//! how the daemon stops.

use std::{collections::HashMap, os::unix::net::UnixDatagram};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use mssql_standin::fault::{Fault, Point};

use crate::harness::{Daemon, WAIT_MAX, World, daemon::command, eventually};

/// Sends a request; returns the head (status line and headers) and the body of the response.
async fn get(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("connect to DATAFLOW_HTTP");
    stream.write_all(request.as_bytes()).await.expect("send the request");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read the answer");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.to_owned(), body.to_owned())
}

/// The status code and body of a GET request.
async fn page(address: &str, path: &str) -> (u16, String) {
    let (head, body) =
        get(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{head}"));
    (status, body)
}

/// The address on which the daemon listens (the scenario configured port 0), from its log.
async fn address(daemon: &Daemon) -> String {
    let line = daemon.wait_for_line(&["health and metrics are at http://"]).await;
    line.split("http://")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .expect("an address")
        .to_owned()
}

/// Parses the OpenMetrics exposition format strictly: every sample belongs to a family that is
/// described before it, and the text ends with EOF.
fn samples(text: &str) -> HashMap<String, f64> {
    let mut types: HashMap<&str, &str> = HashMap::new();
    let mut samples = HashMap::new();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, family, rest) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
            match word {
                "TYPE" => {
                    assert!(types.insert(family, rest).is_none(), "{family} is described twice")
                }
                "HELP" => assert!(!rest.is_empty(), "{family} has no help"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let name = series.split('{').next().unwrap();
        let family = types
            .get(name)
            .map(|kind| (*kind, name))
            .or_else(|| name.strip_suffix("_total").and_then(|f| Some((*types.get(f)?, f))));
        match family {
            Some(("counter", family)) => {
                assert_ne!(family, name, "a counter's sample ends with _total: {line}")
            }
            Some(("gauge", _)) => {}
            other => panic!("{line}: {other:?}"),
        }
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(samples.insert(series.replace("{}", ""), value).is_none(), "twice: {line}");
    }
    samples
}

/// The daemon is not ready as long as it cannot reach its control tables.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_the_connection_to_the_destination() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let daemon = world.daemon_with(&[("DATAFLOW_HTTP", "127.0.0.1:0")]);
    let address = address(&daemon).await;
    let answers = async |wanted: u16| {
        eventually("/readyz", async || match page(&address, "/readyz").await {
            (status, _) if status == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    };
    answers(200).await;
    for point in [Point::Login, Point::request("")] {
        world.dest.faults().always(point, Fault::CloseBefore);
    }
    answers(503).await;
    world.dest.faults().clear();
    answers(200).await;
}

/// A daemon with two mappings, one of which cannot work: the metrics agree with the control tables.
#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_show_what_the_daemon_does() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(20) NULL)").await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (1, N'a'), (2, N'b'), (3, N'c')").await;
    world.enable_cdc(&["T"]).await;
    let mapping = world.map("T", "ID", None, true).await;
    let broken = world.map("Nowhere", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    world.request_full_sync(broken).await;
    let daemon = world.daemon_with(&[("DATAFLOW_HTTP", "127.0.0.1:0")]);
    let address = address(&daemon).await;
    eventually("/readyz", async || match page(&address, "/readyz").await {
        (200, body) if body == "ready\n" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(page(&address, "/healthz").await, (200, "alive\n".to_owned()));
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.shop().await.run("UPDATE dbo.T SET V = N'z'").await;
    world.in_sync("dbo.T", "ID").await;
    world.verified(mapping, "PASSED").await;

    let labels = format!("mapping=\"{mapping}\",server=\"Source1\",table=\"Shop.dbo.T\"");
    let wanted = [
        (format!("dataflow_rows_applied_total{{{labels},sync_type=\"FULL_SYNC\"}}"), 3.0),
        (format!("dataflow_rows_applied_total{{{labels},sync_type=\"CDC\"}}"), 3.0),
        ("dataflow_runs_total{sync_type=\"FULL_SYNC\",status=\"COMPLETED\"}".to_owned(), 1.0),
        ("dataflow_control_up".to_owned(), 1.0),
        ("dataflow_destination_up".to_owned(), 1.0),
        ("dataflow_source_up{server_id=\"1\",server=\"Source1\"}".to_owned(), 1.0),
        (format!("dataflow_verification_failed{{{labels}}}"), 0.0),
        ("dataflow_mappings{state=\"parked\"}".to_owned(), 1.0),
        ("dataflow_mappings{state=\"following\"}".to_owned(), 1.0),
        ("dataflow_mappings{state=\"verification failed\"}".to_owned(), 0.0),
        ("dataflow_connections_max{server=\"dest\"}".to_owned(), 50.0),
        ("dataflow_connections_max{server=\"1\"}".to_owned(), 10.0),
        (format!("dataflow_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
    ];
    let numbers = eventually("the numbers", async || {
        let (status, text) = page(&address, "/metrics").await;
        assert_eq!(status, 200);
        let numbers = samples(&text);
        let missing: Vec<_> =
            wanted.iter().filter(|(series, value)| numbers.get(series) != Some(value)).collect();
        if missing.is_empty() { Ok(numbers) } else { Err(format!("{missing:?} in\n{text}")) }
    })
    .await;
    let at_least = |series: &str, least: f64| {
        let value = numbers
            .iter()
            .filter(|(name, _)| name.starts_with(series))
            .map(|(_, value)| *value)
            .sum::<f64>();
        assert!(value >= least, "{series} {value}");
    };
    at_least("dataflow_errors_total", 1.0);
    at_least("dataflow_verifications_total{type=\"MD5_COMPARISON\",status=\"PASSED\"}", 1.0);
    at_least("dataflow_connections{server=\"dest\"}", 1.0);
    at_least("dataflow_ticks_total", 1.0);
    at_least("dataflow_tasks_running{kind=\"cdc\"}", 0.0);
    let lag = numbers.get(&format!("dataflow_lag_seconds{{{labels}}}")).copied().expect("a lag");
    assert!((0.0..600.0).contains(&lag), "{lag}");

    // the health check of a container
    let mut variables = world.variables();
    variables.push(("DATAFLOW_HTTP", address.clone().leak()));
    let health =
        command(&variables, &["status", "--health"]).output().await.expect("run status --health");
    assert_eq!(
        (health.status.code(), String::from_utf8_lossy(&health.stdout).trim()),
        (Some(0), "alive")
    );
    let (status, _) = daemon.terminate().await;
    assert!(status.success());
    let health =
        command(&variables, &["status", "--health"]).output().await.expect("run status --health");
    assert_eq!(health.status.code(), Some(1), "the daemon has stopped");
    assert!(String::from_utf8_lossy(&health.stderr).contains("DATAFLOW_HTTP"));
}

/// Unknown paths, other methods and requests that are not HTTP get an error response, or their
/// connection is closed.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_are_refused() {
    let world = World::new().await;
    let daemon = world.daemon_with(&[("DATAFLOW_HTTP", "127.0.0.1:0")]);
    let address = address(&daemon).await;
    assert_eq!(page(&address, "/").await.0, 404);
    let (head, _) =
        get(&address, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    let (head, _) = get(&address, "\u{1}\u{2}nonsense\r\n\r\n").await;
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 400"), "{head}");
}

/// Connections without a request once used up the connection limit until their timeout, and the
/// health check of the container failed.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_block_health_checks() {
    let world = World::new().await;
    let daemon = world.daemon_with(&[("DATAFLOW_HTTP", "127.0.0.1:0")]);
    let address = address(&daemon).await;
    let mut idle = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(&address).await.expect("connect");
        // the daemon may have closed it for a later one by now
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\n").await;
        idle.push(stream);
    }
    assert_eq!(page(&address, "/healthz").await.0, 200);
    // the newest idle connection is still open and may finish its request
    let mut newest = idle.pop().expect("the newest");
    newest.write_all(b"Host: x\r\n\r\n").await.expect("finish the request");
    let mut text = String::new();
    newest.read_to_string(&mut text).await.expect("read the answer");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let mut oldest = idle.swap_remove(0);
    let mut rest = Vec::new();
    assert!(matches!(oldest.read_to_end(&mut rest).await, Ok(0) | Err(_)), "the oldest was closed");
}

/// A request with endless headers is refused before it fills the memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_endless_headers_is_refused() {
    let world = World::new().await;
    let daemon = world.daemon_with(&[("DATAFLOW_HTTP", "127.0.0.1:0")]);
    let address = address(&daemon).await;
    let mut stream = TcpStream::connect(&address).await.expect("connect");
    let mut sent = 0;
    let refused = async {
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").await?;
        loop {
            stream
                .write_all(b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")
                .await?;
            sent += 64;
            tokio::task::yield_now().await;
        }
    };
    let refused: std::io::Result<()> =
        tokio::time::timeout(WAIT_MAX, refused).await.expect("it is refused");
    assert!(refused.is_err() && sent < 64 * 1024 * 1024, "{sent} bytes were taken");
    assert_eq!(page(&address, "/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_had_is_an_error_that_names_the_variable() {
    let world = World::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: &'static str = taken.local_addr().expect("its address").to_string().leak();
    let (status, output) = world.daemon_with(&[("DATAFLOW_HTTP", address)]).wait_for_exit().await;
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(
        output.contains(&format!("DATAFLOW_HTTP ({address}) cannot be listened on")),
        "{output}"
    );
    // TEST-NET-3: an address that no machine has
    let (status, output) =
        world.daemon_with(&[("DATAFLOW_HTTP", "203.0.113.1:9464")]).wait_for_exit().await;
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.contains("DATAFLOW_HTTP (203.0.113.1:9464) cannot be listened on"), "{output}");
    let (status, output) = world.daemon_with(&[("DATAFLOW_HTTP", "nowhere")]).wait_for_exit().await;
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.contains("DATAFLOW_HTTP (nowhere) must be an IP address"), "{output}");
}

/// Notifications to systemd: READY when the daemon has started, WATCHDOG as long as its main loop
/// runs, STOPPING at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_gets_ready_watchdog_and_stopping() {
    let world = World::new().await;
    let path = std::env::temp_dir().join(format!("dataflow-notify-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let manager = UnixDatagram::bind(&path).expect("bind NOTIFY_SOCKET");
    manager.set_nonblocking(true).expect("non-blocking");
    let mut received = String::new();
    let mut receive = move || {
        let mut datagram = [0; 1024];
        while let Ok(length) = manager.recv(&mut datagram) {
            received.push_str(&String::from_utf8_lossy(&datagram[..length]));
            received.push('\n');
        }
        received.clone()
    };
    let socket: &'static str = path.to_str().expect("a path").to_owned().leak();
    let daemon = world.daemon_with(&[("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "400000")]);
    let received = eventually("three watchdog notifications", async || {
        let received = receive();
        if received.matches("WATCHDOG=1").count() >= 3 { Ok(received) } else { Err(received) }
    })
    .await;
    assert!(
        received.find("READY=1").expect("READY") < received.find("WATCHDOG=1").expect("WATCHDOG"),
        "{received}"
    );
    let (status, _) = daemon.terminate().await;
    assert!(status.success());
    assert!(receive().contains("STOPPING=1"), "{}", receive());
    let _ = std::fs::remove_file(&path);
}

/// A world with a full sync that hangs during its load, and the daemon that runs it.
async fn stuck(more: &[(&'static str, &'static str)]) -> (World, Daemon) {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY)").await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (1), (2)").await;
    let mapping = world.map("T", "ID", None, false).await;
    let hangs = world.dest.faults().always(Point::BulkRows(1), Fault::HangBefore);
    world.request_full_sync(mapping).await;
    let daemon = world.daemon_with(more);
    eventually("the load to hang", async || {
        if hangs.count() > 0 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    (world, daemon)
}

/// A load that does not reach a batch boundary before the shutdown timeout is abandoned: the server
/// rolls it back, and the request stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_no_longer_than_its_timeout() {
    crate::only_on_standins!("fault points");
    let (world, daemon) = stuck(&[("DATAFLOW_SHUTDOWN_TIMEOUT", "300ms")]).await;
    let (status, output) = daemon.terminate().await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("stopped without waiting any longer"), "{output}");
    let pending = world
        .control()
        .await
        .scalar("SELECT COUNT(*) FROM table_mappings WHERE full_sync_pending_at IS NOT NULL")
        .await;
    assert_eq!(pending, "1", "the full sync is still due");
}

/// A run that is abandoned at the shutdown timeout is marked as interrupted by the daemon that stops;
/// there may be no next daemon to do it.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_abandoned_at_shutdown_does_not_stay_running() {
    crate::only_on_standins!("fault points");
    let (world, daemon) = stuck(&[("DATAFLOW_SHUTDOWN_TIMEOUT", "300ms")]).await;
    daemon.terminate().await;
    let run = world.control().await.query("SELECT status, error_message FROM sync_status").await;
    assert_eq!(run.rows, [["ERROR", "interrupted"]]);
}

/// A copy whose source sends no rows is stopped at once, and its staging table is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_copy_does_not_wait_for_rows_that_do_not_come() {
    crate::only_on_standins!("fault points");
    for lane in ["wire", "driver"] {
        let world = World::new().await;
        world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY)").await;
        world.shop().await.run("INSERT INTO dbo.T VALUES (1), (2)").await;
        let mapping = world.map("T", "ID", None, false).await;
        let silent =
            world.source.faults().always(Point::request("SELECT s.[ID]"), Fault::HangBefore);
        world.request_full_sync(mapping).await;
        // far longer than the scenario waits
        let daemon =
            world.daemon_with(&[("DATAFLOW_COPY_LANE", lane), ("DATAFLOW_SHUTDOWN_TIMEOUT", "1h")]);
        assert!(silent.fired().await);
        let (status, output) = daemon.terminate().await;
        assert!(status.success(), "{lane}: {output}");
        let run = world.control().await.query("SELECT status FROM sync_status").await;
        assert_eq!(run.rows, [["PAUSED"]], "{lane}");
        let stages = world
            .copy()
            .await
            .scalar(
                "SELECT COUNT(*) FROM sys.tables WHERE name LIKE N'dbaops[_]dataflow[_]stage[_]%'",
            )
            .await;
        assert_eq!(stages, "0", "{lane}");
    }
}

/// SIGTERM ends the daemon also while it waits for the destination's first answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_obeyed_while_the_first_tick_waits() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let silent =
        world.dest.faults().always(Point::request("FROM dbo.source_servers"), Fault::HangBefore);
    let daemon = world.daemon_with(&[("DATAFLOW_STATEMENT_TIMEOUT", "1h")]);
    assert!(silent.fired().await);
    let (status, output) = daemon.terminate().await;
    assert_eq!(status.code(), Some(0), "{output}");
}

/// When the log tables do not answer at shutdown, the daemon waits a few seconds, not the statement
/// timeout.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_log_tables_that_do_not_answer() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let silent =
        world.dest.faults().always(Point::request("INSERT INTO dbo.sync_logs"), Fault::HangBefore);
    let daemon = world.daemon_with(&[("DATAFLOW_STATEMENT_TIMEOUT", "1h")]);
    assert!(silent.fired().await);
    let (status, output) = daemon.terminate().await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("the last log rows could not be written in time"), "{output}");
}

/// A poll has no work to finish, so a stop does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_poll_that_is_not_answered() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&["T"]).await;
    world.map("T", "ID", None, true).await;
    let silent = world.source.faults().always(Point::request("is_cdc_enabled"), Fault::HangBefore);
    let daemon = world
        .daemon_with(&[("DATAFLOW_SHUTDOWN_TIMEOUT", "1h"), ("DATAFLOW_STATEMENT_TIMEOUT", "1h")]);
    assert!(silent.fired().await);
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{output}");
}

/// A daemon that cannot open its lease connection owns no mapping, and is not ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_can_own_nothing_is_not_ready() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let refused =
        world.dest.faults().always(Point::request("dbaops-dataflow/daemon/"), Fault::CloseBefore);
    let daemon = world.daemon_with(&[("DATAFLOW_HTTP", "127.0.0.1:0")]);
    let address = address(&daemon).await;
    assert!(refused.fired().await);
    let answers = async |wanted: u16, expected: &str| {
        eventually(&format!("/readyz to say {expected}"), async || {
            match page(&address, "/readyz").await {
                (status, body) if status == wanted && body.contains(expected) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    };
    answers(503, "nothing is synced").await;
    refused.disarm();
    answers(200, "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    crate::only_on_standins!("fault points");
    // far longer than the scenario waits
    let (_world, daemon) = stuck(&[("DATAFLOW_SHUTDOWN_TIMEOUT", "1h")]).await;
    daemon.send_sigterm().await;
    daemon.wait_for_line(&["stopping"]).await;
    let (status, output) = daemon.terminate().await;
    assert_eq!(status.code(), Some(1), "{output}");
}
