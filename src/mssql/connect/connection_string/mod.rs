//! Connection strings in four dialects.
//!
//! The driver's own parser refuses strings that users of this service have (`encrypt=disable`,
//! `port=1433`, go-mssqldb's URLs, passwords with other than ASCII characters), so strings are read
//! here, and the driver is configured field by field:
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
//! login alone (and, as in other drivers, accepts any certificate unless TrustServerCertificate is
//! false), `true` and `strict` encrypt everything and check the certificate. Without the key it is
//! `true`, as in current drivers.
//!
//! **No copy of a password stays in memory** except the endpoint's own: buffers are overwritten when
//! they are dropped, and none grows, because that would leave a copy in freed memory.
//!
//! **No message shows a value.** An unknown key is named, but not after a password: there it may be
//! a piece of a password that holds a `;`.

mod server_name;
mod settings;
mod syntax;
mod url;

pub use self::{
    server_name::{ServerName, parse_server},
    settings::Parsed,
    syntax::flag,
};
use self::{
    settings::Settings,
    syntax::{config_error, key_values, strip_prefix},
};
use crate::error::Result;

/// Reads any of the four dialects.
pub fn parse(text: &str) -> Result<Parsed> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(config_error("the connection string is empty"));
    }
    let mut settings = Settings::default();
    if let Some(rest) = strip_prefix(trimmed, "jdbc:sqlserver://") {
        let (server, properties) = rest.split_once(';').unwrap_or((rest, ""));
        if !server.is_empty() {
            settings.set_server(server, 1)?;
        }
        settings.set_all(key_values(properties)?)?;
    } else if let Some(rest) = strip_prefix(trimmed, "sqlserver://") {
        settings.set_url(rest)?;
    } else if trimmed
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.chars().all(|c| c.is_ascii_alphabetic() || c == ':'))
    {
        return Err(config_error(
            "the connection string is a URL of another kind: sqlserver:// and jdbc:sqlserver:// are known",
        ));
    } else {
        settings.set_all(key_values(strip_prefix(trimmed, "odbc:").unwrap_or(trimmed))?)?;
    }
    settings.finish()
}

#[cfg(test)]
mod tests;
