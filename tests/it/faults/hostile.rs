//! Hostile input: random text, invalid control rows, and servers whose answers are corrupted at
//! random. The daemon reports errors; it never panics, hangs or takes unbounded memory.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dbaops_dataflow::{config::Config, model::lsn::Lsn, mssql::connect::connection_string};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::fixture::{Fixture, Side};
use crate::harness::{World, eventually};

const CASES: usize = 20_000;
/// By how much the memory of a daemon with one small table may grow while a server's answers are
/// corrupted, in KiB.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
/// Answers that are corrupted before the proxy forwards them unchanged again.
const ANSWERS: usize = 400;

fn seed() -> u64 {
    let seed = std::env::var("DATAFLOW_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| rand::rng().random());
    println!("seed {seed} (DATAFLOW_TEST_SEED)");
    seed
}

/// Random text that contains pieces which a parser recognises.
fn text(random: &mut StdRng, pieces: &[&str]) -> String {
    let mut text = String::new();
    for _ in 0..random.random_range(0..12) {
        match random.random_range(0..10) {
            0 => text.push(char::from_u32(random.random_range(0..0x11_0000)).unwrap_or('\u{fffd}')),
            1 => {
                text.extend((0..random.random_range(0..300)).map(|_| random.random_range(' '..'~')))
            }
            _ => text.push_str(pieces[random.random_range(0..pieces.len())]),
        }
    }
    text
}

#[test]
fn any_connection_string_is_parsed_or_refused() {
    const PIECES: &[&str] = &[
        "server",
        "=",
        ";",
        "'",
        "\"",
        "{",
        "}",
        "}}",
        "''",
        "tcp:",
        "localhost",
        ",1433",
        ":",
        "\\",
        "[::1]",
        "user id",
        "password",
        "x y",
        "encrypt",
        "strict",
        "disable",
        "true",
        "database",
        "sqlserver://",
        "@",
        "/",
        "?",
        "&",
        "%",
        "%zz",
        "%41",
        "port",
        "99999999999999999999",
        "-1",
        "connection timeout",
        "packet size",
        "trustservercertificate",
        "multisubnetfailover",
        "applicationintent",
        "readonly",
        "failoverpartner",
    ];
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..CASES {
        let text = text(&mut random, PIECES);
        if let Err(error) = connection_string::parse(&text) {
            assert!(!error.to_string().is_empty());
        }
        // The variables take the same texts.
        let variables = [
            ("DEST_SERVER", text.clone()),
            ("DEST_PASS", "secret-of-mine".to_owned()),
            ("DATAFLOW_CHECK_INTERVAL", text),
        ];
        if let Err(problems) = Config::from_vars(variables) {
            assert!(!problems.to_string().contains("secret-of-mine"));
        }
    }
}

#[test]
fn any_lsn_is_parsed_or_refused() {
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..CASES {
        let text = text(
            &mut random,
            &[
                "0x",
                "0X",
                "00000024000054300003",
                ":",
                "0000",
                "G",
                "-",
                "+1",
                "ffffffffffffffffffff",
                " ",
            ],
        );
        if let Ok(lsn) = text.parse::<Lsn>() {
            assert_eq!(lsn.to_string().parse::<Lsn>().ok(), Some(lsn), "{text:?}");
        }
    }
}

/// Random invalid rows, and one valid row, which works.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_the_control_tables_stops_no_other_mapping() {
    let mut random = StdRng::seed_from_u64(seed());
    let world = World::new().await;
    world.both("CREATE TABLE dbo.G (ID INT NOT NULL PRIMARY KEY, V INT NOT NULL)").await;
    world.shop().await.run("INSERT INTO dbo.G (ID, V) VALUES (1, 1)").await;
    world.enable_cdc(&["G"]).await;
    let good = world.map("G", "ID", None, true).await;
    world.request_full_sync(good).await;
    let mut control = world.control().await;
    const PIECES: &[&str] = &[
        "G",
        "dbo",
        "Shop",
        "Copy",
        "]",
        "[",
        "'",
        ";",
        "--",
        "/*",
        " ",
        "DROP TABLE G",
        "ID",
        ",",
        "\"",
        "\\",
        "..",
        "#",
        "@P1",
        "é",
    ];
    let word = |random: &mut StdRng, most: usize| {
        text(random, PIECES)
            .replace(['\'', '\0'], "''")
            .chars()
            .take(most)
            .collect::<String>()
            .replace('\'', "''")
    };
    for number in 0..40 {
        let string = word(&mut random, 200);
        control.run(&format!("INSERT INTO source_servers (server_name, connection_string) VALUES (N'odd {number}', N'{string}')")).await;
        let server = if random.random() {
            "1".to_owned()
        } else {
            format!("(SELECT server_id FROM source_servers WHERE server_name = N'odd {number}')")
        };
        let words: Vec<String> = (0..7).map(|_| format!("N'{}'", word(&mut random, 50))).collect();
        let lsn: String = (0..10).map(|_| format!("{:02X}", random.random::<u8>())).collect();
        control
            .run(&format!(
                "INSERT INTO table_mappings (server_id, source_database, source_schema, source_table, dest_database, dest_schema, dest_table, \
                 primary_key_column, full_sync_trigger_column, is_enabled, cdc_enabled, last_cdc_lsn, full_sync_requested) \
                 VALUES ({server}, {}, N'Column', 1, {}, 0x{lsn}, {})",
                words.join(", "),
                random.random_range(0..2),
                random.random_range(0..2)
            ))
            .await;
    }
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "200ms")]);
    world.run_ends(good, "FULL_SYNC", "COMPLETED").await;
    world.shop().await.run("UPDATE dbo.G SET V = 2").await;
    world.in_sync("dbo.G", "ID").await;
    let (status, output) = daemon.terminate().await;
    assert!(status.success() && !output.contains("panicked"), "{output}");
}

/// PRELOGIN is not encrypted: an attacker on the network can answer it, with an answer without end.
#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_before_a_login_stops_its_own_source_alone() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.G (ID INT NOT NULL PRIMARY KEY, V INT NOT NULL)").await;
    world.shop().await.run("INSERT INTO dbo.G (ID, V) VALUES (1, 1)").await;
    let good = world.map("G", "ID", None, false).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let endless = tokio::spawn(async move {
        // A packet full of options whose data extends to the end of the packet; no packet is marked
        // as the last one.
        const PACKET_BYTES: u16 = 0x7FFC;
        let [high, low] = PACKET_BYTES.to_be_bytes();
        let mut packet = vec![4, 0, high, low, 0, 0, 1, 0];
        packet.extend([2, high, 0, 0, 1].repeat(usize::from(PACKET_BYTES) / 5));
        packet.resize(usize::from(PACKET_BYTES), 1);
        while let Ok((mut tcp, _)) = listener.accept().await {
            let packet = packet.clone();
            tokio::spawn(async move { while tcp.write_all(&packet).await.is_ok() {} });
        }
    });
    let mut control = world.control().await;
    control
        .run(&format!(
            "INSERT INTO source_servers (server_name, connection_string) VALUES (N'Endless', N'server=127.0.0.1,{port};user id=u;password=p'); \
             INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, full_sync_requested) \
             SELECT server_id, N'Shop', N'G', N'Copy', N'H', N'ID', 1 FROM source_servers WHERE server_name = N'Endless'"
        ))
        .await;
    let daemon = world.daemon();
    world.request_full_sync(good).await;
    world.run_ends(good, "FULL_SYNC", "COMPLETED").await;
    let memory_kib = daemon.memory_kib().unwrap_or_default();
    eventually("an error about the endless answer", async || {
        let errors = control.query("SELECT error_type, error_message FROM error_logs").await;
        let reported = errors
            .rows
            .iter()
            .any(|row| row[0] == "CONNECTION" && row[1].contains("before the login was done"));
        if reported { Ok(()) } else { Err(errors.to_string()) }
    })
    .await;
    world.shop().await.run("UPDATE dbo.G SET V = 2").await;
    world.request_full_sync(good).await;
    world.in_sync("dbo.G", "ID").await;
    let grown_kib = daemon.memory_kib().unwrap_or_default();
    assert!(
        grown_kib < memory_kib + GROWTH_KIB_MAX,
        "memory grew from {memory_kib} to {grown_kib} KiB"
    );
    let (status, output) = daemon.terminate().await;
    assert!(status.success() && !output.contains("panicked"), "{output}");
    endless.abort();
}

/// Corrupts one answer of a server: changes bytes, sets a length to a huge value, removes or repeats
/// a piece.
fn corrupt(random: &mut StdRng, bytes: &mut Vec<u8>) {
    const PACKET_HEADER_BYTES: usize = 8;
    if bytes.is_empty() {
        return;
    }
    for _ in 0..random.random_range(1..4) {
        // Mostly after the packet header, so that tokens are corrupted.
        let from = if random.random_range(0..8) == 0 {
            0
        } else {
            PACKET_HEADER_BYTES.min(bytes.len() - 1)
        };
        let at = random.random_range(from..bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            // token and type bytes that are followed by a length
            2 => {
                bytes[at] = [
                    0x81, 0xAA, 0xAB, 0xD1, 0xD2, 0xE3, 0xE5, 0xF0, 0xFD, 0xA5, 0xE7, 0xEF, 0x62,
                    0xF1,
                ][random.random_range(0..14)]
            }
            3 => {
                let end = bytes.len().min(at + [2, 4, 8][random.random_range(0..3)]);
                bytes[at..end].fill(if random.random() { 0xFF } else { 0x7F });
            }
            4 => drop(bytes.drain(at..bytes.len().min(at + random.random_range(1..40)))),
            _ => {
                let piece = bytes[at..bytes.len().min(at + 40)].to_vec();
                bytes.splice(at..at, piece);
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
}

async fn survives_corrupt_answers(side: Side) {
    let seed = seed();
    let mut fixture = Fixture::new().await;
    let daemon = fixture.daemon(&[
        ("DATAFLOW_VERIFY_INTERVAL", "300ms"),
        ("DATAFLOW_STATEMENT_TIMEOUT", "1s"),
        ("DATAFLOW_LONG_STATEMENT_TIMEOUT", "1s"),
    ]);
    fixture.world.run_ends(fixture.mapping, "FULL_SYNC", "COMPLETED").await;
    let memory_kib = daemon.memory_kib().unwrap_or_default();
    let state = std::sync::Arc::new(Mutex::new((StdRng::seed_from_u64(seed), 0usize)));
    let corrupting = state.clone();
    fixture.link(side).tamper(move |mut bytes, asked| {
        let mut state = corrupting.lock().unwrap_or_else(PoisonError::into_inner);
        if asked && state.0.random_range(0..4) == 0 {
            state.1 += 1;
            corrupt(&mut state.0, &mut bytes);
        }
        bytes
    });
    let mut peak_kib = memory_kib;
    let corrupted = || state.lock().unwrap_or_else(PoisonError::into_inner).1;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(25);
    while corrupted() < ANSWERS && tokio::time::Instant::now() < deadline {
        fixture.write().await;
        fixture.world.request_full_sync(fixture.mapping).await;
        peak_kib = peak_kib.max(daemon.memory_kib().unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fixture.link(side).calm();
    println!(
        "{} answers of the {side:?} were corrupted; memory {memory_kib} KiB before, {peak_kib} KiB peak",
        corrupted()
    );
    assert!(!daemon.output().contains("panicked"), "{}", daemon.output());
    assert!(
        peak_kib < memory_kib + GROWTH_KIB_MAX,
        "memory grew from {memory_kib} to {peak_kib} KiB"
    );

    // The daemon may have applied corrupted values; a full sync that runs after the corruption ended
    // replaces them.
    let mut control = fixture.world.control().await;
    let last = control.scalar("SELECT COALESCE(MAX(status_id), 0) FROM sync_status").await;
    control
        .run(&format!(
            "UPDATE table_mappings SET full_sync_requested = 1, updated_at = GETUTCDATE(), is_enabled = 1 WHERE mapping_id = {}",
            fixture.mapping
        ))
        .await;
    eventually("a full sync to succeed after the corruption ended", async || {
        let runs = control
            .query(&format!(
                "SELECT status, error_message FROM sync_status WHERE status_id > {last} AND sync_type = 'FULL_SYNC' ORDER BY status_id DESC"
            ))
            .await;
        if runs.first() == "COMPLETED" { Ok(()) } else { Err(runs.to_string()) }
    })
    .await;
    fixture.in_sync().await;
    fixture.assert_no_leaks(&daemon).await;
    fixture.stop_cleanly(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_source_is_survived() {
    crate::only_on_standins!("a network that tampers");
    survives_corrupt_answers(Side::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_destination_is_survived() {
    crate::only_on_standins!("a network that tampers");
    survives_corrupt_answers(Side::Dest).await;
}
