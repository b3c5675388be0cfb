//! A CDC pass of one mapping.

use super::{Done, Env};
use crate::{
    error::{Error, Kind, Result},
    model::mapping::Mapping,
};

/// What a poll decided for this mapping.
#[derive(Debug)]
pub struct Pass {}

/// Reads the window's changes and applies them; leaves its row in sync_status, failed or not.
pub async fn run(_env: &Env, _mapping: &Mapping, _pass: Pass) -> Result<Done> {
    Err(Error::new(Kind::Other, "CDC is not built yet"))
}
