//! `sqlserver://user:password@host:port/instance?key=value&…`

use zeroize::Zeroizing;

use super::{
    settings::Settings,
    syntax::{KeyValue, config_error, percent_decoded},
};
use crate::{error::Result, model::secret::Secret};

impl Settings {
    /// Reads what follows `sqlserver://`.
    pub(super) fn set_url(&mut self, text: &str) -> Result<()> {
        let (before_query, query) = text.split_once('?').unwrap_or((text, ""));
        let (authority, path) = match before_query.rsplit_once('@') {
            // The ? may be part of the password. Then the text before it is no host, and an error
            // must not show it as one.
            Some(_) if query.contains('@') => {
                return Err(config_error(
                    "an @ is on both sides of the ? in the connection string: in a login or a value write @ as %40, ? as %3F, / as %2F and : as %3A",
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
        self.set_server(&percent_decoded(authority)?, 1)?;
        let instance = percent_decoded(path.trim_end_matches('/'))?;
        if !instance.is_empty() {
            self.instance = Some(instance);
        }
        let mut pairs = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let position = 1 + text
                .find(part)
                .map_or(0, |byte| text.get(..byte).map_or(0, |before| before.chars().count()));
            pairs.push(KeyValue {
                key: Zeroizing::new(percent_decoded(&key.replace('+', " "))?),
                value: Zeroizing::new(percent_decoded(&Zeroizing::new(value.replace('+', " ")))?),
                position,
            });
        }
        self.set_all(pairs)
    }
}
