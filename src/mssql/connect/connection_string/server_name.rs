//! The server's name in a connection string.

use super::syntax::strip_prefix;

/// A server's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName {
    pub host: String,
    pub instance: Option<String>,
    pub port: Option<u16>,
}

/// `host`, `host,port`, `host:port`, `host\instance`, `tcp:…`, IPv6 with or without brackets. The
/// error completes "the server …".
pub fn parse_server(text: &str) -> std::result::Result<ServerName, String> {
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
    let (name, port) = split_port(text)?;
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
    // The name of the default instance, which needs no lookup.
    let instance = instance.filter(|instance| !instance.eq_ignore_ascii_case("MSSQLSERVER"));
    Ok(ServerName { host: host.to_owned(), instance, port })
}

/// The port is last: after a comma (SQL Server's syntax), or after a colon (everyone else's) unless
/// that belongs to an IPv6 address.
fn split_port(text: &str) -> std::result::Result<(&str, Option<u16>), String> {
    let port_of = |port: &str| {
        port.trim()
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .map(Some)
            .ok_or_else(|| "has a port that is not from 1 to 65535".to_owned())
    };
    if let Some((name, port)) = text.rsplit_once(',') {
        return Ok((name.trim(), port_of(port)?));
    }
    if let Some((name, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return match port.trim() {
            "" => Ok((name, None)),
            port => {
                let port = port.strip_prefix(':').ok_or("has something after its closing ]")?;
                Ok((name, port_of(port)?))
            }
        };
    }
    if text.matches(':').count() == 1
        && let Some((name, port)) = text.split_once(':')
    {
        return Ok((name.trim(), port_of(port)?));
    }
    Ok((text, None))
}
