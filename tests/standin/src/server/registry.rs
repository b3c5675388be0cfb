//! Who is connected, and what has been asked: what a test wants to know of a server besides its
//! data.

use crate::{
    exchange::connection::CancelFlag,
    tds::{login::Login7, prelogin::Encrypt},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// SPIDs up to 50 are the server's own.
const FIRST_SPID: u16 = 51;
/// Older statements are forgotten.
const STATEMENTS_MAX: usize = 100_000;

/// A connection, as long as it is logged in or logging in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    pub spid: u16,
    pub application: String,
    pub host: String,
    pub user: String,
    pub database: String,
    /// as LOGIN7 asked for it
    pub tds_version: u32,
    /// as PRELOGIN asked for it; `None` for a session without a socket
    pub encryption: Option<Encrypt>,
}

/// How many connections there are and were at most at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCount {
    pub now: usize,
    pub peak: usize,
    /// ever since the start
    pub total: usize,
}

/// A request that came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementRecord {
    pub spid: u16,
    pub application: String,
    /// a batch's text, sp_executesql's statement, a procedure's name, `BULK LOAD`, or `BEGIN
    /// TRANSACTION` and the like
    pub text: String,
    /// how many parameters the call had; 0 for a batch
    pub params: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    connections: Mutex<Connections>,
    statements: Mutex<Statements>,
    /// the number of connections, for whoever waits for it
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Connections {
    open: BTreeMap<u16, (ConnectionInfo, CancelFlag)>,
    all: ConnectionCount,
    by_application: HashMap<String, ConnectionCount>,
}

#[derive(Debug, Default)]
struct Statements {
    enabled: bool,
    records: VecDeque<StatementRecord>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnectionCount {
    fn add(&mut self) {
        self.now += 1;
        self.total += 1;
        self.peak = self.peak.max(self.now);
    }
}

impl Registry {
    /// Gives out the lowest free SPID, as SQL Server does; it is free again when the registration
    /// is dropped.
    pub(crate) fn register(
        self: &Arc<Self>,
        login: &Login7,
        encryption: Encrypt,
        cancel: CancelFlag,
    ) -> Registration {
        self.add(
            ConnectionInfo {
                spid: 0,
                application: login.app_name.clone(),
                host: login.host_name.clone(),
                user: login.user_name.clone(),
                database: login.database.clone(),
                tds_version: login.tds_version,
                encryption: Some(encryption),
            },
            cancel,
            true,
        )
    }

    /// A session without a socket: has a SPID, and does not count.
    pub(crate) fn register_direct(self: &Arc<Self>, cancel: CancelFlag) -> Registration {
        let nobody = ConnectionInfo {
            spid: 0,
            application: String::new(),
            host: String::new(),
            user: String::new(),
            database: String::new(),
            tds_version: 0,
            encryption: None,
        };
        self.add(nobody, cancel, false)
    }

    fn add(
        self: &Arc<Self>,
        mut info: ConnectionInfo,
        cancel: CancelFlag,
        counts: bool,
    ) -> Registration {
        let mut connections = lock(&self.connections);
        let mut spid = FIRST_SPID;
        while connections.open.contains_key(&spid) {
            spid = spid.saturating_add(1);
        }
        info.spid = spid;
        if counts {
            connections.all.add();
            connections.by_application.entry(info.application.clone()).or_default().add();
        }
        connections.open.insert(spid, (info, cancel));
        self.count.send_replace(connections.all.now);
        Registration { registry: self.clone(), spid, counts }
    }

    fn remove(&self, spid: u16, counts: bool) {
        let mut connections = lock(&self.connections);
        let Some((info, _)) = connections.open.remove(&spid) else { return };
        if counts {
            connections.all.now -= 1;
            if let Some(count) = connections.by_application.get_mut(&info.application) {
                count.now -= 1;
            }
        }
        self.count.send_replace(connections.all.now);
    }

    pub(crate) fn connections(&self) -> Vec<ConnectionInfo> {
        lock(&self.connections)
            .open
            .values()
            .map(|(info, _)| info.clone())
            .filter(|info| !info.user.is_empty())
            .collect()
    }

    pub(crate) fn count(&self) -> ConnectionCount {
        lock(&self.connections).all
    }

    pub(crate) fn count_of(&self, application: &str) -> ConnectionCount {
        lock(&self.connections).by_application.get(application).copied().unwrap_or_default()
    }

    pub(crate) async fn wait_for_count(&self, wanted: usize) {
        // The sender is a field of self, so waiting cannot fail.
        let _ = self.count.subscribe().wait_for(|count| *count == wanted).await;
    }

    /// Ends a connection; false when there is none of that number.
    pub(crate) fn kill(&self, spid: u16) -> bool {
        let cancel = lock(&self.connections).open.get(&spid).map(|(_, cancel)| cancel.clone());
        cancel.inspect(CancelFlag::kill).is_some()
    }

    pub(crate) fn log_statements(&self, enabled: bool) {
        let mut statements = lock(&self.statements);
        statements.enabled = enabled;
        statements.records.clear();
    }

    pub(crate) fn statements(&self) -> Vec<StatementRecord> {
        lock(&self.statements).records.iter().cloned().collect()
    }

    pub(crate) fn log(&self, spid: u16, application: &str, text: &str, params: usize) {
        let mut statements = lock(&self.statements);
        if !statements.enabled {
            return;
        }
        if statements.records.len() == STATEMENTS_MAX {
            statements.records.pop_front();
        }
        statements.records.push_back(StatementRecord {
            spid,
            application: application.to_owned(),
            text: text.to_owned(),
            params,
        });
    }
}

/// A SPID in use.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    spid: u16,
    counts: bool,
}

impl Registration {
    pub(crate) fn spid(&self) -> u16 {
        self.spid
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.remove(self.spid, self.counts);
    }
}
