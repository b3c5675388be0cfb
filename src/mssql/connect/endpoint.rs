//! An endpoint: a server's address and the login, read from a connection string or the `DEST_`
//! variables.

use crate::mssql::classify;
use crate::{
    error::Result,
    model::{name::Ident, secret::Secret},
};
use std::{path::PathBuf, time::Duration};
use tiberius::{AuthMethod, Config, EncryptionLevel};

/// How much of the traffic is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypt {
    /// Nothing, not even the login: go-mssqldb's `encrypt=disable`.
    Off,
    /// Only the login, unless the server requires more.
    LoginOnly,
    /// Everything.
    Full,
    /// TDS 8.0: TLS before the first TDS byte.
    Strict,
}

/// Which server certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those of the machine's certificate authorities.
    System,
    /// Those, and the authorities in this file (PEM, DER or CRT).
    Authority(PathBuf),
    /// Any certificate when the server is on this machine, otherwise like `System`. It depends on the
    /// address that was connected to, also after a redirect.
    SystemUnlessLoopback,
    /// Any certificate.
    Any,
}

impl Trust {
    /// Whether certificates are accepted without a check; `loopback`: the server is on this machine.
    pub fn trusts_any_certificate(&self, loopback: bool) -> bool {
        match self {
            Trust::Any => true,
            Trust::SystemUnlessLoopback => loopback,
            Trust::System | Trust::Authority(_) => false,
        }
    }
}

/// A server and a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    /// Not used when there is an instance.
    pub port: u16,
    /// A named instance; every connection asks SQL Server Browser for its port.
    pub instance: Option<String>,
    pub user: String,
    pub password: Secret,
    /// Log in as the account that runs the service, without user and password; see
    /// [`INTEGRATED_AUTH`].
    pub integrated: bool,
    /// The database in the connection string. Mappings name their own.
    pub database: Option<String>,
    pub encrypt: Encrypt,
    pub trust: Trust,
    /// The name expected in the certificate, when it is not the host's. With a `*` (as in JDBC), a
    /// pattern: a host that matches it must have a certificate for its own name.
    pub certificate_host: Option<String>,
    pub application: String,
    pub workstation: Option<String>,
    pub read_only_intent: bool,
    pub multi_subnet_failover: bool,
    pub packet_size: Option<u32>,
    /// Limits TCP connecting, and separately TLS and login.
    pub connect_timeout: Duration,
}

/// The default of `sys.dm_exec_sessions.program_name`.
pub const APPLICATION: &str = "dbaops-dataflow";
pub const PORT: u16 = 1433;
/// Whether this build supports [`Endpoint::integrated`] logins.
pub const INTEGRATED_AUTH: bool = cfg!(feature = "integrated-auth");
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest packet of the protocol.
pub(in crate::mssql) const PACKET_BYTES_MAX: u32 = 32_767;
/// The largest with TLS, where a packet has to be in one record of at most 16,384 bytes: SQL Server
/// closes a connection whose packet comes in two. Its own limit is 16,383.
/// <https://learn.microsoft.com/sql/database-engine/configure-windows/configure-the-network-packet-size-server-configuration-option>,
/// <https://github.com/dotnet/SqlClient/issues/2141>,
/// <https://github.com/denisenkom/go-mssqldb/issues/166>
pub(in crate::mssql) const PACKET_BYTES_ENCRYPTED_MAX: u32 = 16_000;

impl Endpoint {
    pub fn new(
        host: impl Into<String>,
        port: u16,
        user: impl Into<String>,
        password: Secret,
    ) -> Self {
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
    pub fn server_name(&self) -> String {
        if let Some(instance) = &self.instance {
            return format!("{}\\{instance}", self.host);
        }
        if self.port == PORT { self.host.clone() } else { format!("{},{}", self.host, self.port) }
    }

    /// The name that the server's certificate must have. When the host matches a pattern, it is the
    /// host's own name, which is no weaker. (Azure's portal writes `*.database.windows.net`, which
    /// also matches the servers that its gateway redirects to.)
    pub(in crate::mssql) fn certificate_name(&self) -> Result<&str> {
        let Some(name) = self.certificate_host.as_deref() else { return Ok(&self.host) };
        let Some((before, behind)) = name.split_once('*') else { return Ok(name) };
        let host = self.host.to_lowercase();
        let fits = host
            .strip_prefix(&before.to_lowercase())
            .and_then(|rest| rest.strip_suffix(&behind.to_lowercase()))
            .is_some_and(|rest| !rest.is_empty());
        if fits {
            Ok(&self.host)
        } else {
            Err(classify::tls_failed(&format!(
                "{} does not match {name}, the pattern for names in its certificate",
                self.host
            )))
        }
    }

    pub(in crate::mssql) fn redirected(&self, host: String, port: u16) -> Self {
        // The host may come with an instance name, which the port makes unnecessary.
        let host = host.split('\\').next().unwrap_or_default().to_owned();
        Endpoint { host, port, instance: None, ..self.clone() }
    }

    #[cfg(feature = "integrated-auth")]
    fn auth_method(&self) -> AuthMethod {
        if self.integrated {
            AuthMethod::Integrated
        } else {
            AuthMethod::sql_server(&self.user, self.password.reveal())
        }
    }

    #[cfg(not(feature = "integrated-auth"))]
    fn auth_method(&self) -> AuthMethod {
        AuthMethod::sql_server(&self.user, self.password.reveal())
    }

    /// The packet size to ask for, at most `most`.
    pub(in crate::mssql) fn packet_bytes(&self, most: u32) -> Option<u32> {
        self.packet_size.map(|size| size.min(most))
    }

    /// `loopback`: the server is on this machine.
    pub(in crate::mssql) fn driver_config(
        &self,
        database: &Ident,
        loopback: bool,
    ) -> Result<Config> {
        let mut config = Config::new();
        config.host(&self.host);
        config.port(self.port);
        config.database(database.as_str());
        config.application_name(&self.application);
        if let Some(workstation) = &self.workstation {
            config.client_name(workstation);
        }
        config.authentication(self.auth_method());
        config.encryption(match self.encrypt {
            Encrypt::Off => EncryptionLevel::NotSupported,
            Encrypt::LoginOnly => EncryptionLevel::Off,
            Encrypt::Full => EncryptionLevel::Required,
            Encrypt::Strict => EncryptionLevel::Strict,
        });
        if self.trust.trusts_any_certificate(loopback) {
            config.trust_cert();
        } else {
            if let Trust::Authority(path) = &self.trust {
                config.trust_cert_ca(path.display());
            }
            if self.encrypt != Encrypt::Off {
                config.hostname_in_certificate(self.certificate_name()?);
            }
        }
        config.readonly(self.read_only_intent);
        // It is not known yet whether the server will encrypt more than the login.
        let most = if self.encrypt == Encrypt::Off {
            PACKET_BYTES_MAX
        } else {
            PACKET_BYTES_ENCRYPTED_MAX
        };
        if let Some(size) = self.packet_bytes(most) {
            config.packet_size(size);
        }
        config.handshake_timeout(Some(self.connect_timeout));
        // `Session` limits each wait.
        config.command_timeout(None);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str) -> Endpoint {
        Endpoint::new(host, PORT, "u", Secret::new("p"))
    }

    #[test]
    fn a_pattern_of_names_is_matched_again_where_a_login_is_redirected() {
        let azure = Endpoint {
            certificate_host: Some("*.database.windows.net".into()),
            ..endpoint("shop.Database.windows.net")
        };
        assert_eq!(azure.certificate_name().unwrap(), "shop.Database.windows.net");
        let worker =
            azure.redirected("a1.tr7.westeurope1-a.worker.database.windows.net\\b2".into(), 11_002);
        assert_eq!(
            worker.certificate_name().unwrap(),
            "a1.tr7.westeurope1-a.worker.database.windows.net"
        );
        for elsewhere in ["database.windows.net.example.com", ".database.windows.net", "127.0.0.1"]
        {
            let refused = azure
                .redirected(elsewhere.into(), 1433)
                .certificate_name()
                .unwrap_err()
                .to_string();
            assert!(refused.contains("*.database.windows.net"), "{elsewhere}: {refused}");
        }
        let named =
            Endpoint { certificate_host: Some("db.example.com".into()), ..endpoint("10.0.0.5") };
        assert_eq!(named.certificate_name().unwrap(), "db.example.com");
        assert_eq!(
            named.redirected("other".into(), 1).certificate_name().unwrap(),
            "db.example.com",
            "a name is meant for all of them"
        );
        assert_eq!(
            endpoint("h").redirected("other".into(), 1).certificate_name().unwrap(),
            "other"
        );
    }

    #[test]
    fn packets_fit_into_a_tls_record_unless_everything_is_in_the_clear() {
        let asked = |encrypt| {
            let endpoint = Endpoint { encrypt, packet_size: Some(32_767), ..endpoint("h") };
            endpoint.driver_config(&Ident::new("d"), false).unwrap().get_packet_size()
        };
        assert_eq!(asked(Encrypt::Off), Some(32_767));
        for encrypt in [Encrypt::LoginOnly, Encrypt::Full, Encrypt::Strict] {
            assert_eq!(asked(encrypt), Some(PACKET_BYTES_ENCRYPTED_MAX), "{encrypt:?}");
        }
    }
}
