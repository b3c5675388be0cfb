//! One look at one source database: which of its mappings have work.

use super::{Env, cdc::Pass};
use crate::{
    error::{Error, Kind, Result},
    model::{
        id::{MappingId, ServerId},
        mapping::Mapping,
        name::Ident,
    },
};

/// What is remembered of a database between polls; the daemon keeps it, and forgets it with the server's row.
#[derive(Debug, Default)]
pub struct Memory {}

/// What a mapping has to do.
#[derive(Debug)]
pub enum Work {
    /// Somebody asks for a full sync, or one is pending.
    FullSync {
        /// The trigger column was seen set.
        trigger: bool,
    },
    Cdc(Pass),
}

/// What a poll found.
#[derive(Debug, Default)]
pub struct Polled {
    /// Mappings with work; idle ones have had their checkpoint moved.
    pub work: Vec<(MappingId, Work)>,
    /// Mappings that cannot be polled, each with its own reason.
    pub failed: Vec<(MappingId, Error)>,
}

/// Polls `database` for all its mappings that are not running. An error is the whole database's (unreachable, not to be opened).
pub async fn poll(_env: &Env, _server: ServerId, _database: &Ident, _mappings: &[Mapping], _memory: &mut Memory) -> Result<Polled> {
    Err(Error::new(Kind::Other, "polling is not built yet"))
}
