//! One look at one source database: which of its mappings have work.
//!
//! **The order of questions matters.** U, the newest captured LSN, comes first and is shared by all
//! mappings of the database; then the instances with their low watermarks, the checkpoints with
//! their twins, one probe for which instances have rows above their checkpoint and up to U; then
//! decisions ([`crate::plan::schedule`]). A change that is captured while we look is above U and
//! waits for the next tick. Idle mappings move to U only after the watermarks were read *again*: a
//! watermark that passed a checkpoint meanwhile may have taken rows that the probe did not see.
//!
//! **Whose trouble it is.** Only what the source does not answer is the source's. The destination's
//! and the control tables' errors are of the mappings they concern; and what is only told (the lag,
//! that CDC is well again) costs nobody's work when it cannot be written.
//!
//! The number of round trips does not depend on the number of mappings. A statement about many
//! tables that fails because of one of them is repeated table by table, so that one mapping's
//! missing right is one mapping's error.

mod changes;
mod instances;
mod lag;
mod triggers;

use super::{Env, cdc::CdcPass};
use crate::{
    config::OnCdcGap,
    control::checkpoint::{self, IdleMove},
    error::{Error, Kind, Result},
    model::{
        capture::{Instance, MaxLsn},
        id::{MappingId, ServerId},
        lsn::Lsn,
        mapping::{Mapping, SyncType},
        name::{Ident, TableName},
    },
    mssql::{cdc, reservation::Reservation, session::Session},
    plan::{
        instances::InstanceCoverage,
        schedule::{self, Decision, ScheduleFacts},
        window::{self, Choice, History, Step, StoredCheckpoint, Wait},
    },
    tsql::copied::{copyable, enable_table},
};
use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// U that does not move for this long, although an idle database records a commit about every five
/// minutes, is worth a word.
const STALL_AFTER: Duration = Duration::from_secs(15 * 60);

/// Destination databases of one source database that are remembered; beyond, they are asked for
/// their checkpoint table once more.
const CHECKPOINT_TABLES_MAX: usize = 1_000;

/// What is remembered of a database between polls; the daemon keeps it, and forgets it with the
/// server's row.
#[derive(Debug, Default)]
pub struct PollState {
    /// U at the last poll, and since when it has been that.
    max_lsn: Option<(Option<Lsn>, Instant)>,
    /// It was said that nothing is captured, or that capture stands still.
    stall_logged: bool,
    /// Destination databases whose checkpoint table is there.
    checkpoint_tables: HashSet<Ident>,
    triggers: HashMap<MappingId, triggers::TriggerState>,
    coverage_cache: instances::CoverageCache,
    /// CDC mappings whose newest run is known not to be an ERROR.
    healthy: HashSet<MappingId>,
}

/// What a mapping has to do.
#[derive(Debug)]
pub enum MappingWork {
    /// Somebody asks for a full sync, or one is pending.
    FullSync {
        /// The trigger column was seen set.
        trigger: bool,
    },
    Cdc(Box<CdcPass>),
}

/// What a poll found.
#[derive(Debug, Default)]
pub struct Polled {
    /// Mappings with work; idle ones have had their checkpoint moved.
    pub work: Vec<(MappingId, MappingWork)>,
    /// Mappings that cannot be polled, each with its own reason.
    pub failed: Vec<(MappingId, Error)>,
    /// Mappings whose trigger column cannot be asked, which stops nothing else.
    pub trigger_faults: Vec<(MappingId, Error)>,
    /// Mappings whose trigger column was asked and could be.
    pub triggers_answered: Vec<MappingId>,
}

/// What the source says, gathered before anything is decided.
#[derive(Default)]
struct SourceFacts {
    max_lsn: Option<MaxLsn>,
    instances: Vec<Instance>,
    /// Why CDC cannot be asked, for all mappings that want it.
    refused: Option<String>,
}

/// One mapping on its way to a decision.
struct MappingFacts<'a> {
    mapping: &'a Mapping,
    instances: Vec<Instance>,
    /// What they capture, where there are several and it is known.
    coverage: Option<InstanceCoverage>,
    stored: StoredCheckpoint,
    history: History,
    choice: Option<Choice>,
    has_rows: bool,
    triggered: bool,
}

impl MappingFacts<'_> {
    fn window_facts<'b>(&'b self, max_lsn: Option<&'b MaxLsn>) -> window::WindowFacts<'b> {
        window::WindowFacts {
            stored: &self.stored,
            max_lsn,
            instances: &self.instances,
            coverage: self.coverage.as_ref(),
            history: &self.history,
            has_rows: self.has_rows,
        }
    }
}

/// Polls `database` for all its mappings that are not running. An error is the whole database's
/// (unreachable, not to be opened).
pub async fn poll(
    env: &Env,
    server: ServerId,
    database: &Ident,
    mappings: &[Mapping],
    state: &mut PollState,
) -> Result<Polled> {
    let mut polled = Polled::default();
    let known: HashSet<MappingId> = mappings.iter().map(|mapping| mapping.id).collect();
    state.healthy.retain(|id| known.contains(id));
    if state.checkpoint_tables.len() > CHECKPOINT_TABLES_MAX {
        state.checkpoint_tables.clear();
    }
    let with_cdc = mappings.iter().any(reads_cdc);
    let who = format!("poll of server {server}");
    // Source first, then destination, as every job takes its connections; the destination's only around
    // the statements there, so that a source that is silent keeps none of them.
    let source_connections = env.source_connections(server, 1, &who).await?;
    let mut session = source_connections.checkout(database).await?;
    let source = if with_cdc { gather(&mut session).await? } else { SourceFacts::default() };
    let mut stored = HashMap::new();
    if with_cdc && source.refused.is_none() {
        let connections = env.dest_connections(1, &who).await?;
        for dest in dest_databases(mappings) {
            match checkpoints(&connections, &dest, (server, database), state).await {
                Ok(found) => {
                    let here: HashSet<MappingId> = mappings
                        .iter()
                        .filter(|mapping| mapping.dest.database == dest)
                        .map(|mapping| mapping.id)
                        .collect();
                    stored.extend(found.into_iter().filter(|(id, _)| here.contains(id)));
                }
                Err(error) => {
                    for mapping in mappings
                        .iter()
                        .filter(|mapping| reads_cdc(mapping) && mapping.dest.database == dest)
                    {
                        polled.failed.push((mapping.id, error.clone()));
                    }
                }
            }
        }
    }
    log_stall(server, database, &source, with_cdc, state);

    let tables = InstancesByTable::new(&source.instances);
    let mut mappings_facts = Vec::with_capacity(mappings.len());
    for mapping in mappings {
        if polled.failed.iter().any(|(id, _)| *id == mapping.id) {
            continue;
        }
        let instances =
            if reads_cdc(mapping) { tables.instances(&mapping.source) } else { Vec::new() };
        // a mapping whose row was removed a moment ago has no checkpoint to go by
        let at = stored.remove(&mapping.id).unwrap_or_default();
        mappings_facts.push(MappingFacts {
            mapping,
            instances,
            coverage: None,
            stored: at,
            history: History::Unknown,
            choice: None,
            has_rows: false,
            triggered: false,
        });
    }
    read_histories(&mut session, &mut mappings_facts).await?;
    if with_cdc && source.refused.is_none() {
        instances::compare(&mut session, (env, &who), &mut mappings_facts, state, &mut polled)
            .await?;
    }
    for facts in mappings_facts
        .iter_mut()
        .filter(|facts| reads_cdc(facts.mapping) && source.refused.is_none())
    {
        facts.choice = window::choose(&facts.window_facts(source.max_lsn.as_ref())).ok();
    }
    instances::warn_passed_over(&mappings_facts, state);
    instances::warn_switchable(&mut session, &source.instances, &mappings_facts, state).await?;
    triggers::read_costs(&mut session, &mappings_facts, state).await?;
    changes::find_changes(
        &mut session,
        &mut mappings_facts,
        source.max_lsn.as_ref(),
        state,
        &mut polled,
    )
    .await?;
    triggers::ask_due(&mut session, &mut mappings_facts, state, &env.triggers, &mut polled).await?;
    for facts in mappings_facts.iter_mut().filter(|facts| env.triggers.is_refused(facts.mapping.id))
    {
        facts.triggered = false;
    }

    let mut idle = Vec::new();
    let mut waiting = HashMap::new();
    let mut healthy = Vec::new();
    for facts in &mappings_facts {
        let mapping = facts.mapping;
        if polled.failed.iter().any(|(id, _)| *id == mapping.id) {
            continue;
        }
        let step = match &source.refused {
            Some(words) if reads_cdc(mapping) && !facts.triggered => {
                polled.failed.push((mapping.id, Error::new(Kind::Missing, words.clone())));
                continue;
            }
            Some(_) => None,
            None => reads_cdc(mapping)
                .then(|| window::decide(&facts.window_facts(source.max_lsn.as_ref()))),
        };
        if matches!(step, Some(Step::Still | Step::Idle { .. }))
            && !state.healthy.contains(&mapping.id)
        {
            healthy.push(mapping.id);
        }
        let decision = schedule::decide(ScheduleFacts {
            requested: mapping.wants_full_sync(),
            triggered: facts.triggered,
            step,
            gap_syncs: env.config.on_cdc_gap == OnCdcGap::FullSync,
            last_gap_sync: facts.stored.gap_synced,
        });
        match decision {
            Decision::FullSync { trigger } => {
                polled.work.push((mapping.id, MappingWork::FullSync { trigger }))
            }
            Decision::Cdc { instance, from, to, switch_to } => {
                let Some(chosen) = facts.instances.get(instance) else { continue };
                state.healthy.remove(&mapping.id);
                let pass = CdcPass {
                    instance: chosen.clone(),
                    switch_to: switch_to.and_then(|i| facts.instances.get(i)).cloned(),
                    stored: facts.stored.control,
                    from,
                    to,
                    transaction: source
                        .max_lsn
                        .as_ref()
                        .and_then(|max_lsn| max_lsn.transaction.clone())
                        .filter(|known| known.lsn <= to),
                };
                polled.work.push((mapping.id, MappingWork::Cdc(Box::new(pass))));
            }
            Decision::Idle { to, .. } => idle.push((facts, to)),
            Decision::GapSync(gap) => {
                match env.control.request_gap_sync(mapping.id, facts.stored.control).await {
                    Ok(true) => {}
                    // another process is further: the next poll sees where
                    Ok(false) => continue,
                    Err(error) => {
                        polled.failed.push((mapping.id, error));
                        continue;
                    }
                }
                let error = Error::new(
                    Kind::Gap,
                    format!("{}; a full sync of this table follows", gap.message()),
                );
                let error = error
                    .with_hint("nothing now; keep changes longer at the source (sys.sp_cdc_change_job, @retention) if this comes again");
                state.healthy.remove(&mapping.id);
                tracing::error!(
                    mapping_id = mapping.id.0,
                    server_id = mapping.server.0,
                    sync_type = SyncType::Cdc.as_str(),
                    error_type = error.kind.error_type(),
                    error_details = %error.details(1, "a full sync has been requested"),
                    "changes are lost: {}",
                    error.message()
                );
                polled.work.push((mapping.id, MappingWork::FullSync { trigger: false }));
            }
            Decision::GapParked { gap, too_soon } => {
                let next = if too_soon {
                    "a full sync because of a gap was started less than an hour ago, so this one waits"
                } else {
                    "DATAFLOW_ON_CDC_GAP is error, so nothing happens until a full sync is asked for"
                };
                state.healthy.remove(&mapping.id);
                polled.failed.push((
                    mapping.id,
                    Error::new(Kind::Gap, format!("changes are lost: {}; {next}", gap.message()))
                        .with_hint(format!("UPDATE table_mappings SET full_sync_requested = 1 WHERE mapping_id = {}", mapping.id)),
                ));
            }
            Decision::Refused(window::Refusal::NotCaptured) => {
                polled.failed.push((mapping.id, not_captured(mapping)))
            }
            Decision::Refused(window::Refusal::Gated { instance }) => {
                if let Some(instance) = facts.instances.get(instance) {
                    polled.failed.push((mapping.id, cdc::gated(instance)));
                }
            }
            Decision::Wait(Wait::JustEnabled) => {
                waiting.insert(
                    mapping.id,
                    "nothing has been captured since the capture instance was made",
                );
            }
            Decision::Wait(Wait::ReplicaBehind) => {
                waiting.insert(
                    mapping.id,
                    "the secondary replica that answers is behind what has been applied",
                );
            }
            Decision::Wait(Wait::NothingCaptured | Wait::Uncompared) | Decision::Nothing => {}
        }
    }
    if !healthy.is_empty() {
        match env.control.settle_cdc(&healthy).await {
            Ok(()) => state.healthy.extend(healthy),
            Err(error) => {
                tracing::warn!(server_id = server.0, %error, "that CDC is well again is said at the next poll")
            }
        }
    }
    instances::bind(env, &who, &mappings_facts, &mut polled).await?;
    if let (Some(max_lsn), false) = (&source.max_lsn, idle.is_empty()) {
        advance_idle(env, &who, &mut session, &idle, max_lsn, &mut polled).await?;
    }
    if with_cdc {
        let reason = lag::unknown_reason(&source, state);
        let lag_rows = lag::measure(
            &mut session,
            &mappings_facts,
            source.max_lsn.as_ref(),
            reason.as_deref(),
            &waiting,
            &polled,
        );
        // What was decided stands, whether or not anybody can be told how far behind it is.
        let written = async { env.control.lag(&mut lag_rows.await?).await };
        if let Err(error) = written.await {
            tracing::warn!(server_id = server.0, %error, "the lag of {} is not in cdc_lag this time", database.as_str());
        }
    }
    Ok(polled)
}

/// CDC is looked at; not where a full sync goes first, which brings its own changes and also mends
/// what CDC would stumble over.
fn reads_cdc(mapping: &Mapping) -> bool {
    mapping.cdc_enabled && !mapping.wants_full_sync()
}

/// U, then everything that depends on it.
async fn gather(session: &mut Session) -> Result<SourceFacts> {
    if !cdc::enabled(session).await? {
        return Ok(SourceFacts {
            refused: Some("CDC is not enabled in the source database. Enable it there: EXEC sys.sp_cdc_enable_db".to_owned()),
            ..Default::default()
        });
    }
    let answered = async {
        let (max_lsn, instances) = cdc::upper_and_instances(session).await?;
        Ok::<_, Error>(SourceFacts { max_lsn, instances, refused: None })
    };
    match answered.await {
        Err(error)
            if matches!(error.kind, Kind::Permission | Kind::Missing) && !session.is_cut_off() =>
        {
            session.recover().await?;
            Ok(SourceFacts {
                refused: Some(format!(
                    "{error}. The login needs the change tables: GRANT SELECT ON SCHEMA::cdc TO <user>"
                )),
                ..Default::default()
            })
        }
        other => other,
    }
}

fn dest_databases(mappings: &[Mapping]) -> Vec<Ident> {
    let mut names: Vec<Ident> = mappings
        .iter()
        .filter(|mapping| reads_cdc(mapping))
        .map(|mapping| mapping.dest.database.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Both checkpoints of the mappings from a source database to a destination database. Two that
/// differ are read a second time before anyone believes it.
async fn checkpoints(
    connections: &Reservation,
    dest: &Ident,
    source: (ServerId, &Ident),
    state: &mut PollState,
) -> Result<HashMap<MappingId, StoredCheckpoint>> {
    let mut session = connections.checkout(dest).await?;
    if !state.checkpoint_tables.contains(dest) {
        checkpoint::ensure_table(&mut session).await?;
        state.checkpoint_tables.insert(dest.clone());
    }
    let stored = checkpoint::stored(&mut session, source).await;
    let stored = match stored {
        Err(error) if error.kind == Kind::Missing => {
            // dropped, or the database was restored from before it existed
            state.checkpoint_tables.remove(dest);
            return Err(error);
        }
        other => other?,
    };
    if stored.values().all(checkpoints_agree) {
        return Ok(stored);
    }
    checkpoint::stored(&mut session, source).await
}

fn checkpoints_agree(stored: &StoredCheckpoint) -> bool {
    stored.control
        == stored.dest_checkpoint.as_ref().and_then(|dest_checkpoint| dest_checkpoint.lsn)
}

/// A database's instances by the tables they are of: a thousand mappings ask, each for its own
/// among a thousand.
struct InstancesByTable<'a> {
    all: &'a [Instance],
    exact: HashMap<(&'a Ident, &'a Ident), Vec<&'a Instance>>,
    /// Without case; made for the first name that is written in another.
    by_folded_name: OnceCell<HashMap<(String, String), Vec<&'a Instance>>>,
}

impl<'a> InstancesByTable<'a> {
    fn new(all: &'a [Instance]) -> Self {
        let mut exact: HashMap<_, Vec<_>> = HashMap::with_capacity(all.len());
        for instance in all {
            exact
                .entry((&instance.source.schema, &instance.source.table))
                .or_default()
                .push(instance);
        }
        InstancesByTable { all, exact, by_folded_name: OnceCell::new() }
    }

    fn by_folded_name(&self) -> &HashMap<(String, String), Vec<&'a Instance>> {
        self.by_folded_name.get_or_init(|| {
            let mut by_folded_name: HashMap<_, Vec<_>> = HashMap::with_capacity(self.all.len());
            for instance in self.all {
                by_folded_name
                    .entry((folded(&instance.source.schema), folded(&instance.source.table)))
                    .or_default()
                    .push(instance);
            }
            by_folded_name
        })
    }

    /// The instances of a table: by name, with the case as written where that decides.
    fn instances(&self, table: &TableName) -> Vec<Instance> {
        let exact = self.exact.get(&(&table.schema, &table.table));
        let found = exact
            .or_else(|| self.by_folded_name().get(&(folded(&table.schema), folded(&table.table))));
        found.into_iter().flatten().copied().cloned().collect()
    }
}

fn folded(name: &Ident) -> String {
    name.as_str().to_lowercase()
}

fn not_captured(mapping: &Mapping) -> Error {
    Error::new(
        Kind::Missing,
        format!("{} has no capture instance, or this login may not see it, so its changes cannot be read", mapping.source),
    )
    .with_hint(format!("Enable CDC for it: {} (or set cdc_enabled = 0)", copyable(&enable_table(&mapping.source))))
}

/// One clear warning when nothing is captured or capture stands still, and one line when it goes
/// on.
fn log_stall(
    server: ServerId,
    database: &Ident,
    source: &SourceFacts,
    with_cdc: bool,
    state: &mut PollState,
) {
    if !with_cdc || source.refused.is_some() {
        return;
    }
    let now = Instant::now();
    let lsn = source.max_lsn.as_ref().map(|max_lsn| max_lsn.lsn);
    let since = match state.max_lsn {
        Some((known, since)) if known == lsn => since,
        _ => {
            if state.stall_logged && lsn.is_some() {
                tracing::info!(server_id = server.0, "capture of {} goes on", database.as_str());
            }
            state.stall_logged = false;
            state.max_lsn = Some((lsn, now));
            now
        }
    };
    if state.stall_logged {
        return;
    }
    let fix = "check that SQL Server Agent and the cdc capture job run: EXEC sys.sp_cdc_help_jobs; SELECT * FROM sys.dm_cdc_errors";
    if lsn.is_none() {
        state.stall_logged = true;
        tracing::warn!(
            server_id = server.0,
            "nothing has been captured in {} yet (its maximum LSN is NULL): CDC was enabled just now, or capture does not run; {fix}",
            database.as_str()
        );
    } else if let Some(minutes) = stalled_minutes(source, now - since) {
        state.stall_logged = true;
        tracing::warn!(
            server_id = server.0,
            "capture of {} has not moved for {} minutes; {fix}",
            database.as_str(),
            minutes
        );
    }
}

/// For how many minutes U has not moved, when that is too long: by the source's own clock, or by
/// ours while we looked. (When the source's local time is set forward, its clock says so for the
/// five minutes that the next commit may take.)
fn stalled_minutes(source: &SourceFacts, watched: Duration) -> Option<u64> {
    let age = source
        .max_lsn
        .as_ref()
        .and_then(|max_lsn| max_lsn.age_s)
        .and_then(|age| u64::try_from(age).ok())
        .map_or(watched, Duration::from_secs);
    let age = age.max(watched);
    (age >= STALL_AFTER).then_some(age.as_secs() / 60)
}

/// What the source's history says at the checkpoints whose transaction we know: idle mappings share
/// one.
async fn read_histories(
    session: &mut Session,
    mappings_facts: &mut [MappingFacts<'_>],
) -> Result<()> {
    let known =
        |facts: &MappingFacts<'_>| facts.stored.transaction().map(|transaction| transaction.lsn);
    let mut lsns: Vec<Lsn> = mappings_facts
        .iter()
        .filter(|facts| !facts.instances.is_empty())
        .filter_map(known)
        .collect();
    lsns.sort();
    lsns.dedup();
    if lsns.is_empty() {
        return Ok(());
    }
    let history = cdc::history(session, &lsns).await?;
    for facts in mappings_facts {
        if let Some(found) = known(facts).and_then(|lsn| history.get(&lsn)) {
            facts.history = found.clone();
        }
    }
    Ok(())
}

/// Whether a statement about many failed because of one of them.
fn is_of_one_table(error: &Error) -> bool {
    matches!(error.kind, Kind::Missing | Kind::Permission | Kind::Schema | Kind::Data)
}

/// Places in groups of at most `size`, one statement each. Where a trigger column cannot be asked,
/// its place is alone: it would fail the others, at every poll.
fn chunks(
    places: Vec<usize>,
    mappings_facts: &[MappingFacts<'_>],
    state: &PollState,
    size: usize,
) -> Vec<Vec<usize>> {
    let faulty = |place: &usize| {
        state.triggers.get(&mappings_facts[*place].mapping.id).is_some_and(|trigger| trigger.faulty)
    };
    let (alone, together): (Vec<usize>, Vec<usize>) = places.into_iter().partition(faulty);
    together
        .chunks(size)
        .map(<[usize]>::to_vec)
        .chain(alone.into_iter().map(|place| vec![place]))
        .collect()
}

/// Moves idle mappings to U, after the watermarks were read again.
async fn advance_idle(
    env: &Env,
    who: &str,
    session: &mut Session,
    idle: &[(&MappingFacts<'_>, Lsn)],
    max_lsn: &MaxLsn,
    polled: &mut Polled,
) -> Result<()> {
    let min: HashMap<i32, Lsn> = cdc::instances(session)
        .await?
        .into_iter()
        .map(|instance| (instance.change_table_id, instance.min))
        .collect();
    let mut moves: HashMap<&Ident, Vec<IdleMove>> = HashMap::new();
    for (facts, to) in idle {
        let Some(choice) = facts.choice else { continue };
        let Some(instance) = facts.instances.get(choice.instance) else { continue };
        // What moved meanwhile is looked at by the next tick, which finds the gap or the missing
        // instance.
        let safe = min
            .get(&instance.change_table_id)
            .is_some_and(|min| !min.is_zero() && *min <= choice.from.next());
        if safe {
            moves.entry(&facts.mapping.dest.database).or_default().push(IdleMove {
                mapping: facts.mapping.id,
                stored: facts.stored.control,
                to: *to,
            });
        }
    }
    let connections = env.dest_connections(1, who).await?;
    for (dest, moves) in moves {
        let moved = async {
            let mut session = connections.checkout(dest).await?;
            let transaction = max_lsn
                .transaction
                .as_ref()
                .filter(|known| moves.iter().all(|idle| known.lsn <= idle.to));
            checkpoint::advance_idle(&mut session, &moves, transaction).await
        };
        if let Err(error) = moved.await {
            polled.failed.extend(moves.iter().map(|idle| (idle.mapping, error.clone())));
        }
    }
    Ok(())
}
