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
