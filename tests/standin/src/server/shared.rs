//! What all connections of a server share.

use super::{registry::Registry, statement_files::StatementFiles};
use crate::{exchange::connection::Engine, fault::Faults, tds::tls::TlsIdentity};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// SQL Server 2022, 16.0.4135.
pub(crate) const PROGRAM_VERSION: [u8; 4] = [16, 0, 0x10, 0x27];

/// What a server has to say about encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    NotSupported,
    /// As a fresh SQL Server: the login is encrypted, and the rest when the client wants it.
    #[default]
    LoginOnly,
    Required,
    /// TDS 8.0 only. The other modes take it, too.
    Strict,
}

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) faults: Faults,
    pub(crate) registry: Arc<Registry>,
    pub(crate) tls: TlsIdentity,
    pub(crate) encryption: Encryption,
    pub(crate) server_name: String,
    pub(crate) compress_rows: bool,
    pub(crate) time_scale: Option<u8>,
    pub(crate) statement_files: Option<StatementFiles>,
    /// where logins are sent
    pub(super) redirect: Mutex<Option<(String, u16)>>,
    /// changes when all connections are to end
    pub(super) generation: watch::Sender<u64>,
    pub(super) accepting: watch::Sender<bool>,
}

impl Shared {
    /// Where a login is sent, when this server lets nobody stay.
    pub(crate) fn redirect(&self) -> Option<(String, u16)> {
        self.redirect.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes when all connections are to end.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
