//! The lease: which daemon owns which mappings.
//!
//! SQL Server's lock manager is the coordinator. One connection per daemon, used for nothing else,
//! holds one application lock per mapping that the daemon owns (`sp_getapplock`, owner Session),
//! and one for the daemon's own number among the daemons. No other session can get these locks
//! while the connection is open; when it ends, for whatever reason, the server releases them.
//! <https://learn.microsoft.com/sql/relational-databases/system-stored-procedures/sp-getapplock-transact-sql>
//!
//! **The heartbeat.** A process that is frozen (SIGSTOP, `docker pause`, a hung VM) does nothing,
//! but its connection stays open. So each renewal of the lease also writes `beat_at` in the daemon's row
//! of `dbo.daemons`, by the server's clock, and marks each daemon as gone whose `beat_at` is older than
//! [`GONE_AFTER`]. The mark is final: a daemon that wakes finds it at its next renewal, before it
//! starts anything new, discards its connection and joins again under a new `daemon_id`. Its old
//! session still holds its locks meanwhile, so a mapping that is taken over gets the lock of the
//! next *generation*, a number in `dbo.mapping_owners` that is part of the lock's name.
//!
//! **Correct data does not depend on ownership.** A daemon whose connection broke or that was
//! frozen notices it late, and may be in the middle of a write when it wakes. Each write to a
//! destination checks a fence in its own transaction, which fails and rolls back if another daemon
//! has gone on meanwhile:
//!
//! | write | fence |
//! |---|---|
//! | commit group, idle checkpoint | `last_cdc_lsn` is what it was when the work began |
//! | repair | the same, and no full sync is pending |
//! | swap, each batch of a DIRECT load, its end | `full_sync_pending_at` is this attempt's own claim |
//! | staging table | locked by the session that fills it; its name contains the generation |
//!
//! A commit group, a repair and a batch of a DIRECT load are one batch of statements each: the
//! server ends them whether or not the process runs, so no locks wait for it to wake. The swap is
//! a transaction of several: a process frozen within it keeps its locks on the destination table
//! until it wakes or its connection ends, and the daemon that took over waits for them.
//!
//! Written without a fence: rows that belong to the writer alone (the end of its own run), and facts
//! that are true whichever daemon writes them (log rows, verifications, the lag).
//!
//! A renewal is one round trip, however many mappings there are; releasing and taking is one for
//! each thousand. A refresh takes what it can within [`TAKE_TIME_MAX`], and the next one goes on.

use super::{Control, DATABASE};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{id::MappingId, name::Ident},
    mssql::{client::row::Param, pool::Checkout},
    plan::assignment::Members,
};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

/// Daemons that one control database can have.
pub const DAEMONS_MAX: i32 = 64;
/// Connections that a lease uses.
pub const CONNECTIONS: usize = 1;
/// A daemon that has not renewed its lease for this long is marked as gone: two ticks of the default
/// interval, and ten renewals, so that a slow statement or a short failover loses no lease.
pub const GONE_AFTER: Duration = Duration::from_secs(20);

/// Longest time of a statement: a lease that is not renewed within this counts as lost.
const RENEWAL_TIME_MAX: Duration = Duration::from_secs(30);

/// Time for taking mappings in one refresh: other daemons may want to take some, too.
const TAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Mappings in one statement: their ids, packed, fit a varbinary(8000), also with generations.
pub(super) const PACKED_MAX: usize = 1_000;

/// How often a mapping was taken from a daemon that was gone. It is part of the names of what a
/// frozen daemon may still hold: the mapping's lock and its staging table.
pub type Generation = i32;

/// Locks on mappings, for as long as this exists.
pub struct Lease {
    session: Checkout,
    /// Its number among the daemons; `None` for a command, which does not share with them.
    place: Option<i32>,
    heartbeat: Heartbeat,
    /// The mappings that are locked, and the generation of each lock.
    held: HashMap<MappingId, Generation>,
    /// How many candidates were tried so far: if the time is up before all were tried, the next
    /// refresh goes on after them.
    tried: usize,
    /// Taken, but what their last owner left behind is not recovered yet.
    pub unrecovered: HashSet<MappingId>,
}

/// How frozen daemons are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heartbeat {
    /// Not at all: `init` has not created the tables, so a frozen daemon keeps its locks.
    Missing,
    /// A command: it marks other daemons as gone, but writes no heartbeat of its own.
    Watches,
    /// A daemon, with its row in `dbo.daemons`.
    Beats { daemon_id: i32 },
}

impl Control {
    /// Opens the connection for locks. As a `member` it takes a number among the daemons, so that
    /// they release its share of the mappings.
    pub async fn lease(&self, member: bool) -> Result<Lease> {
        let mut session = self
            .pools
            .checkout(&Ident::new(DATABASE), "lease")
            .await
            .context("open the lease connection")?;
        session.set_timeout(RENEWAL_TIME_MAX);
        // idle in the pool it would keep its locks
        session.mark_not_reusable();
        let has_heartbeat = session
            .row(include_str!("../../sql/lease/has_heartbeat.sql"), &[])
            .await
            .context("look for the heartbeat's tables")?
            .i32(0)?
            == 1;
        let mut heartbeat = if has_heartbeat { Heartbeat::Watches } else { Heartbeat::Missing };
        let mut place = None;
        if member {
            let row = session
                .row(include_str!("../../sql/lease/join.sql"), &[Param::Int(DAEMONS_MAX)])
                .await
                .context("join the daemons")?;
            let free = row.opt_i32(0)?.ok_or_else(|| {
                Error::new(
                    Kind::Config,
                    format!("{DAEMONS_MAX} daemons share this control database already"),
                )
            })?;
            place = Some(free);
            if has_heartbeat {
                let host = gethostname::gethostname().to_string_lossy().into_owned();
                let params = [
                    Param::Int(free),
                    Param::Text(&host),
                    Param::OptInt(i32::try_from(std::process::id()).ok()),
                ];
                let row = session
                    .row(include_str!("../../sql/lease/register.sql"), &params)
                    .await
                    .context("write this daemon's row in dbo.daemons")?;
                heartbeat = Heartbeat::Beats { daemon_id: row.i32(0)? };
            }
        }
        Ok(Lease {
            session,
            place,
            heartbeat,
            held: HashMap::new(),
            tried: 0,
            unrecovered: HashSet::new(),
        })
    }

    /// Locks one mapping for a command; `None` while a daemon or another command owns it. It is
    /// released when the lease is dropped.
    pub async fn claim(&self, mapping: MappingId) -> Result<Option<Lease>> {
        let mut lease = self.lease(false).await?;
        let taken = lease.take(&[mapping], 1).await?;
        Ok((!taken.is_empty()).then_some(lease))
    }
}

impl Lease {
    /// The mappings that are locked, and the generation of each lock.
    pub fn held(&self) -> &HashMap<MappingId, Generation> {
        &self.held
    }

    /// The generation of a mapping's lock.
    pub fn generation(&self, mapping: MappingId) -> Generation {
        self.held.get(&mapping).copied().unwrap_or_default()
    }

    /// `false` on a control database without the heartbeat's tables: a daemon that is frozen keeps
    /// its mappings there.
    pub fn notices_frozen_daemons(&self) -> bool {
        self.heartbeat != Heartbeat::Missing
    }

    /// Writes the heartbeat and returns the running daemons. An answer proves that every lock is
    /// still held, and that this daemon was not marked as gone.
    pub async fn renew(&mut self) -> Result<Members> {
        let own_id = match self.heartbeat {
            Heartbeat::Missing => return self.members_by_locks().await,
            Heartbeat::Watches => None,
            Heartbeat::Beats { daemon_id } => Some(daemon_id),
        };
        let params = [
            Param::Int(DAEMONS_MAX),
            Param::OptInt(own_id),
            Param::Int(i32::try_from(GONE_AFTER.as_secs()).unwrap_or(i32::MAX)),
        ];
        let rows = self
            .session
            .rows(include_str!("../../sql/lease/beat.sql"), &params)
            .await
            .context("write the heartbeat")?;
        let (mut others, mut alive) = (Vec::with_capacity(rows.len()), false);
        for row in &rows {
            if row.bool(1)? {
                alive = true;
            } else {
                others.push(row.i32(0)?);
            }
        }
        if own_id.is_some() && !alive {
            return Err(Error::new(
                Kind::CheckpointConflict,
                format!(
                    "this daemon did not run for more than {} s and was marked as gone",
                    GONE_AFTER.as_secs()
                ),
            )
            .with_hint(
                "Other daemons may have taken its mappings over; it joins them again by itself",
            ));
        }
        Ok(self.rank_among(&others))
    }

    async fn members_by_locks(&mut self) -> Result<Members> {
        let rows = self
            .session
            .rows(
                include_str!("../../sql/lease/members_without_heartbeat.sql"),
                &[Param::Int(DAEMONS_MAX)],
            )
            .await
            .context("look for other daemons")?;
        let others: Vec<i32> = rows.iter().map(|row| row.i32(0)).collect::<Result<_>>()?;
        Ok(self.rank_among(&others))
    }

    /// Its rank among the numbers of all daemons. (`places` may contain its own: a server may report
    /// a lock as taken to the session that holds it.)
    fn rank_among(&self, places: &[i32]) -> Members {
        let Some(own) = self.place else { return Members::ALONE };
        let others = places.iter().filter(|place| **place != own);
        Members {
            count: 1 + others.clone().count(),
            rank: others.filter(|place| **place < own).count(),
        }
    }

    /// Locks those of `candidates` that are free, or owned by a daemon that is gone, in this order,
    /// at most `count_max`. Returns those that were locked; if the time was up, there may be more.
    pub async fn take(
        &mut self,
        candidates: &[MappingId],
        count_max: usize,
    ) -> Result<Vec<MappingId>> {
        let began = Instant::now();
        let mut taken = Vec::new();
        let (later, first) =
            candidates.split_at(self.tried.checked_rem(candidates.len()).unwrap_or(0));
        for some in [first, later].concat().chunks(PACKED_MAX) {
            if taken.len() >= count_max || began.elapsed() >= TAKE_TIME_MAX {
                break;
            }
            self.tried = self.tried.wrapping_add(some.len());
            let ids = packed(some);
            let most = i32::try_from(count_max - taken.len()).unwrap_or(i32::MAX);
            let owner = match self.heartbeat {
                Heartbeat::Beats { daemon_id } => Some(daemon_id),
                Heartbeat::Missing | Heartbeat::Watches => None,
            };
            let params = [Param::Binary(&ids), Param::Int(most), Param::OptInt(owner)];
            let (statement, params) = match self.heartbeat {
                Heartbeat::Missing => {
                    (include_str!("../../sql/lease/take_without_heartbeat.sql"), &params[..2])
                }
                Heartbeat::Watches | Heartbeat::Beats { .. } => {
                    (include_str!("../../sql/lease/take.sql"), &params[..])
                }
            };
            let row = self.session.row(statement, params).await.context("lock mappings")?;
            for (mapping, generation) in unpacked(row.opt_bytes(0)?.unwrap_or_default()) {
                self.held.insert(mapping, generation);
                self.unrecovered.insert(mapping);
                taken.push(mapping);
            }
        }
        Ok(taken)
    }

    /// Releases these.
    pub async fn release(&mut self, mappings: &[MappingId]) -> Result<()> {
        for some in mappings.chunks(PACKED_MAX) {
            let locks: Vec<u8> = some
                .iter()
                .flat_map(|id| [id.0.to_be_bytes(), self.generation(*id).to_be_bytes()].concat())
                .collect();
            self.session
                .execute(include_str!("../../sql/lease/release.sql"), &[Param::Binary(&locks)])
                .await
                .context("release mappings")?;
            for mapping in some {
                self.held.remove(mapping);
                self.unrecovered.remove(mapping);
            }
        }
        Ok(())
    }
}

/// Mapping ids as the statements here unpack them: 4 bytes each, big-endian.
pub(super) fn packed(mappings: &[MappingId]) -> Vec<u8> {
    mappings.iter().flat_map(|mapping| mapping.0.to_be_bytes()).collect()
}

/// Mappings and generations, as `sql/lease/take.sql` packs them: 4 bytes each, big-endian.
fn unpacked(bytes: &[u8]) -> Vec<(MappingId, Generation)> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(i32::from_be_bytes);
    bytes
        .chunks_exact(8)
        .filter_map(|lock| {
            let (id, generation) = lock.split_at(4);
            Some((MappingId(number(id)?), number(generation)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_packing() {
        let ids = [MappingId(1), MappingId(0x0102_0304), MappingId(i32::MAX), MappingId(-1)];
        let bytes = packed(&ids);
        assert_eq!(bytes.len(), 16);
        assert_eq!(
            unpacked(&bytes),
            [(MappingId(1), 0x0102_0304), (MappingId(i32::MAX), -1)],
            "a mapping and its generation"
        );
        const { assert!(PACKED_MAX * 8 <= 8_000) };
    }
}
