//! Several sessions at once, without a socket: who sees what, who waits for whom, who loses.

use mssql_standin::{
    cdc::EXTENSION,
    engine::{
        instance::{Instance, InstanceConfig},
        session::EngineSession,
    },
    error::SqlError,
    exchange::{
        connection::{EngineConnection, LoginInfo},
        sink::{Cancelled, Column, DoneKind, EnvChange, Sink},
    },
    value::{SqlType, Value},
};
use std::{sync::Arc, thread};

#[derive(Default)]
struct Answer {
    rows: Vec<Vec<Value>>,
    errors: Vec<i32>,
}

impl Sink for Answer {
    fn columns(&mut self, _: &[Column]) -> Result<(), Cancelled> {
        Ok(())
    }
    fn row(&mut self, row: &[Value]) -> Result<(), Cancelled> {
        self.rows.push(row.to_vec());
        Ok(())
    }
    fn done(&mut self, _: DoneKind, _: Option<u64>) -> Result<(), Cancelled> {
        Ok(())
    }
    fn message(&mut self, message: &SqlError) -> Result<(), Cancelled> {
        if message.class > 10 {
            self.errors.push(message.number);
        }
        Ok(())
    }
    fn env(&mut self, _: &EnvChange) -> Result<(), Cancelled> {
        Ok(())
    }
    fn return_value(&mut self, _: &str, _: SqlType, _: &Value) -> Result<(), Cancelled> {
        Ok(())
    }
    fn return_status(&mut self, _: i32) -> Result<(), Cancelled> {
        Ok(())
    }
}

struct Client {
    spid: u16,
    session: EngineSession,
    instance: Arc<Instance>,
}

impl Client {
    fn new(instance: &Arc<Instance>, spid: u16) -> Self {
        let session = EngineSession::open(instance.clone(), LoginInfo::trusted("master", spid))
            .expect("a session");
        let mut client = Self { spid, session, instance: instance.clone() };
        if instance.lock().database_named("d").is_some() {
            client.run("USE d");
        }
        client
    }

    fn run(&mut self, text: &str) -> Answer {
        let mut answer = Answer::default();
        self.session.batch(text, &mut answer).expect("nobody cancels");
        answer
    }

    fn ok(&mut self, text: &str) -> Vec<Vec<Value>> {
        let answer = self.run(text);
        assert_eq!(answer.errors, Vec::<i32>::new(), "{text}");
        answer.rows
    }

    fn number(&mut self, text: &str) -> i64 {
        match self.ok(text).as_slice() {
            [row] => match row[0] {
                Value::Int(n) => n,
                ref other => panic!("{text}: {other:?}"),
            },
            rows => panic!("{text}: {} rows", rows.len()),
        }
    }

    /// Runs in a thread of its own; returns once the session waits for a lock.
    fn blocked(mut self, text: &'static str) -> thread::JoinHandle<(Self, Answer)> {
        let (spid, instance) = (self.spid, self.instance.clone());
        let handle = thread::spawn(move || {
            let answer = self.run(text);
            (self, answer)
        });
        while instance.lock().locks.blocked_by(spid).is_none() {
            assert!(!handle.is_finished(), "did not wait: {text}");
            thread::yield_now();
        }
        handle
    }
}

fn table(rows: &str) -> (Arc<Instance>, Client, Client) {
    let instance = Instance::new(InstanceConfig::default(), &[&EXTENSION]);
    let mut one = Client::new(&instance, 51);
    one.ok("CREATE DATABASE d");
    one.ok("USE d");
    one.ok("CREATE TABLE t (id int NOT NULL PRIMARY KEY, v int NOT NULL)");
    one.ok(rows);
    let two = Client::new(&instance, 52);
    (instance, one, two)
}

#[test]
fn nobody_sees_what_is_not_committed() {
    let (_, mut one, mut two) = table("INSERT t VALUES (1, 10), (2, 20)");
    one.ok(
        "BEGIN TRAN UPDATE t SET v = 11 WHERE id = 1 DELETE t WHERE id = 2 INSERT t VALUES (3, 30)",
    );
    assert_eq!(two.number("SELECT SUM(v) FROM t"), 30);
    assert_eq!(two.number("SELECT SUM(v) FROM t WITH (NOLOCK)"), 41);
    assert_eq!(one.number("SELECT SUM(v) FROM t"), 41);
    one.ok("ROLLBACK");
    assert_eq!(one.number("SELECT SUM(v) FROM t"), 30);
    one.ok("BEGIN TRAN INSERT t VALUES (3, 30) COMMIT");
    assert_eq!(two.number("SELECT SUM(v) FROM t"), 60);
}

#[test]
fn a_writer_waits_for_a_writer_and_sees_its_result() {
    let (_, mut one, two) = table("INSERT t VALUES (1, 10)");
    one.ok("BEGIN TRAN UPDATE t SET v = 11");
    let waiting = two.blocked("UPDATE t SET v = v + 100 WHERE v = 11");
    one.ok("COMMIT");
    let (mut two, answer) = waiting.join().expect("a thread");
    assert_eq!(answer.errors, Vec::<i32>::new());
    assert_eq!(two.number("SELECT v FROM t"), 111);
}

#[test]
fn increments_are_not_lost() {
    let (_, mut one, two) = table("INSERT t VALUES (1, 10)");
    one.ok("BEGIN TRAN UPDATE t SET v = v + 1");
    let waiting = two.blocked("UPDATE t SET v = v + 100");
    one.ok("COMMIT");
    let (mut two, _) = waiting.join().expect("a thread");
    assert_eq!(two.number("SELECT v FROM t"), 111);
}

#[test]
fn a_key_that_is_being_inserted_is_waited_for() {
    let (_, mut one, two) = table("INSERT t VALUES (1, 10)");
    one.ok("BEGIN TRAN INSERT t VALUES (2, 1)");
    let waiting = two.blocked("INSERT t VALUES (2, 2)");
    one.ok("COMMIT");
    let (two, answer) = waiting.join().expect("a thread");
    assert_eq!(answer.errors, vec![2627]);
    one.ok("BEGIN TRAN INSERT t VALUES (3, 1)");
    let waiting = two.blocked("INSERT t VALUES (3, 2)");
    one.ok("ROLLBACK");
    let (mut two, _) = waiting.join().expect("a thread");
    assert_eq!(two.number("SELECT v FROM t WHERE id = 3"), 2);
}

#[test]
fn lock_timeout_is_1222() {
    let (_, mut one, mut two) = table("INSERT t VALUES (1, 10)");
    one.ok("BEGIN TRAN UPDATE t SET v = 11");
    two.ok("SET LOCK_TIMEOUT 0");
    assert_eq!(two.run("UPDATE t SET v = 12").errors, vec![1222]);
    assert_eq!(two.run("SELECT * FROM t WITH (UPDLOCK)").errors, vec![1222]);
    assert_eq!(two.ok("SELECT * FROM t WITH (READPAST)").len(), 0);
    assert_eq!(two.run("TRUNCATE TABLE t").errors, vec![1222]);
    one.ok("ROLLBACK");
    two.ok("TRUNCATE TABLE t");
}

#[test]
fn a_deadlock_has_one_victim() {
    let (_, mut one, mut two) = table("INSERT t VALUES (1, 10), (2, 20)");
    one.ok("SET DEADLOCK_PRIORITY LOW BEGIN TRAN UPDATE t SET v = 11 WHERE id = 1");
    two.ok("BEGIN TRAN UPDATE t SET v = 21 WHERE id = 2");
    let waiting = one.blocked("UPDATE t SET v = 22 WHERE id = 2");
    two.ok("UPDATE t SET v = 12 WHERE id = 1");
    let (mut one, answer) = waiting.join().expect("a thread");
    assert_eq!(answer.errors, vec![1205]);
    assert_eq!(one.number("SELECT @@TRANCOUNT"), 0);
    two.ok("COMMIT");
    assert_eq!(one.number("SELECT SUM(v) FROM t"), 33);
}

#[test]
fn a_table_lock_keeps_readers_out() {
    let (_, mut one, mut two) = table("INSERT t VALUES (1, 10)");
    one.ok("BEGIN TRAN SELECT * FROM t WITH (TABLOCKX)");
    two.ok("SET LOCK_TIMEOUT 0");
    assert_eq!(two.run("SELECT * FROM t").errors, vec![1222]);
    assert_eq!(two.number("SELECT COUNT(*) FROM t WITH (NOLOCK)"), 1);
    one.ok("COMMIT");
    two.ok("SELECT * FROM t");
    one.ok("BEGIN TRAN SELECT * FROM t WITH (HOLDLOCK)");
    assert_eq!(two.run("INSERT t VALUES (2, 2)").errors, vec![1222]);
    one.ok("COMMIT BEGIN TRAN ALTER TABLE t ADD w int NULL");
    assert_eq!(two.run("SELECT * FROM t WITH (NOLOCK)").errors, vec![1222]);
    one.ok("ROLLBACK");
}

#[test]
fn snapshots_are_of_one_moment() {
    let (_, mut one, mut two) = table("INSERT t VALUES (1, 10), (2, 20)");
    one.ok("SET TRANSACTION ISOLATION LEVEL SNAPSHOT");
    assert_eq!(one.run("BEGIN TRAN SELECT * FROM t").errors, vec![3952]);
    one.run("IF @@TRANCOUNT > 0 ROLLBACK");
    two.ok("ALTER DATABASE d SET ALLOW_SNAPSHOT_ISOLATION ON");
    one.ok("BEGIN TRAN");
    assert_eq!(one.number("SELECT SUM(v) FROM t"), 30);
    two.ok("UPDATE t SET v = 11 WHERE id = 1 INSERT t VALUES (3, 30)");
    assert_eq!(one.number("SELECT SUM(v) FROM t"), 30);
    one.ok("UPDATE t SET v = 21 WHERE id = 2");
    assert_eq!(one.number("SELECT SUM(v) FROM t"), 31);
    assert_eq!(one.run("UPDATE t SET v = 12 WHERE id = 1").errors, vec![3960]);
}

#[test]
fn a_row_whose_key_moves_can_be_met_twice() {
    use mssql_standin::engine::query::host::{Access, Host, Relation, TableHints};
    let (instance, mut one, _) = table("INSERT t SELECT TOP (0) 1, 1");
    one.ok("DECLARE @i int = 1 WHILE @i <= 200 BEGIN INSERT t VALUES (@i, 0) SET @i += 1 END");
    // A scan of its own, stopped after its first page.
    let mut info = LoginInfo::trusted("d", 60);
    info.user = "sa".into();
    let mut reader = mssql_standin::engine::context::Session::new(instance, info, "sa".into(), 5);
    let name = mssql_standin::tsql::ast::ObjectName {
        database: Some("d".into()),
        schema: Some("dbo".into()),
        name: "t".into(),
    };
    let met = reader.statement(|reader| {
        let Some(Relation::Rows(source)) = reader.relation(&name, &TableHints::default())? else {
            panic!("no table")
        };
        let mut cursor = source.open(&Access::default())?;
        let mut page = Vec::new();
        assert!(cursor.next_page(&mut page)?);
        assert!(page.len() < 200);
        one.ok("UPDATE t SET id = 1000 WHERE id = 1");
        while cursor.next_page(&mut page)? {}
        Ok(page.len())
    });
    assert_eq!(met, Ok(201));
}

#[test]
fn an_application_lock_belongs_to_a_session_until_it_ends() {
    let (instance, mut one, mut two) = table("INSERT t VALUES (1, 10)");
    let take = "DECLARE @r int; EXEC @r = sp_getapplock @Resource = N'r', @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 0; SELECT @r";
    let test = "SELECT APPLOCK_TEST(N'public', N'r', N'Exclusive', N'Session')";
    assert_eq!(one.number(take), 0);
    assert_eq!(one.number(take), 0, "again, by the same session");
    assert_eq!((one.number(test), two.number(test)), (1, 0));
    assert_eq!(two.number(take), -1);
    let release = "EXEC sp_releaseapplock @Resource = N'r', @LockOwner = N'Session'";
    one.ok(release);
    assert_eq!(two.number(take), -1, "taken twice, released once");
    let waiting = two.blocked(
        "DECLARE @r int; EXEC @r = sp_getapplock N'r', N'Exclusive', N'Session'; SELECT @r; EXEC sp_releaseapplock N'r', N'Session'",
    );
    one.ok(release);
    let (mut two, answer) = waiting.join().expect("a thread");
    assert_eq!(answer.rows, [[Value::Int(1)]]);
    assert_eq!(one.run(release).errors, [1223]);
    assert_eq!(
        one.run("EXEC sp_getapplock N'r', N'Exclusive'").errors,
        [3918],
        "a transaction's lock needs one"
    );
    one.ok("BEGIN TRAN EXEC sp_getapplock N'r', N'Exclusive'");
    assert_eq!(two.number(take), -1);
    one.ok("ROLLBACK");
    assert_eq!(two.number(take), 0);
    drop(two);
    assert_eq!(Client::new(&instance, 53).number(take), 0, "a session's locks end with it");
}
