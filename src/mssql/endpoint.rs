//! Where a server is and how to log in there: what a connection string or the `DEST_` variables come down to.

use crate::model::{name::Ident, secret::Secret};
use std::{path::PathBuf, time::Duration};
use tiberius::{AuthMethod, Config, EncryptionLevel};

/// How much of the conversation is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypt {
    /// Nothing, not even the login: go-mssqldb's `encrypt=disable`.
    Off,
    /// Only the login, where the server does not ask for more.
    LoginOnly,
    /// Everything.
    Full,
    /// TDS 8.0: TLS before the first TDS byte.
    Strict,
}

/// Whose certificate is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The machine's certificate authorities.
    System,
    /// Those and the ones in this file (PEM, DER or CRT).
    Authority(PathBuf),
    /// Anyone's.
    Anything,
}

/// A server and a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    /// Counts unless there is an instance.
    pub port: u16,
    /// A named instance, whose port SQL Server Browser is asked for at every connection.
    pub instance: Option<String>,
    pub user: String,
    pub password: Secret,
    /// The account that runs the service logs in, without user and password; see [`INTEGRATED_AUTH`].
    pub integrated: bool,
    /// The database named in the string; mappings name their own.
    pub database: Option<String>,
    pub encrypt: Encrypt,
    pub trust: Trust,
    /// The name expected in the certificate, where it is not the host's.
    pub certificate_host: Option<String>,
    pub application: String,
    pub workstation: Option<String>,
    pub read_only_intent: bool,
    pub multi_subnet_failover: bool,
    pub packet_size: Option<u32>,
    /// For TCP, and once more for TLS and login.
    pub connect_timeout: Duration,
}

/// What `sys.dm_exec_sessions.program_name` shows unless a connection string says otherwise.
pub const APPLICATION: &str = "dbaops-dataflow";
pub const PORT: u16 = 1433;
/// Whether this build knows [`Endpoint::integrated`] logins.
pub const INTEGRATED_AUTH: bool = cfg!(feature = "integrated-auth");
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

impl Endpoint {
    pub fn new(host: impl Into<String>, port: u16, user: impl Into<String>, password: Secret) -> Self {
        Endpoint {
            host: host.into(),
            port,
            instance: None,
            user: user.into(),
            password,
            integrated: false,
            database: None,
            encrypt: Encrypt::Full,
            trust: Trust::System,
            certificate_host: None,
            application: APPLICATION.to_owned(),
            workstation: None,
            read_only_intent: false,
            multi_subnet_failover: false,
            packet_size: None,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }

    /// `host`, `host,port` or `host\instance`, as SQL Server tools write it.
    pub fn place(&self) -> String {
        if let Some(instance) = &self.instance {
            return format!("{}\\{instance}", self.host);
        }
        if self.port == PORT { self.host.clone() } else { format!("{},{}", self.host, self.port) }
    }

    /// Whether the host is this machine: nobody can sit in between.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    pub(super) fn redirected(&self, host: String, port: u16) -> Self {
        // A routed host may carry an instance name, which the port makes unnecessary.
        let host = host.split('\\').next().unwrap_or_default().to_owned();
        Endpoint { host, port, instance: None, ..self.clone() }
    }

    #[cfg(feature = "integrated-auth")]
    fn login(&self) -> AuthMethod {
        if self.integrated { AuthMethod::Integrated } else { AuthMethod::sql_server(&self.user, self.password.reveal()) }
    }

    #[cfg(not(feature = "integrated-auth"))]
    fn login(&self) -> AuthMethod {
        AuthMethod::sql_server(&self.user, self.password.reveal())
    }

    pub(super) fn driver_config(&self, database: &Ident) -> Config {
        let mut config = Config::new();
        config.host(&self.host);
        config.port(self.port);
        config.database(database.as_str());
        config.application_name(&self.application);
        if let Some(workstation) = &self.workstation {
            config.client_name(workstation);
        }
        config.authentication(self.login());
        config.encryption(match self.encrypt {
            Encrypt::Off => EncryptionLevel::NotSupported,
            Encrypt::LoginOnly => EncryptionLevel::Off,
            Encrypt::Full => EncryptionLevel::Required,
            Encrypt::Strict => EncryptionLevel::Strict,
        });
        match &self.trust {
            Trust::System => {}
            Trust::Authority(path) => config.trust_cert_ca(path.display()),
            Trust::Anything => config.trust_cert(),
        }
        if let Some(host) = &self.certificate_host {
            config.hostname_in_certificate(host);
        }
        config.readonly(self.read_only_intent);
        if let Some(size) = self.packet_size {
            config.packet_size(size);
        }
        config.handshake_timeout(Some(self.connect_timeout));
        // Waits are bounded by `Session`, which knows what it waits for.
        config.command_timeout(None);
        config
    }
}

/// Whether a host name means this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "."
        || host.eq_ignore_ascii_case("localhost")
        || host.eq_ignore_ascii_case("(local)")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
