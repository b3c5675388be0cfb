//! The engine over the wire: what only shows when both are there.

use mssql_standin::server::{Encryption, Server};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

type Connection = Client<Compat<TcpStream>>;

async fn start() -> Server {
    Server::builder().tls(Encryption::NotSupported).start().await.expect("a server")
}

async fn connect_with(
    server: &Server,
    user: &str,
    password: &str,
    database: &str,
) -> tiberius::Result<Connection> {
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
        let seen =
            connect_with(&server, user, password, database).await.err().map(|error| error.code());
        assert_eq!(seen, code.map(Some), "{user} in {database}");
    }
}

#[tokio::test]
async fn a_batch_and_a_parameterized_statement_answer() {
    let server = start().await;
    let mut client = connect(&server).await;
    let row = client
        .simple_query("SELECT 1 + 1 AS two, N'zwei' AS word")
        .await
        .expect("a result")
        .into_row()
        .await
        .expect("a row");
    let row = row.expect("a row");
    assert_eq!((row.get::<i32, _>("two"), row.get::<&str, _>("word")), (Some(2), Some("zwei")));
    let row = client
        .query("SELECT @P1 * 2, @P2", &[&21i32, &"größer"])
        .await
        .expect("a result")
        .into_row()
        .await
        .expect("a row");
    let row = row.expect("a row");
    assert_eq!((row.get::<i32, _>(0), row.get::<&str, _>(1)), (Some(42), Some("größer")));
}

#[tokio::test]
async fn what_the_engine_does_not_know_it_refuses_and_the_connection_goes_on() {
    let server = start().await;
    let mut client = connect(&server).await;
    let error =
        client.simple_query("SELECT * FROM dbo.nowhere").await.map(drop).expect_err("an error");
    assert_eq!(error.code(), Some(208), "{error}");
    let row = client
        .simple_query("SELECT @@SPID")
        .await
        .expect("a result")
        .into_row()
        .await
        .expect("a row")
        .expect("a row");
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
    let gone = client
        .execute(format!("{repeated} DELETE FROM [repeated] WHERE [n] > 1"), &[])
        .await
        .expect("a DELETE")
        .total();
    assert_eq!(gone, 2);
    let rows = client
        .simple_query("SELECT k FROM #r ORDER BY k")
        .await
        .expect("a result")
        .into_first_result()
        .await
        .expect("rows");
    assert_eq!(
        rows.iter().map(|row| row.get::<i32, _>(0)).collect::<Vec<_>>(),
        [Some(1), Some(2), Some(3)]
    );
    for (refused, why) in [
        ("WITH g AS (SELECT k FROM #r GROUP BY k) DELETE FROM g", "groups or limits"),
        (
            "WITH j AS (SELECT a.k FROM #r AS a JOIN #r AS b ON b.k = a.k) DELETE FROM j",
            "has not one table",
        ),
        (
            "WITH u AS (SELECT k FROM #r UNION ALL SELECT k FROM #r) DELETE FROM u",
            "no plain SELECT",
        ),
        ("WITH c AS (SELECT k FROM #r) UPDATE c SET k = 1", "UPDATE"),
        ("WITH c AS (SELECT k FROM #r) DELETE c FROM c", "of a FROM"),
    ] {
        let error = client.simple_query(refused).await.map(drop).expect_err("an error").to_string();
        assert!(error.contains(why), "{refused}: {error}");
    }
}

/// <https://learn.microsoft.com/sql/relational-databases/pages-and-extents-architecture-guide#large-row-support>
#[tokio::test]
async fn rows_have_8060_bytes_and_long_values_leave_them() {
    let server = start().await;
    let mut client = connect(&server).await;
    let columns = |count: usize, ty: &str| {
        (0..count).map(|i| format!("c{i} {ty} NULL")).collect::<Vec<_>>().join(", ")
    };
    let values = |count: usize, text: &str| vec![format!("N'{text}'"); count].join(", ");
    for (sql, code) in [
        ("CREATE TABLE dbo.f (a char(8000), b char(100))".to_owned(), Some(1701)),
        ("CREATE TABLE dbo.f (a char(8000), b char(40))".to_owned(), None),
        ("ALTER TABLE dbo.f ADD c char(40)".to_owned(), Some(1701)),
        (format!("CREATE TABLE dbo.short ({})", columns(400, "nvarchar(10)")), None),
        (format!("INSERT INTO dbo.short VALUES ({})", values(400, "ten chars!")), Some(511)),
        (format!("INSERT INTO dbo.short VALUES ({})", values(400, "five!")), None),
        ("UPDATE dbo.short SET c1 = N'ten chars!'".to_owned(), None),
        (
            format!(
                "UPDATE dbo.short SET {}",
                (0..400).map(|i| format!("c{i} = N'ten chars!'")).collect::<Vec<_>>().join(", ")
            ),
            Some(511),
        ),
        (format!("CREATE TABLE dbo.long ({})", columns(300, "nvarchar(50)")), None),
        (format!("INSERT INTO dbo.long VALUES ({})", values(300, &"x".repeat(50))), None),
        ("CREATE TABLE dbo.two (a varchar(5000), b varchar(5000))".to_owned(), None),
        (
            "INSERT INTO dbo.two VALUES (REPLICATE('a', 5000), REPLICATE('b', 5000))".to_owned(),
            None,
        ),
    ] {
        let seen = client.simple_query(&sql).await.map(drop).err().map(|error| error.code());
        assert_eq!(seen, code.map(Some), "{}", &sql[..sql.len().min(80)]);
    }
}

#[tokio::test]
async fn a_case_sensitive_database_tells_columns_apart_by_case() {
    let server = start().await;
    let mut client = connect(&server).await;
    for (sql, code) in [
        ("CREATE DATABASE cased COLLATE Latin1_General_CS_AS", None),
        ("CREATE TABLE dbo.t (A int, a int, A int)", Some(2705)),
        ("CREATE TABLE dbo.t (A int, a int)", Some(2705)),
        ("USE cased", None),
        ("CREATE TABLE dbo.t (A int, a int)", None),
        ("INSERT INTO dbo.t (A, a) VALUES (1, 2)", None),
        ("SELECT x.A FROM (SELECT A, a FROM dbo.t) AS x ORDER BY x.a", None),
        ("SELECT B FROM dbo.t", Some(207)),
        ("CREATE TABLE dbo.u (Name int)", None),
        ("SELECT name FROM dbo.u", Some(207)),
    ] {
        let seen = client.simple_query(sql).await.map(drop).err().map(|error| error.code());
        assert_eq!(seen, code.map(Some), "{sql}");
    }
    let row = client
        .simple_query("SELECT a, A FROM dbo.t")
        .await
        .expect("a result")
        .into_row()
        .await
        .expect("a row")
        .expect("a row");
    assert_eq!((row.get::<i32, _>(0), row.get::<i32, _>(1)), (Some(2), Some(1)));
}

/// Sessions that are in a database which is taken offline end, or are waited for.
#[tokio::test]
async fn taking_a_database_offline_ends_the_sessions_in_it() {
    let server = start().await;
    let mut admin = connect(&server).await;
    for batch in ["CREATE DATABASE shop", "CREATE DATABASE other"] {
        admin.simple_query(batch).await.expect("a batch").into_results().await.expect("a database");
    }
    let mut inside = connect_with(&server, "sa", "Passw0rd!", "shop").await.expect("a connection");
    let mut outside =
        connect_with(&server, "sa", "Passw0rd!", "other").await.expect("a connection");
    let refused = admin
        .simple_query("ALTER DATABASE shop SET OFFLINE WITH NO_WAIT")
        .await
        .map(drop)
        .expect_err("an error");
    assert_eq!(refused.code(), Some(5070), "{refused}");
    let ended = admin
        .simple_query("ALTER DATABASE shop SET OFFLINE WITH ROLLBACK IMMEDIATE")
        .await
        .expect("an answer");
    ended.into_results().await.expect("it is offline");
    let gone = async { inside.simple_query("SELECT 1").await?.into_results().await.map(drop) };
    assert!(gone.await.is_err(), "its session goes on");
    outside
        .simple_query("SELECT 1")
        .await
        .expect("an answer")
        .into_results()
        .await
        .expect("another database's session goes on");
    let seen =
        connect_with(&server, "sa", "Passw0rd!", "shop").await.err().map(|error| error.code());
    assert_eq!(seen, Some(Some(4060)));
}
