//! Who owns what: the lease.
//!
//! SQL Server's lock manager is the coordinator. One connection per daemon, used for nothing else,
//! holds one application lock per mapping that the daemon owns (`sp_getapplock`, owner Session),
//! and one for the daemon's own place among the daemons. While the connection lives, nobody else
//! gets these locks; when it ends, however it ends, the server gives them up at once. There is
//! nothing to expire, no clock to compare and nothing to clean up.
//! <https://learn.microsoft.com/sql/relational-databases/system-stored-procedures/sp-getapplock-transact-sql>
//!
//! A daemon whose connection broke learns of it at its next look, and another may own its mappings
//! by then. That is why ownership alone is never what keeps the data right: checkpoints move only
//! from where the work began (`control::checkpoint`), a swap only fulfils the request it claimed,
//! and a staging table is locked by the session that fills it (`jobs::full_sync`).
//!
//! However many mappings there are, a look is one round trip; giving up and taking is one more for
//! each thousand. Ten thousand mappings are not taken in one go: a look takes what it can within
//! [`TAKE_TIME_MAX`], and the next one goes on.

use super::{Control, DATABASE};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{id::MappingId, name::Ident},
    mssql::{pool::Checkout, row::Param},
    plan::assignment::Members,
};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// Daemons that one control database can have.
pub const DAEMONS_MAX: i32 = 64;
/// Connections that a lease takes.
pub const CONNECTIONS: usize = 1;
/// A lease that is not proven within this counts as lost.
const PROOF_TIME_MAX: Duration = Duration::from_secs(30);

/// Time for taking in one look: others may want to take some, too.
const TAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Mappings in one statement: their ids, packed, fit a varbinary(8000).
pub(super) const PACKED_MAX: usize = 1_000;

/// Locks on mappings, for as long as this exists.
pub struct Lease {
    session: Checkout,
    /// Its number among the daemons, for one that shares with others.
    place: Option<i32>,
    held: HashSet<MappingId>,
    /// How many candidates were tried so far: where time runs out before all were, the next look
    /// goes on behind them.
    tried: usize,
    /// Taken, and not yet put in order after their last owner.
    pub untended: HashSet<MappingId>,
}

impl Control {
    /// The connection for locks. As a `member` it takes a place among the daemons, so that they
    /// give up what is its share.
    pub async fn lease(&self, member: bool) -> Result<Lease> {
        let mut session = self
            .pools
            .checkout(&Ident::new(DATABASE), "lease")
            .await
            .context("open the lease connection")?;
        session.set_timeout(PROOF_TIME_MAX);
        // in an idle pool it would go on holding them
        session.discard_later();
        let place = if member {
            let row = session
                .row(include_str!("../../sql/lease_join.sql"), &[Param::Int(DAEMONS_MAX)])
                .await
                .context("join the daemons")?;
            let place = row.opt_i32(0)?;
            if place.is_none() {
                return Err(Error::new(
                    Kind::Config,
                    format!("{DAEMONS_MAX} daemons share this control database already"),
                ));
            }
            place
        } else {
            None
        };
        Ok(Lease { session, place, held: HashSet::new(), tried: 0, untended: HashSet::new() })
    }

    /// One mapping, for a command that works on it alone; `None` while a daemon (or another
    /// command) owns it. It is given back when the lease is dropped.
    pub async fn claim(&self, mapping: MappingId) -> Result<Option<Lease>> {
        let mut lease = self.lease(false).await?;
        let taken = lease.take(&[mapping], 1).await?;
        Ok((!taken.is_empty()).then_some(lease))
    }
}

impl Lease {
    /// The mappings that are ours.
    pub fn held(&self) -> &HashSet<MappingId> {
        &self.held
    }

    /// The daemons, and which of them this is. That the connection answers proves that every lock
    /// is still held.
    pub async fn members(&mut self) -> Result<Members> {
        let rows = self
            .session
            .rows(include_str!("../../sql/lease_members.sql"), &[Param::Int(DAEMONS_MAX)])
            .await
            .context("look for other daemons")?;
        let Some(own) = self.place else { return Ok(Members::ALONE) };
        let mut members = Members { count: 1, rank: 0 };
        for row in &rows {
            let place = row.i32(0)?;
            // a server may say of a lock that its own holder could not have it
            if place != own {
                members.count += 1;
                members.rank += usize::from(place < own);
            }
        }
        Ok(members)
    }

    /// Takes what is free of `candidates`, in this order, at most `count_max`; returns what is ours
    /// now. There may be more to take.
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
            let most = i32::try_from(count_max - taken.len()).unwrap_or(i32::MAX);
            let params = [Param::Binary(&packed(some)), Param::Int(most)];
            let row = self
                .session
                .row(include_str!("../../sql/lease_take.sql"), &params)
                .await
                .context("take mappings")?;
            let ours = unpacked(row.opt_bytes(0)?.unwrap_or_default());
            self.held.extend(&ours);
            self.untended.extend(&ours);
            taken.extend(ours);
        }
        Ok(taken)
    }

    /// Gives these up.
    pub async fn release(&mut self, mappings: &[MappingId]) -> Result<()> {
        for some in mappings.chunks(PACKED_MAX) {
            self.session
                .execute(
                    include_str!("../../sql/lease_release.sql"),
                    &[Param::Binary(&packed(some))],
                )
                .await
                .context("give up mappings")?;
            for mapping in some {
                self.held.remove(mapping);
                self.untended.remove(mapping);
            }
        }
        Ok(())
    }
}

/// Mapping ids as the statements here unpack them: 4 bytes each, big-endian.
pub(super) fn packed(mappings: &[MappingId]) -> Vec<u8> {
    mappings.iter().flat_map(|mapping| mapping.0.to_be_bytes()).collect()
}

fn unpacked(bytes: &[u8]) -> Vec<MappingId> {
    bytes
        .chunks_exact(4)
        .filter_map(|id| id.try_into().ok())
        .map(|id| MappingId(i32::from_be_bytes(id)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_packing() {
        let ids = [MappingId(1), MappingId(0x0102_0304), MappingId(i32::MAX), MappingId(-1)];
        assert_eq!(packed(&ids).len(), 16);
        assert_eq!(unpacked(&packed(&ids)), ids);
        const { assert!(PACKED_MAX * 4 <= 8_000) };
    }
}
