//! The engine over the wire: what only shows when both are there.

use mssql_standin::server::{Encryption, Server};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

type Connection = Client<Compat<TcpStream>>;

async fn start() -> Server {
    Server::builder().tls(Encryption::NotSupported).start().await.expect("a server")
}

async fn connect_with(server: &Server, user: &str, password: &str, database: &str) -> tiberius::Result<Connection> {
    let mut config = Config::new();
    config.host("localhost");
    config.port(server.addr().port());
    config.authentication(AuthMethod::sql_server(user, password));
    config.encryption(EncryptionLevel::NotSupported);
    config.database(database);
    let tcp = TcpStream::connect(server.addr()).await?;
    Client::connect(config, tcp.compat_write()).await
}

async fn connect(server: &Server) -> Connection {
    connect_with(server, "sa", "Passw0rd!", "master").await.expect("a connection")
}

#[tokio::test]
async fn logins_are_checked() {
    let server = start().await;
    for (user, password, database, code) in [
        ("sa", "Passw0rd!", "tempdb", None),
        ("sa", "passw0rd!", "master", Some(18456)),
        ("nobody", "Passw0rd!", "master", Some(18456)),
        ("sa", "Passw0rd!", "nowhere", Some(4060)),
    ] {
        let seen = connect_with(&server, user, password, database).await.err().map(|error| error.code());
        assert_eq!(seen, code.map(Some), "{user} in {database}");
    }
}

#[tokio::test]
async fn a_batch_and_a_parameterized_statement_answer() {
    let server = start().await;
    let mut client = connect(&server).await;
    let row = client.simple_query("SELECT 1 + 1 AS two, N'zwei' AS word").await.expect("a result").into_row().await.expect("a row");
    let row = row.expect("a row");
    assert_eq!((row.get::<i32, _>("two"), row.get::<&str, _>("word")), (Some(2), Some("zwei")));
    let row = client.query("SELECT @P1 * 2, @P2", &[&21i32, &"größer"]).await.expect("a result").into_row().await.expect("a row");
    let row = row.expect("a row");
    assert_eq!((row.get::<i32, _>(0), row.get::<&str, _>(1)), (Some(42), Some("größer")));
}

#[tokio::test]
async fn what_the_engine_does_not_know_it_refuses_and_the_connection_goes_on() {
    let server = start().await;
    let mut client = connect(&server).await;
    let error = client.simple_query("SELECT * FROM dbo.nowhere").await.map(drop).expect_err("an error");
    assert_eq!(error.code(), Some(208), "{error}");
    let row = client.simple_query("SELECT @@SPID").await.expect("a result").into_row().await.expect("a row").expect("a row");
    assert_eq!(row.get::<i16, _>(0).map(u16::try_from), Some(Ok(server.connections()[0].spid)));
}

/// Which of two equal rows goes is the server's choice: one of them does.
#[tokio::test]
async fn rows_go_through_a_common_table_expression_over_one_table() {
    let server = start().await;
    let mut client = connect(&server).await;
    client
        .simple_query(
            "CREATE TABLE #r (k int, v nvarchar(10)); INSERT INTO #r VALUES (1, N'a'), (2, N'b'), (2, N'b'), (3, N'c'), (2, N'b')",
        )
        .await
        .map(drop)
        .expect("rows");
    let repeated = "WITH [repeated] AS (SELECT ROW_NUMBER() OVER (PARTITION BY s.k ORDER BY (SELECT NULL)) AS [n] FROM #r AS s)";
    let gone = client.execute(format!("{repeated} DELETE FROM [repeated] WHERE [n] > 1"), &[]).await.expect("a DELETE").total();
    assert_eq!(gone, 2);
    let rows = client.simple_query("SELECT k FROM #r ORDER BY k").await.expect("a result").into_first_result().await.expect("rows");
    assert_eq!(rows.iter().map(|row| row.get::<i32, _>(0)).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    for (refused, why) in [
        ("WITH g AS (SELECT k FROM #r GROUP BY k) DELETE FROM g", "groups or limits"),
        ("WITH j AS (SELECT a.k FROM #r AS a JOIN #r AS b ON b.k = a.k) DELETE FROM j", "has not one table"),
        ("WITH u AS (SELECT k FROM #r UNION ALL SELECT k FROM #r) DELETE FROM u", "no plain SELECT"),
        ("WITH c AS (SELECT k FROM #r) UPDATE c SET k = 1", "UPDATE"),
        ("WITH c AS (SELECT k FROM #r) DELETE c FROM c", "of a FROM"),
    ] {
        let error = client.simple_query(refused).await.map(drop).expect_err("an error").to_string();
        assert!(error.contains(why), "{refused}: {error}");
    }
}
