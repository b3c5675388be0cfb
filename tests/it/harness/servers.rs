//! External servers: with `DATAFLOW_TEST_SOURCE` and `DATAFLOW_TEST_DEST` set to connection
//! strings, the scenarios run on those servers instead of on stand-ins.
//!
//! A scenario changes only objects that it created itself. Its databases and logins have names with
//! a prefix of this test run; scenarios use the names `Shop`, `Copy` and `reader`, and the client
//! and the daemon's output are translated ([`Names`]). The control database has one fixed name, so
//! only one scenario runs at a time, and a scenario fails when the server has a control database
//! that the scenarios did not create. Everything is dropped when the scenario ends.
//!
//! A scenario that needs what only a stand-in has (fault points, its engine, its log of statements)
//! is skipped and prints that it is: [`only_on_standins!`](crate::only_on_standins).

use std::{
    sync::{Arc, LazyLock},
    time::{SystemTime, UNIX_EPOCH},
};

use dbaops_dataflow::mssql::connect::{
    connection_string,
    endpoint::{Encrypt, Endpoint, Trust},
};
use tiberius::{AuthMethod, Config, EncryptionLevel};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{
    client::{Names, Sql},
    wait::eventually,
};

const SOURCE: &str = "DATAFLOW_TEST_SOURCE";
const DEST: &str = "DATAFLOW_TEST_DEST";
const CONTROL: &str = "dbaops_dataflow";
/// A table in every control database that the scenarios created. It tells one that a killed test
/// run left behind from one that belongs to somebody else.
const MARK: &str = "dataflow_test_mark";

/// The two servers of this run.
pub struct Servers {
    pub source: Endpoint,
    pub dest: Endpoint,
    pub names: Names,
    /// the beginning of all database and login names of this run
    prefix: String,
    in_use: Arc<Mutex<()>>,
}

static SERVERS: LazyLock<Option<Servers>> = LazyLock::new(|| {
    let read = |variable: &str| std::env::var(variable).ok().filter(|text| !text.trim().is_empty());
    match (read(SOURCE), read(DEST)) {
        (None, None) => None,
        (Some(source), Some(dest)) => Some(Servers::new(&source, &dest)),
        _ => panic!("set both {SOURCE} and {DEST}, or neither of them to run on stand-ins"),
    }
});

/// The external servers that the environment names, or `None`: scenarios run on stand-ins.
pub fn servers() -> Option<&'static Servers> {
    SERVERS.as_ref()
}

/// Text of a server or the daemon, with the database and login names that the scenarios use.
pub fn with_scenario_names(text: &str) -> String {
    servers().map_or_else(|| text.to_owned(), |servers| servers.names.to_scenario(text))
}

/// On external servers, skips a scenario that needs what only a stand-in has, and prints so.
#[macro_export]
macro_rules! only_on_standins {
    ($why:literal) => {
        if $crate::harness::servers::servers().is_some() {
            $crate::harness::servers::print_skipped(module_path!(), $why);
            return;
        }
    };
}

pub fn print_skipped(module: &str, why: &str) {
    print_uncaptured(&format!("skipped a scenario of {module}, which needs a stand-in: {why}"));
}

/// Prints a line to stderr directly. The test runner captures `println!` and `eprintln!`, and shows
/// their output for failed tests only.
pub fn print_uncaptured(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Servers {
    fn new(source: &str, dest: &str) -> Servers {
        let endpoint = |variable: &str, text: &str| {
            connection_string::parse(text)
                .unwrap_or_else(|error| panic!("{variable}: {error}"))
                .endpoint
        };
        let millis =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let prefix = format!("dataflow_test_{}_{millis}_", std::process::id());
        let names = Names::new(&prefix, &["Shop", "Copy"], &["reader"]);
        Servers {
            source: endpoint(SOURCE, source),
            dest: endpoint(DEST, dest),
            names,
            prefix,
            in_use: Arc::default(),
        }
    }

    /// Opens a connection that translates names both ways.
    pub async fn connect(&self, endpoint: &Endpoint, database: &str) -> Sql {
        let mut config = Config::new();
        config.host(&endpoint.host);
        config.port(endpoint.port);
        config.database(self.names.server_name(database));
        config.authentication(AuthMethod::sql_server(&endpoint.user, endpoint.password.reveal()));
        config.encryption(match endpoint.encrypt {
            Encrypt::Off => EncryptionLevel::NotSupported,
            Encrypt::LoginOnly => EncryptionLevel::Off,
            Encrypt::Full => EncryptionLevel::Required,
            Encrypt::Strict => EncryptionLevel::Strict,
        });
        match &endpoint.trust {
            Trust::Any => config.trust_cert(),
            Trust::Authority(path) => config.trust_cert_ca(path.display().to_string()),
            Trust::System | Trust::SystemUnlessLoopback
                if ["127.0.0.1", "::1", "localhost"].contains(&endpoint.host.as_str())
                    || endpoint.encrypt == Encrypt::LoginOnly =>
            {
                config.trust_cert()
            }
            Trust::System | Trust::SystemUnlessLoopback => {}
        }
        Sql::open(config, self.names.clone())
            .await
            .unwrap_or_else(|error| panic!("connect to {}: {error}", endpoint.server_name()))
    }

    /// Waits until no other scenario uses the servers, and creates this scenario's databases.
    pub async fn acquire(&'static self) -> ServersLease {
        let in_use = self.in_use.clone().lock_owned().await;
        // an earlier scenario may have failed to drop its databases
        self.drop_all().await;
        for (endpoint, database) in [(&self.source, "Shop"), (&self.dest, "Copy")] {
            self.connect(endpoint, "master")
                .await
                .run(&format!("CREATE DATABASE [{database}]"))
                .await;
        }
        ServersLease { servers: self, _in_use: in_use }
    }

    /// Marks the control database as created by the scenarios.
    pub async fn mark_control(&self) {
        self.connect(&self.dest, CONTROL)
            .await
            .run(&format!("CREATE TABLE dbo.{MARK} (id int NOT NULL)"))
            .await;
    }

    async fn drop_control(&self) {
        let mut dest = self.connect(&self.dest, "master").await;
        if dest
            .scalar(&format!("SELECT COUNT(*) FROM sys.databases WHERE name = N'{CONTROL}'"))
            .await
            == "0"
        {
            return;
        }
        let marks = self
            .connect(&self.dest, CONTROL)
            .await
            .scalar(&format!("SELECT COUNT(*) FROM sys.tables WHERE name = N'{MARK}'"))
            .await;
        assert_ne!(
            marks,
            "0",
            "{} has a control database {CONTROL} that the scenarios did not create: they do not run there",
            self.dest.server_name()
        );
        drop_database(&mut dest, CONTROL).await;
    }

    /// Drops every database and login of this test run.
    async fn drop_all(&self) {
        self.drop_control().await;
        let own = |column: &str, view: &str| {
            format!(
                "SELECT {column} FROM {view} WHERE LEFT({column}, {}) = N'{}'",
                self.prefix.len(),
                self.prefix
            )
        };
        for endpoint in [&self.source, &self.dest] {
            let mut master = self.connect(endpoint, "master").await;
            for row in master.query_raw(&own("name", "sys.databases")).await.rows {
                drop_database(&mut master, &row[0]).await;
            }
            for row in master.query_raw(&own("name", "sys.server_principals")).await.rows {
                master.run(&format!("DROP LOGIN [{}]", row[0])).await;
            }
        }
    }
}

/// Drops a database. Sessions of a daemon that was just killed may still use it: SINGLE_USER ends
/// them, and the drop is retried.
async fn drop_database(master: &mut Sql, name: &str) {
    eventually(&format!("{name} to be dropped"), async || {
        let single_user = master
            .try_run(&format!("ALTER DATABASE [{name}] SET SINGLE_USER WITH ROLLBACK IMMEDIATE"))
            .await;
        let dropped = master.try_run(&format!("DROP DATABASE [{name}]")).await;
        single_user.and(dropped).map_err(|error| error.to_string())
    })
    .await;
}

/// Exclusive use of the servers by one scenario. Dropping it drops the scenario's databases.
pub struct ServersLease {
    servers: &'static Servers,
    _in_use: OwnedMutexGuard<()>,
}

impl Drop for ServersLease {
    fn drop(&mut self) {
        let servers = self.servers;
        // A runtime of its own: the scenario's runtime may be shutting down, and must not block.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map(|runtime| runtime.block_on(servers.drop_all()))
        });
        if !matches!(dropped.join(), Ok(Ok(()))) && !std::thread::panicking() {
            panic!("the scenario's databases ({}…) were not dropped", servers.prefix);
        }
    }
}
