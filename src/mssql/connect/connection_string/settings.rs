//! The settings that the keys of a connection string stand for, in any dialect.

use std::{path::PathBuf, time::Duration};

use super::{
    server_name::parse_server,
    syntax::{KeyValue, config_error, flag, is_password, normalized},
};
use crate::{
    error::{Error, Result},
    model::secret::Secret,
    mssql::connect::endpoint::{Encrypt, Endpoint, INTEGRATED_AUTH, PORT, Trust},
};

/// Longest connect timeout a string can ask for.
const CONNECT_TIMEOUT_MAX_S: u64 = 300;
/// The timeout of a login for which go-mssqldb's `connection timeout=0` sets no limit.
const CONNECT_TIMEOUT_DEFAULT_S: u64 = 15;

/// The result of reading a connection string.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub endpoint: Endpoint,
    /// Unknown keys, and settings that have no effect here.
    pub warnings: Vec<String>,
}

#[derive(Default)]
pub(super) struct Settings {
    pub(super) integrated: bool,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) instance: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: Option<String>,
    pub(super) encrypt: Option<Encrypt>,
    pub(super) trust_any: Option<bool>,
    pub(super) authority: Option<PathBuf>,
    pub(super) certificate_host: Option<String>,
    pub(super) application: Option<String>,
    pub(super) workstation: Option<String>,
    pub(super) read_only_intent: bool,
    pub(super) multi_subnet_failover: bool,
    pub(super) packet_size: Option<u32>,
    pub(super) connect_timeout_s: Option<u64>,
    pub(super) warnings: Vec<String>,
}

/// A pair whose key is normalized, for the functions that each know some of the keys.
struct Setting<'a> {
    key: &'a str,
    /// The key as it was written, for messages.
    spelled: &'a str,
    value: &'a str,
    position: usize,
}

impl Setting<'_> {
    fn error(&self, wanted: &str) -> Error {
        let Setting { spelled, position, .. } = self;
        config_error(format!(
            "{spelled} at character {position} of the connection string must be {wanted}"
        ))
    }

    fn flag(&self) -> Result<bool> {
        flag(self.value).ok_or_else(|| self.error("true or false"))
    }

    fn opt_text(&self) -> Option<String> {
        Some(self.value.to_owned()).filter(|value| !value.is_empty())
    }
}

impl Settings {
    pub(super) fn set_server(&mut self, text: &str, position: usize) -> Result<()> {
        let server = parse_server(text).map_err(|reason| {
            config_error(format!(
                "the server at character {position} of the connection string {reason}"
            ))
        })?;
        self.host = Some(server.host);
        self.instance = server.instance.or(self.instance.take());
        self.port = server.port.or(self.port);
        Ok(())
    }

    pub(super) fn set_all(&mut self, pairs: Vec<KeyValue>) -> Result<()> {
        let mut after_password = false;
        for KeyValue { key: spelled, value, position } in pairs {
            let key = normalized(&spelled);
            let setting = Setting { key: &key, spelled: &spelled, value: &value, position };
            let is_known = self.set_host(&setting)?
                || self.set_login(&setting)?
                || self.set_encryption(&setting)?
                || self.set_connection(&setting)?
                || self.warn_unsupported(&setting)
                || IGNORED.contains(&setting.key);
            if !is_known {
                self.warnings.push(unknown_key(&setting, after_password));
            }
            // An unquoted password with several ; leaves several pieces, also after a misspelled
            // key for the password.
            after_password =
                is_password(&key) || (!is_known && (after_password || may_mean_password(&key)));
        }
        Ok(())
    }

    fn set_host(&mut self, setting: &Setting<'_>) -> Result<bool> {
        match setting.key {
            "server" | "datasource" | "address" | "addr" | "networkaddress" | "servername" => {
                self.set_server(setting.value, setting.position)?;
            }
            "port" | "portnumber" => {
                let port = setting.value.parse().ok().filter(|port| *port > 0);
                self.port = Some(port.ok_or_else(|| setting.error("a port from 1 to 65535"))?);
            }
            "instancename" if !setting.value.is_empty() => self.instance = setting.opt_text(),
            "database" | "initialcatalog" | "databasename" => self.database = setting.opt_text(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_login(&mut self, setting: &Setting<'_>) -> Result<bool> {
        let Setting { key, spelled, value, position } = *setting;
        match key {
            "userid" | "uid" | "user" | "username" => self.user = Some(value.to_owned()),
            _ if is_password(key) => self.password = Some(Secret::new(value)),
            "integratedsecurity" | "trustedconnection" => {
                self.integrated = value.eq_ignore_ascii_case("sspi") || setting.flag()?;
                if self.integrated && !INTEGRATED_AUTH {
                    return Err(config_error(format!(
                        "{spelled} at character {position} of the connection string asks for Windows authentication, which this build \
                         does not have: give a user and a password, or build with --features integrated-auth"
                    )));
                }
            }
            "authentication" | "fedauth"
                if !matches!(normalized(value).as_str(), "" | "sqlpassword" | "notspecified") =>
            {
                return Err(config_error(format!(
                    "{spelled} at character {position} of the connection string asks for an authentication method that is not supported: \
                     give a user and a password"
                )));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_encryption(&mut self, setting: &Setting<'_>) -> Result<bool> {
        match setting.key {
            "encrypt" => {
                self.encrypt = Some(match setting.value.to_lowercase().as_str() {
                    "disable" | "disabled" => Encrypt::Off,
                    "false" | "optional" | "no" | "0" | "f" => Encrypt::LoginOnly,
                    "true" | "mandatory" | "yes" | "1" | "t" => Encrypt::Full,
                    "strict" => Encrypt::Strict,
                    _ => {
                        let wanted = "true, false, strict, mandatory, optional or disable";
                        return Err(setting.error(wanted));
                    }
                });
            }
            "trustservercertificate" => self.trust_any = Some(setting.flag()?),
            "certificate" | "servercertificate" | "trustservercertificateca"
                if !setting.value.is_empty() =>
            {
                self.authority = Some(PathBuf::from(setting.value));
            }
            "hostnameincertificate" => self.certificate_host = setting.opt_text(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set_connection(&mut self, setting: &Setting<'_>) -> Result<bool> {
        match setting.key {
            "appname" | "app" | "applicationname" => self.application = setting.opt_text(),
            "workstationid" | "wsid" => self.workstation = setting.opt_text(),
            "applicationintent" => {
                self.read_only_intent = match setting.value.to_lowercase().as_str() {
                    "readonly" => true,
                    "readwrite" => false,
                    _ => return Err(setting.error("ReadOnly or ReadWrite")),
                };
            }
            "multisubnetfailover" => self.multi_subnet_failover = setting.flag()?,
            "packetsize" => {
                let size = setting.value.parse().ok().filter(|size| (512..=32767).contains(size));
                self.packet_size = Some(size.ok_or_else(|| setting.error("from 512 to 32767"))?);
            }
            "connecttimeout" | "connectiontimeout" | "timeout" | "dialtimeout" | "logintimeout" => {
                self.set_connect_timeout(setting)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Several keys may set it; the longest counts. 0 means "no limit" to drivers; here there is
    /// always one.
    fn set_connect_timeout(&mut self, setting: &Setting<'_>) -> Result<()> {
        let Setting { key, value, .. } = *setting;
        let seconds: u64 = value.parse().map_err(|_| setting.error("a number of seconds"))?;
        let seconds = match seconds {
            0 => CONNECT_TIMEOUT_MAX_S,
            seconds => seconds.min(CONNECT_TIMEOUT_MAX_S),
        };
        self.connect_timeout_s = match self.connect_timeout_s {
            Some(old) if value == "0" => Some(old),
            // go-mssqldb's `connection timeout=0` does not concern connecting
            None if value == "0" && key == "connectiontimeout" => Some(CONNECT_TIMEOUT_DEFAULT_S),
            old => Some(old.unwrap_or_default().max(seconds)),
        };
        Ok(())
    }

    fn warn_unsupported(&mut self, setting: &Setting<'_>) -> bool {
        let why = match setting.key {
            "failoverpartner" | "failoverport" => "database mirroring is not supported",
            "columnencryption" | "columnencryptionsetting" if setting.flag().unwrap_or(true) => {
                "encrypted columns cannot be read"
            }
            _ => return false,
        };
        self.warnings.push(format!("{} is ignored: {why}", setting.spelled));
        true
    }

    /// The endpoint that the settings describe.
    pub(super) fn finish(mut self) -> Result<Parsed> {
        let host = self
            .host
            .take()
            .ok_or_else(|| config_error("the connection string names no server"))?;
        let user = self.user.take().filter(|user| !user.is_empty());
        let user = if self.integrated {
            user.unwrap_or_default()
        } else {
            user.ok_or_else(|| config_error("the connection string names no user"))?
        };
        let mut endpoint = Endpoint::new(
            host,
            self.port.unwrap_or(PORT),
            user,
            self.password.take().unwrap_or_default(),
        );
        // An explicit port makes the lookup of the instance unnecessary.
        endpoint.instance = self.instance.filter(|_| self.port.is_none());
        endpoint.integrated = self.integrated;
        endpoint.database = self.database;
        endpoint.encrypt = self.encrypt.unwrap_or(Encrypt::Full);
        endpoint.trust = match (self.trust_any, self.authority, endpoint.encrypt) {
            (Some(true), ..) => Trust::Any,
            (_, Some(path), _) => Trust::Authority(path),
            // Encrypting only the login does not protect from an attacker in between anyway.
            (None, None, Encrypt::LoginOnly) => Trust::Any,
            (_, None, _) => Trust::System,
        };
        endpoint.certificate_host = self.certificate_host;
        if let Some(application) = self.application {
            endpoint.application = application;
        }
        endpoint.workstation = self.workstation;
        endpoint.read_only_intent = self.read_only_intent;
        endpoint.multi_subnet_failover = self.multi_subnet_failover;
        endpoint.packet_size = self.packet_size;
        if let Some(seconds) = self.connect_timeout_s {
            endpoint.connect_timeout = Duration::from_secs(seconds);
        }
        Ok(Parsed { endpoint, warnings: self.warnings })
    }
}

/// The warning about an unknown key. A key that may be a piece of a password is not shown.
fn unknown_key(setting: &Setting<'_>, after_password: bool) -> String {
    let Setting { spelled, position, .. } = setting;
    if after_password {
        format!(
            "an unknown key after the password, at character {position} of the connection string (a password that holds a ; must be in \
             double quotes)"
        )
    } else if spelled.chars().all(|c| c.is_alphabetic() || c == ' ' || c == '_') {
        format!("unknown key {spelled} at character {position} of the connection string")
    } else {
        format!("an unknown key at character {position} of the connection string")
    }
}

/// Whether an unknown key may be a misspelled one for the password.
fn may_mean_password(key: &str) -> bool {
    key.starts_with("pa") || key.starts_with("pw") || key.contains("word") || key.contains("secret")
}

/// Keys of other drivers about pools, languages and retries, which change nothing here.
const IGNORED: &[&str] = &[
    "pooling",
    "maxpoolsize",
    "minpoolsize",
    "poolblockingperiod",
    "loadbalancetimeout",
    "connectionlifetime",
    "connectionreset",
    "multipleactiveresultsets",
    "marsconnection",
    "persistsecurityinfo",
    "connectretrycount",
    "connectretryinterval",
    "enlist",
    "keepalive",
    "driver",
    "log",
    "logparam",
    "disableretry",
    "protocol",
    "network",
    "networklibrary",
    "net",
    "commandtimeout",
    "sockettimeout",
    "querytimeout",
    "locktimeout",
    "sendstringparametersasunicode",
    "responsebuffering",
    "selectmethod",
    "transparentnetworkipresolution",
    "typesystemversion",
    "replication",
    "userinstance",
    "transactionbinding",
    "tlsmin",
    "sslprotocol",
    "instancename",
    "certificate",
    "servercertificate",
    "trustservercertificateca",
    "authentication",
    "fedauth",
    "columnencryption",
    "columnencryptionsetting",
    "serverspn",
    "ipaddresspreference",
    "language",
    "currentlanguage",
];
