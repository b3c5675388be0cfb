//! The wire from outside: a client that is not ours over a real socket, against an engine that does
//! next to nothing.

mod toy;

use mssql_standin::{
    fault::{Fault, Point},
    server::{Builder, Encryption, Server},
    value::{Collation, Decimal, Length, SqlType, Value},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, Row};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};
use toy::{Toy, ToyEngine, column};

type Connection = Client<Compat<TcpStream>>;

async fn start_with(configure: impl FnOnce(Builder) -> Builder) -> (Server, Arc<Toy>) {
    let toy = Arc::new(Toy::default());
    let builder = Server::with_engine(Arc::new(ToyEngine(toy.clone()))).login("sa", "Pässw0rd!");
    (configure(builder).start().await.expect("a server"), toy)
}

async fn start() -> (Server, Arc<Toy>) {
    start_with(|builder| builder.tls(Encryption::NotSupported)).await
}

fn config(server: &Server) -> Config {
    let mut config = Config::new();
    config.host("localhost");
    config.port(server.addr().port());
    config.authentication(AuthMethod::sql_server("sa", "Pässw0rd!"));
    config.application_name("wire");
    config.encryption(EncryptionLevel::NotSupported);
    config.trust_cert();
    config
}

async fn connect_with(server: &Server, config: Config) -> tiberius::Result<Connection> {
    let tcp = TcpStream::connect(server.addr()).await?;
    Client::connect(config, tcp.compat_write()).await
}

async fn connect(server: &Server) -> Connection {
    connect_with(server, config(server)).await.expect("a connection")
}

async fn rows(client: &mut Connection, text: &str) -> tiberius::Result<Vec<Row>> {
    client.simple_query(text).await?.into_first_result().await
}

async fn number(client: &mut Connection, text: &str) -> i32 {
    rows(client, text).await.expect("a result")[0].get::<i32, _>(0).expect("a number")
}

fn code(error: &tiberius::error::Error) -> Option<u32> {
    error.code()
}

#[tokio::test]
async fn a_login_tells_who_it_is_and_where() {
    let (server, _) = start().await;
    let mut config = config(&server);
    config.database("sales");
    let mut client = connect_with(&server, config).await.expect("a connection");
    assert_eq!(rows(&mut client, "APP").await.expect("a row")[0].get::<&str, _>(0), Some("wire"));
    assert_eq!(
        rows(&mut client, "DATABASE").await.expect("a row")[0].get::<&str, _>(0),
        Some("sales")
    );
    let seen = server.connections();
    assert_eq!(
        (seen.len(), seen[0].application.as_str(), seen[0].user.as_str()),
        (1, "wire", "sa")
    );
    assert_eq!(server.connection_count_of("wire").peak, 1);
    drop(client);
    server.wait_for_connections(0).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_wrong_password_is_18456_and_the_connection_ends() {
    let (server, toy) = start().await;
    let mut config = config(&server);
    config.authentication(AuthMethod::sql_server("sa", "guess"));
    let error = connect_with(&server, config).await.expect_err("a refusal");
    assert_eq!(code(&error), Some(18456), "{error}");
    server.wait_for_connections(0).await;
    assert_eq!(toy.sessions.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_unknown_database_is_4060() {
    let (server, _) = start().await;
    let mut config = config(&server);
    config.database("nowhere");
    let error = connect_with(&server, config).await.expect_err("a refusal");
    assert_eq!(code(&error), Some(4060), "{error}");
}

#[tokio::test]
async fn a_connection_string_of_the_servers_own_connects() {
    let (server, _) = start_with(|builder| builder.login("sa", "it's;a=Passw0rd")).await;
    let config =
        Config::from_ado_string(&server.connection_string("sales")).expect("a connection string");
    let mut client = connect_with(&server, config).await.expect("a connection");
    assert_eq!(
        rows(&mut client, "DATABASE").await.expect("a row")[0].get::<&str, _>(0),
        Some("sales")
    );
}

#[tokio::test]
async fn a_batch_of_several_statements_answers_each() {
    let (server, _) = start().await;
    let mut client = connect(&server).await;
    let results = client
        .simple_query("INT 1; PRINT hello; INT 2; COUNT 5")
        .await
        .expect("results")
        .into_results()
        .await
        .expect("results");
    let numbers: Vec<Option<i32>> = results.iter().map(|rows| rows[0].get(0)).collect();
    assert_eq!(numbers, [Some(1), Some(2)]);
    let counts = client.execute("COUNT 5; COUNT 7", &[]).await.expect("counts");
    assert_eq!(counts.rows_affected(), [5, 7]);
}

#[tokio::test]
async fn an_error_is_the_statements_and_the_connection_goes_on() {
    let (server, _) = start().await;
    let mut client = connect(&server).await;
    let error = rows(&mut client, "ERROR 2627").await.expect_err("an error");
    assert_eq!(code(&error), Some(2627), "{error}");
    assert_eq!(number(&mut client, "INT 42").await, 42);
    let error = rows(&mut client, "SELECT whatever").await.expect_err("a refusal");
    assert_eq!(code(&error), Some(40_000), "{error}");
}

#[tokio::test]
async fn parameters_of_every_kind_come_back_as_they_went() {
    let (server, _) = start().await;
    let mut client = connect(&server).await;
    let long = "Ünïcode 🦀 ".repeat(5000);
    let bytes = vec![7u8; 100_000];
    let guid = tiberius::Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    let decimal = tiberius::numeric::Numeric::new_with_scale(-12_345_678_901_234_567_890, 4);
    let row = client
        .query(
            "ECHO",
            &[
                &true,
                &255u8,
                &-5i16,
                &i32::MIN,
                &i64::MAX,
                &1.5f32,
                &-2.25f64,
                &"短い",
                &long,
                &bytes,
                &guid,
                &decimal,
                &None::<i32>,
            ],
        )
        .await
        .expect("a result")
        .into_row()
        .await
        .expect("a row")
        .expect("a row");
    assert_eq!(row.get::<bool, _>(0), Some(true));
    assert_eq!(row.get::<u8, _>(1), Some(255));
    assert_eq!(row.get::<i16, _>(2), Some(-5));
    assert_eq!(row.get::<i32, _>(3), Some(i32::MIN));
    assert_eq!(row.get::<i64, _>(4), Some(i64::MAX));
    assert_eq!(row.get::<f32, _>(5), Some(1.5));
    assert_eq!(row.get::<f64, _>(6), Some(-2.25));
    assert_eq!(row.get::<&str, _>(7), Some("短い"));
    assert_eq!(row.get::<&str, _>(8), Some(long.as_str()));
    assert_eq!(row.get::<&[u8], _>(9), Some(bytes.as_slice()));
    assert_eq!(row.get::<tiberius::Uuid, _>(10), Some(guid));
    assert_eq!(row.get::<tiberius::numeric::Numeric, _>(11), Some(decimal));
    assert_eq!(row.get::<i32, _>(12), None);
}

#[tokio::test]
async fn a_bulk_load_arrives_row_by_row() {
    let (server, toy) = start().await;
    toy.bulk.lock().expect("the toy's table").0 = vec![
        column("id", SqlType::Int),
        column("name", SqlType::NVarChar(Length::N(50), Collation::DEFAULT)),
        column("data", SqlType::VarBinary(Length::Max)),
    ];
    let mut client = connect(&server).await;
    const ROWS: i32 = 12_345;
    let mut load = client.bulk_insert("dbo.t").await.expect("a bulk load");
    for i in 0..ROWS {
        let mut row = tiberius::TokenRow::new();
        row.push(tiberius::IntoSql::into_sql(i));
        row.push(if i % 3 == 0 {
            tiberius::ColumnData::String(None)
        } else {
            tiberius::IntoSql::into_sql(format!("Zeile {i} 🦀"))
        });
        row.push(tiberius::IntoSql::into_sql(vec![i as u8; (i % 300) as usize]));
        load.send(row).await.expect("room for a row");
    }
    assert_eq!(load.finalize().await.expect("an end").total(), ROWS as u64);
    {
        let bulk = toy.bulk.lock().expect("the toy's table");
        assert_eq!(bulk.1.len(), ROWS as usize);
        assert_eq!(bulk.1[12_343][1], Value::Str("Zeile 12343 🦀".into()));
        assert_eq!(bulk.1[12_342][1], Value::Null);
        assert_eq!(bulk.1[299][2], Value::Bytes(vec![43u8; 299].into()));
    }
    assert_eq!(number(&mut client, "INT 1").await, 1);
}

#[tokio::test]
async fn a_bulk_load_that_fails_leaves_the_connection_usable() {
    let (server, toy) = start().await;
    toy.bulk.lock().expect("the toy's table").0 = vec![column("id", SqlType::Int)];
    let mut client = connect(&server).await;
    let mut load = client.bulk_insert("dbo.t").await.expect("a bulk load");
    for i in 0..50_000 {
        let mut row = tiberius::TokenRow::new();
        row.push(tiberius::IntoSql::into_sql(if i == 700 { -1 } else { i }));
        load.send(row).await.expect("room for a row");
    }
    let error = load.finalize().await.expect_err("a refusal");
    assert_eq!(code(&error), Some(2627), "{error}");
    assert_eq!(number(&mut client, "INT 9").await, 9);
}

#[tokio::test]
async fn an_attention_stops_a_waiting_statement_and_a_running_one() {
    let (server, _) = start().await;
    for text in ["WAIT", "ROWS 100000000 50"] {
        let mut client = connect(&server).await;
        {
            let mut running = Box::pin(client.simple_query(text));
            // Sent, and never to be answered in full.
            let _ = tokio::time::timeout(Duration::from_millis(200), &mut running).await;
        }
        // The response ends, and the acknowledgement is a message of its own. This client looks for
        // it in the first of the two; the foreign clients' tests go on with such a connection.
        let ended = client.cancel_query().await.expect_err("the end of the response");
        assert!(ended.to_string().contains("acknowledging"), "{ended}");
        drop(client);
        server.wait_for_connections(0).await;
    }
    let mut client = connect(&server).await;
    // Nothing runs any more.
    client.cancel_query().await.expect("an answer to the attention");
    assert_eq!(number(&mut client, "INT 4").await, 4);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_engine_back() {
    let (server, toy) = start().await;
    let mut client = connect(&server).await;
    const ROWS: u64 = 200_000;
    let text = format!("ROWS {ROWS} 100");
    let mut stream = client.simple_query(text).await.expect("a result");
    // The engine stands still when socket and channel are full; wait until it does.
    let mut before = u64::MAX;
    loop {
        let sent = toy.sent.load(Ordering::SeqCst);
        if sent > 0 && sent == before {
            break;
        }
        before = sent;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < ROWS, "all {before} rows left the engine for a client that read none");
    let mut count = 0u64;
    use futures_util::TryStreamExt;
    while let Some(item) = stream.try_next().await.expect("a row") {
        if let tiberius::QueryItem::Row(row) = item {
            assert_eq!(row.get::<i64, _>(0), Some(count as i64));
            count += 1;
        }
    }
    assert_eq!(count, ROWS);
}

#[tokio::test]
async fn encryption_is_what_both_sides_want() {
    for (ours, theirs, encrypted) in [
        (Encryption::LoginOnly, EncryptionLevel::Off, false),
        (Encryption::LoginOnly, EncryptionLevel::On, true),
        (Encryption::LoginOnly, EncryptionLevel::Required, true),
        (Encryption::LoginOnly, EncryptionLevel::NotSupported, false),
        (Encryption::Required, EncryptionLevel::Required, true),
        (Encryption::Required, EncryptionLevel::Strict, true),
        (Encryption::Strict, EncryptionLevel::Strict, true),
    ] {
        let (server, _) = start_with(|builder| builder.tls(ours)).await;
        let mut config = config(&server);
        config.encryption(theirs);
        let mut client = connect_with(&server, config)
            .await
            .unwrap_or_else(|error| panic!("{ours:?} and {theirs:?}: {error}"));
        let seen = rows(&mut client, "ENCRYPTED").await.expect("a row")[0].get::<bool, _>(0);
        assert_eq!(seen, Some(encrypted), "{ours:?} and {theirs:?}");
        // More than one record and more than one packet, both ways.
        let long = "x".repeat(100_000);
        let row = client
            .query("ECHO", &[&long])
            .await
            .expect("a result")
            .into_row()
            .await
            .expect("a row")
            .expect("a row");
        assert_eq!(row.get::<&str, _>(0), Some(long.as_str()));
    }
}

#[tokio::test]
async fn a_server_that_requires_encryption_takes_no_other_client() {
    let (server, _) = start_with(|builder| builder.tls(Encryption::Required)).await;
    assert!(connect_with(&server, config(&server)).await.is_err());
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_connects_and_one_that_does_not_refuses() {
    let (server, _) = start_with(|builder| builder.tls(Encryption::Required)).await;
    let path = std::env::temp_dir().join(format!("mssql-standin-{}.pem", server.addr().port()));
    std::fs::write(&path, server.certificate_pem()).expect("a certificate file");
    let mut trusting = Config::new();
    trusting.host("localhost");
    trusting.port(server.addr().port());
    trusting.authentication(AuthMethod::sql_server("sa", "Pässw0rd!"));
    trusting.encryption(EncryptionLevel::Required);
    let doubting = trusting.clone();
    trusting.trust_cert_ca(path.display().to_string());
    let trusted = connect_with(&server, trusting).await;
    std::fs::remove_file(&path).expect("the certificate file");
    assert_eq!(number(&mut trusted.expect("a connection"), "INT 8").await, 8);
    assert!(connect_with(&server, doubting).await.is_err());
}

#[tokio::test]
async fn a_connection_lost_before_a_commit_and_one_lost_after_it_look_alike() {
    let (server, toy) = start().await;
    for (fault, committed) in [
        (Fault::CloseBefore, 0),
        (Fault::ResetBefore, 0),
        (Fault::CloseAfter, 1),
        (Fault::ResetAfter, 2),
    ] {
        let armed = server.faults().once(Point::statement("commit"), fault.clone());
        let mut client = connect(&server).await;
        rows(&mut client, "BEGIN").await.expect("a transaction");
        assert!(rows(&mut client, "COMMIT").await.is_err(), "{fault:?}");
        assert!(armed.fired().await);
        drop(client);
        server.wait_for_connections(0).await;
        assert_eq!(toy.committed.load(Ordering::SeqCst), committed, "{fault:?}");
    }
    assert_eq!(toy.rolled_back.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn injected_errors_come_instead_of_the_effect_or_after_it() {
    let (server, toy) = start().await;
    let deadlock = mssql_standin::error::SqlError::new(1205, 13, "Transaction was deadlocked.");
    let mut client = connect(&server).await;
    server.faults().nth(Point::statement("COMMIT"), 2, Fault::ErrorBefore(deadlock.clone()));
    rows(&mut client, "COMMIT").await.expect("the first");
    let error = rows(&mut client, "COMMIT").await.expect_err("the second");
    assert_eq!((code(&error), toy.committed.load(Ordering::SeqCst)), (Some(1205), 1));
    server.faults().once(Point::request("COMMIT"), Fault::ErrorAfter(deadlock));
    let error = rows(&mut client, "COMMIT").await.expect_err("the third");
    assert_eq!((code(&error), toy.committed.load(Ordering::SeqCst)), (Some(1205), 2));
    assert_eq!(number(&mut client, "INT 5").await, 5);
}

#[tokio::test]
async fn replies_can_be_slow_cut_short_garbage_or_never_come() {
    let (server, _) = start().await;
    let mut client = connect(&server).await;
    server.faults().once(Point::request("ROWS"), Fault::SlowReply(Duration::from_millis(5)));
    assert_eq!(rows(&mut client, "ROWS 1000 20").await.expect("rows").len(), 1000);
    for fault in [Fault::TruncateReply(3000), Fault::GarbageReply] {
        server.faults().once(Point::request("ROWS"), fault.clone());
        let mut client = connect(&server).await;
        assert!(rows(&mut client, "ROWS 1000 20").await.is_err(), "{fault:?}");
    }
    let armed = server.faults().once(Point::request("INT"), Fault::HangBefore);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), rows(&mut client, "INT 1")).await.is_err()
    );
    assert_eq!(armed.count(), 1);
    drop(client);
    server.wait_for_connections(0).await;
}

#[tokio::test]
async fn logins_can_be_refused_and_connections_not_answered() {
    let (server, _) = start().await;
    server.faults().once(Point::Accept, Fault::ResetBefore);
    assert!(connect_with(&server, config(&server)).await.is_err());
    server.faults().once(
        Point::Login,
        Fault::ErrorBefore(mssql_standin::error::SqlError::new(18401, 14, "Script upgrade mode.")),
    );
    let error = connect_with(&server, config(&server)).await.expect_err("a refusal");
    assert_eq!(code(&error), Some(18401));
    assert_eq!(number(&mut connect(&server).await, "INT 1").await, 1);
}

#[tokio::test]
async fn a_fault_can_wait_inside_a_bulk_load() {
    let (server, toy) = start().await;
    toy.bulk.lock().expect("the toy's table").0 = vec![column("id", SqlType::Int)];
    let armed = server.faults().once(Point::BulkRows(1000), Fault::CloseBefore);
    let mut client = connect(&server).await;
    let mut load = client.bulk_insert("dbo.t").await.expect("a bulk load");
    let mut failed = false;
    for i in 0..3000 {
        let mut row = tiberius::TokenRow::new();
        row.push(tiberius::IntoSql::into_sql(i));
        failed |= load.send(row).await.is_err();
    }
    failed |= load.finalize().await.is_err();
    assert!(failed && armed.count() == 1);
}

#[tokio::test]
async fn a_restart_ends_connections_and_keeps_the_port() {
    let (server, toy) = start().await;
    let mut client = connect(&server).await;
    rows(&mut client, "BEGIN").await.expect("a transaction");
    server.restart().await;
    assert_eq!(toy.rolled_back.load(Ordering::SeqCst), 1);
    assert!(rows(&mut client, "INT 1").await.is_err());
    assert_eq!(number(&mut connect(&server).await, "INT 2").await, 2);
}

#[tokio::test]
async fn a_dropped_server_leaves_no_session_behind() {
    let (server, toy) = start().await;
    let _waiting = connect(&server).await;
    let mut busy = connect(&server).await;
    let running = tokio::spawn(async move { rows(&mut busy, "WAIT").await });
    while server.statements().is_empty() && toy.sessions.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    drop(server);
    assert!(running.await.expect("a task").is_err());
    while toy.sessions.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn statements_are_kept_when_asked_for() {
    let (server, _) = start().await;
    let mut client = connect(&server).await;
    rows(&mut client, "INT 1").await.expect("a row");
    assert!(server.statements().is_empty());
    server.log_statements(true);
    rows(&mut client, "INT 2").await.expect("a row");
    client.query("ECHO", &[&1i32]).await.expect("a result").into_row().await.expect("a row");
    let seen: Vec<(String, usize)> =
        server.statements().into_iter().map(|s| (s.text, s.params)).collect();
    assert_eq!(seen, [("INT 2".to_owned(), 0), ("ECHO".to_owned(), 3)]);
}

#[tokio::test]
async fn a_foreign_client_reads_every_type_and_its_null() {
    let c = Collation::DEFAULT;
    let text = |s: &str| Value::Str(s.into());
    let bytes = |b: &[u8]| Value::Bytes(b.into());
    let decimal = |mantissa, scale| Value::Decimal(Decimal { mantissa, scale });
    let cells = [
        (SqlType::Bit, Value::Bit(true), "Bit(Some(true))"),
        (SqlType::TinyInt, Value::Int(200), "U8(Some(200))"),
        (SqlType::SmallInt, Value::Int(-2), "I16(Some(-2))"),
        (SqlType::Int, Value::Int(-3), "I32(Some(-3))"),
        (SqlType::BigInt, Value::Int(-4), "I64(Some(-4))"),
        (SqlType::Real, Value::Float(0.5), "F32(Some(0.5))"),
        (SqlType::Float, Value::Float(-0.25), "F64(Some(-0.25))"),
        (SqlType::Money, decimal(-12_345_678, 4), "F64(Some(-1234.5678))"),
        (SqlType::SmallMoney, decimal(15_000, 4), "F64(Some(1.5))"),
        (SqlType::Decimal { precision: 38, scale: 3 }, decimal(-1_001, 3), "Numeric(Some(-1.001))"),
        (
            SqlType::DateTime,
            Value::DateTime { days: 1, ticks300: 300 },
            "DateTime(Some(DateTime { days: 1, seconds_fragments: 300 }))",
        ),
        (
            SqlType::SmallDateTime,
            Value::SmallDateTime { days: 2, minutes: 3 },
            "SmallDateTime(Some(SmallDateTime { days: 2, seconds_fragments: 3 }))",
        ),
        (SqlType::Date, Value::Date(738_000), "Date(Some(Date(738000)))"),
        (SqlType::Time(7), Value::Time(12), "Time(Some(Time { increments: 12, scale: 7 }))"),
        (
            SqlType::DateTime2(3),
            Value::DateTime2 { days: 5, ticks: 20_000 },
            "DateTime2(Some(DateTime2 { date: Date(5), time: Time { increments: 2, scale: 3 } }))",
        ),
        (
            SqlType::DateTimeOffset(0),
            Value::DateTimeOffset { days: 6, ticks: 10_000_000, offset_minutes: -90 },
            "DateTimeOffset(Some(DateTimeOffset { datetime2: DateTime2 { date: Date(6), time: Time { increments: 1, scale: 0 } }, \
             offset: -90 }))",
        ),
        (SqlType::VarChar(Length::N(20), c), text("café"), "String(Some(\"café\"))"),
        (SqlType::NVarChar(Length::Max, c), text("🦀"), "String(Some(\"🦀\"))"),
        (SqlType::Text(c), text("été"), "String(Some(\"été\"))"),
        (SqlType::NText(c), text("日本"), "String(Some(\"日本\"))"),
        (SqlType::VarBinary(Length::N(9)), bytes(&[1, 2]), "Binary(Some([1, 2]))"),
        (SqlType::VarBinary(Length::Max), bytes(&[]), "Binary(Some([]))"),
        (SqlType::Image, bytes(&[3]), "Binary(Some([3]))"),
        (
            SqlType::RowVersion,
            bytes(&[0, 0, 0, 0, 0, 0, 0, 9]),
            "Binary(Some([0, 0, 0, 0, 0, 0, 0, 9]))",
        ),
        (
            SqlType::UniqueIdentifier,
            Value::Guid([
                0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                0xee, 0xff,
            ]),
            "Guid(Some(00112233-4455-6677-8899-aabbccddeeff))",
        ),
        (
            SqlType::SqlVariant,
            Value::Variant(Box::new((SqlType::Int, Value::Int(7)))),
            "I32(Some(7))",
        ),
    ];
    let (server, toy) = start().await;
    let columns = |nullable| -> Vec<_> {
        cells
            .iter()
            .enumerate()
            .map(|(i, (ty, ..))| mssql_standin::exchange::sink::Column {
                nullable,
                ..column(&format!("c{i}"), *ty)
            })
            .collect()
    };
    let values: Vec<Value> = cells.iter().map(|(_, value, _)| value.clone()).collect();
    let nulls = vec![Value::Null; cells.len()];
    let mut client = connect(&server).await;
    for nullable in [false, true] {
        let table = if nullable {
            vec![values.clone(), nulls.clone(), values.clone()]
        } else {
            vec![values.clone()]
        };
        *toy.bulk.lock().expect("the toy's table") = (columns(nullable), table.clone());
        let read = rows(&mut client, "TABLE").await.expect("rows");
        assert_eq!(read.len(), table.len());
        for (row, sent) in read.iter().zip(&table) {
            for (i, (_, cell)) in row.cells().enumerate() {
                let seen = format!("{cell:?}");
                if sent[i] == Value::Null {
                    assert!(seen.ends_with("(None)"), "{:?}: {seen}", cells[i].0);
                } else {
                    assert_eq!(seen, cells[i].2, "{:?}", cells[i].0);
                }
            }
        }
    }
}
