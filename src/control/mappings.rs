//! Servers and mappings in, as people wrote them; checked.

use super::Control;
use crate::{
    error::{Context, Error, Kind, Result},
    model::{
        id::{MappingId, ServerId},
        mapping::{Mapping, Server},
    },
    mssql::row::Param,
};

/// A row that cannot be used, with the reason.
#[derive(Debug)]
pub struct Rejected {
    pub mapping: Option<MappingId>,
    pub server: Option<ServerId>,
    pub error: Error,
}

/// What the daemon knows of a mapping beside its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingState {
    /// Its newest CDC run in sync_status ended ERROR: the next success writes a row even with nothing to do.
    pub cdc_failed: bool,
}

/// The control tables as of one moment.
#[derive(Debug, Default)]
pub struct Loaded {
    pub servers: Vec<Server>,
    /// Enabled, of enabled servers, and usable.
    pub mappings: Vec<Mapping>,
    pub rejected: Vec<Rejected>,
}

impl Control {
    /// Enabled servers and mappings, in one round trip.
    pub async fn load(&self) -> Result<Loaded> {
        Err(Error::new(Kind::Other, "the control tables cannot be read yet"))
    }

    /// `last_connected_at`
    pub async fn connected(&self, server: ServerId) -> Result<()> {
        self.session()
            .await?
            .execute(include_str!("../../sql/connected.sql"), &[Param::Int(server.0)])
            .await
            .context("write source_servers")
            .map(drop)
    }

    /// Turns a request into a pending one: `full_sync_requested` (or, with `trigger`, a trigger column that was seen set) becomes
    /// `full_sync_pending_at`, the bit cleared, in one UPDATE. Returns whether one is pending now.
    pub async fn claim_full_sync(&self, mapping: MappingId, trigger: bool) -> Result<bool> {
        let row = self
            .session()
            .await?
            .opt_row(include_str!("../../sql/claim_full_sync.sql"), &[Param::Int(mapping.0), Param::Bit(trigger)])
            .await
            .context("claim a full sync")?;
        row.map_or(Ok(false), |row| row.bool(0))
    }

    /// Asks for a full sync, as an operator would (a CDC gap).
    pub async fn request_full_sync(&self, mapping: MappingId) -> Result<()> {
        self.session()
            .await?
            .execute(include_str!("../../sql/request_full_sync.sql"), &[Param::Int(mapping.0)])
            .await
            .context("ask for a full sync")
            .map(drop)
    }
}
