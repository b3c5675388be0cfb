//! The limit on physical connections to one server.
//!
//! Every login holds a [`ConnectionPermit`] for as long as its connection exists, also while it is
//! idle in a pool. A server counts a closed connection for a moment longer than we do, so a permit
//! that was given back counts as taken for [`CLOSE_GRACE`].

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Kind, Result};

/// How long a server may still count a connection that was closed here.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// The most connections to one server that may exist at the same time.
pub(in crate::mssql) struct ConnectionLimit {
    permits: Arc<Semaphore>,
    connections_max: usize,
    /// When connections were closed lately.
    closed_at: Mutex<VecDeque<Instant>>,
}

impl ConnectionLimit {
    pub fn new(connections_max: usize) -> Arc<Self> {
        Arc::new(ConnectionLimit {
            permits: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            closed_at: Mutex::default(),
        })
    }

    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Connections that exist now, idle ones included.
    pub fn connections(&self) -> usize {
        self.connections_max.saturating_sub(self.permits.available_permits())
    }

    /// A permit, if one is free now.
    pub fn try_acquire(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        Some(ConnectionPermit { limit: self.clone(), _permit: permit })
    }

    /// Waits up to `wait_max` for a permit; `None` when none was given back in that time.
    pub async fn acquire_within(
        self: &Arc<Self>,
        wait_max: Duration,
    ) -> Result<Option<ConnectionPermit>> {
        match tokio::time::timeout(wait_max, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(ConnectionPermit { limit: self.clone(), _permit: permit })),
            Ok(Err(_)) => Err(Error::new(Kind::Cancelled, "the server's connections are closed")),
            Err(_) => Ok(None),
        }
    }

    /// Waits until the server no longer counts the connections that were closed to make room.
    pub async fn wait_for_closed(&self) {
        loop {
            let wait = {
                let mut closed_at = self.closed_at.lock().unwrap_or_else(PoisonError::into_inner);
                while closed_at.front().is_some_and(|closed| closed.elapsed() >= CLOSE_GRACE) {
                    closed_at.pop_front();
                }
                if closed_at.len() <= self.permits.available_permits() {
                    return;
                }
                closed_at
                    .front()
                    .map_or(Duration::ZERO, |closed| CLOSE_GRACE.saturating_sub(closed.elapsed()))
            };
            tokio::time::sleep(wait).await;
        }
    }
}

/// The right to one connection. It is dropped when the connection is closed.
pub(in crate::mssql) struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut closed_at = self.limit.closed_at.lock().unwrap_or_else(PoisonError::into_inner);
        closed_at.push_back(Instant::now());
    }
}

/// One connection of a job's reservation, for as long as it is checked out. It keeps the whole
/// reservation alive.
pub(in crate::mssql) struct ReservedPermit {
    _one: OwnedSemaphorePermit,
    _reservation: Arc<OwnedSemaphorePermit>,
}

impl ReservedPermit {
    pub fn new(one: OwnedSemaphorePermit, reservation: Arc<OwnedSemaphorePermit>) -> Self {
        ReservedPermit { _one: one, _reservation: reservation }
    }
}
