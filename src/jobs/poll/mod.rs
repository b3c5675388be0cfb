//! Polling one source database: which of its mappings have work.
//!
//! # Why the questions come in this order
//!
//! 1. The **max LSN**, the newest captured LSN. It is the end of every window of this poll: a
//!    change that is captured later waits for the next poll.
//! 2. The **capture instances** with their low watermarks.
//! 3. The **checkpoints**, in the control database and in the destinations, and which transactions
//!    the source has there.
//! 4. **One statement** that finds which capture instances have rows above their checkpoint, up to
//!    the max LSN; then the trigger columns that the change tables do not have.
//! 5. **Decisions**, without I/O ([`crate::plan::window`], [`crate::plan::schedule`]).
//! 6. The checkpoints of idle mappings move to the max LSN, after the low watermarks were read
//!    *again*: a watermark that has passed a checkpoint since step 2 means that step 4 may have
//!    missed rows that cleanup had deleted.
//!
//! **Whose error it is.** An error of the source fails the poll. An error of a destination or of
//! the control tables fails the mappings that it concerns. The lag, and the note that a mapping's
//! CDC works again, are only information: that they cannot be written is a warning.
//!
//! The number of round trips does not depend on the number of mappings. A statement about many
//! tables that fails because of one of them is repeated table by table ([`batches`]), so a missing
//! right for one table is the error of one mapping.

mod batches;
mod changes;
mod decide;
mod gather;
mod initial_sync;
mod instances;
mod instances_by_table;
mod lag;
mod locked;
mod record;
mod stall;
mod state;
mod triggers;

pub use stall::STALL_AFTER;
pub use state::{MappingWork, PollState, Polled};

use super::Env;
use crate::{
    config::OnCdcGap,
    error::Result,
    model::{
        id::{MappingId, ServerId},
        mapping::Mapping,
        name::Ident,
    },
    mssql::client::session::Session,
    plan::window,
};
use state::{MappingFacts, PollContext, SourceFacts, reads_cdc};
use std::collections::{HashMap, HashSet};

/// Destination databases of one source database whose checkpoint table is known to exist; beyond,
/// all are asked once more.
const CHECKPOINT_TABLES_MAX: usize = 1_000;

/// Polls `database` for those of its mappings that are not running. An error is one of the whole
/// database, which cannot be reached or opened.
pub async fn poll(
    env: &Env,
    server: ServerId,
    database: &Ident,
    mappings: &[Mapping],
    state: &mut PollState,
) -> Result<Polled> {
    let holder = format!("poll of server {server}");
    let context = PollContext { env, holder: &holder, server, database };
    let mut polled = Polled::default();
    prune(mappings, state);
    // every job reserves its connections at the source first
    let connections = env.source_connections(server, 1, &holder).await?;
    let mut session = connections.checkout(database).await?;

    let (source, facts) = gather(context, &mut session, mappings, state, &mut polled).await?;
    let gap_syncs = env.config.on_cdc_gap == OnCdcGap::FullSync;
    let decided = decide::decide(&facts, &source, state, &polled, gap_syncs);
    record::record(context, &mut session, &facts, &source, decided, state, &mut polled).await?;
    Ok(polled)
}

fn prune(mappings: &[Mapping], state: &mut PollState) {
    let known: HashSet<MappingId> = mappings.iter().map(|mapping| mapping.id).collect();
    state.healthy.retain(|id| known.contains(id));
    state.not_loaded.retain(|id, _| known.contains(id));
    if state.checkpoint_tables.len() > CHECKPOINT_TABLES_MAX {
        state.checkpoint_tables.clear();
    }
}

/// Steps 1 to 4.
async fn gather<'a>(
    context: PollContext<'_>,
    session: &mut Session,
    mappings: &'a [Mapping],
    state: &mut PollState,
    polled: &mut Polled,
) -> Result<(SourceFacts, Vec<MappingFacts<'a>>)> {
    let PollContext { env, server, database, .. } = context;
    let with_cdc = mappings.iter().any(reads_cdc);
    let source =
        if with_cdc { gather::source_facts(session).await? } else { SourceFacts::default() };
    let readable = with_cdc && source.refused.is_none();
    let stored = if readable {
        gather::stored_checkpoints(context, mappings, state, polled).await?
    } else {
        HashMap::new()
    };
    if readable {
        stall::log_stall(server, database, &source, state);
    }
    let mut facts = gather::mapping_facts(mappings, &source, stored, polled);
    if readable {
        initial_sync::look(session, context, &mut facts, state, polled).await?;
        facts.retain(|facts| !polled.has_failed(facts.mapping.id));
    }
    gather::read_histories(session, &mut facts).await?;
    if readable {
        instances::compare(session, context, &mut facts, state, polled).await?;
        for facts in facts.iter_mut().filter(|facts| reads_cdc(facts.mapping)) {
            facts.choice = window::choose(&facts.window_facts(source.max_lsn.as_ref())).ok();
        }
    }
    instances::warn_passed_over(&facts, state);
    instances::warn_switchable(session, &source.instances, &facts, state).await?;
    triggers::read_costs(session, &facts, state).await?;
    let lock_timeout = env.config.lock_timeout;
    changes::find_changes(
        session,
        &mut facts,
        source.max_lsn.as_ref(),
        (state, polled),
        lock_timeout,
    )
    .await?;
    triggers::ask_due(session, &mut facts, &env.triggers, (state, polled), lock_timeout).await?;
    for facts in facts.iter_mut().filter(|facts| env.triggers.is_refused(facts.mapping.id)) {
        facts.triggered = false;
    }
    Ok((source, facts))
}
