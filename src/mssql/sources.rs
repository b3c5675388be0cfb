//! The source servers: each with its own pools and its own limit.
//!
//! [`Sources::update`] follows the control table: a server whose connection string changed gets new pools, and the old ones end when the
//! last job that uses them is done.

use super::{
    connection_string,
    pool::{Behaviour, Pools},
    seats::House,
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{id::ServerId, mapping::Server},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A server as it was last read, and what its connection string came to.
struct Known {
    server: Server,
    house: std::result::Result<House, String>,
}

/// All enabled source servers.
#[derive(Clone)]
pub struct Sources {
    behaviour: Behaviour,
    known: Arc<Mutex<HashMap<ServerId, Known>>>,
}

/// What [`Sources::update`] has to say of one server.
#[derive(Debug)]
pub struct Notice {
    pub server: ServerId,
    pub name: String,
    /// Keys that mean nothing to us, or settings worth a thought.
    pub warnings: Vec<String>,
    pub error: Option<Error>,
}

impl Sources {
    pub fn new(behaviour: Behaviour) -> Self {
        Sources { behaviour, known: Arc::new(Mutex::new(HashMap::new())) }
    }

    /// Follows the control table. Returns what is new to say: each warning and each bad string once, until the row changes.
    pub fn update(&self, servers: &[Server]) -> Vec<Notice> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|id, _| servers.iter().any(|server| server.id == *id));
        let mut notices = Vec::new();
        for server in servers {
            if known.get(&server.id).is_some_and(|old| old.server == *server) {
                continue;
            }
            let mut notice = Notice { server: server.id, name: server.name.clone(), warnings: Vec::new(), error: None };
            let house = match connection_string::parse(&server.connection_string) {
                Ok(parsed) => {
                    notice.warnings = parsed.warnings;
                    Ok(House::new(Pools::new(parsed.endpoint, self.behaviour.clone()), 0))
                }
                Err(error) => {
                    let words = error.to_string();
                    notice.error =
                        Some(Error::new(Kind::Config, words.clone()).context(format!("connection_string of server {}", server.name)));
                    Err(words)
                }
            };
            if notice.error.is_some() || !notice.warnings.is_empty() {
                notices.push(notice);
            }
            known.insert(server.id, Known { server: server.clone(), house });
        }
        notices
    }

    /// Every server that can be used, with its pools.
    pub fn houses(&self) -> Vec<(ServerId, House)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut houses: Vec<_> = known.iter().filter_map(|(id, known)| Some((*id, known.house.as_ref().ok()?.clone()))).collect();
        houses.sort_by_key(|(id, _)| *id);
        houses
    }

    /// The pools and seats of a server.
    pub fn house(&self, id: ServerId) -> Result<House> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&id) {
            Some(Known { house: Ok(house), .. }) => Ok(house.clone()),
            Some(Known { house: Err(words), server }) => {
                Err(Error::new(Kind::Config, words.clone())).with_context(|| format!("connection_string of server {}", server.name))
            }
            None => Err(Error::new(Kind::Cancelled, format!("server {id} is not enabled any more"))),
        }
    }
}
