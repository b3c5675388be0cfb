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
const TWINS_READY_MAX: usize = 1_000;

/// What is remembered of a database between polls; the daemon keeps it, and forgets it with the
/// server's row.
#[derive(Debug, Default)]
pub struct PollState {
    /// U at the last poll, and since when it has been that.
    upper: Option<(Option<Lsn>, Instant)>,
    /// It was said that nothing is captured, or that capture stands still.
    said_stalled: bool,
    /// Destination databases whose checkpoint table is there.
    twins_ready: HashSet<Ident>,
    triggers: HashMap<MappingId, triggers::TriggerState>,
    compared: instances::CoverageCache,
    /// CDC mappings whose newest run is known not to be an ERROR.
    settled: HashSet<MappingId>,
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
    pub triggers_well: Vec<MappingId>,
}

/// What the source says, gathered before anything is decided.
#[derive(Default)]
struct SourceFacts {
    upper: Option<MaxLsn>,
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
    fn facts<'b>(&'b self, upper: Option<&'b MaxLsn>) -> window::WindowFacts<'b> {
        window::WindowFacts {
            stored: &self.stored,
            upper,
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
    memory: &mut PollState,
) -> Result<Polled> {
    let mut polled = Polled::default();
    let known: HashSet<MappingId> = mappings.iter().map(|mapping| mapping.id).collect();
    memory.settled.retain(|id| known.contains(id));
    if memory.twins_ready.len() > TWINS_READY_MAX {
        memory.twins_ready.clear();
    }
    let with_cdc = mappings.iter().any(follows);
    let who = format!("poll of server {server}");
    // Source first, then destination, as every job takes its seats; the destination's only around
    // the statements there, so that a source that is silent keeps none of them.
    let source_seats = env.source_seats(server, 1, &who).await?;
    let mut session = source_seats.checkout(database).await?;
    let source = if with_cdc { gather(&mut session).await? } else { SourceFacts::default() };
    let mut stored = HashMap::new();
    if with_cdc && source.refused.is_none() {
        let seats = env.dest_seats(1, &who).await?;
        for dest in dest_databases(mappings) {
            match checkpoints(&seats, &dest, (server, database), memory).await {
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
                        .filter(|mapping| follows(mapping) && mapping.dest.database == dest)
                    {
                        polled.failed.push((mapping.id, error.clone()));
                    }
                }
            }
        }
    }
    stalled(server, database, &source, with_cdc, memory);

    let tables = InstancesByTable::new(&source.instances);
    let mut looks = Vec::with_capacity(mappings.len());
    for mapping in mappings {
        if polled.failed.iter().any(|(id, _)| *id == mapping.id) {
            continue;
        }
        let instances =
            if follows(mapping) { tables.instances(&mapping.source) } else { Vec::new() };
        // a mapping whose row was removed a moment ago has no checkpoint to go by
        let at = stored.remove(&mapping.id).unwrap_or_default();
        looks.push(MappingFacts {
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
    histories(&mut session, &mut looks).await?;
    if with_cdc && source.refused.is_none() {
        instances::compare(&mut session, (env, &who), &mut looks, memory, &mut polled).await?;
    }
    for look in looks.iter_mut().filter(|look| follows(look.mapping) && source.refused.is_none()) {
        look.choice = window::choose(&look.facts(source.upper.as_ref())).ok();
    }
    instances::tell(&looks, memory);
    instances::tell_switchable(&mut session, &source.instances, &looks, memory).await?;
    triggers::costs(&mut session, &looks, memory).await?;
    changes::changed(&mut session, &mut looks, source.upper.as_ref(), memory, &mut polled).await?;
    triggers::triggered(&mut session, &mut looks, memory, &env.triggers, &mut polled).await?;
    for look in looks.iter_mut().filter(|look| env.triggers.is_refused(look.mapping.id)) {
        look.triggered = false;
    }

    let mut idle = Vec::new();
    let mut waiting = HashMap::new();
    let mut settled = Vec::new();
    for look in &looks {
        let mapping = look.mapping;
        if polled.failed.iter().any(|(id, _)| *id == mapping.id) {
            continue;
        }
        let step = match &source.refused {
            Some(words) if follows(mapping) && !look.triggered => {
                polled.failed.push((mapping.id, Error::new(Kind::Missing, words.clone())));
                continue;
            }
            Some(_) => None,
            None => follows(mapping).then(|| window::decide(&look.facts(source.upper.as_ref()))),
        };
        if matches!(step, Some(Step::Still | Step::Idle { .. }))
            && !memory.settled.contains(&mapping.id)
        {
            settled.push(mapping.id);
        }
        let decision = schedule::decide(ScheduleFacts {
            wanted: mapping.wants_full_sync(),
            triggered: look.triggered,
            step,
            gap_syncs: env.config.on_cdc_gap == OnCdcGap::FullSync,
            last_gap_sync: look.stored.gap_synced,
        });
        match decision {
            Decision::FullSync { trigger } => {
                polled.work.push((mapping.id, MappingWork::FullSync { trigger }))
            }
            Decision::Cdc { instance, from, to, switch_to } => {
                let Some(chosen) = look.instances.get(instance) else { continue };
                memory.settled.remove(&mapping.id);
                let pass = CdcPass {
                    instance: chosen.clone(),
                    switch_to: switch_to.and_then(|i| look.instances.get(i)).cloned(),
                    stored: look.stored.control,
                    from,
                    to,
                    transaction: source
                        .upper
                        .as_ref()
                        .and_then(|upper| upper.transaction.clone())
                        .filter(|known| known.lsn <= to),
                };
                polled.work.push((mapping.id, MappingWork::Cdc(Box::new(pass))));
            }
            Decision::Idle { to, .. } => idle.push((look, to)),
            Decision::GapSync(gap) => {
                if let Err(error) = env.control.request_gap_sync(mapping.id).await {
                    polled.failed.push((mapping.id, error));
                    continue;
                }
                let error = Error::new(
                    Kind::Gap,
                    format!("{}; a full sync of this table follows", gap.words()),
                );
                let error = error
                    .with_hint("nothing now; keep changes longer at the source (sys.sp_cdc_change_job, @retention) if this comes again");
                memory.settled.remove(&mapping.id);
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
                memory.settled.remove(&mapping.id);
                polled.failed.push((
                    mapping.id,
                    Error::new(Kind::Gap, format!("changes are lost: {}; {next}", gap.words()))
                        .with_hint(format!("UPDATE table_mappings SET full_sync_requested = 1 WHERE mapping_id = {}", mapping.id)),
                ));
            }
            Decision::Refused(window::Refusal::NotCaptured) => {
                polled.failed.push((mapping.id, not_captured(mapping)))
            }
            Decision::Refused(window::Refusal::Gated { instance }) => {
                if let Some(instance) = look.instances.get(instance) {
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
    if !settled.is_empty() {
        match env.control.settle_cdc(&settled).await {
            Ok(()) => memory.settled.extend(settled),
            Err(error) => {
                tracing::warn!(server_id = server.0, %error, "that CDC is well again is said at the next poll")
            }
        }
    }
    instances::bind(env, &who, &looks, &mut polled).await?;
    if let (Some(upper), false) = (&source.upper, idle.is_empty()) {
        advance(env, &who, &mut session, &idle, upper, &mut polled).await?;
    }
    if with_cdc {
        let reason = lag::reason(&source, memory);
        let lags = lag::lags(
            &mut session,
            &looks,
            source.upper.as_ref(),
            reason.as_deref(),
            &waiting,
            &polled,
        );
        // What was decided stands, whether or not anybody can be told how far behind it is.
        let told = async { env.control.lag(&mut lags.await?).await };
        if let Err(error) = told.await {
            tracing::warn!(server_id = server.0, %error, "the lag of {} is not in cdc_lag this time", database.as_str());
        }
    }
    Ok(polled)
}

/// CDC is looked at; not where a full sync goes first, which brings its own changes and also mends
/// what CDC would stumble over.
fn follows(mapping: &Mapping) -> bool {
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
        let (upper, instances) = cdc::upper_and_instances(session).await?;
        Ok::<_, Error>(SourceFacts { upper, instances, refused: None })
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
        .filter(|mapping| follows(mapping))
        .map(|mapping| mapping.dest.database.clone())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Both checkpoints of the mappings from a source database to a destination database. Two that
/// differ are read a second time before anyone believes it.
async fn checkpoints(
    seats: &Reservation,
    dest: &Ident,
    source: (ServerId, &Ident),
    memory: &mut PollState,
) -> Result<HashMap<MappingId, StoredCheckpoint>> {
    let mut session = seats.checkout(dest).await?;
    if !memory.twins_ready.contains(dest) {
        checkpoint::ensure_table(&mut session).await?;
        memory.twins_ready.insert(dest.clone());
    }
    let stored = checkpoint::stored(&mut session, source).await;
    let stored = match stored {
        Err(error) if error.kind == Kind::Missing => {
            // dropped, or the database was restored from before it existed
            memory.twins_ready.remove(dest);
            return Err(error);
        }
        other => other?,
    };
    if stored.values().all(agrees) {
        return Ok(stored);
    }
    checkpoint::stored(&mut session, source).await
}

fn agrees(stored: &StoredCheckpoint) -> bool {
    stored.control == stored.twin.as_ref().and_then(|twin| twin.lsn)
}

/// A database's instances by the tables they are of: a thousand mappings ask, each for its own
/// among a thousand.
struct InstancesByTable<'a> {
    all: &'a [Instance],
    exact: HashMap<(&'a Ident, &'a Ident), Vec<&'a Instance>>,
    /// Without case; made for the first name that is written in another.
    alike: OnceCell<HashMap<(String, String), Vec<&'a Instance>>>,
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
        InstancesByTable { all, exact, alike: OnceCell::new() }
    }

    fn alike(&self) -> &HashMap<(String, String), Vec<&'a Instance>> {
        self.alike.get_or_init(|| {
            let mut alike: HashMap<_, Vec<_>> = HashMap::with_capacity(self.all.len());
            for instance in self.all {
                alike
                    .entry((folded(&instance.source.schema), folded(&instance.source.table)))
                    .or_default()
                    .push(instance);
            }
            alike
        })
    }

    /// The instances of a table: by name, with the case as written where that decides.
    fn instances(&self, table: &TableName) -> Vec<Instance> {
        let exact = self.exact.get(&(&table.schema, &table.table));
        let found =
            exact.or_else(|| self.alike().get(&(folded(&table.schema), folded(&table.table))));
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
fn stalled(
    server: ServerId,
    database: &Ident,
    source: &SourceFacts,
    with_cdc: bool,
    memory: &mut PollState,
) {
    if !with_cdc || source.refused.is_some() {
        return;
    }
    let now = Instant::now();
    let lsn = source.upper.as_ref().map(|upper| upper.lsn);
    let since = match memory.upper {
        Some((known, since)) if known == lsn => since,
        _ => {
            if memory.said_stalled && lsn.is_some() {
                tracing::info!(server_id = server.0, "capture of {} goes on", database.as_str());
            }
            memory.said_stalled = false;
            memory.upper = Some((lsn, now));
            now
        }
    };
    if memory.said_stalled {
        return;
    }
    let fix = "check that SQL Server Agent and the cdc capture job run: EXEC sys.sp_cdc_help_jobs; SELECT * FROM sys.dm_cdc_errors";
    if lsn.is_none() {
        memory.said_stalled = true;
        tracing::warn!(
            server_id = server.0,
            "nothing has been captured in {} yet (its maximum LSN is NULL): CDC was enabled just now, or capture does not run; {fix}",
            database.as_str()
        );
    } else if let Some(minutes) = standing_still(source, now - since) {
        memory.said_stalled = true;
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
fn standing_still(source: &SourceFacts, watched: Duration) -> Option<u64> {
    let age = source
        .upper
        .as_ref()
        .and_then(|upper| upper.age_s)
        .and_then(|age| u64::try_from(age).ok())
        .map_or(watched, Duration::from_secs);
    let age = age.max(watched);
    (age >= STALL_AFTER).then_some(age.as_secs() / 60)
}

/// What the source's history says at the checkpoints whose transaction we know: idle mappings share
/// one.
async fn histories(session: &mut Session, looks: &mut [MappingFacts<'_>]) -> Result<()> {
    let known =
        |look: &MappingFacts<'_>| look.stored.transaction().map(|transaction| transaction.lsn);
    let mut lsns: Vec<Lsn> =
        looks.iter().filter(|look| !look.instances.is_empty()).filter_map(known).collect();
    lsns.sort();
    lsns.dedup();
    if lsns.is_empty() {
        return Ok(());
    }
    let history = cdc::history(session, &lsns).await?;
    for look in looks {
        if let Some(found) = known(look).and_then(|lsn| history.get(&lsn)) {
            look.history = found.clone();
        }
    }
    Ok(())
}

/// Whether a statement about many failed because of one of them.
fn of_one(error: &Error) -> bool {
    matches!(error.kind, Kind::Missing | Kind::Permission | Kind::Schema | Kind::Data)
}

/// Places in groups of at most `size`, one statement each. Where a trigger column cannot be asked,
/// its place is alone: it would fail the others, at every poll.
fn groups(
    places: Vec<usize>,
    looks: &[MappingFacts<'_>],
    memory: &PollState,
    size: usize,
) -> Vec<Vec<usize>> {
    let faulty = |place: &usize| {
        memory.triggers.get(&looks[*place].mapping.id).is_some_and(|trigger| trigger.faulty)
    };
    let (alone, together): (Vec<usize>, Vec<usize>) = places.into_iter().partition(faulty);
    together
        .chunks(size)
        .map(<[usize]>::to_vec)
        .chain(alone.into_iter().map(|place| vec![place]))
        .collect()
}

/// Moves idle mappings to U, after the watermarks were read again.
async fn advance(
    env: &Env,
    who: &str,
    session: &mut Session,
    idle: &[(&MappingFacts<'_>, Lsn)],
    upper: &MaxLsn,
    polled: &mut Polled,
) -> Result<()> {
    let min: HashMap<i32, Lsn> = cdc::instances(session)
        .await?
        .into_iter()
        .map(|instance| (instance.change_table_id, instance.min))
        .collect();
    let mut moves: HashMap<&Ident, Vec<IdleMove>> = HashMap::new();
    for (look, to) in idle {
        let Some(choice) = look.choice else { continue };
        let Some(instance) = look.instances.get(choice.instance) else { continue };
        // What moved meanwhile is looked at by the next tick, which finds the gap or the missing
        // instance.
        let safe = min
            .get(&instance.change_table_id)
            .is_some_and(|min| !min.is_zero() && *min <= choice.from.next());
        if safe {
            moves.entry(&look.mapping.dest.database).or_default().push(IdleMove {
                mapping: look.mapping.id,
                stored: look.stored.control,
                to: *to,
            });
        }
    }
    let seats = env.dest_seats(1, who).await?;
    for (dest, moves) in moves {
        let moved = async {
            let mut session = seats.checkout(dest).await?;
            let transaction = upper
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
