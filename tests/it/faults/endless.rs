//! A server whose answers have no end: endless rows, values and messages after the login. The daemon
//! limits what it keeps in memory, the error names the server and the table, and only that table
//! stops.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dbaops_dataflow::{
    error::{Error, Kind},
    model::name::Ident,
    mssql::{
        connect::{connection_string, endpoint::Encrypt},
        pool::{PoolOptions, Pools},
    },
};
use mssql_standin::server::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::harness::{World, eventually};

const HEADER_BYTES: usize = 8;
const END_OF_MESSAGE: u8 = 1;
const BATCH: u8 = 1;
const CALL: u8 = 3;
const PACKET_BYTES: usize = 16_000;
const COLUMNS: u8 = 0x81;
const ROW: u8 = 0xD1;
const INFO: u8 = 0xAB;
/// The limit of the daemon's peak memory: a row of 128 MiB, possibly copied once, and its other memory.
const MEMORY_KIB_MAX: u64 = 400 * 1024;

/// An answer that begins with `head` and then repeats `body` without end.
#[derive(Clone, Debug)]
struct EndlessAnswer {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl EndlessAnswer {
    fn columns(count: u16, ty: &[u8]) -> Vec<u8> {
        let [low, high] = count.to_le_bytes();
        let column = [&[0, 0, 0, 0, 1, 0], ty, &[1, b'c', 0]].concat();
        [vec![COLUMNS, low, high], column.repeat(usize::from(count))].concat()
    }

    fn chunk(bytes: u32) -> Vec<u8> {
        [&bytes.to_le_bytes()[..], &vec![b'x'; bytes as usize]].concat()
    }

    /// One value that consists of chunks without end.
    fn value() -> Self {
        let head = [Self::columns(1, &VARBINARY_MAX), vec![ROW], UNKNOWN_TOTAL.to_vec()].concat();
        EndlessAnswer { head, body: Self::chunk(64 << 10) }
    }

    /// A row of the table in the scenario below, whose value has a chunk with a declared length above
    /// the limit of any value.
    fn impossible_chunk() -> Self {
        const NULLABLE_INT: [u8; 2] = [0x26, 4];
        let [mut columns, value] =
            [&NULLABLE_INT[..], &VARBINARY_MAX].map(|ty| Self::columns(1, ty));
        (columns[1], columns[2]) = (2, 0);
        columns.extend_from_slice(&value[3..]);
        let row = [&[ROW, 4, 1, 0, 0, 0], &UNKNOWN_TOTAL[..], &u32::MAX.to_le_bytes()].concat();
        EndlessAnswer { head: [columns, row].concat(), body: vec![b'x'; 64 << 10] }
    }

    /// One row with the maximum number of columns and 1 MiB in each.
    fn row() -> Self {
        let head = [Self::columns(4096, &VARBINARY_MAX), vec![ROW]].concat();
        let value = [&UNKNOWN_TOTAL[..], &Self::chunk(1 << 20), &[0; 4]].concat();
        EndlessAnswer { head, body: value }
    }

    /// Rows of a normal size without end.
    fn rows() -> Self {
        const BYTES: [u8; 2] = 8_000u16.to_le_bytes();
        const VARBINARY: [u8; 3] = [0xA5, BYTES[0], BYTES[1]];
        let row = [&[ROW][..], &BYTES, &[b'x'; 8_000]].concat();
        EndlessAnswer { head: Self::columns(1, &VARBINARY), body: row.repeat(10) }
    }

    /// Messages, as PRINT sends them, without end.
    fn messages() -> Self {
        let text: Vec<u8> =
            "on and on ".repeat(400).encode_utf16().flat_map(u16::to_le_bytes).collect();
        let inside = [
            &[0; 6][..],
            &u16::try_from(text.len() / 2).expect("a short text").to_le_bytes(),
            &text,
            &[0; 6],
        ]
        .concat();
        let length = u16::try_from(inside.len()).expect("a short token").to_le_bytes();
        let token = [&[INFO], &length[..], &inside].concat();
        EndlessAnswer { head: Vec::new(), body: token.repeat(10) }
    }
}

const VARBINARY_MAX: [u8; 3] = [0xA5, 0xFF, 0xFF];
const UNKNOWN_TOTAL: [u8; 8] = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

/// Statements that contain all of the texts get the answer.
type Endless = Arc<Mutex<Option<(&'static [&'static str], EndlessAnswer)>>>;

/// A proxy in front of a server, which answers some statements itself.
struct EndlessServer {
    addr: SocketAddr,
    endless: Endless,
    accepting: JoinHandle<()>,
}

impl EndlessServer {
    async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let endless = Endless::default();
        let shared = endless.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, upstream, shared.clone()));
            }
        });
        EndlessServer { addr, endless, accepting }
    }

    fn answers(&self, texts: &'static [&'static str], answer: EndlessAnswer) {
        *self.endless.lock().unwrap_or_else(PoisonError::into_inner) = Some((texts, answer));
    }
}

impl Drop for EndlessServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Reads one packet, with its header.
async fn packet(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; HEADER_BYTES];
    from.read_exact(&mut packet).await?;
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    packet.resize(length, 0);
    from.read_exact(&mut packet[HEADER_BYTES..]).await?;
    Ok(packet)
}

/// Forwards a request and then its answer, again and again. Connections are not encrypted.
async fn relay(mut client: TcpStream, upstream: SocketAddr, endless: Endless) -> io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    loop {
        let mut statement = Vec::new();
        loop {
            let packet = packet(&mut client).await?;
            let (kind, last) = (packet[0], packet[1] & END_OF_MESSAGE != 0);
            if matches!(kind, BATCH | CALL) {
                statement.extend_from_slice(&packet[HEADER_BYTES..]);
                if last {
                    let answer = endless.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    if let Some((_, answer)) =
                        answer.filter(|(texts, _)| texts.iter().all(|text| has(&statement, text)))
                    {
                        return send_endless(client, answer).await;
                    }
                }
            }
            server.write_all(&packet).await?;
            if last {
                break;
            }
        }
        loop {
            let packet = packet(&mut server).await?;
            client.write_all(&packet).await?;
            if packet[1] & END_OF_MESSAGE != 0 {
                break;
            }
        }
    }
}

fn has(statement: &[u8], word: &str) -> bool {
    let word: Vec<u8> = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
    statement.windows(word.len()).any(|window| window == word)
}

async fn send_endless(mut client: TcpStream, answer: EndlessAnswer) -> io::Result<()> {
    let EndlessAnswer { head: mut waiting, body } = answer;
    loop {
        while waiting.len() < PACKET_BYTES {
            waiting.extend_from_slice(&body);
        }
        for piece in waiting.chunks_exact(PACKET_BYTES) {
            let [high, low] = u16::try_from(PACKET_BYTES + HEADER_BYTES)
                .expect("a packet's length")
                .to_be_bytes();
            client.write_all(&[4, 0, high, low, 0, 0, 1, 0]).await?;
            client.write_all(piece).await?;
        }
        waiting.drain(..waiting.len() / PACKET_BYTES * PACKET_BYTES);
    }
}

fn check(what: &str, error: &Error, texts: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind, Kind::TooLarge, "{what}: {text}");
    for word in texts {
        assert!(text.contains(word), "{what}: {text}");
    }
}

/// Each of these answers once filled the memory, or was read until the statement timeout.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_an_end_has_a_limit() {
    let standin = Server::builder().start().await.expect("a server");
    let server = EndlessServer::start(standin.addr()).await;
    let mut endpoint = connection_string::parse(&standin.connection_string("master"))
        .expect("a connection string")
        .endpoint;
    (endpoint.port, endpoint.encrypt) = (server.addr.port(), Encrypt::Off);
    let place = format!("{}/master", endpoint.server_name());
    let pools = Pools::new(
        endpoint,
        PoolOptions {
            connections_max: 16,
            statement_timeout: Duration::from_secs(300),
            lock_timeout: Duration::from_secs(1),
            deadlock_priority_low: true,
            idle_timeout: Duration::from_secs(60),
        },
    );
    let master = Ident::new("master");
    const SQL: &str = "SELECT 1 AS endless";
    for (what, answer) in [("a value", EndlessAnswer::value()), ("a row", EndlessAnswer::row())] {
        server.answers(&["endless"], answer);
        let mut session = pools.checkout(&master, "test").await.expect("a session");
        let mut stream = session.stream(SQL, &[]).await.expect("a stream");
        check(
            &format!("{what}, the driver"),
            &stream.next().await.expect_err(what),
            &[&place, "row 1 of the answer", "128 MiB"],
        );
        drop(stream);
        assert!(!session.is_reusable(), "{what}");
        let mut line = pools.tds_connection(&master, "test").await.expect("a connection");
        let mut rows = line.rows(SQL, &[]).await.expect("an answer").expect("columns");
        check(
            &format!("{what}, the lane"),
            &rows.next().await.expect_err(what),
            &[&place, "row 1 of the answer", "128 MiB"],
        );
    }
    server.answers(&["endless"], EndlessAnswer::rows());
    let mut session = pools.checkout(&master, "test").await.expect("a session");
    check("rows", &session.rows(SQL, &[]).await.expect_err("rows"), &[&place]);
    let mut session = pools.checkout(&master, "test").await.expect("a session");
    let each = session.for_each_row(SQL, &[], |_, _| Ok(())).await;
    check("rows, each", &each.expect_err("rows"), &[&place]);
    // a stream of rows has no limit, as the session keeps none of them
    let mut session = pools.checkout(&master, "test").await.expect("a session");
    let mut stream = session.stream(SQL, &[]).await.expect("a stream");
    for _ in 0..1_000 {
        assert!(stream.next().await.expect("a row").is_some());
    }
    drop(stream);
    server.answers(&["endless"], EndlessAnswer::messages());
    let mut session = pools.checkout(&master, "test").await.expect("a session");
    check("messages", &session.batch(SQL).await.expect_err("messages"), &[&place]);
    let mut line = pools.tds_connection(&master, "test").await.expect("a connection");
    check("messages, the lane", &line.batch(SQL).await.expect_err("messages"), &[&place]);
}

/// The answers for one table have no end, in CDC and in full syncs by the copy lane and by the driver;
/// the other table goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_without_an_end_stops_only_its_own_table() {
    crate::only_on_standins!("a proxy in front of the source");
    const READ: &[&str] = &["FROM [dbo].[H] AS s"];
    const CHANGES: &[&str] = &["[dbo_H_CT]", "ORDER BY c.[__$start_lsn]", "c.[__$seqval]"];
    let world = World::without_statement_files().await;
    for table in ["G", "H"] {
        world
            .both(&format!(
                "CREATE TABLE dbo.{table} (ID INT NOT NULL PRIMARY KEY, V VARBINARY(MAX) NULL)"
            ))
            .await;
        world.shop().await.run(&format!("INSERT INTO dbo.{table} (ID, V) VALUES (1, 0x01)")).await;
    }
    world.enable_cdc(&["G", "H"]).await;
    let (good, hostile) =
        (world.map("G", "ID", None, true).await, world.map("H", "ID", None, true).await);
    let server = EndlessServer::start(world.source.addr()).await;
    let port = |port: u16| format!("port={port};");
    let string = world
        .source_connection_string("Shop")
        .replace('\'', "''")
        .replace(&port(world.source.addr().port()), &port(server.addr.port()));
    let mut control = world.control().await;
    control.run(&format!("UPDATE source_servers SET connection_string = N'{string}'")).await;
    let place = format!("127.0.0.1,{}/Shop", server.addr.port());
    let mut value = 1;
    for (lane, texts, answer, is_full_sync) in [
        ("wire", CHANGES, EndlessAnswer::value(), false),
        ("wire", READ, EndlessAnswer::impossible_chunk(), true),
        ("driver", READ, EndlessAnswer::value(), true),
    ] {
        let daemon = world.daemon_with(&[("DATAFLOW_COPY_LANE", lane)]);
        if value == 1 {
            for mapping in [good, hostile] {
                world.request_full_sync(mapping).await;
                world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
            }
        }
        control.run("DELETE FROM error_logs").await;
        server.answers(texts, answer);
        if is_full_sync {
            world.request_full_sync(hostile).await;
        } else {
            world.shop().await.run("UPDATE dbo.H SET V = 0x02").await;
        }
        let what = format!("{lane}, {texts:?}");
        eventually(&format!("an error of {what}"), async || {
            let errors = control
                .query(&format!(
                    "SELECT error_message, error_details FROM error_logs WHERE mapping_id = {hostile}"
                ))
                .await;
            let message = ["Shop.dbo.H: ", "row 1 of the answer of ", &place];
            let reported = errors.rows.iter().any(|row| {
                message.iter().all(|word| row[0].contains(word))
                    && row[1].contains("TooLarge")
                    && row[1].contains("parked")
            });
            if reported { Ok(()) } else { Err(errors.to_string()) }
        })
        .await;
        value += 1;
        world.shop().await.run(&format!("UPDATE dbo.G SET V = 0x0{value}")).await;
        world.in_sync("dbo.G", "ID").await;
        #[cfg(target_os = "linux")]
        daemon.assert_peak_memory_below(MEMORY_KIB_MAX);
        let (status, output) = daemon.terminate().await;
        assert!(status.success() && !output.contains("panicked"), "{output}");
    }
}
