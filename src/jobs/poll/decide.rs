//! What each mapping does, from what was gathered. Pure.

use super::state::{MappingFacts, MappingWork, PollState, Polled, SourceFacts, reads_cdc};
use crate::{
    error::{Error, Kind},
    jobs::cdc::CdcPass,
    model::{id::MappingId, lsn::Lsn, mapping::Mapping},
    mssql::queries::cdc,
    plan::{
        schedule::{self, Decision, ScheduleFacts},
        window::{self, Choice, Gap, Refusal, Step, Wait},
    },
    tsql::copied::{copyable, enable_table},
};
use std::collections::HashMap;

/// What was decided, for [`super::record`].
#[derive(Default)]
pub(super) struct Decided<'f, 'a> {
    pub work: Vec<(MappingId, MappingWork)>,
    pub failed: Vec<(MappingId, Error)>,
    /// Mappings whose checkpoint moves up to the LSN.
    pub idle: Vec<(&'f MappingFacts<'a>, Lsn)>,
    /// Mappings that have never synced, and for which a full sync is requested.
    pub initial_syncs: Vec<&'a Mapping>,
    /// Mappings that lost changes, and for which a full sync is requested; with the checkpoint as it
    /// was read.
    pub gap_syncs: Vec<(&'a Mapping, Option<Lsn>, Gap)>,
    /// Why there is nothing to read yet, for `v_cdc_lag`.
    pub waiting: HashMap<MappingId, &'static str>,
    /// Mappings whose CDC works and was not known to.
    pub healthy: Vec<MappingId>,
    /// Mappings whose CDC has work or fails.
    pub not_idle: Vec<MappingId>,
}

/// `gap_syncs`: lost changes start a full sync (`DATAFLOW_ON_CDC_GAP`).
pub(super) fn decide<'f, 'a>(
    mappings: &'f [MappingFacts<'a>],
    source: &SourceFacts,
    state: &PollState,
    polled: &Polled,
    gap_syncs: bool,
) -> Decided<'f, 'a> {
    let mut decided = Decided::default();
    for facts in mappings.iter().filter(|facts| !polled.has_failed(facts.mapping.id)) {
        let mapping = facts.mapping;
        if facts.locked {
            decided.waiting.insert(mapping.id, "another session holds a lock on the change table");
            continue;
        }
        let step = match &source.refused {
            Some(reason) if reads_cdc(mapping) && !facts.triggered => {
                decided.failed.push((mapping.id, Error::new(Kind::Missing, reason.clone())));
                continue;
            }
            Some(_) => None,
            None => reads_cdc(mapping)
                .then(|| window::decide(&facts.window_facts(source.max_lsn.as_ref()))),
        };
        if matches!(step, Some(Step::Still | Step::Idle { .. }))
            && !state.healthy.contains(&mapping.id)
        {
            decided.healthy.push(mapping.id);
        }
        let decision = schedule::decide(ScheduleFacts {
            requested: mapping.wants_full_sync(),
            triggered: facts.triggered,
            initial_load: facts.initial_load,
            step,
            gap_syncs,
            last_gap_sync: facts.stored.gap_synced,
        });
        decided.add(facts, source, decision);
    }
    decided
}

impl<'f, 'a> Decided<'f, 'a> {
    fn add(&mut self, facts: &'f MappingFacts<'a>, source: &SourceFacts, decision: Decision) {
        let mapping = facts.mapping;
        match decision {
            Decision::FullSync { trigger } => {
                self.work.push((mapping.id, MappingWork::FullSync { trigger }))
            }
            Decision::Cdc(choice) => {
                if let Some(pass) = cdc_pass(facts, source, choice) {
                    self.not_idle.push(mapping.id);
                    self.work.push((mapping.id, MappingWork::Cdc(Box::new(pass))));
                }
            }
            Decision::Idle { to, .. } => self.idle.push((facts, to)),
            Decision::InitialSync => self.initial_syncs.push(mapping),
            Decision::GapSync(gap) => self.gap_syncs.push((mapping, facts.stored.control, gap)),
            Decision::GapParked { gap, too_soon } => {
                self.not_idle.push(mapping.id);
                self.failed.push((mapping.id, parked_gap(mapping, &gap, too_soon)));
            }
            Decision::Refused(Refusal::NotCaptured) => {
                self.failed.push((mapping.id, not_captured(mapping)))
            }
            Decision::Refused(Refusal::Gated { instance }) => {
                if let Some(instance) = facts.instances.get(instance) {
                    self.failed.push((mapping.id, cdc::not_readable(instance)));
                }
            }
            Decision::Wait(Wait::JustEnabled) => {
                let reason = "nothing has been captured since the capture instance was made";
                self.waiting.insert(mapping.id, reason);
            }
            Decision::Wait(Wait::ReplicaBehind) => {
                let reason = "the secondary replica that answers is behind what has been applied";
                self.waiting.insert(mapping.id, reason);
            }
            Decision::Wait(Wait::NothingCaptured | Wait::Uncompared) | Decision::Nothing => {}
        }
    }
}

fn cdc_pass(facts: &MappingFacts<'_>, source: &SourceFacts, choice: Choice) -> Option<CdcPass> {
    let Choice { instance, from, to, switch_to } = choice;
    Some(CdcPass {
        instance: facts.instances.get(instance)?.clone(),
        switch_to: switch_to.and_then(|i| facts.instances.get(i)).cloned(),
        stored: facts.stored.control,
        from,
        to,
        transaction: source
            .max_lsn
            .as_ref()
            .and_then(|max_lsn| max_lsn.transaction.clone())
            .filter(|known| known.lsn <= to),
    })
}

fn parked_gap(mapping: &Mapping, gap: &Gap, too_soon: bool) -> Error {
    let next = if too_soon {
        "a full sync because of a gap was started less than an hour ago, so this one waits"
    } else {
        "DATAFLOW_ON_CDC_GAP is error, so nothing happens until a full sync is asked for"
    };
    Error::new(Kind::Gap, format!("changes are lost: {}; {next}", gap.message())).with_hint(
        format!(
            "UPDATE table_mappings SET full_sync_requested = 1 WHERE mapping_id = {}",
            mapping.id
        ),
    )
}

fn not_captured(mapping: &Mapping) -> Error {
    let enable = copyable(&enable_table(&mapping.source));
    Error::new(
        Kind::Missing,
        format!("{} has no capture instance, or this login may not see it, so its changes cannot be read", mapping.source),
    )
    .with_hint(format!("Enable CDC for it: {enable} (or set cdc_enabled = 0)"))
}
