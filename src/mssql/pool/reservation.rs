//! Reservations: the right to a number of connections to one server, taken all at once.
//!
//! A job that needs a session at its source and two at the destination reserves one there and two
//! here, in this order, before it checks anything out. No job waits for a connection while it holds
//! one, and all jobs wait in the same order, so the limits cannot deadlock, however small they are.

use super::pools::{Checkout, Pools};
use crate::{
    error::{Error, Kind, Result},
    model::name::Ident,
    mssql::{
        connect::{endpoint::Endpoint, permit::ReservedPermit},
        tds::TdsConnection,
    },
};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// A server's pools, and the connections that jobs can reserve there.
#[derive(Clone)]
pub struct ServerConnections {
    pools: Pools,
    permits: Arc<Semaphore>,
    permits_max: usize,
}

impl ServerConnections {
    /// `kept_free` connections can never be reserved: they are for checkouts without a reservation.
    pub fn new(pools: Pools, kept_free: usize) -> Self {
        let permits_max = pools.options().connections_max.saturating_sub(kept_free).max(1);
        ServerConnections { pools, permits: Arc::new(Semaphore::new(permits_max)), permits_max }
    }

    /// The same server under another address, login or setting. Existing reservations still count.
    pub fn replace_endpoint(&self, endpoint: Endpoint) -> Self {
        ServerConnections { pools: self.pools.replace_endpoint(endpoint), ..self.clone() }
    }

    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// The most connections that can be reserved.
    pub fn permits_max(&self) -> usize {
        self.permits_max
    }

    /// Waits until `count` connections can be reserved, and reserves them together. `label` is that
    /// of [`Pools::checkout`].
    pub async fn reserve(&self, count: usize, label: impl Into<String>) -> Result<Reservation> {
        if count > self.permits_max {
            let server = self.pools.endpoint().server_name();
            return Err(Error::new(
                Kind::Config,
                format!(
                    "{count} connections to {server} are needed at once, but at most {} may be open",
                    self.permits_max
                ),
            ));
        }
        let permits = u32::try_from(count).unwrap_or(u32::MAX);
        let reserved = self
            .permits
            .clone()
            .acquire_many_owned(permits)
            .await
            .map_err(|_| Error::new(Kind::Cancelled, "the server's connections are closed"))?;
        Ok(Reservation {
            pools: self.pools.clone(),
            reserved: Arc::new(reserved),
            available: Arc::new(Semaphore::new(count)),
            label: label.into(),
        })
    }
}

/// A number of connections to one server that may be checked out at the same time. A checkout that
/// outlives it keeps the whole reservation.
pub struct Reservation {
    pools: Pools,
    reserved: Arc<tokio::sync::OwnedSemaphorePermit>,
    available: Arc<Semaphore>,
    label: String,
}

impl Reservation {
    /// A connection of the copy lane; it counts like any other.
    pub async fn tds_connection(&self, database: &Ident) -> Result<TdsConnection> {
        let permit = self.reserved_permit()?;
        let connection = self.pools.tds_connection(database, &self.label).await?;
        Ok(connection.with_reserved_permit(permit))
    }

    fn reserved_permit(&self) -> Result<ReservedPermit> {
        let one = self.available.clone().try_acquire_owned();
        let one = one.map_err(|_| {
            Error::new(
                Kind::Other,
                format!("{} asks for more connections than it has reserved", self.label),
            )
        })?;
        Ok(ReservedPermit::new(one, self.reserved.clone()))
    }

    /// A session in `database`. Asking for more than were reserved is an error, because waiting
    /// could last for ever.
    pub async fn checkout(&self, database: &Ident) -> Result<Checkout> {
        let permit = self.reserved_permit()?;
        let checkout = self.pools.checkout(database, &self.label).await?;
        Ok(checkout.with_reserved_permit(permit))
    }
}
