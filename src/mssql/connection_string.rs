//! Connection strings as people have them.

use super::endpoint::Endpoint;
use crate::error::{Error, Kind, Result};

/// What a string says.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub endpoint: Endpoint,
    pub warnings: Vec<String>,
}

/// Reads any of the forms.
pub fn parse(_text: &str) -> Result<Parsed> {
    Err(Error::new(Kind::Config, "connection strings cannot be read yet"))
}
