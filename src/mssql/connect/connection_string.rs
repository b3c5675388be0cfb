//! Connection strings as people have them, in four dialects.
//!
//! The driver's own parser refuses what this service's users were told to write (`encrypt=disable`,
//! `port=1433`, go-mssqldb's URLs, passwords beyond ASCII), so strings are read here, and the
//! driver is configured field by field:
//!
//! - `key=value;…` as go-mssqldb and ADO.NET write it, keys without regard to case, spaces or
//!   underscores, values plain, in `"…"`, `'…'` (doubled inside) or in `{…}` (`}}` inside).
//!   <https://github.com/microsoft/go-mssqldb#connection-parameters-and-dsn>,
//!   <https://learn.microsoft.com/dotnet/api/microsoft.data.sqlclient.sqlconnection.connectionstring>
//! - `sqlserver://user:password@host:port/instance?database=…`, percent-encoded
//! - `jdbc:sqlserver://host\instance:port;key=value;…`.
//!   <https://learn.microsoft.com/sql/connect/jdbc/building-the-connection-url>
//! - `odbc:key=value;…`, go-mssqldb's third form.
//!
//! **Encryption follows the string**: `disable` sends everything in the clear, `false` encrypts the
//! login alone (and, as everywhere, believes any certificate for that unless told not to), `true`
//! and `strict` encrypt everything and check the certificate. A string that says nothing gets what
//! today's drivers do: everything encrypted, certificate checked.
//!
//! **No copy of a password stays in memory** but the endpoint's own: what is read on the way is
//! overwritten, and none of it grows, which would leave what it had before behind.
//!
//! **No message shows a value.** An unknown key is named, except behind a password: there it may be
//! a piece of one that holds a `;`.

use crate::mssql::connect::endpoint::{Encrypt, Endpoint, INTEGRATED_AUTH, PORT, Trust};
use crate::{
    error::{Error, Kind, Result},
    model::secret::Secret,
};
use std::{path::PathBuf, time::Duration};
use zeroize::Zeroizing;

/// Longest connect timeout a string can ask for, in seconds.
const CONNECT_TIMEOUT_MAX_S: u64 = 300;

/// What a string says.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub endpoint: Endpoint,
    /// Keys that mean nothing to us, and settings that are not what they seem.
    pub warnings: Vec<String>,
}

/// One `key=value`, and where it began. Also a key may be a piece of a password, where one with a
/// `;` was not quoted.
struct KeyValue {
    key: Zeroizing<String>,
    value: Zeroizing<String>,
    /// in characters, from 1
    at: usize,
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(Kind::Config, message)
}

/// Reads any of the four dialects.
pub fn parse(text: &str) -> Result<Parsed> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(bad("the connection string is empty"));
    }
    let mut settings = Settings::default();
    if let Some(rest) = strip_prefix(trimmed, "jdbc:sqlserver://") {
        let (server, properties) = rest.split_once(';').unwrap_or((rest, ""));
        if !server.is_empty() {
            settings.server(server, 1)?;
        }
        settings.pairs(split(properties)?)?;
    } else if let Some(rest) = strip_prefix(trimmed, "sqlserver://") {
        settings.url(rest)?;
    } else if trimmed
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.chars().all(|c| c.is_ascii_alphabetic() || c == ':'))
    {
        return Err(bad(
            "the connection string is a URL of another kind: sqlserver:// and jdbc:sqlserver:// are known",
        ));
    } else {
        settings.pairs(split(strip_prefix(trimmed, "odbc:").unwrap_or(trimmed))?)?;
    }
    settings.finish()
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len())
        .filter(|start| start.eq_ignore_ascii_case(prefix))
        .and_then(|_| text.get(prefix.len()..))
}

/// Splits `key=value;…`. Positions count characters of the part that is split.
fn split(text: &str) -> Result<Vec<KeyValue>> {
    let mut chars = Zeroizing::new(Vec::with_capacity(text.len()));
    chars.extend(text.chars());
    let of = |range: std::ops::Range<usize>| {
        let mut piece = Zeroizing::new(String::with_capacity(text.len()));
        piece.extend(chars.get(range).unwrap_or_default());
        piece
    };
    let mut pairs: Vec<KeyValue> = Vec::new();
    let mut i = 0;
    loop {
        while chars.get(i).is_some_and(|c| c.is_whitespace() || *c == ';') {
            i += 1;
        }
        if i >= chars.len() {
            return Ok(pairs);
        }
        let at = i + 1;
        let start = i;
        while chars.get(i).is_some_and(|c| *c != '=' && *c != ';') {
            i += 1;
        }
        if chars.get(i) != Some(&'=') {
            let behind_password = pairs.last().is_some_and(|pair| is_password(&normal(&pair.key)));
            return Err(bad(format!(
                "the connection string has something without a value at character {at}{}",
                if behind_password {
                    " (a password that holds a ; must be in double quotes)"
                } else {
                    ""
                }
            )));
        }
        let mut key = of(start..i);
        let length = key.trim_end().len();
        key.truncate(length);
        if key.is_empty() {
            return Err(bad(format!(
                "the connection string has a value without a key at character {at}"
            )));
        }
        i += 1;
        while chars.get(i).is_some_and(|c| c.is_whitespace() && *c != ';') {
            i += 1;
        }
        let close = match chars.get(i) {
            Some('"') => Some('"'),
            Some('\'') => Some('\''),
            Some('{') => Some('}'),
            _ => None,
        };
        let mut value = of(i..i);
        match close {
            Some(close) => {
                let opened = i + 1;
                i += 1;
                loop {
                    match chars.get(i) {
                        Some(c) if *c == close && chars.get(i + 1) == Some(&close) => {
                            value.push(close);
                            i += 2;
                        }
                        Some(c) if *c == close => {
                            i += 1;
                            break;
                        }
                        Some(c) => {
                            value.push(*c);
                            i += 1;
                        }
                        None => {
                            return Err(bad(format!(
                                "the connection string has a quoted value that begins at character {opened} and never ends"
                            )));
                        }
                    }
                }
                while chars.get(i).is_some_and(|c| c.is_whitespace()) {
                    i += 1;
                }
                if chars.get(i).is_some_and(|c| *c != ';') {
                    return Err(bad(format!(
                        "the connection string has something between the end of a quoted value and the next ; at character {}",
                        i + 1
                    )));
                }
            }
            None => {
                let start = i;
                while chars.get(i).is_some_and(|c| *c != ';') {
                    i += 1;
                }
                value = of(start..i);
                let length = value.trim_end().len();
                value.truncate(length);
            }
        }
        pairs.push(KeyValue { key, value, at });
    }
}

/// A key without what does not matter: `User ID`, `user_id` and `userId` are one.
fn normal(key: &str) -> String {
    key.chars()
        .filter(|c| !c.is_whitespace() && *c != '_' && *c != '-')
        .flat_map(char::to_lowercase)
        .collect()
}

/// A key that is not known, and that somebody may have meant for the password's.
fn may_mean_password(key: &str) -> bool {
    key.starts_with("pa") || key.starts_with("pw") || key.contains("word") || key.contains("secret")
}

fn is_password(key: &str) -> bool {
    matches!(key, "password" | "pwd" | "pass")
}

#[derive(Default)]
struct Settings {
    integrated: bool,
    host: Option<String>,
    port: Option<u16>,
    instance: Option<String>,
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    encrypt: Option<Encrypt>,
    trust_anything: Option<bool>,
    authority: Option<PathBuf>,
    certificate_host: Option<String>,
    application: Option<String>,
    workstation: Option<String>,
    read_only_intent: bool,
    multi_subnet_failover: bool,
    packet_size: Option<u32>,
    connect_timeout_s: Option<u64>,
    warnings: Vec<String>,
}

impl Settings {
    fn server(&mut self, text: &str, at: usize) -> Result<()> {
        let server = server(text).map_err(|reason| {
            bad(format!("the server at character {at} of the connection string {reason}"))
        })?;
        self.host = Some(server.host);
        self.instance = server.instance.or(self.instance.take());
        self.port = server.port.or(self.port);
        Ok(())
    }

    fn pairs(&mut self, pairs: Vec<KeyValue>) -> Result<()> {
        let mut behind_password = false;
        for pair in pairs {
            let key = normal(&pair.key);
            let known = self.pair(&key, &pair, behind_password)?;
            // A password with several ; in it leaves several pieces, also behind a key that was to
            // say password and is misspelled.
            behind_password =
                is_password(&key) || (!known && (behind_password || may_mean_password(&key)));
        }
        Ok(())
    }

    /// Whether the key is one that means something.
    fn pair(
        &mut self,
        key: &str,
        KeyValue { key: spelled, value, at }: &KeyValue,
        behind_password: bool,
    ) -> Result<bool> {
        let (spelled, value) = (spelled.as_str(), value.as_str());
        let wrong = |wanted: &str| {
            bad(format!("{spelled} at character {at} of the connection string must be {wanted}"))
        };
        let flag = || flag(value).ok_or_else(|| wrong("true or false"));
        match key {
            "server" | "datasource" | "address" | "addr" | "networkaddress" | "servername" => {
                self.server(value, *at)?
            }
            "port" | "portnumber" => {
                self.port = Some(
                    value
                        .parse()
                        .ok()
                        .filter(|port| *port > 0)
                        .ok_or_else(|| wrong("a port from 1 to 65535"))?,
                );
            }
            "instancename" if !value.is_empty() => self.instance = Some(value.to_owned()),
            "userid" | "uid" | "user" | "username" => self.user = Some(value.to_owned()),
            "password" | "pwd" | "pass" => self.password = Some(Secret::new(value)),
            "database" | "initialcatalog" | "databasename" => {
                self.database = Some(value.to_owned()).filter(|name| !name.is_empty())
            }
            "encrypt" => {
                self.encrypt = Some(match value.to_lowercase().as_str() {
                    "disable" | "disabled" => Encrypt::Off,
                    "false" | "optional" | "no" | "0" | "f" => Encrypt::LoginOnly,
                    "true" | "mandatory" | "yes" | "1" | "t" => Encrypt::Full,
                    "strict" => Encrypt::Strict,
                    _ => return Err(wrong("true, false, strict, mandatory, optional or disable")),
                });
            }
            "trustservercertificate" => self.trust_anything = Some(flag()?),
            "certificate" | "servercertificate" | "trustservercertificateca"
                if !value.is_empty() =>
            {
                self.authority = Some(PathBuf::from(value));
            }
            "hostnameincertificate" => {
                self.certificate_host = Some(value.to_owned()).filter(|name| !name.is_empty())
            }
            "appname" | "app" | "applicationname" => {
                self.application = Some(value.to_owned()).filter(|name| !name.is_empty())
            }
            "workstationid" | "wsid" => {
                self.workstation = Some(value.to_owned()).filter(|name| !name.is_empty())
            }
            "applicationintent" => {
                self.read_only_intent = match value.to_lowercase().as_str() {
                    "readonly" => true,
                    "readwrite" => false,
                    _ => return Err(wrong("ReadOnly or ReadWrite")),
                };
            }
            "multisubnetfailover" => self.multi_subnet_failover = flag()?,
            "packetsize" => {
                self.packet_size = Some(
                    value
                        .parse()
                        .ok()
                        .filter(|size| (512..=32767).contains(size))
                        .ok_or_else(|| wrong("from 512 to 32767"))?,
                );
            }
            "connecttimeout" | "connectiontimeout" | "timeout" | "dialtimeout" | "logintimeout" => {
                let seconds: u64 = value.parse().map_err(|_| wrong("a number of seconds"))?;
                // Everywhere 0 means "no limit"; here everything has one.
                let seconds = if seconds == 0 {
                    CONNECT_TIMEOUT_MAX_S
                } else {
                    seconds.min(CONNECT_TIMEOUT_MAX_S)
                };
                // go-mssqldb's `connection timeout=0` says nothing of the dial.
                self.connect_timeout_s = match (self.connect_timeout_s, seconds) {
                    (Some(old), CONNECT_TIMEOUT_MAX_S) if value == "0" => Some(old),
                    (_, seconds) if value == "0" && key == "connectiontimeout" => {
                        self.connect_timeout_s.or(Some(seconds.min(15)))
                    }
                    (Some(old), seconds) => Some(old.max(seconds)),
                    (None, seconds) => Some(seconds),
                };
            }
            "integratedsecurity" | "trustedconnection" => {
                self.integrated = value.eq_ignore_ascii_case("sspi") || flag()?;
                if self.integrated && !INTEGRATED_AUTH {
                    return Err(bad(format!(
                        "{spelled} at character {at} of the connection string asks for Windows authentication, which this build does not have: \
                         give a user and a password, or build with --features integrated-auth"
                    )));
                }
            }
            "authentication" | "fedauth"
                if !matches!(normal(value).as_str(), "" | "sqlpassword" | "notspecified") =>
            {
                return Err(bad(format!(
                    "{spelled} at character {at} of the connection string asks for a way to log in that is not known: give a user and a password"
                )));
            }
            "failoverpartner" | "failoverport" => {
                self.warnings
                    .push(format!("{spelled} is not followed: database mirroring is not known"));
            }
            "columnencryption" | "columnencryptionsetting" if flag().unwrap_or(true) => {
                self.warnings
                    .push(format!("{spelled} is not followed: encrypted columns cannot be read"));
            }
            // About pools, languages and retries of other drivers: nothing here depends on them.
            "pooling"
            | "maxpoolsize"
            | "minpoolsize"
            | "poolblockingperiod"
            | "loadbalancetimeout"
            | "connectionlifetime"
            | "connectionreset"
            | "multipleactiveresultsets"
            | "marsconnection"
            | "persistsecurityinfo"
            | "connectretrycount"
            | "connectretryinterval"
            | "enlist"
            | "keepalive"
            | "driver"
            | "log"
            | "logparam"
            | "disableretry"
            | "protocol"
            | "network"
            | "networklibrary"
            | "net"
            | "commandtimeout"
            | "sockettimeout"
            | "querytimeout"
            | "locktimeout"
            | "sendstringparametersasunicode"
            | "responsebuffering"
            | "selectmethod"
            | "transparentnetworkipresolution"
            | "typesystemversion"
            | "replication"
            | "userinstance"
            | "transactionbinding"
            | "tlsmin"
            | "sslprotocol"
            | "instancename"
            | "certificate"
            | "servercertificate"
            | "trustservercertificateca"
            | "authentication"
            | "fedauth"
            | "columnencryption"
            | "columnencryptionsetting"
            | "serverspn"
            | "ipaddresspreference"
            | "language"
            | "currentlanguage" => {}
            _ => {
                self.warnings.push(if behind_password {
                    format!(
                        "an unknown key behind the password, at character {at} of the connection string (a password that holds a ; must be in \
                         double quotes)"
                    )
                } else if spelled.chars().all(|c| c.is_alphabetic() || c == ' ' || c == '_') {
                    format!("unknown key {spelled} at character {at} of the connection string")
                } else {
                    // What does not look like a word may be a piece of something else.
                    format!("an unknown key at character {at} of the connection string")
                });
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `user:password@host:port/instance?key=value&…`, what follows `sqlserver://`.
    fn url(&mut self, text: &str) -> Result<()> {
        let (before_query, query) = text.split_once('?').unwrap_or((text, ""));
        let (authority, path) = match before_query.rsplit_once('@') {
            // the ? may be a password's, and then what stands before it is no host: no piece of it
            // may be shown as one
            Some(_) if query.contains('@') => {
                return Err(bad(
                    "an @ stands on both sides of the ? in the connection string: in a login or a value write @ as %40, ? as %3F, / as %2F and : as %3A",
                ));
            }
            Some((login, rest)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                self.user = Some(percent_decoded(user)?);
                if !password.is_empty() {
                    self.password = Some(Secret::new(percent_decoded(password)?));
                }
                rest.split_once('/').unwrap_or((rest, ""))
            }
            None => before_query.split_once('/').unwrap_or((before_query, "")),
        };
        self.server(&percent_decoded(authority)?, 1)?;
        let instance = percent_decoded(path.trim_end_matches('/'))?;
        if !instance.is_empty() {
            self.instance = Some(instance);
        }
        let mut pairs = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let at = 1 + text
                .find(part)
                .map_or(0, |byte| text.get(..byte).map_or(0, |before| before.chars().count()));
            pairs.push(KeyValue {
                key: Zeroizing::new(percent_decoded(&key.replace('+', " "))?),
                value: Zeroizing::new(percent_decoded(&Zeroizing::new(value.replace('+', " ")))?),
                at,
            });
        }
        self.pairs(pairs)
    }

    fn finish(mut self) -> Result<Parsed> {
        let host = self.host.take().ok_or_else(|| bad("the connection string names no server"))?;
        let user = self.user.take().filter(|user| !user.is_empty());
        let user = if self.integrated {
            user.unwrap_or_default()
        } else {
            user.ok_or_else(|| bad("the connection string names no user"))?
        };
        let mut endpoint = Endpoint::new(
            host,
            self.port.unwrap_or(PORT),
            user,
            self.password.take().unwrap_or_default(),
        );
        // A port needs no name looked up.
        endpoint.instance = self.instance.filter(|_| self.port.is_none());
        endpoint.integrated = self.integrated;
        endpoint.database = self.database;
        endpoint.encrypt = self.encrypt.unwrap_or(Encrypt::Full);
        endpoint.trust = match (self.trust_anything, self.authority, endpoint.encrypt) {
            (Some(true), ..) => Trust::Any,
            (_, Some(path), _) => Trust::Authority(path),
            // Nobody who encrypts the login alone is protected from a server in the middle.
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

/// What a flag's words mean.
pub fn flag(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "1" | "on" | "t" => Some(true),
        "false" | "no" | "0" | "off" | "f" => Some(false),
        _ => None,
    }
}

fn percent_decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let digits = tail
                .get(..2)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
            let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(decoded.ok_or_else(|| {
                bad("the connection string has a % that is not followed by two hexadecimal digits")
            })?);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| bad("the connection string's percent-encoding is not UTF-8"))
}

/// What a server's name comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName {
    pub host: String,
    pub instance: Option<String>,
    pub port: Option<u16>,
}

/// `host`, `host,port`, `host:port`, `host\instance`, `tcp:…`, IPv6 with or without brackets. The
/// error completes "the server …".
pub fn server(text: &str) -> std::result::Result<ServerName, String> {
    let text = text.trim();
    let text = strip_prefix(text, "tcp:").unwrap_or(text);
    for (prefix, what) in [
        ("np:", "named pipes"),
        ("lpc:", "shared memory"),
        ("admin:", "the dedicated administrator connection"),
    ] {
        if strip_prefix(text, prefix).is_some() {
            return Err(format!("asks for {what}: only TCP is known"));
        }
    }
    if strip_prefix(text, "(localdb)").is_some() {
        return Err("is a LocalDB, which has no TCP port".to_owned());
    }
    let port_of = |port: &str| {
        port.trim()
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .map(Some)
            .ok_or_else(|| "has a port that is not from 1 to 65535".to_owned())
    };
    // The port comes last, behind a comma (SQL Server's way), or behind a colon (everybody else's)
    // unless that is IPv6.
    let (name, port) = if let Some((name, port)) = text.rsplit_once(',') {
        (name.trim(), port_of(port)?)
    } else if let Some((name, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']'))
    {
        match port.trim() {
            "" => (name, None),
            port => (
                name,
                port_of(port.strip_prefix(':').ok_or("has something behind its closing ]")?)?,
            ),
        }
    } else if text.matches(':').count() == 1 {
        let (name, port) = text.split_once(':').unwrap_or((text, ""));
        (name.trim(), port_of(port)?)
    } else {
        (text, None)
    };
    let (host, instance) = match name.split_once('\\') {
        Some((host, instance)) => {
            (host.trim(), Some(instance.trim().to_owned()).filter(|instance| !instance.is_empty()))
        }
        None => (name, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host == "." || host.eq_ignore_ascii_case("(local)") { "localhost" } else { host };
    if host.is_empty() {
        return Err("has no host".to_owned());
    }
    if host
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '\\' | '?' | '='))
    {
        return Err("is not a host name".to_owned());
    }
    if host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err() {
        return Err("is not an IPv6 address".to_owned());
    }
    // The default instance, by the name it has everywhere.
    let instance = instance.filter(|instance| !instance.eq_ignore_ascii_case("MSSQLSERVER"));
    Ok(ServerName { host: host.to_owned(), instance, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn ok(text: &str) -> Endpoint {
        let parsed = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(parsed.warnings.is_empty(), "{text}: {:?}", parsed.warnings);
        parsed.endpoint
    }

    #[test]
    fn the_readmes_form() {
        let e = ok(
            "server=source1.example.com;user id=sa;password=pass;database=master;encrypt=disable",
        );
        assert_eq!(
            (e.host.as_str(), e.port, e.user.as_str(), e.password.reveal()),
            ("source1.example.com", 1433, "sa", "pass")
        );
        assert_eq!((e.database.as_deref(), e.encrypt), (Some("master"), Encrypt::Off));

        let e = ok(
            "server=10.0.0.5;port=14330;user id=sync;password=p=w d;encrypt=false;app name=Flow;dial timeout=5;connection timeout=0",
        );
        assert_eq!(
            (e.server_name().as_str(), e.password.reveal(), e.application.as_str()),
            ("10.0.0.5,14330", "p=w d", "Flow")
        );
        assert_eq!(
            (e.encrypt, e.trust, e.connect_timeout.as_secs()),
            (Encrypt::LoginOnly, Trust::Any, 5)
        );
    }

    #[test]
    fn ado_net() {
        let e = ok(
            "Data Source=tcp:db.example.com,1500;Initial Catalog=Shop;User ID=app;Pwd=\"a;b\"\"c\";Encrypt=Mandatory;\
             TrustServerCertificate=True;ApplicationIntent=ReadOnly;MultiSubnetFailover=yes;Connect Timeout=30;Pooling=false",
        );
        assert_eq!(
            (e.host.as_str(), e.port, e.password.reveal()),
            ("db.example.com", 1500, "a;b\"c")
        );
        assert_eq!(
            (e.encrypt, e.trust.clone(), e.read_only_intent, e.multi_subnet_failover),
            (Encrypt::Full, Trust::Any, true, true)
        );
        assert_eq!(
            ok("Server=h\\INST,1444;UID=u;PWD={x}};y};Encrypt=Strict").password.reveal(),
            "x};y"
        );
        assert_eq!(ok("Server=h;UID=u;PWD='it''s'").password.reveal(), "it's");
        let silent = ok("Server=h;UID=u;PWD=p");
        assert_eq!((silent.encrypt, silent.trust), (Encrypt::Full, Trust::System));
        assert_eq!(
            ok("server=h;uid=u;pwd=p;encrypt=optional;trust server certificate=false").trust,
            Trust::System
        );
    }

    #[test]
    fn urls() {
        let e = ok(
            "sqlserver://sa:p%40ss%3Aw%2Frd@db.example.com:1434?database=master&encrypt=disable&app+name=My+App",
        );
        assert_eq!(
            (e.host.as_str(), e.port, e.user.as_str(), e.password.reveal()),
            ("db.example.com", 1434, "sa", "p@ss:w/rd")
        );
        assert_eq!((e.application.as_str(), e.encrypt), ("My App", Encrypt::Off));
        assert_eq!(ok("sqlserver://u:p@h:1433/INST?database=d").port, 1433);
        assert_eq!(ok("sqlserver://u:p@[::1]:1435").server_name(), "::1,1435");
        let e = ok(
            "jdbc:sqlserver://h\\SQL:1439;databaseName=d;user=u;password={a;b};encrypt=true;trustServerCertificate=true",
        );
        assert_eq!((e.host.as_str(), e.port, e.password.reveal()), ("h", 1439, "a;b"));
        assert_eq!(
            ok("jdbc:sqlserver://;serverName=h;portNumber=2;user=u;password=p").server_name(),
            "h,2"
        );
        assert_eq!(ok("odbc:server=h;user id=u;password={p;}").password.reveal(), "p;");
    }

    #[test]
    fn a_question_mark_in_a_password_makes_no_piece_of_it_a_host() {
        let error =
            parse("sqlserver://sa:one@two?three@h:1433/?encrypt=disable").unwrap_err().to_string();
        assert!(
            error.contains("%3F")
                && !["one", "two", "three"].iter().any(|piece| error.contains(piece)),
            "{error}"
        );
        assert_eq!(
            ok("sqlserver://sa:one%40two%3Fthree@h?app+name=a%40b").password.reveal(),
            "one@two?three"
        );
    }

    #[test]
    fn servers() {
        for (text, host, port) in [
            ("localhost", "localhost", None),
            (".", "localhost", None),
            ("(local),1500", "localhost", Some(1500)),
            ("h:1500", "h", Some(1500)),
            ("tcp:h , 1500", "h", Some(1500)),
            ("::1", "::1", None),
            ("[fe80::1]", "fe80::1", None),
            ("[::1]:99", "::1", Some(99)),
            ("::1,99", "::1", Some(99)),
            ("h\\MSSQLSERVER", "h", None),
        ] {
            assert_eq!(
                server(text),
                Ok(ServerName { host: host.into(), instance: None, port }),
                "{text}"
            );
        }
        assert_eq!(server("h\\I").unwrap().instance.as_deref(), Some("I"));
        for (text, place) in [
            ("server=h\\I;user id=u;password=p", "h\\I"),
            ("server=h\\I,1499;user id=u;password=p", "h,1499"),
            ("sqlserver://u:p@h/I", "h\\I"),
            ("jdbc:sqlserver://h;instanceName=I;user=u;password=p", "h\\I"),
            ("jdbc:sqlserver://h\\I:1499;user=u;password=p", "h,1499"),
        ] {
            assert_eq!(ok(text).server_name(), place, "{text}");
        }
        for text in
            ["", ",1", "h:0", "h,x", "np:\\\\h\\pipe", "(localdb)\\v11", "a b", "1:2:3", "[::1]x"]
        {
            assert!(server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn errors_say_where_and_what_without_values() {
        for (text, says) in [
            ("", "empty"),
            ("user id=u;password=p", "no server"),
            ("server=h;password=p", "no user"),
            ("server=h;user id=u;password=p;encrypt=maybe", "encrypt at character 31"),
            ("server=h;user id=u;password=se;cret", "at character 32"),
            ("server=h;user id=u;password=\"secret", "begins at character 29 and never ends"),
            ("server=h;=x", "without a key at character 10"),
            ("server=h;user id=u;Integrated Security=SSPI", "Windows authentication"),
            ("server=h;user id=u;password=p;port=0", "port at character 31"),
            ("postgres://u:secret@h/d", "another kind"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.contains(says) && !error.contains("secret") && !error.contains("cret"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn unknown_keys_are_named_unless_they_may_be_a_piece_of_a_password() {
        let parsed = parse("server=h;colour=blue;user id=u;password=p").unwrap();
        assert_eq!(
            parsed.warnings,
            ["unknown key colour at character 10 of the connection string"]
        );
        let parsed = parse("server=h;user id=u;password=se;cret=1;database=d").unwrap();
        assert!(
            parsed.warnings[0].contains("behind the password")
                && !parsed.warnings[0].contains("cret"),
            "{:?}",
            parsed.warnings
        );
    }

    /// Random strings around a password that cannot be mistaken for anything else: no output shows
    /// it, whatever is wrong around it.
    #[test]
    fn no_output_ever_shows_the_password() {
        const SECRET: &str = "Zq7vXk2pLw9";
        let pieces = [
            "server=h",
            "server=",
            "port=x",
            "user id=u",
            ";",
            ";;",
            "=",
            "\"",
            "'",
            "{",
            "}",
            "encrypt=maybe",
            "encrypt=disable",
            "app name=x",
            "sqlserver://",
            "jdbc:sqlserver://h",
            "://",
            "@",
            "?",
            "&",
            "%",
            "%zz",
            "\\",
            " ",
            "é",
            "timeout=1",
            "Data Source=tcp:x,1",
        ];
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..20_000 {
            let mut text = String::new();
            let secret_at = random.random_range(0..6);
            for i in 0..6 {
                if i == secret_at {
                    text.push_str(
                        ["password=", "PWD=", "pwd={", "password=\"", "user:"]
                            [random.random_range(0..5)],
                    );
                    text.push_str(SECRET);
                }
                text.push_str(pieces[random.random_range(0..pieces.len())]);
                if random.random_bool(0.5) {
                    text.push(';');
                }
            }
            let output = match parse(&text) {
                Ok(parsed) => {
                    let shown_on_purpose = [
                        &parsed.endpoint.host,
                        &parsed.endpoint.user,
                        &parsed.endpoint.application,
                    ]
                    .iter()
                    .any(|field| field.contains(SECRET));
                    if shown_on_purpose {
                        continue;
                    }
                    format!(
                        "{parsed:?} {:?}",
                        parsed.endpoint.driver_config(&crate::model::name::Ident::new("d"), false)
                    )
                }
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!output.contains(SECRET), "{text}\n{output}");
        }
    }

    /// A misspelled key, and a password with a ; in it: what follows may be a piece of the
    /// password.
    #[test]
    fn no_piece_of_a_password_is_named_behind_a_misspelled_key() {
        for key in ["pasword", "Passwrd", "pw", "user secret"] {
            let parsed =
                parse(&format!("server=h;password=x;user id=u;{key}=abc;def=ghi;tail=1")).unwrap();
            let words = parsed.warnings.join("\n");
            assert!(
                words.contains(&format!("unknown key {key}"))
                    && !words.contains("def")
                    && !words.contains("tail"),
                "{words}"
            );
        }
        let words = parse("server=h;user id=u;password=x;database=d;colour=red;shape=round")
            .unwrap()
            .warnings
            .join("\n");
        assert!(
            words.contains("unknown key colour") && words.contains("unknown key shape"),
            "{words}"
        );
    }
}
