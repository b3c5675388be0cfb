//! What a poll remembers, what it gathers, and what it returns.

use super::locked::LockedTables;
use crate::{
    error::Error,
    jobs::{Env, cdc::CdcPass},
    model::{
        capture::{Instance, MaxLsn},
        id::{MappingId, ServerId},
        lsn::Lsn,
        mapping::{InitialSync, Mapping},
        name::{Ident, TableName},
    },
    plan::{
        instances::InstanceCoverage,
        schedule::{InitialLoad, TriggerCost},
        window::{Choice, History, StoredCheckpoint, WindowFacts},
    },
    tsql::poll::TriggerColumn,
};
use std::collections::{HashMap, HashSet};
use tokio::time::Instant;

/// What is polled.
#[derive(Clone, Copy)]
pub(super) struct PollContext<'a> {
    pub env: &'a Env,
    /// Who holds the poll's connections, for messages.
    pub holder: &'a str,
    pub server: ServerId,
    pub database: &'a Ident,
}

/// What is remembered of a database between polls. The daemon keeps it, and drops it with the
/// server's row.
#[derive(Debug, Default)]
pub struct PollState {
    /// The max LSN at the last poll, and since when it has been that.
    pub(super) max_lsn: Option<(Option<Lsn>, Instant)>,
    /// A warning was logged that nothing is captured, or that capture does not move.
    pub(super) stall_logged: bool,
    /// Destination databases whose checkpoint table exists.
    pub(super) checkpoint_tables: HashSet<Ident>,
    pub(super) triggers: HashMap<MappingId, TriggerState>,
    pub(super) coverage_cache: CoverageCache,
    /// Mappings whose change table was locked at the last poll.
    pub(super) locked_changes: LockedTables,
    /// Mappings whose source table was locked when its trigger column was asked.
    pub(super) locked_triggers: LockedTables,
    /// Mappings whose destination table was locked when it was looked at whether it has rows.
    pub(super) locked_dests: LockedTables,
    /// Mappings that have no checkpoint yet and begin at the first change, as they were when that
    /// was decided.
    pub(super) not_loaded: HashMap<MappingId, (TableName, InitialSync)>,
    /// CDC mappings whose newest run is known not to be an ERROR.
    pub(super) healthy: HashSet<MappingId>,
}

/// What is remembered of a mapping's trigger column.
#[derive(Clone, Debug)]
pub(super) struct TriggerState {
    pub column: Ident,
    pub asked: Option<Instant>,
    pub cost: Option<TriggerCost>,
    pub cost_asked: Instant,
    /// The change table that CDC read when the cost was asked; `None`: capture had not begun.
    pub followed: Option<i32>,
    /// That change table, if it has the column.
    pub captured_in: Option<i32>,
    pub cost_logged: bool,
    /// The column holds text.
    pub text: bool,
    /// The table is memory-optimized: no lock holds its readers up, and it takes no lock hint.
    pub memory_optimized: bool,
    /// The column could not be asked at the last poll.
    pub faulty: bool,
    /// What the catalog said of the column must be read again.
    pub stale: bool,
}

impl TriggerState {
    pub fn trigger_column(&self) -> TriggerColumn<'_> {
        TriggerColumn { column: &self.column, text: self.text }
    }
}

/// What is remembered of the tables with several capture instances.
#[derive(Debug, Default)]
pub(super) struct CoverageCache {
    /// By mapping: the instances' change tables, when they were compared, and the result.
    pub coverage: HashMap<MappingId, (Vec<i32>, Instant, InstanceCoverage)>,
    /// Instances, by their change tables, of which a warning was logged that they are not read.
    pub warned: HashSet<(MappingId, i32)>,
    /// The database's change tables when it was asked which tables can switch partitions.
    pub switchable_of: Option<Vec<i32>>,
}

/// What a mapping has to do.
#[derive(Debug)]
pub enum MappingWork {
    /// Somebody requests a full sync, or one is pending.
    FullSync {
        /// The trigger column is 1 in a source row.
        trigger: bool,
    },
    Cdc(Box<CdcPass>),
}

/// What a poll found.
#[derive(Debug, Default)]
pub struct Polled {
    /// Mappings with work. The checkpoints of those without have been moved.
    pub work: Vec<(MappingId, MappingWork)>,
    /// Mappings that cannot be polled, each with its own reason.
    pub failed: Vec<(MappingId, Error)>,
    /// Mappings whose trigger column cannot be asked. Their other work goes on.
    pub trigger_faults: Vec<(MappingId, Error)>,
    /// Mappings whose change table is locked: nothing is known of them in this poll.
    pub locked: Vec<MappingId>,
    /// Mappings whose trigger column was asked.
    pub triggers_answered: Vec<MappingId>,
}

impl Polled {
    pub(super) fn has_failed(&self, mapping: MappingId) -> bool {
        self.failed.iter().any(|(id, _)| *id == mapping)
    }
}

/// What the source database answers, gathered before anything is decided.
#[derive(Default)]
pub(super) struct SourceFacts {
    pub max_lsn: Option<MaxLsn>,
    pub instances: Vec<Instance>,
    /// Why CDC cannot be read, for every mapping that uses it.
    pub refused: Option<String>,
}

/// What is known of one mapping.
pub(super) struct MappingFacts<'a> {
    pub mapping: &'a Mapping,
    /// The capture instances of its source table.
    pub instances: Vec<Instance>,
    /// What they capture, where there are several and it is known.
    pub coverage: Option<InstanceCoverage>,
    pub stored: StoredCheckpoint,
    pub history: History,
    pub choice: Option<Choice>,
    pub has_rows: bool,
    /// Its change table is locked, so it is not known whether there are changes.
    pub locked: bool,
    pub triggered: bool,
    pub initial_load: Option<InitialLoad>,
}

impl MappingFacts<'_> {
    pub fn window_facts<'b>(&'b self, max_lsn: Option<&'b MaxLsn>) -> WindowFacts<'b> {
        WindowFacts {
            stored: &self.stored,
            max_lsn,
            instances: &self.instances,
            coverage: self.coverage.as_ref(),
            history: &self.history,
            has_rows: self.has_rows,
        }
    }

    /// The capture instance that CDC reads.
    pub fn chosen_instance(&self) -> Option<&Instance> {
        self.choice.and_then(|choice| self.instances.get(choice.instance))
    }
}

/// Whether the poll reads CDC for a mapping. Not where a full sync comes first: it brings the
/// changes too, and repairs what CDC would fail on.
pub(super) fn reads_cdc(mapping: &Mapping) -> bool {
    mapping.cdc_enabled && !mapping.wants_full_sync()
}
