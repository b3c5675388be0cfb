//! Mappings that have never synced: what their destination table has decides how they begin.
//!
//! An empty table is loaded by a full sync, which is requested before the mapping gets a checkpoint;
//! so a daemon that ends in between leaves a mapping that is asked again. A table with rows may be a
//! restored backup, or loaded by other means: it is left to the operator what that is, and changes
//! are applied from the first one on. Whoever writes to an empty destination table at this very
//! moment should set `initial_sync` before: a full sync replaces such rows.
//!
//! A mapping with a checkpoint is none of these, whichever version wrote it.

use super::{
    locked::Failure,
    state::{MappingFacts, PollContext, PollState, Polled, reads_cdc},
};
use crate::{
    error::{Context, Error, Result},
    jobs::Env,
    model::{
        id::MappingId,
        mapping::{InitialSync, Mapping, SyncType},
    },
    mssql::{
        client::{row::Param, session::Session},
        queries::catalog,
    },
    plan::{diagnostics, schedule::InitialLoad},
    tsql::{copied::copyable, poll as poll_sql, staging},
};
use tokio::time::Instant;

/// Destination tables that one poll asks, one round trip each; the others have to wait.
const TABLES_MAX: usize = 100;

/// Characters of a CREATE TABLE statement that fits into an error; `check` prints longer ones.
const STATEMENT_CHARS_MAX: usize = 4_000;

/// What a destination table has.
enum DestRows {
    Missing,
    None,
    Some,
}

/// Finds out which mappings are loaded first. A missing destination table is an error of its
/// mapping.
pub(super) async fn look(
    source: &mut Session,
    context: PollContext<'_>,
    mappings: &mut [MappingFacts<'_>],
    state: &mut PollState,
    polled: &mut Polled,
) -> Result<()> {
    let mut asked = 0;
    for facts in mappings.iter_mut().filter(|facts| has_never_synced(facts)) {
        let mapping = facts.mapping;
        let known = state.not_loaded.get(&mapping.id);
        if known.is_some_and(|(dest, set)| (dest, set) == (&mapping.dest, &mapping.initial_sync)) {
            continue;
        }
        asked += 1;
        if asked > TABLES_MAX {
            facts.initial_load = Some(InitialLoad::Unknown);
            continue;
        }
        let found = rows(context, mapping).await;
        if found.is_ok() {
            state.locked_dests.answered(mapping.id);
        }
        match found {
            Ok(DestRows::Missing) => {
                polled.failed.push((mapping.id, missing(source, mapping).await?));
            }
            Ok(DestRows::None) if loads(context.env, mapping) => {
                facts.initial_load = Some(InitialLoad::Needed);
            }
            Ok(found) => {
                if matches!(found, DestRows::Some) && loads(context.env, mapping) {
                    warn_never_synced(mapping);
                }
                let as_it_is = (mapping.dest.clone(), mapping.initial_sync);
                state.not_loaded.insert(mapping.id, as_it_is);
            }
            Err(error) => {
                let lock_timeout = context.env.config.lock_timeout;
                match state.locked_dests.failure(mapping.id, error, lock_timeout, Instant::now()) {
                    // whoever loads it will be done
                    Failure::Locked => facts.initial_load = Some(InitialLoad::Unknown),
                    Failure::Error(error) => polled.failed.push((mapping.id, error)),
                }
            }
        }
    }
    Ok(())
}

fn has_never_synced(facts: &MappingFacts<'_>) -> bool {
    reads_cdc(facts.mapping)
        && !facts.mapping.has_synced
        && facts.stored.control.is_none()
        && facts.stored.agrees()
}

/// Whether a mapping that has never synced is loaded where its destination is empty.
fn loads(env: &Env, mapping: &Mapping) -> bool {
    mapping.initial_sync == InitialSync::Configured && env.config.initial_sync
}

async fn rows(context: PollContext<'_>, mapping: &Mapping) -> Result<DestRows> {
    let connections = context.env.dest_connections(1, context.holder).await?;
    let mut session = connections.checkout(&mapping.dest.database).await?;
    let name = mapping.dest.local();
    let row = session
        .row(&poll_sql::has_rows(&mapping.dest), &[Param::Text(&name)])
        .await
        .with_context(|| format!("look whether {} is empty", mapping.dest))?;
    Ok(match row.opt_i32(0)? {
        None => DestRows::Missing,
        Some(0) => DestRows::None,
        Some(_) => DestRows::Some,
    })
}

/// The error, with the statement that makes the table where the source's table can be seen.
async fn missing(source: &mut Session, mapping: &Mapping) -> Result<Error> {
    let error = catalog::missing_dest_table(&mapping.dest);
    let create = match catalog::table(source, &mapping.source).await {
        Ok(table) => table.map(|table| {
            let (dest, key) = (&mapping.dest, &mapping.key);
            copyable(&diagnostics::create_table(&table, dest, key, staging::type_name))
        }),
        Err(error) if source.is_broken() => return Err(error),
        Err(_) => {
            source.recover().await?;
            None
        }
    };
    let create = create
        .filter(|create| create.chars().count() <= STATEMENT_CHARS_MAX)
        .unwrap_or_else(|| "`dbaops-dataflow check` prints the statement".to_owned());
    Ok(error.with_hint(format!(
        "Correct its name in table_mappings, or grant SELECT on it, or create it: {create}"
    )))
}

fn warn_never_synced(mapping: &Mapping) {
    let MappingId(id) = mapping.id;
    let set = |what: &str| {
        format!("UPDATE dbaops_dataflow.dbo.table_mappings SET {what} WHERE mapping_id = {id}")
    };
    tracing::warn!(
        mapping_id = id,
        server_id = mapping.server.0,
        sync_type = SyncType::FullSync.as_str(),
        "never synced: {} has rows already, and changes of {} are applied from the first one on. \
         Choose: copy the table ({}); or, where the rows come from a backup, name its place \
         (dbaops-dataflow start-from --mapping {id}); or leave it so ({})",
        mapping.dest,
        mapping.source,
        set("full_sync_requested = 1"),
        set("initial_sync = 'NONE'"),
    );
}
