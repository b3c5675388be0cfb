//! Performing: each job opens with an essay on why its order of steps is right.
//!
//! Every job has one beat: gather facts (I/O), decide (pure), perform (I/O), record. What they all
//! need is in [`Env`].

pub mod apply;
pub mod cdc;
mod changes_table;
pub mod fence;
pub mod full_sync;
pub mod instances;
mod keys;
mod large;
pub mod ownership;
pub mod poll;
mod rejected_row;
mod same_table;
pub mod shape;
pub mod uncaptured;
pub mod verify;

use crate::{
    activity::Activity,
    config::{Config, CopyLane},
    control::{Control, Generation},
    error::{Error, Kind, Result},
    metrics::Metrics,
    model::{id::ServerId, mapping::Mapping, name::Ident},
    mssql::{
        pool::Checkout,
        pool::{
            reservation::{Reservation, ServerConnections},
            sources::Sources,
        },
        tds::TdsConnection,
    },
};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The copy lane needs a second connection per job. With a limit below this, that would leave too
/// few connections for other jobs.
const COPY_LANE_CONNECTIONS_MIN: usize = 8;

/// What every job gets. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    pub config: Arc<Config>,
    pub dest: ServerConnections,
    pub sources: Sources,
    pub control: Control,
    /// Of the lock under which the job works on its mapping.
    pub generation: Generation,
    /// What somebody who watches from outside sees.
    pub metrics: Metrics,
    /// What repeats, and is logged in detail or in sums.
    pub activity: Activity,
    /// Trigger columns that the source does not let us reset.
    pub triggers: full_sync::Triggers,
    /// Which warnings about columns that are not captured were logged.
    pub uncaptured: uncaptured::UncapturedWarnings,
    /// What verification last found.
    pub findings: verify::KnownFindings,
    /// Looked at between batches, never raced against a statement.
    pub cancel: CancellationToken,
}

/// How a job ended when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    Completed,
    /// Asked to stop, or disabled meanwhile: what was committed stays, the rest is for the next
    /// time.
    Stopped,
}

/// A job's connections. All permits that it needs are reserved before it opens the first connection,
/// at the source first: a job that waits at the destination holds permits of its source, and no job
/// waits the other way round, so no two jobs wait for each other.
pub struct JobConnections {
    source: Reservation,
    dest: Reservation,
}

impl Env {
    /// Seats for a job of `mapping`: waits until `source` connections there and `dest` connections
    /// here may be opened, or until it is asked to stop. Who waits has no connection yet that a
    /// wait given up could spoil.
    pub async fn connections(
        &self,
        mapping: &Mapping,
        source: usize,
        dest: usize,
    ) -> Result<JobConnections> {
        let who = format!("mapping {}", mapping.id);
        let source = self.source_connections(mapping.server, source, &who).await?;
        let dest = self.dest_connections(dest, &who).await?;
        Ok(JobConnections { source, dest })
    }

    /// Whether a full sync's rows go through the copy lane: it is switched on, both logins are by
    /// password, and the destination's limit leaves room for a second connection.
    pub fn uses_copy_lane(&self, mapping: &Mapping) -> Result<bool> {
        let by_password = |house: &ServerConnections| !house.pools().endpoint().integrated;
        Ok(self.full_sync_connections() == 2
            && by_password(&self.dest)
            && by_password(&self.sources.connections(mapping.server)?))
    }

    /// Whether a verification's rows come through the copy lane, when they are many: the source's
    /// limit, too, leaves room for a second connection.
    pub fn verifies_by_copy_lane(&self, mapping: &Mapping) -> Result<bool> {
        Ok(self.uses_copy_lane(mapping)?
            && self.sources.connections(mapping.server)?.permits_max() >= COPY_LANE_CONNECTIONS_MIN)
    }

    /// The connections to the destination that a full sync may have.
    pub fn full_sync_connections(&self) -> usize {
        let room = self.config.copy_lane == CopyLane::Wire
            && self.dest.permits_max() >= COPY_LANE_CONNECTIONS_MIN;
        if room { 2 } else { 1 }
    }

    /// Reserves connections at a source alone: waits until they are free, or the job is cancelled.
    pub async fn source_connections(
        &self,
        server: ServerId,
        count: usize,
        who: &str,
    ) -> Result<Reservation> {
        self.or_cancelled(self.sources.connections(server)?.reserve(count, who)).await
    }

    /// Reserves connections at the destination alone.
    pub async fn dest_connections(&self, count: usize, who: &str) -> Result<Reservation> {
        self.or_cancelled(self.dest.reserve(count, who)).await
    }

    async fn or_cancelled(
        &self,
        seats: impl Future<Output = Result<Reservation>>,
    ) -> Result<Reservation> {
        tokio::select! {
            seats = seats => seats,
            () = self.cancel.cancelled() => Err(Error::new(Kind::Cancelled, "asked to stop while it waited for connections")),
        }
    }

    /// Whether the job should stop at the next batch boundary.
    pub fn stopping(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl JobConnections {
    /// A session in `database` of the source.
    pub async fn source(&self, database: &Ident) -> Result<Checkout> {
        self.source.checkout(database).await
    }

    /// The copy lane's connections to the databases of `mapping`: to the source, and to the
    /// destination.
    pub async fn copy_lane(&self, mapping: &Mapping) -> Result<(TdsConnection, TdsConnection)> {
        Ok((
            self.source.tds_connection(&mapping.source.database).await?,
            self.dest.tds_connection(&mapping.dest.database).await?,
        ))
    }

    /// A session in `database` of the destination.
    pub async fn dest(&self, database: &Ident) -> Result<Checkout> {
        self.dest.checkout(database).await
    }
}
