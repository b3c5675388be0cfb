//! Repair: writing the source's rows over findings.
//!
//! # Why it cannot harm replication
//!
//! A repair brings a row to what it was at the source *at the mapping's checkpoint*, neither older
//! nor newer, so that the destination is again what CDC takes it for: the source's state at one
//! LSN. The steps are those that make a finding certain ([`crate::plan::verify`]), with a write at
//! their end:
//!
//! 1. `low`: the source's max LSN. Then the rows are read from the source into `#changes` of the
//!    destination session.
//! 2. The checkpoint is waited for until it has passed a fence that covers the read. CDC goes on
//!    meanwhile.
//! 3. `at`: the checkpoint now. If the change table has no row of these keys in (`low`, `at`], what
//!    was read is the state at `at`; keys that have one are read again. The tables still have the
//!    columns by which they were read; else nothing is repaired until the next run.
//! 4. One transaction deletes, updates and inserts, and then touches the mapping's row on the
//!    condition that the checkpoint still is `at`, the mapping is enabled and no full sync is due
//!    ([`GUARD_SQL`]). That locks the row until the commit: a CDC pass or a swap of the same
//!    mapping commits before it, and then the repair is rolled back and step 3 taken again, or after it.
//!
//! A CDC pass that has staged and netted its changes before the repair commits them afterwards: they
//! are later than `at`, and each brings its row to its own after-image. What netting took from the
//! destination meanwhile (is there a row to be patched?) it took from a row that was wrong; a put
//! that found none fetched the whole row, which is right with or without the repair.
//!
//! **Foreign keys.** A repair that a constraint refuses (547, 2601, 2627) is tried with the order of
//! statements turned round, then in halves down to single rows, and again after others were repaired.
//! What is refused still waits for a related table's own repair: it stays a finding, and the next
//! run tries again.
//!
//! Only findings are repaired: a mapping without CDC, or one that stands still, has none.

use super::{
    Step, Watch,
    confirm::{CaptureBefore, capture_before, current_checkpoint, standing, wait_caught_up},
    limit::{Ended, Limit},
    rows::{RowReader, slots},
};
use crate::{
    control::checkpoint::FENCE_ERROR,
    error::{Context, Error, Kind, Result},
    jobs::{
        Env,
        changes_table::{self, CDC_COLUMNS, with_order},
        keys, large, shape,
    },
    model::{
        column_map::ColumnMap,
        lsn::Lsn,
        mapping::{Mapping, SyncType},
        value::Value,
    },
    mssql::client::{
        bulk::BulkColumns,
        row::{Param, Row},
        session::Session,
    },
    plan::verify::{KEYS_NAMED_MAX, Suspects, details},
    tsql::{apply::StatementOrder, changes, large::LargeValues, lookup, repair},
};
use std::{
    collections::{HashSet, VecDeque},
    time::Instant,
};
use tracing::warn;

/// Inside the transaction, behind the rows. See the file for the variables it wants.
const GUARD_SQL: &str = include_str!("../../../sql/checkpoint/repair_guard.sql");

/// Keys that share a fence and a transaction: few waits, and locks too few to become a table's.
const GROUP_KEYS_MAX: usize = 1_000;

/// Repairs of one run take no longer than so many times `DATAFLOW_VERIFY_WAIT`: a full sync of the
/// mapping waits meanwhile.
const WAITS_MAX: u32 = 5;

/// How often a group is read anew because its rows changed, or a transaction tried because the
/// checkpoint moved.
const TRIES_MAX: u32 = 10;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct RepairedGroup {
    pub rows: u64,
    /// Why other rows were not repaired, if known.
    pub refused: Option<String>,
}

/// Keys that are repaired together.
struct RepairGroup {
    keys: Suspects,
    tries: u32,
}

/// How a try of a group ended.
enum GroupOutcome {
    Repaired,
    /// These keys changed meanwhile.
    Changed(Suspects),
    /// A constraint of the destination.
    Refused(Error),
    /// More keys to be deleted than a statement has room for.
    TooMany,
    /// Replication does not follow.
    Stalled(String),
}

/// Repairs findings in groups until all are done or the time for it is up. What was repaired is in
/// `repaired` also after an error.
pub(super) async fn repair(
    env: &Env,
    mapping: &Mapping,
    findings: &Suspects,
    until: Option<Instant>,
    watch: Watch<'_>,
    repaired: &mut RepairedGroup,
) -> Result<()> {
    let Some(now) = standing(env, mapping).await? else {
        repaired.refused = Some("a full sync of the mapping is due".into());
        return Ok(());
    };
    let limit = Limit::new(env, mapping, &now, until)
        .until(Instant::now() + env.config.verify_wait * WAITS_MAX);
    let connections = env.connections(mapping, 1, 1).await?;
    let mut source = connections.source(&mapping.source.database).await?;
    let mut dest = connections.dest(&mapping.dest.database).await?;
    let shape = shape::gather(&mut source, &mut dest, mapping).await?;
    let large = repair::large_values(&shape.map, &shape.source.name);
    let repair = Repair {
        env,
        mapping,
        reader: RowReader::new(mapping, &shape),
        columns: BulkColumns::new(changes::columns(&shape.map)),
        large,
        limit,
        watch,
    };
    dest.batch(&changes::create_tables(&shape.map, &repair::coverage(&shape.map)))
        .await
        .context("create #changes")?;
    let result = repair.groups(findings, &mut source, &mut dest, repaired).await;
    if !dest.is_broken() {
        // a pooled session must not keep the rows in tempdb
        dest.recover().await?;
        dest.batch(changes_table::DROP_TABLES).await?;
    }
    result
}

struct Repair<'a> {
    env: &'a Env,
    mapping: &'a Mapping,
    reader: RowReader<'a>,
    columns: BulkColumns,
    /// How large values come, where a column can have them.
    large: Option<LargeValues>,
    /// Of all groups together.
    limit: Limit<'a>,
    watch: Watch<'a>,
}

impl Repair<'_> {
    fn map(&self) -> &ColumnMap {
        &self.reader.shape.map
    }

    async fn groups(
        &self,
        findings: &Suspects,
        source: &mut Session,
        dest: &mut Session,
        repaired: &mut RepairedGroup,
    ) -> Result<()> {
        let all: Vec<_> =
            findings.iter().map(|(key, difference)| (key.clone(), difference.clone())).collect();
        let mut groups: VecDeque<RepairGroup> = all
            .chunks(GROUP_KEYS_MAX)
            .map(|keys| RepairGroup { keys: keys.iter().cloned().collect(), tries: 0 })
            .collect();
        let mut refused = Vec::new();
        let mut progress = false;
        loop {
            let (done, of) = (repaired.rows, findings.len() as u64);
            (self.watch)(Step::Repairing { done, of });
            let Some(mut group) = groups.pop_front() else {
                // a row may have waited for rows that were repaired later
                if refused.is_empty() || !std::mem::take(&mut progress) {
                    return Ok(());
                }
                repaired.refused = None;
                groups.extend(refused.drain(..));
                continue;
            };
            if let Some(ended) = self.limit.ended().await? {
                repaired.refused = Some(match ended {
                    Ended::TimeUp => "the time for repairs was up".into(),
                    ended => ended.to_string(),
                });
                return Ok(());
            }
            group.tries += 1;
            match self.repair_group(&group.keys, source, dest).await? {
                GroupOutcome::Repaired => {
                    self.log_repaired(&group.keys);
                    repaired.rows += group.keys.len() as u64;
                    progress = true;
                }
                GroupOutcome::Changed(changed) => {
                    group.keys.retain(|key, _| !changed.contains_key(key));
                    if group.tries >= TRIES_MAX {
                        repaired.refused = Some("rows kept changing".into());
                    } else {
                        groups.push_back(RepairGroup { keys: changed, tries: group.tries });
                    }
                    if !group.keys.is_empty() {
                        groups.push_front(group);
                    }
                }
                GroupOutcome::Refused(error) if group.keys.len() == 1 => {
                    repaired.refused = Some(match error.kind {
                        // the server's words have the value; ours have keys
                        Kind::Duplicate if error.number.is_some() => {
                            "another row of the destination has its value of a unique key".into()
                        }
                        _ => error.to_string(),
                    });
                    refused.push(RepairGroup { tries: 0, ..group });
                }
                GroupOutcome::Refused(_) | GroupOutcome::TooMany => {
                    let half =
                        group.keys.keys().nth(group.keys.len() / 2).cloned().unwrap_or_default();
                    let second = group.keys.split_off(&half);
                    groups.push_front(RepairGroup { keys: second, tries: 0 });
                    groups.push_front(RepairGroup { tries: 0, ..group });
                }
                GroupOutcome::Stalled(why) => {
                    repaired.refused = Some(why);
                    return Ok(());
                }
            }
        }
    }

    /// Each repair by its key, and never a value.
    fn log_repaired(&self, keys: &Suspects) {
        let all: Vec<_> = keys.iter().collect();
        for named in all.chunks(KEYS_NAMED_MAX) {
            let records_count = named.len() as u64;
            let named: Suspects = named
                .iter()
                .map(|(key, difference)| ((*key).clone(), (*difference).clone()))
                .collect();
            warn!(
                mapping_id = self.mapping.id.0,
                server_id = self.mapping.server.0,
                sync_type = SyncType::Verification.as_str(),
                records_count,
                "repaired rows of {}: {}",
                self.mapping.dest,
                details(&named.into()).replace('\n', "; ")
            );
        }
    }

    async fn repair_group(
        &self,
        group: &Suspects,
        source: &mut Session,
        dest: &mut Session,
    ) -> Result<GroupOutcome> {
        let Some(CaptureBefore { capture, low, oldest, .. }) =
            capture_before(source, self.reader.shape).await?
        else {
            return Ok(GroupOutcome::Stalled("the source table has no capture instance".into()));
        };
        let gone = match self.stage(group, source, dest).await {
            Ok(gone) => gone,
            Err(error) if error.kind == Kind::Busy && error.number.is_none() => {
                return Ok(GroupOutcome::Changed(group.clone()));
            }
            Err(error) => return Err(error),
        };
        if gone.len() > lookup::keys_max(self.map()) {
            return Ok(GroupOutcome::TooMany);
        }
        // From here on: what moves large values to the destination is work and no waiting, and may
        // take longer than a wait may.
        let wait = self.limit.until(Instant::now() + self.env.config.verify_wait);
        if let Err(why) = wait_caught_up(self.env, self.mapping, source, oldest, &wait).await? {
            return Ok(GroupOutcome::Stalled(why));
        }
        for _ in 0..TRIES_MAX {
            let Some(at) = current_checkpoint(self.env, self.mapping).await? else {
                return Ok(GroupOutcome::Stalled(
                    "the mapping is switched off, or a full sync is due".into(),
                ));
            };
            let (changed, _) = self
                .reader
                .partition_changed(&capture, low, at, group.clone(), source, &self.limit)
                .await?;
            if !changed.is_empty() {
                return Ok(GroupOutcome::Changed(changed));
            }
            shape::prove(source, dest, self.mapping, self.reader.shape).await?;
            let mut refused = None;
            for order in [StatementOrder::UniqueFirst, StatementOrder::ReferencesFirst] {
                let error = match self.write(order, at, &gone, dest).await {
                    Ok(()) => return Ok(GroupOutcome::Repaired),
                    Err(error) => error,
                };
                if dest.is_broken() {
                    return Err(error);
                }
                dest.recover().await?;
                match error.kind {
                    Kind::ForeignKey | Kind::Duplicate => refused = Some(error),
                    // the checkpoint moved, or CDC was in the way
                    _ if error.number == Some(FENCE_ERROR)
                        || matches!(error.kind, Kind::Deadlock | Kind::LockTimeout) =>
                    {
                        refused = None;
                        break;
                    }
                    _ => return Err(error),
                }
            }
            if let Some(error) = refused {
                return Ok(GroupOutcome::Refused(error));
            }
        }
        Ok(GroupOutcome::Changed(group.clone()))
    }

    /// Streams the group's rows from the source into `#changes`; the keys that it does not have.
    async fn stage<'g>(
        &self,
        group: &'g Suspects,
        source: &mut Session,
        dest: &mut Session,
    ) -> Result<Vec<&'g Vec<Value>>> {
        dest.batch("TRUNCATE TABLE #changes;").await.context("empty #changes")?;
        let keys: Vec<_> = group
            .values()
            .map(|(_, key)| key)
            .filter(|key| self.reader.can_hold_key(lookup::TableSide::Source, key))
            .collect();
        let mut there = HashSet::new();
        for keys in keys.chunks(lookup::keys_max(self.map())) {
            self.limit.check().await?;
            let (params, slots) = slots(keys, lookup::keys_max(self.map()));
            let sql = repair::fetch(self.map(), &self.reader.shape.source.name, slots);
            self.load(&sql, &params, group, &mut there, source, dest).await?;
        }
        if let Some(large) = &self.large {
            large::copy_values(source, dest, large, &self.env.cancel).await?;
        }
        Ok(group
            .iter()
            .filter(|(encoded, _)| !there.contains(*encoded))
            .map(|(_, (_, key))| key)
            .collect())
    }

    async fn load(
        &self,
        sql: &str,
        params: &[Param<'_>],
        group: &Suspects,
        there: &mut HashSet<Vec<u8>>,
        source: &mut Session,
        dest: &mut Session,
    ) -> Result<()> {
        const FETCHING: &str = "fetch rows from the source";
        let mut rows = source.stream(sql, params).await.context(FETCHING)?;
        let mut number = |row: Row| {
            let key = self.map().key.iter().map(|&i| row.value(CDC_COLUMNS + i));
            let key = self.reader.encoding.key_of(&key.collect::<Result<Vec<_>>>()?);
            // the comparison is the source's: a row with another spelling of the key is another row
            if !group.contains_key(&key) || !there.insert(key) {
                return Ok(None);
            }
            Ok(Some(with_order(row, i64::try_from(there.len()).unwrap_or(i64::MAX))))
        };
        let refused =
            changes_table::load(&mut rows, FETCHING, dest, &self.columns, &mut number).await?;
        refused.map_or(Ok(()), Err)
    }

    async fn write(
        &self,
        order: StatementOrder,
        at: Lsn,
        gone: &[&Vec<Value>],
        dest: &mut Session,
    ) -> Result<()> {
        let (gone, slots) = slots(gone, lookup::keys_max(self.map()));
        if self.map().merges_keys {
            keys::check_no_merged_keys(
                dest,
                self.map(),
                &repair::merged(self.map(), &self.reader.shape.dest.name, slots),
                &gone,
            )
            .await?;
        }
        let sql =
            repair::transaction(self.map(), &self.reader.shape.dest.name, order, slots, GUARD_SQL);
        let mut params = vec![Param::Int(self.mapping.id.0), Param::Lsn(at)];
        params.extend(gone);
        dest.execute(&sql, &params).await.map(drop).context("repair rows")
    }
}

/// What verification_logs says of it.
pub(super) fn summary(repaired: &RepairedGroup, findings: u64) -> String {
    let left = findings.saturating_sub(repaired.rows);
    let done = format!("repaired {} of {findings}", repaired.rows);
    match &repaired.refused {
        _ if left == 0 => done,
        Some(why) => format!("{done}; {left} left for the next run: {why}"),
        None => format!("{done}; {left} left for the next run"),
    }
}
