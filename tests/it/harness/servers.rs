//! Servers that are there already: with `DATAFLOW_TEST_SOURCE` and `DATAFLOW_TEST_DEST` set to
//! connection strings, the scenarios run there instead of on stand-ins of their own.
//!
//! Nothing on those servers is touched but what a scenario made. Its databases and logins have
//! names of this run's own; scenarios go on saying `Shop`, `Copy` and `reader`, and the client and
//! the daemon's output translate ([`Names`]). The control database has one fixed name, so scenarios
//! take turns, and where somebody else's control database is, none runs. All of it is dropped when
//! the scenario ends.
//!
//! What only a stand-in can do (fault points, its engine, its log of statements) is skipped, and
//! each skipped scenario says so: [`only_on_standins!`](crate::only_on_standins).

use std::{
    sync::{Arc, LazyLock},
    time::{SystemTime, UNIX_EPOCH},
};

use dbaops_dataflow::mssql::{
    connection_string,
    endpoint::{Encrypt, Endpoint, Trust},
};
use tiberius::{AuthMethod, Config, EncryptionLevel};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Sql, client::Names, eventually};

const SOURCE: &str = "DATAFLOW_TEST_SOURCE";
const DEST: &str = "DATAFLOW_TEST_DEST";
const CONTROL: &str = "dbaops_dataflow";
/// Stands in a control database that scenarios made, so that one left by a killed run is not taken
/// for somebody's.
const MARK: &str = "dataflow_test_mark";

/// The two servers of this run.
pub struct Servers {
    pub source: Endpoint,
    pub dest: Endpoint,
    pub names: Names,
    /// what every name of this run begins with
    prefix: String,
    turn: Arc<Mutex<()>>,
}

static SERVERS: LazyLock<Option<Servers>> = LazyLock::new(|| {
    let read = |variable: &str| std::env::var(variable).ok().filter(|text| !text.trim().is_empty());
    match (read(SOURCE), read(DEST)) {
        (None, None) => None,
        (Some(source), Some(dest)) => Some(Servers::new(&source, &dest)),
        _ => panic!("{SOURCE} and {DEST} go together: set both, or none for stand-ins"),
    }
});

/// The servers the environment names, or `None`: stand-ins.
pub fn servers() -> Option<&'static Servers> {
    SERVERS.as_ref()
}

/// Text that came from a server or the daemon, with the names that scenarios use.
pub fn as_said(text: &str) -> String {
    servers().map_or_else(|| text.to_owned(), |servers| servers.names.said(text))
}

/// Ends a scenario that needs what only a stand-in can do, and says so past the test runner's
/// capture.
#[macro_export]
macro_rules! only_on_standins {
    ($why:literal) => {
        if $crate::harness::servers::servers().is_some() {
            $crate::harness::servers::skipped(module_path!(), $why);
            return;
        }
    };
}

pub fn skipped(scenario: &str, why: &str) {
    say(&format!("skipped a scenario of {scenario}, which needs a stand-in: {why}"));
}

/// A word past the test runner's capture, which shows what is printed for failures only.
pub fn say(words: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{words}");
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
            turn: Arc::default(),
        }
    }

    /// A connection, which translates names both ways.
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
            Trust::Anything => config.trust_cert(),
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
            .unwrap_or_else(|error| panic!("connect to {}: {error}", endpoint.place()))
    }

    /// Waits for this scenario's turn, and makes its databases.
    pub async fn begin(&'static self) -> Turn {
        let turn = self.turn.clone().lock_owned().await;
        // What an earlier scenario could not drop.
        self.end().await;
        for (endpoint, database) in [(&self.source, "Shop"), (&self.dest, "Copy")] {
            self.connect(endpoint, "master")
                .await
                .run(&format!("CREATE DATABASE [{database}]"))
                .await;
        }
        Turn { servers: self, _turn: turn }
    }

    /// Marks the control database as the scenarios' own.
    pub async fn mark(&self) {
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
            "{} has a control database {CONTROL} that these scenarios did not make: they leave it alone",
            self.dest.place()
        );
        drop_database(&mut dest, CONTROL).await;
    }

    /// Drops what this run made.
    async fn end(&self) {
        self.drop_control().await;
        let ours = |column: &str, view: &str| {
            format!(
                "SELECT {column} FROM {view} WHERE LEFT({column}, {}) = N'{}'",
                self.prefix.len(),
                self.prefix
            )
        };
        for endpoint in [&self.source, &self.dest] {
            let mut master = self.connect(endpoint, "master").await;
            for row in master.query_raw(&ours("name", "sys.databases")).await.rows {
                drop_database(&mut master, &row[0]).await;
            }
            for row in master.query_raw(&ours("name", "sys.server_principals")).await.rows {
                master.run(&format!("DROP LOGIN [{}]", row[0])).await;
            }
        }
    }
}

/// Connections of a daemon that was just killed may still be in it.
async fn drop_database(master: &mut Sql, name: &str) {
    eventually(&format!("{name} to be dropped"), async || {
        let alone = master
            .try_run(&format!("ALTER DATABASE [{name}] SET SINGLE_USER WITH ROLLBACK IMMEDIATE"))
            .await;
        let dropped = master.try_run(&format!("DROP DATABASE [{name}]")).await;
        alone.and(dropped).map_err(|error| error.to_string())
    })
    .await;
}

/// One scenario's time on the servers; its databases go when it ends.
pub struct Turn {
    servers: &'static Servers,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let servers = self.servers;
        // A runtime of its own: the scenario's may be ending, or cannot block.
        let dropped = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map(|runtime| runtime.block_on(servers.end()))
        });
        if !matches!(dropped.join(), Ok(Ok(()))) && !std::thread::panicking() {
            panic!("the scenario's databases ({}…) were not dropped", servers.prefix);
        }
    }
}
