//! Ownership: which mappings belong to this daemon.
//!
//! Gather: the running daemons, which also proves that this daemon still holds its locks. Decide:
//! [`assignment`]. Perform: release mappings, then take others. Record: before any work starts for a
//! taken mapping, its rows of sync_status that are RUNNING are marked as interrupted, because the
//! daemon that ran them has ended. Staging tables that it left behind are dropped ([`drop_staging_tables`]); that
//! waits for a connection, so it is not part of [`refresh`]. Both concern only mappings whose lock
//! this daemon holds.

use super::{Env, full_sync};
use crate::{
    control::{ControlSnapshot, Generation, Lease, OpenErrors},
    error::{Kind, Result},
    model::{id::MappingId, name::Ident},
    plan::assignment::{self, Holding, Members},
};
use std::collections::{BTreeSet, HashMap, HashSet};
use tracing::{info, warn};

/// The result of a refresh.
#[derive(Debug)]
pub struct OwnedMappings {
    /// The mappings that jobs may work on, and the generation of each lock.
    pub mappings: HashMap<MappingId, Generation>,
    /// Of these: nothing new starts, because they are released as soon as nothing runs for them.
    pub leaving: HashSet<MappingId>,
    pub members: Members,
    /// Set when mappings were taken.
    pub recovered: Option<Recovered>,
}

/// What was learned when mappings were taken over.
#[derive(Debug)]
pub struct Recovered {
    /// The mappings and servers with unresolved errors.
    pub open_errors: OpenErrors,
    /// Destination databases in which the last owner may have left staging tables.
    pub to_sweep: BTreeSet<Ident>,
}

/// Renews the lease and takes or releases mappings until this daemon has its share. An error means
/// that the lease is lost.
pub async fn refresh(
    env: &Env,
    lease: &mut Lease,
    loaded: &ControlSnapshot,
    holding: &Holding,
) -> Result<OwnedMappings> {
    let members = lease.renew().await?;
    let mut wanted: Vec<MappingId> = loaded.mappings.iter().map(|mapping| mapping.id).collect();
    wanted.extend(loaded.rejected.iter().map(|row| row.mapping));
    wanted.sort_unstable();
    let held = lease.held().keys().copied().collect();
    let moves = assignment::divide(&wanted, &held, holding, members);
    lease.release(&moves.release).await?;
    let taken = lease.take(&moves.candidates, moves.take_max).await?;
    if !moves.release.is_empty() || !taken.is_empty() {
        info!(
            daemons = members.count,
            "this daemon works on {} tables now: {} more, {} left to other daemons",
            lease.held().len(),
            taken.len(),
            moves.release.len()
        );
    }
    let recovered = recover(env, lease, loaded).await;
    let ready = lease.held().iter().filter(|(id, _)| !lease.unrecovered.contains(id));
    let mappings = ready.map(|(id, generation)| (*id, *generation)).collect();
    Ok(OwnedMappings { mappings, leaving: moves.leaving, members, recovered })
}

/// Recovers what the last owner of newly taken mappings left behind. If that fails it is tried again
/// at the next refresh, and the mappings wait for it.
async fn recover(env: &Env, lease: &mut Lease, loaded: &ControlSnapshot) -> Option<Recovered> {
    if lease.unrecovered.is_empty() {
        return None;
    }
    let taken: Vec<MappingId> = lease.unrecovered.iter().copied().collect();
    let recovered = async {
        let interrupted = env.control.interrupt_running(&taken).await?;
        Ok::<_, crate::error::Error>((interrupted, env.control.open_errors().await?))
    };
    let (interrupted, open_errors) = match recovered.await {
        Ok(recovered) => recovered,
        Err(error) => {
            warn!(%error, "the control tables cannot be written: tables that came to this daemon wait until they can");
            return None;
        }
    };
    if interrupted > 0 {
        info!(
            interrupted,
            "sync_status: runs that ended with their daemon are marked as interrupted"
        );
    }
    let to_sweep: BTreeSet<Ident> = loaded
        .mappings
        .iter()
        .filter(|mapping| lease.unrecovered.contains(&mapping.id))
        .map(|mapping| mapping.dest.database.clone())
        .collect();
    lease.unrecovered.clear();
    Some(Recovered { open_errors, to_sweep })
}

/// Drops staging tables that no full sync fills any more. This waits for a connection to the
/// destination, so it is not part of a refresh. A full sync that begins meanwhile has locked its own
/// staging table, and drops an older one of the same name itself.
pub async fn drop_staging_tables(env: &Env, databases: BTreeSet<Ident>) {
    for database in databases {
        match full_sync::drop_leftover_stages(env, &database).await {
            Ok(0) => {}
            Ok(leftover) => info!(
                leftover,
                "dropped staging tables of full syncs that were cut off in {database}"
            ),
            Err(error) if error.kind == Kind::Cancelled => return,
            // each full sync drops its own before it begins
            Err(error) => warn!(%error, "leftover staging tables in {database} were not dropped"),
        }
    }
}
