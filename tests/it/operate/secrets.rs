//! Passwords appear in no output, log table, error or process argument, whatever an operator wrote
//! into a connection string.

use dbaops_dataflow::{config::Config, mssql::connect::connection_string};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::harness::{Daemon, World, daemon::command, eventually};

const SEED_VARIABLE: &str = "DATAFLOW_TEST_SEED";
const STRINGS: usize = 60;
const STRINGS_READ: usize = 10_000;

/// A password, and its pieces: none of them may appear.
struct Password {
    text: String,
    pieces: Vec<String>,
}

fn password(random: &mut StdRng) -> Password {
    const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz";
    const DIGITS: &[u8] = b"23456789";
    let mut text = String::new();
    let mut pieces = Vec::new();
    for _ in 0..random.random_range(1..4) {
        let digits = random.random_bool(0.5);
        let piece: String = (0..9)
            .map(|_| {
                char::from(
                    *if digits && random.random_bool(0.3) { DIGITS } else { LETTERS }
                        .choose(random)
                        .expect("a character"),
                )
            })
            .collect();
        if !text.is_empty() {
            text.push_str(
                [
                    "", ";", "=", ";;", "'", "\"", "{", "}", "@", "/", ":", "%", "%4", " ", "?",
                    "&", "\\", "é", "\t",
                ]
                .choose(random)
                .expect("one"),
            );
        }
        text.push_str(&piece);
        pieces.push(piece);
    }
    Password { text, pieces }
}

/// A connection string with this password, in one of many forms, valid or invalid.
fn typed(random: &mut StdRng, password: &str, port: u16) -> String {
    let quoted = match random.random_range(0..5) {
        0 => format!("\"{}\"", password.replace('"', "\"\"")),
        1 => format!("{{{}}}", password.replace('}', "}}")),
        2 => format!("'{}'", password.replace('\'', "''")),
        3 => format!("\"{password}"),
        _ => password.to_owned(),
    };
    let key = *["password", "Pwd", "PASSWORD ", "pass", "pasword"].choose(random).expect("one");
    let server = *["127.0.0.1", "127.0.0.1,1", "no.such.host.invalid", "np:x", "h\\i\\j", ""]
        .choose(random)
        .expect("one");
    let more = *[
        "",
        "encrypt=disable",
        "encrypt=perhaps",
        "nonsense",
        "what=ever",
        "port=99999",
        "connection timeout=1",
    ]
    .choose(random)
    .expect("one");
    // percent-encoded, as a URL requires
    let escaped: String = password
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }
        })
        .collect();
    match random.random_range(0..10) {
        6 => format!("sqlserver://sa:{escaped}@127.0.0.1:{port}?database=master&encrypt=disable"),
        7 => format!(
            "Data Source=tcp:127.0.0.1,{port};Initial Catalog=master;UID=sa;{key}={quoted};Encrypt=False;{more}"
        ),
        8 => format!(
            "jdbc:sqlserver://127.0.0.1:{port};databaseName=master;user=no_such_login;password={{{}}};encrypt=false",
            password.replace('}', "}}")
        ),
        // a valid string whose login fails
        9 => format!(
            "server=127.0.0.1,{port};user id=sa;password=\"{}\";encrypt=disable",
            password.replace('"', "\"\"")
        ),
        0 => format!("sqlserver://sa:{password}@127.0.0.1:{port}/?encrypt=disable"),
        1 => format!("jdbc:sqlserver://127.0.0.1:{port};user=sa;{key}={quoted};encrypt=false"),
        2 => {
            format!("server={server};port={port};user id=sa;{key}={quoted};{more};encrypt=disable")
        }
        3 => format!("{key}={quoted};server={server};{more};user id=sa"),
        4 => format!("mysql://sa:{password}@h/x"),
        _ => format!("server=127.0.0.1,{port};user id=sa;{more};encrypt=disable;{key}={quoted}"),
    }
}

fn seed() -> u64 {
    let seed = std::env::var(SEED_VARIABLE)
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| rand::rng().random());
    println!("{SEED_VARIABLE}={seed}");
    seed
}

/// Asserts that no piece of a password is in `text`, which is called `name` in the message.
fn assert_no_password(passwords: &[Password], text: &str, name: &str) {
    for password in passwords {
        for piece in std::iter::once(&password.text).chain(&password.pieces) {
            if let Some(at) = text.find(piece.as_str()) {
                let around: String = text
                    .get(..at)
                    .unwrap_or_default()
                    .chars()
                    .rev()
                    .take(160)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect();
                panic!(
                    "{piece:?} of the password {:?} is in {name}, after: {around}",
                    password.text
                );
            }
        }
    }
}

/// The daemon's command line.
fn command_line(daemon: &Daemon) -> String {
    let Some(proc_dir) = daemon.proc_dir("the arguments") else { return String::new() };
    String::from_utf8_lossy(&std::fs::read(proc_dir.join("cmdline")).expect("the arguments"))
        .into_owned()
}

/// Parses more strings than could be tried at a server, and checks the parsed endpoint, the error and
/// its details, as Display and Debug.
#[test]
fn no_string_shows_its_password_when_it_is_read() {
    let mut random = StdRng::seed_from_u64(seed());
    for _ in 0..STRINGS_READ {
        let password = password(&mut random);
        let text = typed(&mut random, &password.text, 1433);
        let printed = match connection_string::parse(&text) {
            Ok(parsed) => format!("{parsed:?}"),
            Err(error) => format!("{error} {error:?} {}", error.details(1, "left out")),
        };
        assert_no_password(
            std::slice::from_ref(&password),
            &printed,
            &format!("what is printed of {text}"),
        );
        let vars = [
            ("DEST_PASS", password.text.as_str()),
            ("DATAFLOW_BATCH_SIZE", "x"),
            ("DEST_SERVER", text.as_str()),
        ];
        let printed = format!("{:?}", Config::from_vars(vars));
        assert_no_password(
            std::slice::from_ref(&password),
            &printed,
            "what is printed of the environment",
        );
        let printed = format!("{:?}", Config::from_vars([("DEST_PASS", password.text.as_str())]));
        assert_no_password(&[password], &printed, "the configuration's Debug");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_is_printed_or_logged() {
    crate::only_on_standins!("its address");
    let mut random = StdRng::seed_from_u64(seed());
    let world = World::new().await;
    let mut control = world.control().await;
    let port = world.source.addr().port();
    let mut passwords = vec![Password {
        text: crate::harness::PASSWORD.to_owned(),
        pieces: vec!["S3cret".to_owned()],
    }];
    for n in 1..=STRINGS {
        let password = password(&mut random);
        let string = typed(&mut random, &password.text, port).replace('\'', "''");
        control
            .run(&format!(
                "INSERT INTO source_servers (server_name, connection_string) VALUES (N'Fuzz{n}', N'{string}'); \
                 INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, full_sync_requested) \
                 VALUES (SCOPE_IDENTITY(), N'Shop', N'T', N'Copy', N'T{n}', N'ID', 1)"
            ))
            .await;
        passwords.push(password);
    }
    // The most verbose log level.
    let daemon = world.daemon_with(&[
        ("RUST_LOG", "trace"),
        ("RUST_BACKTRACE", "1"),
        ("DATAFLOW_SOURCE_CONNECTIONS", "2"),
    ]);
    eventually("an error of every connection string", async || {
        let without_error = control
            .query(
                "SELECT s.server_id, s.server_name FROM source_servers AS s WHERE s.server_name LIKE N'Fuzz%' AND NOT EXISTS \
                 (SELECT 1 FROM error_logs AS e JOIN table_mappings AS m ON m.server_id = s.server_id WHERE e.server_id = s.server_id OR e.mapping_id = m.mapping_id)",
            )
            .await;
        if without_error.rows.is_empty() { Ok(()) } else { Err(without_error.to_string()) }
    })
    .await;
    assert_no_password(&passwords, &command_line(&daemon), "the process's arguments");
    let (status, output) = daemon.terminate().await;
    assert!(status.success());
    assert_no_password(&passwords, &output, "the daemon's output");
    for table in ["sync_logs", "error_logs", "sync_status", "verification_logs"] {
        assert_no_password(
            &passwords,
            &control.query(&format!("SELECT * FROM {table}")).await.rows.concat().join("\n"),
            table,
        );
    }

    // The destination refuses the password of every command that logs in.
    let password = Password {
        text: "Zq7kWm2;x'\"{Rt9}".to_owned(),
        pieces: vec!["Zq7kWm2".to_owned(), "Rt9}".to_owned()],
    };
    let mut variables = world.variables();
    variables.extend([("DEST_PASS", "Zq7kWm2;x'\"{Rt9}"), ("RUST_LOG", "trace")]);
    for arguments in [
        &["--once"][..],
        &["init"],
        &["verify"],
        &["start-from", "--mapping", "1", "--lsn", "0x00000000000000000001"],
    ] {
        let output = command(&variables, arguments).output().await.expect("run");
        assert!(!output.status.success(), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert_no_password(
            std::slice::from_ref(&password),
            &text,
            &format!("what {arguments:?} prints"),
        );
    }
}

/// How often each of these is in the memory of a process.
#[cfg(target_os = "linux")]
fn occurrences(pid: u32, needles: &[Vec<u8>]) -> Vec<usize> {
    use std::os::unix::fs::FileExt;
    const PIECE_BYTES: usize = 4 << 20;
    let overlap = needles.iter().map(Vec::len).max().unwrap_or_default().saturating_sub(1);
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("the daemon's memory");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its map");
    let mut counts = vec![0; needles.len()];
    for line in
        maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|r| r.starts_with("rw")))
    {
        let (from, to) =
            line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).expect("an address"));
        let mut at = from;
        while at < to {
            let size = usize::try_from(to - at).expect("a size").min(PIECE_BYTES + overlap);
            let mut piece = vec![0; size];
            // parts of a region may be unreadable
            let Ok(read) = memory.read_at(&mut piece, at) else { break };
            for (count, needle) in counts.iter_mut().zip(needles) {
                let starts = &piece[..read.min(PIECE_BYTES + needle.len() - 1)];
                *count += starts
                    .windows(needle.len())
                    .filter(|w| w[0] == needle[0] && w == needle)
                    .count();
            }
            if read == 0 || read < size {
                break;
            }
            at += PIECE_BYTES as u64;
        }
    }
    counts
}

/// Of a server that was switched off nothing is kept: our own copies are overwritten, those of the
/// driver and the lane in the login among them. What is left is in buffers in which the driver
/// received the control table's row, as UTF-16, until something else is received there.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_a_server_that_is_switched_off_is_not_in_memory() {
    crate::only_on_standins!("a login of the scenario's own, and connections that are counted");
    const MARKER: &str = "Zq7-marker-Wk3-of-a-password-Jx9";
    let world = World::new().await;
    world.both("CREATE TABLE dbo.P (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    world.shop().await.run("INSERT INTO dbo.P VALUES (1, 1)").await;
    world
        .source("master")
        .await
        .run(&format!("CREATE LOGIN marked WITH PASSWORD = '{MARKER}'"))
        .await;
    world
        .shop()
        .await
        .run("CREATE USER marked FOR LOGIN marked; GRANT SELECT ON SCHEMA::dbo TO marked")
        .await;
    world.connect_as("marked", MARKER).await;
    let mapping = world.map("P", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let utf16: Vec<u8> = MARKER.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let login: Vec<u8> = utf16.iter().map(|byte| byte.rotate_left(4) ^ 0xA5).collect();
    let needles = [MARKER.as_bytes().to_vec(), utf16, login];
    let before = occurrences(daemon.pid(), &needles);
    world.control().await.run("UPDATE source_servers SET is_enabled = 0").await;
    eventually("the source's connections to be closed", async || {
        match world.source.connection_count_of("dbaops-dataflow").now {
            0 => Ok(()),
            now => Err(format!("{now} connections")),
        }
    })
    .await;
    let mut after = Vec::new();
    eventually("the password to be gone", async || {
        after = occurrences(daemon.pid(), &needles);
        if after[0] + after[2] == 0 { Ok(()) } else { Err(format!("{after:?}")) }
    })
    .await;
    println!("copies as UTF-8, UTF-16 and in LOGIN7's form: {before:?} before, {after:?} after");
    assert!(before[0] > 0, "nothing was found where it must be");
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{output}");
}
