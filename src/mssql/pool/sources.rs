//! The source servers: each with its own pools and its own limit.
//!
//! [`Sources::update`] follows the control table: a server whose connection string changed gets new
//! pools, and the old ones end when the last job that uses them is done. Both together keep to the
//! server's one limit. Any other change of its row leaves the pools as they are.

use super::{options::PoolOptions, pools::Pools, reservation::ServerConnections};
use crate::mssql::connect::connection_string;
use crate::{
    error::{Context, Error, Kind, Result},
    model::{id::ServerId, mapping::Server},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

/// A server as it was last read, with its connections or the error in its connection string.
struct KnownServer {
    server: Server,
    connections: std::result::Result<ServerConnections, String>,
    /// The last pools, while the connection string is invalid: the next ones share their limit.
    previous: Option<ServerConnections>,
}

/// All enabled source servers.
#[derive(Clone)]
pub struct Sources {
    options: PoolOptions,
    known: Arc<Mutex<HashMap<ServerId, KnownServer>>>,
    /// Pools of servers that were switched off or deleted, until their last connection is closed:
    /// one that is switched on again meanwhile shares their limit.
    draining: Arc<Mutex<HashMap<ServerId, ServerConnections>>>,
}

/// A warning or error about one server.
#[derive(Debug)]
pub struct ServerNotice {
    pub server: ServerId,
    pub name: String,
    /// Unknown keys, and settings without effect.
    pub warnings: Vec<String>,
    pub error: Option<Error>,
}

impl Sources {
    pub fn new(options: PoolOptions) -> Self {
        Sources { options, known: Arc::default(), draining: Arc::default() }
    }

    /// Follows the control table. Returns each warning and each invalid connection string once, until
    /// the row changes.
    pub fn update(&self, servers: &[Server]) -> Vec<ServerNotice> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut draining = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
        let enabled: HashSet<ServerId> = servers.iter().map(|server| server.id).collect();
        for (id, gone) in known.extract_if(|id, _| !enabled.contains(id)) {
            if let Some(connections) = gone.connections.ok().or(gone.previous) {
                connections.pools().drain();
                draining.insert(id, connections);
            }
        }
        draining.retain(|_, connections| connections.pools().connections() > 0);
        let mut notices = Vec::new();
        for server in servers {
            let old = match known.remove(&server.id) {
                Some(old) if old.server.connection_string == server.connection_string => {
                    known.insert(server.id, KnownServer { server: server.clone(), ..old });
                    continue;
                }
                Some(old) => old.connections.ok().or(old.previous),
                None => draining.remove(&server.id),
            };
            let mut notice = ServerNotice {
                server: server.id,
                name: server.name.clone(),
                warnings: Vec::new(),
                error: None,
            };
            let mut previous = None;
            let connections = match connection_string::parse(server.connection_string.reveal()) {
                Ok(parsed) => {
                    notice.warnings = parsed.warnings;
                    Ok(match old {
                        Some(old) => old.replace_endpoint(parsed.endpoint),
                        None => ServerConnections::new(
                            Pools::new(parsed.endpoint, self.options.clone()),
                            0,
                        ),
                    })
                }
                Err(error) => {
                    let message = error.to_string();
                    notice.error = Some(
                        Error::new(Kind::Config, message.clone())
                            .context(format!("connection_string of server {}", server.name)),
                    );
                    previous = old;
                    Err(message)
                }
            };
            if notice.error.is_some() || !notice.warnings.is_empty() {
                notices.push(notice);
            }
            known.insert(server.id, KnownServer { server: server.clone(), connections, previous });
        }
        notices
    }

    /// Every server that can be used, with its pools.
    pub fn all_connections(&self) -> Vec<(ServerId, ServerConnections)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = known
            .iter()
            .filter_map(|(id, known)| Some((*id, known.connections.as_ref().ok()?.clone())))
            .collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// The connections of a server.
    pub fn connections(&self, id: ServerId) -> Result<ServerConnections> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&id) {
            Some(KnownServer { connections: Ok(connections), .. }) => Ok(connections.clone()),
            Some(KnownServer { connections: Err(message), server, .. }) => {
                Err(Error::new(Kind::Config, message.clone()))
                    .with_context(|| format!("connection_string of server {}", server.name))
            }
            None => {
                Err(Error::new(Kind::Cancelled, format!("server {id} is not enabled any more")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;
    use std::time::Duration;

    fn sources() -> Sources {
        Sources::new(PoolOptions {
            connections_max: 2,
            statement_timeout: Duration::from_secs(20),
            lock_timeout: Duration::from_secs(1),
            deadlock_priority_low: true,
            idle_timeout: Duration::from_secs(60),
        })
    }

    fn server(name: &str, string: &str) -> Server {
        Server {
            id: ServerId(1),
            name: name.to_owned(),
            connection_string: Secret::new(string),
            updated_at: String::new(),
        }
    }

    /// Each change of a row once gave the server a limit of its own beside the one that was in use.
    #[tokio::test]
    async fn a_server_whose_row_changes_keeps_its_one_limit() {
        let at = |port: u16| format!("server=127.0.0.1;port={port};user id=sa;password=x");
        let sources = sources();
        sources.update(&[server("a", &at(1))]);
        let seats = sources.connections(ServerId(1)).unwrap().reserve(2, "job").await.unwrap();
        let full = || async {
            tokio::time::timeout(
                Duration::from_millis(1),
                sources.connections(ServerId(1)).unwrap().reserve(1, "x"),
            )
            .await
            .is_err()
        };
        sources.update(&[server("renamed", &at(1))]);
        assert!(full().await, "a rename");
        sources.update(&[server("renamed", &at(2))]);
        assert!(full().await, "another address");
        assert_eq!(sources.connections(ServerId(1)).unwrap().pools().endpoint().port, 2);
        sources.update(&[server("renamed", "nonsense")]);
        assert!(sources.connections(ServerId(1)).is_err());
        sources.update(&[server("renamed", &at(3))]);
        assert!(full().await, "a string that could be read again");
        drop(seats);
        assert!(!full().await);
    }
}
