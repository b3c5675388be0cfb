//! Seats: the right to a number of connections, taken all at once.
//!
//! A job that needs a session at its source and two at the destination takes one seat there and two
//! here, in this order, before it checks anything out. As nobody waits for a connection while
//! holding one, and everybody waits in the same order, the limits cannot deadlock, however small
//! they are.

use crate::mssql::{
    endpoint::Endpoint,
    pool::{Checkout, Pools},
    tds::TdsConnection,
};
use crate::{
    error::{Error, Kind, Result},
    model::name::Ident,
};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A server's pools and the seats they can give.
#[derive(Clone)]
pub struct ServerConnections {
    pools: Pools,
    permits: Arc<Semaphore>,
    permits_max: usize,
}

impl ServerConnections {
    /// `reserved` connections are never given as seats: they belong to whoever checks out without
    /// one.
    pub fn new(pools: Pools, reserved: usize) -> Self {
        let permits_max = pools.options().connections_max.saturating_sub(reserved).max(1);
        ServerConnections { pools, permits: Arc::new(Semaphore::new(permits_max)), permits_max }
    }

    /// The same server by another address, login or setting: seats that are taken stay taken.
    pub fn replace_endpoint(&self, endpoint: Endpoint) -> Self {
        ServerConnections { pools: self.pools.replace_endpoint(endpoint), ..self.clone() }
    }

    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// The most seats that can be taken.
    pub fn permits_max(&self) -> usize {
        self.permits_max
    }

    /// Waits until `count` seats are free, and takes them together.
    pub async fn reserve(&self, count: usize, who: impl Into<String>) -> Result<Reservation> {
        if count > self.permits_max {
            let place = self.pools.endpoint().server_name();
            return Err(Error::new(
                Kind::Config,
                format!(
                    "{count} connections to {place} are needed at once, but at most {} may be open",
                    self.permits_max
                ),
            ));
        }
        let permits = u32::try_from(count).unwrap_or(u32::MAX);
        let held = self
            .permits
            .clone()
            .acquire_many_owned(permits)
            .await
            .map_err(|_| Error::new(Kind::Cancelled, "the server's connections are closed"))?;
        Ok(Reservation {
            pools: self.pools.clone(),
            reserved: Arc::new(held),
            available: Arc::new(Semaphore::new(count)),
            label: who.into(),
        })
    }
}

/// One of them, taken for as long as this exists; it keeps all of them taken.
pub(in crate::mssql) struct ReservedPermit {
    _one: OwnedSemaphorePermit,
    _held: Arc<OwnedSemaphorePermit>,
}

/// A number of connections to one server that may be checked out at the same time. Checkouts keep
/// their seat even when this is dropped.
pub struct Reservation {
    pools: Pools,
    reserved: Arc<OwnedSemaphorePermit>,
    available: Arc<Semaphore>,
    label: String,
}

impl Reservation {
    /// A connection of the copy lane's own, which takes a seat like any other.
    pub async fn tds_connection(&self, database: &Ident) -> Result<TdsConnection> {
        let seat = self.reserve_permit()?;
        Ok(self.pools.tds_connection(database, &self.label).await?.with_reserved_permit(seat))
    }

    fn reserve_permit(&self) -> Result<ReservedPermit> {
        let one = self.available.clone().try_acquire_owned();
        let one = one.map_err(|_| {
            Error::new(
                Kind::Other,
                format!("{} asks for more connections than it took seats for", self.label),
            )
        })?;
        Ok(ReservedPermit { _one: one, _held: self.reserved.clone() })
    }

    /// A session in `database`. Asking for more at a time than there are seats is refused, since
    /// waiting could be for ever.
    pub async fn checkout(&self, database: &Ident) -> Result<Checkout> {
        let seat = self.reserve_permit()?;
        let checkout = self.pools.checkout(database, &self.label).await?;
        Ok(checkout.with_reserved_permit(seat))
    }
}
