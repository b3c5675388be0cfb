use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::{
    PoolOptions, Pools,
    pools::{IDLE_CHECK_TIME_MAX, POOLS_KEPT},
    reservation::ServerConnections,
};
use crate::{
    error::Kind,
    model::name::Ident,
    mssql::{client::row::Param, connect::connection_string},
};
use mssql_standin::server::Server;

async fn pools(server: &Server, connections_max: usize) -> Pools {
    let parsed = connection_string::parse(&server.connection_string("master")).unwrap();
    Pools::new(
        parsed.endpoint,
        PoolOptions {
            connections_max,
            statement_timeout: Duration::from_secs(20),
            lock_timeout: Duration::from_secs(1),
            deadlock_priority_low: true,
            idle_timeout: Duration::from_secs(60),
        },
    )
}

fn db(name: &str) -> Ident {
    Ident::new(name)
}

#[tokio::test]
async fn answers_come_back_typed() {
    let server = Server::builder().start().await.unwrap();
    let pools = pools(&server, 4).await;
    let mut session = pools.checkout(&db("master"), "test").await.unwrap();
    let row = session
        .row("SELECT @P1, @P2, DB_NAME(), CAST(NULL AS INT)", &[Param::Int(7), Param::Text("é")])
        .await
        .unwrap();
    assert_eq!(
        (row.i32(0).unwrap(), row.text(1).unwrap(), row.text(2).unwrap()),
        (7, "é", "master")
    );
    assert_eq!(row.opt_i64(3).unwrap(), None);
    assert!(row.i32(3).unwrap_err().to_string().contains("column 4"));
    assert!(row.i32(9).is_err());
    let mut stream =
        session.stream("SELECT @P1 UNION ALL SELECT 2", &[Param::Int(1)]).await.unwrap();
    let mut seen = Vec::new();
    while let Some(row) = stream.next().await.unwrap() {
        seen.push(row.i32(0).unwrap());
    }
    assert_eq!(seen, [1, 2]);
    drop(stream);
    assert!(session.is_reusable());
}

#[tokio::test]
async fn a_stream_that_is_dropped_early_costs_its_session() {
    let server = Server::builder().start().await.unwrap();
    let pools = pools(&server, 4).await;
    let mut session = pools.checkout(&db("master"), "test").await.unwrap();
    let mut stream = session.stream("SELECT 1 UNION ALL SELECT 2", &[]).await.unwrap();
    stream.next().await.unwrap();
    drop(stream);
    assert!(!session.is_reusable());
    assert_eq!(session.batch("SELECT 1").await.unwrap_err().kind, Kind::Connection);
    drop(session);
    server.wait_for_connections(0).await;
}

#[tokio::test]
async fn an_error_makes_a_session_suspect_until_it_is_recovered() {
    let server = Server::builder().start().await.unwrap();
    let pools = pools(&server, 4).await;
    let mut session = pools.checkout(&db("master"), "test").await.unwrap();
    let error = session.batch("SELECT * FROM dbo.nowhere").await.unwrap_err();
    assert_eq!((error.kind, error.number), (Kind::Missing, Some(208)));
    assert!(!session.is_reusable() && !session.is_broken());
    session.recover().await.unwrap();
    assert!(session.is_reusable());
    drop(session);
    assert_eq!(pools.connections(), 1, "it went back to its pool");
}

/// A job that fails between BEGIN and COMMIT without a server's error leaves its session
/// looking well: in the pool the snapshot stayed open.
#[tokio::test]
async fn a_transaction_that_nobody_ended_does_not_go_back_into_the_pool() {
    let server = Server::builder().start().await.unwrap();
    let pools = pools(&server, 4).await;
    let mut session = pools.checkout(&db("master"), "test").await.unwrap();
    session.begin_transaction("BEGIN TRANSACTION").await.unwrap();
    drop(session);
    assert_eq!(pools.connections(), 0);
    let mut session = pools.checkout(&db("master"), "test").await.unwrap();
    session.begin_transaction("BEGIN TRANSACTION").await.unwrap();
    session.commit_transaction("COMMIT TRANSACTION").await.unwrap();
    session.begin_transaction("BEGIN TRANSACTION").await.unwrap();
    session.recover().await.unwrap();
    drop(session);
    assert_eq!((pools.connections(), pools.logins()), (1, 2));
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_is_replaced() {
    let server = Server::builder().start().await.unwrap();
    let pools = pools(&server, 4).await;
    drop(pools.checkout(&db("master"), "test").await.unwrap());
    for connection in server.connections() {
        server.kill(connection.spid);
    }
    let mut session = pools.checkout(&db("master"), "test").await.unwrap();
    session.batch("SELECT 1").await.unwrap();
    assert_eq!(pools.logins(), 2);
}

/// A network that went silent is noticed at the next checkout, within the time that proof takes
/// and not a statement's.
#[tokio::test]
async fn an_idle_session_that_went_silent_is_replaced() {
    use mssql_standin::proxy::{Proxy, Trouble, Way};
    let server = Server::builder().start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let string = server.connection_string("master");
    let string = string
        .replace(&format!(",{};", server.addr().port()), &format!(",{};", proxy.addr().port()));
    let options = pools(&server, 4).await.options().clone();
    let options = PoolOptions { statement_timeout: Duration::from_secs(300), ..options };
    let pools = Pools::new(connection_string::parse(&string).unwrap().endpoint, options);
    drop(pools.checkout(&db("master"), "test").await.unwrap());
    let silence = proxy.after(Way::ToServer, 0, Trouble::Silence);
    let began = Instant::now();
    let session = pools.checkout(&db("master"), "test").await.unwrap();
    assert!(
        silence.has_come() && began.elapsed() < 3 * IDLE_CHECK_TIME_MAX,
        "{:?}",
        began.elapsed()
    );
    assert_eq!(pools.logins(), 2);
    assert_eq!(session.timeout(), Duration::from_secs(300));
}

#[tokio::test]
async fn idle_connections_of_other_databases_make_room() {
    let server = Server::builder().start().await.unwrap();
    let pools = pools(&server, 2).await;
    for _ in 0..3 {
        for name in ["master", "tempdb", "msdb"] {
            let mut session = pools.checkout(&db(name), "test").await.unwrap();
            assert_eq!(session.row("SELECT DB_NAME()", &[]).await.unwrap().text(0).unwrap(), name);
        }
    }
    assert!(server.connection_count().peak <= 2, "{:?}", server.connection_count().peak);
}

/// Also where the old ones are in use: a source whose row changes must not see twice its limit.
#[tokio::test]
async fn pools_that_take_the_place_of_others_stay_within_the_same_limit() {
    let server = Server::builder().start().await.unwrap();
    let old = ServerConnections::new(pools(&server, 2).await, 0);
    let reservation = old.reserve(1, "old").await.unwrap();
    let used = reservation.checkout(&db("master")).await.unwrap();
    drop(old.pools().checkout(&db("tempdb"), "idle").await.unwrap());
    assert_eq!(old.pools().connections(), 2);
    let new = old.replace_endpoint(old.pools().endpoint().clone());
    assert_eq!(new.pools().connections(), 1, "the idle one is closed");
    // a server sees that a moment later
    server.wait_for_connections(1).await;
    assert!(
        new.reserve(2, "both").now_or_never().is_none(),
        "one is reserved by the job with the old connection"
    );
    let fresh = new.reserve(1, "new").await.unwrap();
    let mut session = fresh.checkout(&db("master")).await.unwrap();
    session.batch("SELECT 1").await.unwrap();
    assert_eq!(new.pools().connections(), 2);
    drop((used, reservation));
    assert_eq!(new.pools().connections(), 1, "no connection of the old ones is kept");
    assert!(server.connection_count().peak <= 2, "{:?}", server.connection_count().peak);
}

/// Names come and go with the mappings; what is kept of them does not grow with all that ever
/// were.
#[tokio::test]
async fn pools_of_databases_that_nobody_uses_any_more_are_forgotten() {
    let server = Server::builder().start().await.unwrap();
    let pools = pools(&server, 4).await;
    let mut kept = pools.checkout(&db("master"), "test").await.unwrap();
    for n in 0..200 {
        pools.pool(&db(&format!("gone{n}")));
    }
    let known = pools.pool_count();
    assert!(known <= POOLS_KEPT, "{known}");
    kept.batch("SELECT 1").await.unwrap();
    drop(kept);
    pools.checkout(&db("master"), "test").await.unwrap();
    assert_eq!(pools.logins(), 1);
}

#[tokio::test]
async fn reservations_bound_what_is_open_and_nothing_waits_for_ever() {
    let server = Server::builder().start().await.unwrap();
    let connections = ServerConnections::new(pools(&server, 3).await, 1);
    assert_eq!(
        connections.reserve(3, "too many").await.err().map(|error| error.kind),
        Some(Kind::Config)
    );
    let mut jobs = tokio::task::JoinSet::new();
    for i in 0..12 {
        let connections = connections.clone();
        jobs.spawn(async move {
            let reservation = connections.reserve(2, format!("job {i}")).await.unwrap();
            let one = reservation.checkout(&db(["master", "tempdb", "msdb"][i % 3])).await;
            let two = reservation.checkout(&db("master")).await;
            assert!(
                reservation.checkout(&db("master")).await.is_err(),
                "a third was not asked for"
            );
            one.and(two).map(drop)
        });
    }
    while let Some(job) = jobs.join_next().await {
        job.unwrap().unwrap();
    }
    assert!(server.connection_count().peak <= 3);
}

#[tokio::test]
async fn a_login_that_is_refused_says_so_at_once() {
    let server = Server::builder().start().await.unwrap();
    let mut parsed = connection_string::parse(&server.connection_string("master")).unwrap();
    parsed.endpoint.password = crate::model::secret::Secret::new("wrong");
    let options = pools(&server, 2).await.options().clone();
    let Err(error) = Pools::new(parsed.endpoint, options).checkout(&db("master"), "test").await
    else {
        panic!("logged in with a wrong password");
    };
    assert_eq!((error.kind, error.number), (Kind::Login, Some(18456)));
}
