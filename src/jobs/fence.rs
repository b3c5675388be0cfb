//! An LSN that provably covers everything committed before a moment.

use crate::{
    error::{Error, Kind, Result},
    model::lsn::Lsn,
    mssql::session::Session,
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The source's clock and its capture's scans, read at one moment. Taken *after* the last read that the fence is to cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// the source's local time, style 121 with seven digits
    pub local: String,
}

/// How long and how often to look.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub wait_max: Duration,
    pub poll: Duration,
}

/// Reads clock and scans.
pub async fn reading(_source: &mut Session) -> Result<Reading> {
    Err(Error::new(Kind::Other, "fences are not built yet"))
}

/// Waits until capture has provably passed everything committed before `after`; the LSN up to which changes must be applied.
pub async fn wait(_source: &mut Session, _after: &Reading, _patience: Patience, _cancel: &CancellationToken) -> Result<Lsn> {
    Err(Error::new(Kind::Other, "fences are not built yet"))
}
