//! A server in the process of the test that uses it.
//!
//! [`Server::builder`] starts one on a port of its own; dropping it ends it. Its data lives in the
//! engine, so [`Server::restart`] loses the connections and nothing else.

mod direct;
mod registry;
pub(crate) mod shared;
mod statement_files;

pub use direct::{Answer, ResultSet};
pub use registry::{ConnectionCount, ConnectionInfo, StatementRecord};

use crate::{
    cdc::{self, CaptureConfig, CaptureMode, agent},
    engine::instance::{Instance, InstanceConfig},
    error::{SqlError, SqlResult},
    exchange::connection::{CancelFlag, Engine, LoginInfo},
    fault::Faults,
    session::connect,
    tds::tls::TlsIdentity,
    value::Value,
};
pub use shared::Encryption;

use registry::Registry;
use shared::Shared;
use statement_files::StatementFiles;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// A capture job as SQL Server's, which lags behind commits, but in a test's time.
const CAPTURE: CaptureConfig = CaptureConfig {
    mode: CaptureMode::Delayed { min_ms: 0, max_ms: 100 },
    poll: Duration::from_millis(50),
};

/// How to start a server.
#[derive(Clone)]
pub struct Builder {
    host: IpAddr,
    port: u16,
    /// an engine of the caller's own, instead of an instance of `config`
    engine: Option<Arc<dyn Engine>>,
    config: InstanceConfig,
    databases: Vec<String>,
    encryption: Encryption,
    identity: Option<(String, String)>,
    certificate_version_1: bool,
    login: (String, String),
    compress_rows: bool,
    time_scale: Option<u8>,
    statement_files: Option<(PathBuf, String)>,
}

impl Builder {
    fn new(engine: Option<Arc<dyn Engine>>) -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            engine,
            encryption: Encryption::default(),
            identity: None,
            certificate_version_1: false,
            config: InstanceConfig { capture: CAPTURE, ..InstanceConfig::default() },
            databases: Vec::new(),
            login: ("sa".into(), InstanceConfig::default().sa_password),
            compress_rows: true,
            time_scale: None,
            statement_files: None,
        }
    }

    /// The address to listen on; 127.0.0.1 unless said otherwise.
    pub fn host(mut self, host: IpAddr) -> Self {
        self.host = host;
        self
    }

    /// 0, the default, takes any free port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The login that [`Server::connection_string`] names. `sa`'s password is what is said here;
    /// another login is made, a member of sysadmin.
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = (user.into(), password.into());
        self
    }

    pub fn tls(mut self, encryption: Encryption) -> Self {
        self.encryption = encryption;
        self
    }

    /// The certificate and its key, in PEM; without one, the server makes its own.
    pub fn certificate(mut self, certificate_pem: &str, key_pem: &str) -> Self {
        self.identity = Some((certificate_pem.into(), key_pem.into()));
        self
    }

    /// The server makes its own certificate, of X.509 version 1.
    pub fn certificate_version_1(mut self) -> Self {
        (self.identity, self.certificate_version_1) = (None, true);
        self
    }

    /// Whether rows of many NULLs are sent with a bitmap (NBCROW). They are, unless said otherwise.
    pub fn compress_rows(mut self, compress: bool) -> Self {
        self.compress_rows = compress;
        self
    }

    /// Describes `time`, `datetime2` and `datetimeoffset` columns of every result with this scale,
    /// whatever they were declared with, as servers do that only speak like SQL Server; digits
    /// beyond it are not sent.
    pub fn time_scale(mut self, scale: u8) -> Self {
        self.time_scale = Some(scale);
        self
    }

    /// Has all of this process's servers leave a file in `folder` for each name of their T-SQL
    /// surface that is used.
    pub fn surface_files(self, folder: impl Into<PathBuf>) -> Self {
        // A folder that cannot be made leaves no files, and everything is told as unused.
        let _ = crate::usage::record_in(folder.into());
        self
    }

    /// Writes every distinct statement of the applications whose name starts so to a file of its
    /// own in that folder.
    pub fn statement_files(mut self, folder: impl Into<PathBuf>, application_prefix: &str) -> Self {
        self.statement_files = Some((folder.into(), application_prefix.into()));
        self
    }

    /// Makes this database at the start. May be said several times.
    pub fn database(mut self, name: &str) -> Self {
        self.databases.push(name.into());
        self
    }

    /// @@SERVERNAME
    pub fn server_name(mut self, name: &str) -> Self {
        self.config.server_name = name.into();
        self
    }

    /// The seed of everything random in the engine.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// How capture behaves: after a random delay of up to 100 ms, and a look at an idle log every
    /// 50 ms, unless said otherwise.
    pub fn capture(mut self, capture: CaptureConfig) -> Self {
        self.config.capture = capture;
        self
    }

    /// Listens, on the caller's runtime.
    pub async fn start(self) -> io::Result<Server> {
        let listener = TcpListener::bind((self.host, self.port)).await?;
        let addr = listener.local_addr()?;
        let tls = match &self.identity {
            Some((certificate, key)) => TlsIdentity::from_pem(certificate, key)?,
            None => TlsIdentity::self_signed(self.certificate_version_1)?,
        };
        let mut config = self.config;
        let mut set_up = Vec::new();
        if self.login.0 == "sa" {
            config.sa_password.clone_from(&self.login.1);
        } else {
            let (name, password) =
                (self.login.0.replace(']', "]]"), self.login.1.replace('\'', "''"));
            set_up.push(format!("CREATE LOGIN [{name}] WITH PASSWORD = '{password}'"));
            set_up.push(format!("ALTER SERVER ROLE sysadmin ADD MEMBER [{name}]"));
        }
        set_up.extend(
            self.databases
                .iter()
                .map(|name| format!("CREATE DATABASE [{}]", name.replace(']', "]]"))),
        );
        let server_name = config.server_name.clone();
        let (engine, instance, set_up) = match self.engine {
            Some(engine) => (engine, None, Vec::new()),
            None => {
                let instance = Instance::new(config, &[&cdc::EXTENSION]);
                agent::start(&instance)?;
                (Arc::new(instance.clone()) as Arc<dyn Engine>, Some(instance), set_up)
            }
        };
        let shared = Arc::new(Shared {
            engine,
            faults: Faults::default(),
            registry: Arc::new(Registry::default()),
            tls,
            encryption: self.encryption,
            server_name,
            compress_rows: self.compress_rows,
            time_scale: self.time_scale,
            statement_files: self
                .statement_files
                .map(|(folder, prefix)| StatementFiles::new(folder, &prefix))
                .transpose()?,
            redirect: Mutex::default(),
            generation: watch::Sender::new(0),
            accepting: watch::Sender::new(true),
        });
        let (stop, stopped) = watch::channel(false);
        let accepting = tokio::spawn(accept(shared.clone(), listener, stopped));
        let server =
            Server { shared, instance, addr, login: self.login, stop, accepting: Some(accepting) };
        for statement in set_up {
            server.sql(&statement).await.map_err(io::Error::other)?;
        }
        Ok(server)
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut accepting = shared.accepting.subscribe();
    loop {
        let may_accept = *accepting.borrow_and_update();
        tokio::select! {
            // The sender is the server: when it is dropped, so is this loop's reason.
            _ = stopped.changed() => break,
            _ = accepting.changed() => {}
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if may_accept => match accepted {
                Ok((tcp, peer)) => drop(connections.spawn(connect::serve(shared.clone(), tcp, peer))),
                // Out of file descriptors, or a client gone already: the next may do better.
                Err(_) => tokio::task::yield_now().await,
            },
        }
    }
    drop(listener);
    shared.generation.send_modify(|generation| *generation += 1);
    while connections.join_next().await.is_some() {}
}

/// A running server. Dropping it ends all connections and stops listening; [`Server::shutdown`]
/// waits for that, too.
pub struct Server {
    shared: Arc<Shared>,
    instance: Option<Arc<Instance>>,
    addr: SocketAddr,
    login: (String, String),
    stop: watch::Sender<bool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// A fresh SQL Server, on a port of its own.
    pub fn builder() -> Builder {
        Builder::new(None)
    }

    /// A server for an engine of the caller's own: login and databases are that engine's business.
    pub fn with_engine(engine: Arc<dyn Engine>) -> Builder {
        Builder::new(Some(engine))
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// In ADO.NET's form; encrypted only where the server insists.
    pub fn connection_string(&self, database: &str) -> String {
        let (user, password) = &self.login;
        let encrypt = match self.shared.encryption {
            Encryption::NotSupported | Encryption::LoginOnly => "false",
            Encryption::Required => "true",
            Encryption::Strict => "strict",
        };
        format!(
            "Server=tcp:{},{};User ID={user};Password='{}';Database={database};Encrypt={encrypt};TrustServerCertificate=true",
            self.addr.ip(),
            self.addr.port(),
            password.replace('\'', "''")
        )
    }

    /// The server's certificate in PEM, for a client to trust.
    pub fn certificate_pem(&self) -> &str {
        &self.shared.tls.certificate_pem
    }

    /// The engine's own instance: its clock, and what no statement can do to its databases
    /// ([`crate::cdc`]). `None` for a foreign engine.
    pub fn instance(&self) -> Option<&Arc<Instance>> {
        self.instance.as_ref()
    }

    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Runs a script in a session of its own, in that database; lines that are `GO` end a batch.
    pub async fn sql_in(&self, database: &str, script: &str) -> SqlResult<Answer> {
        let shared = self.shared.clone();
        let (database, script) = (database.to_owned(), script.to_owned());
        let ran = tokio::task::spawn_blocking(move || {
            let cancel = CancelFlag::default();
            let registration = shared.registry.register_direct(cancel.clone());
            let info = LoginInfo { cancel, ..LoginInfo::trusted(&database, registration.spid()) };
            let mut engine = shared.engine.login(info)?;
            direct::run_script(engine.as_mut(), &script)
        });
        ran.await.unwrap_or_else(|failed| {
            Err(SqlError::new(596, 21, format!("the session ended: {failed}")))
        })
    }

    /// [`Server::sql_in`] `master`.
    pub async fn sql(&self, script: &str) -> SqlResult<Answer> {
        self.sql_in("master", script).await
    }

    /// The rows of a script's last result set.
    pub async fn query(&self, database: &str, script: &str) -> SqlResult<Vec<Vec<Value>>> {
        Ok(self
            .sql_in(database, script)
            .await?
            .results
            .pop()
            .map(|result| result.rows)
            .unwrap_or_default())
    }

    /// Connections that are logged in or logging in.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.registry.connections()
    }

    pub fn connection_count(&self) -> ConnectionCount {
        self.shared.registry.count()
    }

    /// Of one application's connections.
    pub fn connection_count_of(&self, application: &str) -> ConnectionCount {
        self.shared.registry.count_of(application)
    }

    /// Waits until there are exactly that many connections.
    pub async fn wait_for_connections(&self, count: usize) {
        self.shared.registry.wait_for_count(count).await;
    }

    /// Ends one connection, as KILL does; false when there is none of that number.
    pub fn kill(&self, spid: u16) -> bool {
        self.shared.registry.kill(spid)
    }

    /// Starts (with an empty log) or stops keeping the statements that come over the wire.
    pub fn log_statements(&self, enabled: bool) {
        self.shared.registry.log_statements(enabled);
    }

    /// The statements kept, oldest first.
    pub fn statements(&self) -> Vec<StatementRecord> {
        self.shared.registry.statements()
    }

    /// From now on every login that succeeds is sent to another server, as Azure's gateway and
    /// read-intent routing do; `None`: it stays.
    pub fn redirect_logins(&self, to: Option<(&str, u16)>) {
        *self.shared.redirect.lock().unwrap_or_else(PoisonError::into_inner) =
            to.map(|(host, port)| (host.to_owned(), port));
    }

    /// New connections wait (the kernel takes them) until [`Server::resume_accepting`].
    pub fn pause_accepting(&self) {
        self.shared.accepting.send_replace(false);
    }

    pub fn resume_accepting(&self) {
        self.shared.accepting.send_replace(true);
    }

    /// Ends all connections and rolls their transactions back; data and port stay.
    pub async fn restart(&self) {
        self.pause_accepting();
        self.shared.generation.send_modify(|generation| *generation += 1);
        self.wait_for_connections(0).await;
        self.resume_accepting();
    }

    /// Stops listening, ends all connections, and waits until they have ended.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Some(accepting) = self.accepting.take() {
            // It only fails when it was aborted or panicked, and then there is nothing to wait for.
            let _ = accepting.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // With the task go its connections, and with each connection's task its thread is told to
        // end.
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addr", &self.addr).finish_non_exhaustive()
    }
}
