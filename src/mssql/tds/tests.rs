//! The lane alone, against a stand-in; whole full syncs go through it in the scenarios.

use std::{future::Future, path::PathBuf, task::Poll, time::Duration};

use mssql_standin::{
    error::SqlError,
    fault::{Fault, Point},
    proxy::Proxy,
    server::{Encryption, Server},
    tds::prelogin,
};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use tokio::net::{TcpListener, TcpStream};

use super::{
    TdsConnection,
    answer::{has_next_row, read_to_end},
    copy::{CopyStatements, bulk_column_metadata, copy},
    header::{END_OF_MESSAGE, HEADER_BYTES, Message},
    packet::Packets,
    rows::RowParser,
    stream::TdsStream,
    token::{self, ColumnList, Token},
    transfer::Transfer,
    types::{self, utf16},
};
use crate::{
    error::{Kind, Result},
    model::{name::Ident, secret::Secret, value::Value},
    mssql::{
        client::{
            copy::{BatchLimit, BatchObserver, ControlFlow, Copied},
            row::Param,
            session::Session,
        },
        connect::{
            connection_string,
            endpoint::{Encrypt, Endpoint, Trust},
            socket::Socket,
        },
        pool::{PoolOptions, Pools},
    },
};

fn pools(server: &Server, change: impl FnOnce(&mut Endpoint)) -> Pools {
    let mut endpoint =
        connection_string::parse(&server.connection_string("master")).unwrap().endpoint;
    change(&mut endpoint);
    Pools::new(
        endpoint,
        PoolOptions {
            connections_max: 4,
            statement_timeout: Duration::from_secs(20),
            lock_timeout: Duration::from_secs(1),
            deadlock_priority_low: true,
            idle_timeout: Duration::from_secs(60),
        },
    )
}

async fn connection_of(pools: &Pools) -> Result<TdsConnection> {
    pools.tds_connection(&Ident::new("master"), "test").await
}

/// An authority, a file with its certificate, and servers that it signs for.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file =
            std::env::temp_dir().join(format!("dataflow-lane-{name}-{}.pem", std::process::id()));
        std::fs::write(&file, issuer.pem()).unwrap();
        Authority { issuer, file }
    }

    async fn server(&self, encryption: Encryption, name: &str, expired: bool) -> Server {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            (params.not_before, params.not_after) =
                (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Server::builder()
            .tls(encryption)
            .certificate(&certificate.pem(), &key.serialize_pem())
            .start()
            .await
            .unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

#[tokio::test]
async fn it_logs_in_in_every_mode_of_encryption() {
    let authority = Authority::new("right");
    for (encryption, ours) in [
        (Encryption::LoginOnly, Encrypt::LoginOnly),
        (Encryption::LoginOnly, Encrypt::Full),
        (Encryption::Required, Encrypt::Full),
        (Encryption::Required, Encrypt::LoginOnly),
        (Encryption::Strict, Encrypt::Strict),
    ] {
        let server = authority.server(encryption, "127.0.0.1", false).await;
        for trust in [Trust::Authority(authority.file.clone()), Trust::Any] {
            let pools =
                pools(&server, |endpoint| (endpoint.encrypt, endpoint.trust) = (ours, trust));
            let mut line = connection_of(&pools)
                .await
                .unwrap_or_else(|error| panic!("{encryption:?} {ours:?}: {error}"));
            line.batch("SELECT 1").await.unwrap_err();
            assert_eq!(pools.connections(), 1);
            drop(line);
            assert_eq!(pools.connections(), 0);
        }
    }
    let server = Server::builder().start().await.unwrap();
    connection_of(&pools(&server, |endpoint| endpoint.encrypt = Encrypt::Off))
        .await
        .unwrap()
        .batch("SET NOCOUNT ON")
        .await
        .unwrap();
}

#[tokio::test]
async fn it_believes_no_certificate_that_the_driver_would_not() {
    let (authority, stranger) = (Authority::new("known"), Authority::new("stranger"));
    for (encryption, ours) in
        [(Encryption::Required, Encrypt::Full), (Encryption::Strict, Encrypt::Strict)]
    {
        for (server, what) in [
            (authority.server(encryption, "other.example.com", false).await, "for another name"),
            (authority.server(encryption, "127.0.0.1", true).await, "expired"),
            (stranger.server(encryption, "127.0.0.1", false).await, "by an unknown authority"),
        ] {
            let trust = Trust::Authority(authority.file.clone());
            let refused = connection_of(&pools(&server, |endpoint| {
                (endpoint.encrypt, endpoint.trust) = (ours, trust)
            }))
            .await
            .err()
            .unwrap();
            assert!(refused.to_string().contains("TLS handshake failed"), "{what}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_refused_login_keeps_its_number() {
    let server = Server::builder().start().await.unwrap();
    let refused =
        connection_of(&pools(&server, |endpoint| endpoint.password = Secret::new("wrong")))
            .await
            .err()
            .unwrap();
    assert_eq!((refused.kind, refused.number), (Kind::Login, Some(18456)));
    assert!(!refused.to_string().contains("wrong"), "{refused}");
    let refused =
        pools(&server, |_| {}).tds_connection(&Ident::new("nowhere"), "test").await.err().unwrap();
    assert_eq!((refused.kind, refused.number), (Kind::Database, Some(4060)));
}

struct Counter(Vec<(u64, Vec<Value>)>, usize);

impl BatchObserver for Counter {
    async fn batch_done(
        &mut self,
        _: &mut Session,
        rows: u64,
        last_key: &[Value],
    ) -> Result<ControlFlow> {
        self.0.push((rows, last_key.to_vec()));
        Ok(if self.0.len() == self.1 { ControlFlow::Stop } else { ControlFlow::Continue })
    }
}

const TABLE: &str = "CREATE TABLE dbo.s (id int NOT NULL, t nvarchar(50) NULL, b varbinary(max) NULL); \
    CREATE TABLE dbo.d (id int NULL, t nvarchar(50) NULL, b varbinary(max) NULL); \
    WITH d AS (SELECT n FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) AS v (n)), \
    all_ids AS (SELECT a.n * 100 + b.n * 10 + c.n + 1 AS id, b.n * 10 + c.n AS n FROM d AS a CROSS JOIN d AS b CROSS JOIN d AS c) \
    INSERT INTO dbo.s SELECT id, CASE WHEN n % 3 = 0 THEN NULL ELSE CONCAT(N'x', n) END, \
    CASE n % 2 WHEN 0 THEN NULL ELSE CAST(REPLICATE(CAST('0123456789' AS varchar(max)), n * 100) AS varbinary(max)) END FROM all_ids";
const WAY: CopyStatements<'static> = CopyStatements {
    read: "SELECT id, t, b FROM dbo.s",
    columns: "SELECT TOP (0) id, t, b FROM dbo.d",
    load: "INSERT BULK dbo.d (id int, t nvarchar(50), b varbinary(max)) WITH (KEEP_NULLS, TABLOCK)",
    key: &[0],
    names: &[],
};

async fn copied(
    pools: &Pools,
    way: CopyStatements<'_>,
    rows_max: usize,
    bytes_max: usize,
    stop: usize,
) -> (Result<std::result::Result<Copied, String>>, Counter) {
    let (source, dest) = (connection_of(pools).await.unwrap(), connection_of(pools).await.unwrap());
    let mut session = pools.checkout(&Ident::new("master"), "test").await.unwrap();
    let mut counter = Counter(Vec::new(), stop);
    let copied =
        copy(source, dest, way, BatchLimit { rows_max, bytes_max }, &mut session, &mut counter)
            .await;
    (copied, counter)
}

#[tokio::test]
async fn rows_arrive_as_they_were_in_batches_of_rows_or_bytes() {
    for compressed in [true, false] {
        let server = Server::builder().compress_rows(compressed).start().await.unwrap();
        let pools = pools(&server, |_| {});
        let mut session = pools.checkout(&Ident::new("master"), "test").await.unwrap();
        session.batch(TABLE).await.unwrap();
        let differ = "SELECT COUNT(*) FROM (SELECT id, t, b FROM dbo.s EXCEPT SELECT id, t, b FROM dbo.d) AS x";
        let mut all = session.rows("SELECT id FROM dbo.s", &[]).await.unwrap();
        let last = all.pop().unwrap().value(0).unwrap();
        for (rows_max, bytes_max, batches) in
            [(300, usize::MAX, Some(4)), (1_000, usize::MAX, Some(1)), (usize::MAX, 1 << 20, None)]
        {
            session.batch("TRUNCATE TABLE dbo.d").await.unwrap();
            let (end, told) = copied(&pools, WAY, rows_max, bytes_max, usize::MAX).await;
            assert_eq!(end.unwrap().unwrap(), Copied { rows: 1_000, complete: true });
            assert_eq!(told.0.last().unwrap(), &(1_000, vec![last.clone()]));
            assert!(
                batches.is_none_or(|batches| batches == told.0.len()) && told.0.len() < 40,
                "{:?}",
                told.0
            );
            assert_eq!(session.row(differ, &[]).await.unwrap().i64(0).unwrap(), 0);
            assert_eq!(
                session.row("SELECT COUNT(*) FROM dbo.d", &[]).await.unwrap().i64(0).unwrap(),
                1_000
            );
        }
        session.batch("TRUNCATE TABLE dbo.d").await.unwrap();
        let (end, told) = copied(&pools, WAY, 300, usize::MAX, 2).await;
        assert_eq!(
            (end.unwrap().unwrap(), told.0.len()),
            (Copied { rows: 600, complete: false }, 2)
        );
        assert_eq!(
            session.row("SELECT COUNT(*) FROM dbo.d", &[]).await.unwrap().i64(0).unwrap(),
            600,
            "what was written stays"
        );
    }
}

#[tokio::test]
async fn nothing_is_written_that_was_read_in_part_or_comes_otherwise() {
    let server = Server::builder().start().await.unwrap();
    let pools = pools(&server, |_| {});
    let mut session = pools.checkout(&Ident::new("master"), "test").await.unwrap();
    session.batch(TABLE).await.unwrap();
    // the 501st row cannot be read
    let failing = "SELECT id, CAST(t AS nvarchar(50)), b FROM dbo.s WHERE 1 / (id - 500) <> 2";
    let (end, told) =
        copied(&pools, CopyStatements { read: failing, ..WAY }, 2_000, usize::MAX, usize::MAX)
            .await;
    assert_eq!((end.unwrap_err().number, told.0.len()), (Some(8134), 0));
    // another type than the table's
    let way = CopyStatements {
        read: "SELECT CAST(id AS bigint), t, b FROM dbo.s",
        names: &[Ident::new("key")],
        ..WAY
    };
    let (end, _) = copied(&pools, way, 100, usize::MAX, usize::MAX).await;
    assert!(end.unwrap().unwrap_err().contains("column [key] comes as type"));
    assert_eq!(session.row("SELECT COUNT(*) FROM dbo.d", &[]).await.unwrap().i64(0).unwrap(), 0);
    let (end, _) = copied(
        &pools,
        CopyStatements { load: "INSERT BULK dbo.nowhere (id int)", ..WAY },
        100,
        usize::MAX,
        usize::MAX,
    )
    .await;
    assert_eq!(end.unwrap_err().kind, Kind::Missing);
}

/// Values of every kind go to the server as parameters and come back as what they were, to the
/// driver and to the lane.
#[tokio::test]
async fn parameters_come_back_as_what_they_were() {
    let long = "東🚚".repeat(3_000);
    let values = [
        Value::Null,
        Value::Bit(true),
        Value::Int(i64::MIN),
        Value::Decimal { mantissa: -(10i128.pow(38) - 1), scale: 38 },
        Value::Decimal { mantissa: 5, scale: 0 },
        Value::Real(f32::MIN_POSITIVE),
        Value::Float(-0.1),
        Value::Date(3_652_058),
        Value::Time(863_999_999_999),
        Value::DateTime { days_since_1900: -53_690, ticks300: 25_919_999 },
        Value::DateTime2 { days: 0, ticks: 1 },
        Value::DateTimeOffset { days: 738_944, ticks: 1_234_567, offset_minutes: -840 },
        Value::Text(String::new()),
        Value::Text("a'b é 東 🚚 ".into()),
        Value::Text(long),
        Value::Bytes(vec![0, 255]),
        Value::Bytes(vec![7; 8_001]),
        Value::Guid(*b"0123456789abcdef"),
    ];
    for compressed in [true, false] {
        let server = Server::builder().compress_rows(compressed).start().await.unwrap();
        let pools = pools(&server, |_| {});
        let mut session = pools.checkout(&Ident::new("master"), "test").await.unwrap();
        let mut line = connection_of(&pools).await.unwrap();
        let sql = format!(
            "SELECT {}",
            (1..=values.len()).map(|i| format!("@P{i}")).collect::<Vec<_>>().join(", ")
        );
        let mut rows =
            line.rows(&sql, &values.iter().collect::<Vec<_>>()).await.unwrap().ok().unwrap();
        assert!(rows.next().await.unwrap());
        for (i, value) in values.iter().enumerate() {
            assert_eq!(rows.value_ref(i).unwrap(), value.seen(), "@P{}", i + 1);
            // the driver declares numeric(39,38), which there is not
            if !matches!(value, Value::Decimal { scale: 38, .. }) {
                let told = session
                    .row("SELECT @P1", &[crate::mssql::client::row::Param::Value(value)])
                    .await
                    .unwrap();
                assert_eq!(told.value(0).unwrap(), *value, "@P{} by the driver", i + 1);
            }
        }
        assert!(!rows.next().await.unwrap());
        // a line serves one question after the other, and an error is the server's
        let mut rows = line
            .rows("SELECT CAST(1 AS int) WHERE 1 = @P1", &[&Value::Int(0)])
            .await
            .unwrap()
            .ok()
            .unwrap();
        assert!(!rows.next().await.unwrap());
        let refused = line.rows("SELECT * FROM dbo.nowhere", &[]).await.err().unwrap();
        assert_eq!((refused.kind, refused.number), (Kind::Missing, Some(208)));
        let Err(why) = line.rows("SELECT CAST(1 AS money) AS m", &[]).await.unwrap() else {
            panic!("money is read")
        };
        assert!(why.starts_with("column m"), "{why}");
    }
}

#[tokio::test]
async fn rows_are_read_to_their_end_or_not_at_all() {
    let server = Server::builder().start().await.unwrap();
    let pools = pools(&server, |_| {});
    let mut session = pools.checkout(&Ident::new("master"), "test").await.unwrap();
    session.batch(TABLE).await.unwrap();
    let mut line = connection_of(&pools).await.unwrap();
    let mut rows =
        line.rows("SELECT id, t, b FROM dbo.s ORDER BY id", &[]).await.unwrap().ok().unwrap();
    for told in session.rows("SELECT id, t, b FROM dbo.s ORDER BY id", &[]).await.unwrap() {
        assert!(rows.next().await.unwrap());
        for i in 0..3 {
            assert_eq!(rows.value_ref(i).unwrap().to_value(), told.value(i).unwrap());
        }
    }
    assert!(!rows.next().await.unwrap());
    // what has an ORDER BY says so between its columns and its rows
    line.send_batch("SELECT id FROM dbo.s ORDER BY id").await.unwrap();
    assert_eq!(line.columns().await.unwrap().unwrap().len(), 1);
    assert_eq!(line.packets.buffered().first(), Some(&0xA9));
    assert!(has_next_row(&mut line.packets).await.unwrap());
    let mut line = connection_of(&pools).await.unwrap();
    let mut rows = line
        .rows("SELECT id FROM dbo.s WHERE 1 / (id - 500) <> 2 ORDER BY id", &[])
        .await
        .unwrap()
        .ok()
        .unwrap();
    let failed = loop {
        match rows.next().await {
            Ok(true) => {}
            Ok(false) => panic!("the 500th row cannot be read"),
            Err(error) => break error,
        }
    };
    assert_eq!(failed.number, Some(8134));
}

/// Packets that have sent an empty batch after their login, and the server that is to answer it.
async fn asked(timeout: Duration) -> (Packets, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let (socket, guard) = Socket::new(tcp).unwrap();
    guard.done();
    let mut packets = Packets::new(TdsStream::Bare(socket), timeout);
    packets.begin(Message::Batch);
    packets.end().await.unwrap();
    (packets, server)
}

/// What is read of an answer whose one packet has these bytes.
async fn answered(bytes: &[u8]) -> Result<u64> {
    let (mut packets, mut server) = asked(Duration::from_secs(20)).await;
    let length = u16::try_from(bytes.len() + HEADER_BYTES).unwrap().to_be_bytes();
    let packet = [&[4, END_OF_MESSAGE, length[0], length[1], 0, 0, 1, 0], bytes].concat();
    tokio::io::AsyncWriteExt::write_all(&mut server, &packet).await.unwrap();
    read_to_end(&mut packets).await
}

/// A result set that breaks off without a word, be it at a packet's end, is no whole table.
#[tokio::test]
async fn an_answer_is_whole_when_it_says_so() {
    let done = |status: u8| [types::DONE, status, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
    const COUNTED: u8 = 0x10;
    const MORE: u8 = 0x01;
    assert_eq!(answered(&done(COUNTED)).await.unwrap(), 7);
    assert!(answered(&[]).await.is_err());
    assert!(
        answered(&done(COUNTED | MORE)).await.unwrap_err().to_string().contains("without DONE")
    );
    assert!(answered(&done(0x02)).await.is_err());
    assert!(answered(&done(0)[..5]).await.unwrap_err().to_string().contains("in the middle"));
}

/// A byte now and then is within every time limit of a single read, and would go on for days.
#[tokio::test]
async fn an_answer_that_trickles_is_late() {
    let (mut packets, mut server) = asked(Duration::from_millis(400)).await;
    let trickle = tokio::spawn(async move {
        const ORDER: u8 = 0xA9;
        let token = [ORDER, 200, 0];
        let packet = [[4, 0, 4, 0, 0, 0, 1, 0].as_slice(), &token, &[0; 200]].concat();
        for byte in packet {
            if tokio::io::AsyncWriteExt::write_all(&mut server, &[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    // all of it would take ten seconds, and is no whole answer then
    assert_eq!(read_to_end(&mut packets).await.unwrap_err().kind, Kind::Timeout);
    trickle.abort();
}

/// The time for an answer is the clock's: also where each byte is here at once and it is the work
/// between two reads that takes long.
#[tokio::test]
async fn work_between_two_reads_is_time_too() {
    const LIMIT: Duration = Duration::from_millis(200);
    let (mut packets, mut server) = asked(LIMIT).await;
    tokio::io::AsyncWriteExt::write_all(&mut server, &[4, 0, 0, 9, 0, 0, 1, 0, 0xA9])
        .await
        .unwrap();
    packets.read_more().await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut server, &[4, 0, 0, 9, 0, 0, 1, 0, 200]).await.unwrap();
    let began = std::time::Instant::now();
    while began.elapsed() < LIMIT {
        std::hint::spin_loop();
    }
    assert_eq!(packets.read_more().await.unwrap_err().kind, Kind::Timeout);
    packets.restart_timeout();
    packets.read_more().await.unwrap();
}

/// A list of columns that drips was read from its start at every read: of 100 KB, byte by byte, 5
/// GB were looked at.
#[test]
fn what_was_read_of_a_list_of_columns_is_not_read_again() {
    let column = |name: &str| {
        let mut column = vec![
            0,
            0,
            0,
            0,
            1,
            0,
            types::NVARCHAR,
            8,
            0,
            1,
            2,
            3,
            4,
            5,
            u8::try_from(name.len()).unwrap(),
        ];
        column.extend(utf16(name));
        column
    };
    let names = ["a", "bb", "ccc"];
    let whole =
        [vec![types::COLUMNS, 3, 0], names.map(column).concat(), vec![types::DONE]].concat();
    let (mut here, mut list) = (Vec::new(), ColumnList::default());
    let mut told = None;
    for byte in &whole {
        here.push(*byte);
        told = token::parse(&here, &mut list).unwrap();
        if told.is_some() {
            break;
        }
        // nobody looks at the columns that were read
        if let Some(read) = here.get_mut(3..list.read_bytes()) {
            read.fill(0xEE);
        }
    }
    let (Token::Columns(columns), bytes) = told.unwrap() else { panic!("no columns") };
    assert_eq!(columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(bytes, whole.len() - 1);
}

#[test]
fn there_are_no_more_columns_than_there_can_be() {
    assert!(
        token::parse(&[types::COLUMNS, 0x01, 0x10], &mut ColumnList::default()).is_err(),
        "4,097"
    );
    assert!(
        token::parse(&[types::COLUMNS, 0x00, 0x10], &mut ColumnList::default()).unwrap().is_none()
    );
    // a table's name in five parts
    let text = [
        &[types::COLUMNS, 1, 0, 0, 0, 0, 0, 0, 0, 0x23, 0, 0, 0, 0, 1, 2, 3, 4, 5, 5][..],
        &[0; 20],
    ]
    .concat();
    assert!(token::parse(&text, &mut ColumnList::default()).is_err());
}

/// A server whose answers the network passes on, and whose requests it may hold back.
async fn slow(server: &Server) -> Proxy {
    Proxy::start(server.addr()).await.unwrap()
}

/// Lets `sending` go until the network takes no more, and then has the server read again.
async fn through_a_full_network<T>(proxy: &Proxy, sending: impl Future<Output = T>) -> T {
    proxy.hold(true);
    // nothing but the network makes it wait
    let mut sending = std::pin::pin!(tokio::task::unconstrained(sending));
    let sent = std::future::poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
    assert!(sent.is_pending(), "the network took all of it");
    proxy.hold(false);
    sending.await
}

/// More than a socket's buffers take, at both ends.
const LONG_BYTES: usize = 24 << 20;

/// With TLS a message that outran the socket had a packet in two records, and SQL Server closed the
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn every_packet_is_one_record_also_when_the_network_is_full() {
    let authority = Authority::new("records");
    for (encryption, ours) in
        [(Encryption::Required, Encrypt::Full), (Encryption::Strict, Encrypt::Strict)]
    {
        // larger packets than a record has room for are not asked for
        for packet_size in [None, Some(32_767)] {
            let server = authority.server(encryption, "127.0.0.1", false).await;
            let proxy = slow(&server).await;
            let pools = pools(&server, |endpoint| {
                (endpoint.encrypt, endpoint.packet_size, endpoint.port) =
                    (ours, packet_size, proxy.addr().port());
                endpoint.trust = Trust::Authority(authority.file.clone());
            });
            let what = format!("{encryption:?}, packets of {packet_size:?}");
            let mut session = pools.checkout(&Ident::new("master"), "test").await.unwrap();
            let long = vec![7; LONG_BYTES];
            let params = [Param::Binary(&long)];
            let told = through_a_full_network(
                &proxy,
                session.row("SELECT CAST(DATALENGTH(@P1) AS bigint)", &params),
            )
            .await;
            let told = told.unwrap_or_else(|error| panic!("the driver, {what}: {error}"));
            assert_eq!(told.i64(0).unwrap(), i64::try_from(LONG_BYTES).unwrap());

            let mut line = connection_of(&pools).await.unwrap();
            let call =
                line.rows("SELECT CAST(DATALENGTH(@P1) AS bigint)", &[&Value::Bytes(long)]).await;
            let mut rows =
                call.unwrap_or_else(|error| panic!("the lane, {what}: {error}")).unwrap();
            assert!(rows.next().await.unwrap());
            assert_eq!(rows.value_ref(0).unwrap(), Value::Int(i64::try_from(LONG_BYTES).unwrap()));
        }
    }
}

/// SQL Server's own certificates are often not of X.509 version 3, and cannot be read.
#[tokio::test]
async fn where_any_certificate_is_believed_it_is_not_read() {
    for (encryption, ours) in
        [(Encryption::Required, Encrypt::Full), (Encryption::Strict, Encrypt::Strict)]
    {
        let server =
            Server::builder().tls(encryption).certificate_version_1().start().await.unwrap();
        for (trust, believed) in
            [(Trust::Any, true), (Trust::SystemUnlessLoopback, true), (Trust::System, false)]
        {
            let pools = pools(&server, |endpoint| {
                (endpoint.encrypt, endpoint.trust) = (ours, trust.clone())
            });
            assert_eq!(
                pools.checkout(&Ident::new("master"), "test").await.is_ok(),
                believed,
                "the driver, {encryption:?}, {trust:?}"
            );
            assert_eq!(
                connection_of(&pools).await.is_ok(),
                believed,
                "the lane, {encryption:?}, {trust:?}"
            );
        }
    }
}

#[tokio::test]
async fn tds_8_is_announced_where_it_is_spoken() {
    let server = Server::builder().tls(Encryption::Strict).start().await.unwrap();
    let strict = pools(&server, |_| {});
    let line = connection_of(&strict).await.unwrap();
    let told = server.connections();
    assert_eq!(
        (told[0].tds_version, told[0].encryption),
        (0x0800_0000, Some(prelogin::Encrypt::NotSupported))
    );
    drop(line);
    let server = Server::builder().start().await.unwrap();
    let plain = pools(&server, |_| {});
    let _line = connection_of(&plain).await.unwrap();
    let told = server.connections();
    assert_eq!(
        (told[0].tds_version, told[0].encryption),
        (0x7400_0004, Some(prelogin::Encrypt::Off))
    );
}

#[tokio::test]
async fn redirects_are_followed_to_their_end_and_no_further() {
    let (gateway, other, server) = (
        Server::builder().start().await.unwrap(),
        Server::builder().start().await.unwrap(),
        Server::builder().start().await.unwrap(),
    );
    gateway.redirect_logins(Some(("127.0.0.1", other.addr().port())));
    other.redirect_logins(Some(("localhost\\named", server.addr().port())));
    let pools = pools(&gateway, |_| {});
    let mut session = pools.checkout(&Ident::new("master"), "test").await.unwrap();
    session.batch("SELECT 1").await.unwrap();
    let line = connection_of(&pools).await.unwrap();
    assert_eq!(
        (
            server.connection_count().now,
            gateway.connection_count().total,
            other.connection_count().total
        ),
        (2, 2, 2)
    );
    drop((session, line));
    // and one that goes round and round
    other.redirect_logins(Some(("127.0.0.1", gateway.addr().port())));
    let before = gateway.connection_count().total + other.connection_count().total;
    let refused = connection_of(&pools).await.err().unwrap();
    assert!(refused.to_string().contains("redirected 10 times"), "{refused}");
    let refused = pools.checkout(&Ident::new("tempdb"), "test").await.err().unwrap();
    assert!(refused.to_string().contains("redirected 10 times"), "{refused}");
    assert_eq!(gateway.connection_count().total + other.connection_count().total - before, 22);
}

/// An address of this machine that is no loopback one, if it has any: no byte is sent for that.
fn other_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// A server on this machine is believed unseen; the one that it redirects to is not, and gets no
/// password.
#[tokio::test]
async fn trust_in_this_machine_does_not_follow_a_redirect_to_another() {
    let Some(address) = other_address() else {
        return println!("skipped: this machine has no other address");
    };
    let gateway = Server::builder().start().await.unwrap();
    let elsewhere =
        Server::builder().host(address).tls(Encryption::Required).start().await.unwrap();
    let pools = pools(&gateway, |endpoint| {
        (endpoint.encrypt, endpoint.trust) = (Encrypt::Full, Trust::SystemUnlessLoopback)
    });
    let line = connection_of(&pools).await.unwrap();
    drop((pools.checkout(&Ident::new("tempdb"), "test").await.unwrap(), line));
    gateway.redirect_logins(Some((&address.to_string(), elsewhere.addr().port())));
    for refused in [
        pools.checkout(&Ident::new("master"), "test").await.err(),
        connection_of(&pools).await.err(),
    ] {
        let refused = refused.unwrap().to_string();
        assert!(refused.contains("TLS handshake failed"), "{refused}");
    }
    assert_eq!(elsewhere.connection_count().total, 0, "a login came");
}

/// A server that raises an error of severity 20 and more reads no further: what it said is why.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_said_before_it_closed_is_the_error() {
    for encrypt in [Encrypt::Off, Encrypt::Full] {
        let server = Server::builder().start().await.unwrap();
        let pools =
            pools(&server, |endpoint| (endpoint.encrypt, endpoint.trust) = (encrypt, Trust::Any));
        let mut session = pools.checkout(&Ident::new("master"), "test").await.unwrap();
        session.batch("CREATE TABLE dbo.d (b varbinary(max) NULL)").await.unwrap();
        let died = SqlError::new(9001, 21, "The log for database 'master' is not available.");
        server.faults().once(Point::request("BULK LOAD"), Fault::ErrorBefore(died));
        let mut line = connection_of(&pools).await.unwrap();
        line.send_batch("SELECT TOP (0) b FROM dbo.d").await.unwrap();
        let columns = line.columns().await.unwrap().unwrap();
        read_to_end(&mut line.packets).await.unwrap();
        line.batch("INSERT BULK dbo.d (b varbinary(max))").await.unwrap();
        line.packets.begin(Message::BulkLoad);
        line.packets.put(&bulk_column_metadata(&columns)).await.unwrap();
        let failed = line.packets.put(&vec![0; LONG_BYTES]).await.unwrap_err();
        assert_eq!(
            (failed.number, failed.kind),
            (Some(9001), Kind::Connection),
            "{encrypt:?}: {failed}"
        );
    }
}

/// The driver may know a type that the lane does not: it is asked, and nobody thinks that the
/// connection broke.
#[tokio::test]
async fn a_type_that_is_not_known_is_the_drivers() {
    let server = Server::builder().start().await.unwrap();
    let pools = pools(&server, |_| {});
    let mut session = pools.checkout(&Ident::new("master"), "test").await.unwrap();
    session.batch(TABLE).await.unwrap();
    let Err(why) = connection_of(&pools)
        .await
        .unwrap()
        .rows("SELECT 1 AS a, CAST(1 AS sql_variant) AS v", &[])
        .await
        .unwrap()
    else {
        panic!("a variant is read")
    };
    assert_eq!(why, "column 2 is of type 0x62");
    let (end, _) = copied(
        &pools,
        CopyStatements { read: "SELECT CAST(id AS sql_variant), t, b FROM dbo.s", ..WAY },
        100,
        usize::MAX,
        usize::MAX,
    )
    .await;
    assert!(end.unwrap().unwrap_err().contains("0x62"));
    let columns = "SELECT TOP (0) CAST(id AS sql_variant), t, b FROM dbo.d";
    let (end, _) =
        copied(&pools, CopyStatements { columns, ..WAY }, 100, usize::MAX, usize::MAX).await;
    assert!(end.unwrap().unwrap_err().contains("0x62"));
}

/// Anybody on the path can answer a PRELOGIN: of what is longer than an answer nothing is kept and
/// nothing is read.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_login_has_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        // one INSTOPT after the other, all of them up to the end; no packet is the last
        let mut packet = vec![4, 0, 0x7F, 0xFC, 0, 0, 1, 0];
        packet.extend([2, 0x7F, 0x00, 0, 1].repeat(0x7FFC / 5));
        packet.resize(0x7FFC, 1);
        while let Ok((mut tcp, _)) = listener.accept().await {
            let packet = packet.clone();
            tokio::spawn(async move {
                while tokio::io::AsyncWriteExt::write_all(&mut tcp, &packet).await.is_ok() {}
            });
        }
    });
    let standin = Server::builder().start().await.unwrap();
    for encrypt in [Encrypt::Off, Encrypt::LoginOnly, Encrypt::Full, Encrypt::Strict] {
        let pools = pools(&standin, |endpoint| {
            (endpoint.encrypt, endpoint.port) = (encrypt, address.port())
        });
        for refused in [
            pools.checkout(&Ident::new("master"), "test").await.err(),
            connection_of(&pools).await.err(),
        ] {
            let refused = refused.unwrap();
            assert_eq!(refused.kind, Kind::Connection, "{encrypt:?}: {refused}");
            // what is no TLS is refused as that
            assert!(
                encrypt == Encrypt::Strict
                    || refused.to_string().contains("before the login was done"),
                "{encrypt:?}: {refused}"
            );
        }
    }
    server.abort();
}

/// Bytes that no server would send: an error or the wish for more, never a panic.
#[test]
fn nonsense_is_no_token_and_no_row() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    const STARTS: [u8; 14] =
        [0x81, 0xD1, 0xD2, 0xFD, 0xFE, 0xFF, 0x79, 0xA9, 0xAA, 0xAB, 0xAD, 0xAE, 0xE3, 0xE4];
    const TYPES: [u8; 12] =
        [0x30, 0x38, 0x26, 0x6A, 0xE7, 0xA5, 0xAF, 0x28, 0x2B, 0x24, 0x63, 0x3D];
    for _ in 0..20_000 {
        let mut bytes = vec![0; random.random_range(1..200)];
        random.fill_bytes(&mut bytes);
        bytes[0] = STARTS[random.random_range(0..STARTS.len())];
        if random.random() {
            // lengths that are short enough to come to what is inside
            bytes.iter_mut().skip(1).step_by(2).for_each(|byte| *byte %= 8);
        }
        if let Ok(Some((_, length))) = token::parse(&bytes, &mut ColumnList::default()) {
            assert!(length <= bytes.len());
        }
        let mut columns = vec![types::COLUMNS, 3, 0];
        for _ in 0..3 {
            columns.extend_from_slice(&[
                0,
                0,
                0,
                0,
                1,
                0,
                TYPES[random.random_range(0..TYPES.len())],
            ]);
            columns.extend((0..12).map(|_| random.random::<u8>() % 9));
        }
        columns.extend_from_slice(&[0; 64]);
        let Ok(Some((Token::Columns(columns), _))) =
            token::parse(&columns, &mut ColumnList::default())
        else {
            continue;
        };
        let Ok(mut transfer) = Transfer::new(&columns, &columns, &[0]) else { continue };
        let mut out = Vec::new();
        bytes[0] = if random.random() { types::ROW } else { types::NBC_ROW };
        if let Ok((taken, whole)) = transfer.advance(&bytes, &mut out) {
            assert!(taken <= bytes.len());
            if whole {
                let _ = transfer.key();
            }
        }
        let Ok(mut row) = RowParser::new(&columns) else { continue };
        if let Ok(Some(length)) = row.read(&bytes) {
            assert!(length <= bytes.len());
            for i in 0..3 {
                let _ = row.value_ref(&bytes, i);
            }
        }
    }
}
