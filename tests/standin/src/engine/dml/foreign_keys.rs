//! Foreign keys: a child's parent must be there; a parent's children forbid, follow or let go.
//!
//! Both sides write first and look afterwards, so of two transactions that meet, at least one sees
//! the other's pending row, and waits.

use crate::{
    engine::{
        catalog::{ForeignKeyMeta, IndexMeta, TableMeta},
        context::Session,
        dml::{prepare::Prepared, write::Written},
        instance::{State, Work},
        key,
        lock::{Spid, TableId},
        query::host::{Row, RowKey},
        scope::{Found, local_name},
        storage::{KeyPlan, TableData, entries_from},
    },
    error::{SqlError, SqlResult},
    tsql::ast::ReferentialAction,
    value::{SqlType, Value},
};
use std::{
    collections::{HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

/// New rows: every enabled foreign key's parent must be there.
pub fn check_children(
    work: &Work,
    prepared: &Prepared,
    rows: &[Arc<Row>],
    verb: &str,
) -> SqlResult<()> {
    for fk in prepared.meta.foreign_keys.iter().filter(|f| !f.disabled) {
        check_key(work, prepared, fk, rows.iter().map(AsRef::as_ref), verb)?;
    }
    Ok(())
}

/// Rows that are there already, for a constraint that is new or enabled again.
pub fn check_foreign_keys(
    session: &Session,
    work: &Work,
    found: &Found,
    keys: &[Arc<ForeignKeyMeta>],
    rows: &[Arc<Row>],
) -> SqlResult<()> {
    let prepared = Prepared::new(session.as_host(), work, found, false)?;
    for fk in keys {
        check_key(work, &prepared, fk, rows.iter().map(AsRef::as_ref), "ALTER TABLE")?;
    }
    Ok(())
}

/// Replaced rows: only those whose foreign key columns have changed.
pub fn check_changed_children(
    work: &Work,
    prepared: &Prepared,
    written: &[Written],
    verb: &str,
) -> SqlResult<()> {
    for fk in prepared.meta.foreign_keys.iter().filter(|f| !f.disabled) {
        let ordinals = ordinals(&prepared.meta, &fk.columns);
        let changed = written.iter().filter_map(|w| {
            let after = w.after.as_deref()?;
            let same = w
                .before
                .as_ref()
                .is_some_and(|before| ordinals.iter().all(|at| before[*at] == after[*at]));
            (!same).then_some(after)
        });
        check_key(work, prepared, fk, changed, verb)?;
    }
    Ok(())
}

fn ordinals(meta: &TableMeta, columns: &[i32]) -> Vec<usize> {
    columns.iter().filter_map(|id| meta.ordinal(*id)).collect()
}

/// How a foreign key's values become the parent's key bytes.
struct ParentKey {
    /// child ordinals and parent types, in the order of the parent's index
    parts: Vec<(usize, SqlType, bool)>,
    table: TableId,
    /// None: the clustered index
    index: Option<i32>,
}

impl ParentKey {
    fn new(state: &State, child: &TableMeta, database: i32, fk: &ForeignKeyMeta) -> Option<Self> {
        let parent = state.table((database, fk.referenced_table))?;
        let index = parent.index(fk.key_index_id)?;
        let mut parts = Vec::new();
        for part in &index.key {
            let at = fk.referenced_columns.iter().position(|id| *id == part.column_id)?;
            parts.push((
                child.ordinal(fk.columns[at])?,
                parent.column(part.column_id)?.ty,
                part.descending,
            ));
        }
        Some(Self {
            parts,
            table: (database, fk.referenced_table),
            index: (!index.clustered).then_some(index.index_id),
        })
    }

    /// None: a NULL among the values, so nothing is asked.
    fn bytes(&self, row: &Row) -> Option<Result<Vec<u8>, ()>> {
        let mut out = Vec::new();
        for (at, ty, descending) in &self.parts {
            if matches!(row[*at], Value::Null) {
                return None;
            }
            if !key::encode(&mut out, ty, &row[*at], *descending) {
                return Some(Err(()));
            }
        }
        Some(Ok(out))
    }
}

enum Look {
    Found,
    Missing,
    Held(Spid),
}

fn look(state: &State, data: &TableData, index: Option<i32>, bytes: &[u8], txn: u64) -> Look {
    let check = |row_key: &RowKey, entry: Option<&RowKey>| {
        let Some(slot) = data.rows.get(row_key) else { return Look::Missing };
        if let Some(owner) = slot.other_writer(txn)
            && let Some(spid) = Work::spid_of(state, owner)
        {
            return Look::Held(spid);
        }
        let Some(row) = slot.visible(txn) else { return Look::Missing };
        match (entry, index.and_then(|id| data.index(id))) {
            (Some(entry), Some(index)) if !index.entry_is_of(entry, row, row_key) => Look::Missing,
            _ => Look::Found,
        }
    };
    let mut held = None;
    let mut visit = |found: Look| match found {
        Look::Found => true,
        Look::Held(spid) => {
            held = Some(spid);
            false
        }
        Look::Missing => false,
    };
    let found = match index {
        None => data.rows.get_key_value(bytes).is_some_and(|(k, _)| visit(check(k, None))),
        Some(id) => data.index(id).is_some_and(|i| {
            entries_from(&i.entries, bytes).any(|(entry, k)| visit(check(k, Some(entry))))
        }),
    };
    match (found, held) {
        (true, _) => Look::Found,
        (false, Some(spid)) => Look::Held(spid),
        (false, None) => Look::Missing,
    }
}

fn check_key<'r>(
    work: &Work,
    prepared: &Prepared,
    fk: &ForeignKeyMeta,
    rows: impl Iterator<Item = &'r Row>,
    verb: &str,
) -> SqlResult<()> {
    let txn = work.txn;
    let mut state = work.lock();
    let Some(parent) = ParentKey::new(&state, &prepared.meta, prepared.id.0, fk) else {
        return Ok(());
    };
    let mut known: HashSet<Vec<u8>> = HashSet::new();
    for row in rows {
        let Some(bytes) = parent.bytes(row) else { continue };
        let missing = match bytes {
            Err(()) => true,
            Ok(bytes) if known.contains(&bytes) => false,
            Ok(bytes) => {
                let at = |s: &State| {
                    s.tables
                        .get(&parent.table)
                        .map_or(Look::Missing, |d| look(s, d, parent.index, &bytes, txn))
                };
                state = work.wait_while(state, |s| match at(s) {
                    Look::Held(spid) => vec![spid],
                    Look::Found | Look::Missing => Vec::new(),
                })?;
                let missing = matches!(at(&state), Look::Missing);
                known.insert(bytes);
                missing
            }
        };
        if missing {
            return Err(conflict(
                &state,
                prepared,
                verb,
                "FOREIGN KEY",
                fk,
                parent.table,
                &fk.referenced_columns,
            ));
        }
    }
    Ok(())
}

fn conflict(
    state: &State,
    prepared: &Prepared,
    verb: &str,
    kind: &str,
    fk: &ForeignKeyMeta,
    other: TableId,
    columns: &[i32],
) -> SqlError {
    let same = if other == prepared.id { " SAME TABLE" } else { "" };
    let meta = state.table(other);
    let table = meta.map_or(String::new(), |m| local_name(state, other.0, m));
    let column = match columns {
        [one] => meta
            .and_then(|m| m.column(*one))
            .map_or(String::new(), |c| format!(", column '{}'", c.name)),
        _ => String::new(),
    };
    let kind = match (kind, same) {
        ("FOREIGN KEY", same) => format!("FOREIGN KEY{same}"),
        (kind, "") => kind.to_string(),
        (kind, same) => format!("{} {kind}", same.trim_start()),
    };
    SqlError::new(
        547,
        16,
        format!(
            "The {verb} statement conflicted with the {kind} constraint \"{}\". The conflict occurred in database \"{}\", table \"{table}\"{column}.",
            fk.name, prepared.database_name
        ),
    )
}

pub enum ChildChange {
    Delete,
    /// ordinals and values; None is the column's default
    Set(Vec<(usize, Option<Value>)>),
}

/// Child rows that an action reaches.
pub struct Cascade {
    pub found: Found,
    pub rows: Vec<(RowKey, Arc<Row>, ChildChange)>,
}

/// Looks after the rows that reference what was deleted or has another key now.
pub fn referenced(
    work: &Work,
    found: &Found,
    prepared: &Prepared,
    written: &[Written],
    verb: &str,
) -> SqlResult<Vec<Cascade>> {
    let references = {
        let state = work.lock();
        state
            .databases
            .get(&found.database)
            .map_or_else(Vec::new, |db| db.catalog.references_to(found.table.object_id))
    };
    let mut cascades = Vec::new();
    for (child, fk) in references.into_iter().filter(|(_, fk)| !fk.disabled) {
        let parents = ordinals(&prepared.meta, &fk.referenced_columns);
        let types: Vec<SqlType> = parents.iter().map(|at| prepared.meta.columns[*at].ty).collect();
        let mut lost: HashMap<Vec<u8>, Lost> = HashMap::new();
        for w in written {
            let Some(before) = &w.before else { continue };
            let Some(old) = encode(before, &parents, &types) else { continue };
            let new = w
                .after
                .as_deref()
                .map(|after| parents.iter().map(|at| after[*at].clone()).collect::<Vec<_>>());
            if w.after.as_deref().and_then(|after| encode(after, &parents, &types)).as_ref()
                != Some(&old)
            {
                lost.insert(
                    old,
                    Lost { old: parents.iter().map(|at| before[*at].clone()).collect(), new },
                );
            }
        }
        for w in written {
            // another row may have taken a key over in the same statement
            if let Some(bytes) =
                w.after.as_deref().and_then(|after| encode(after, &parents, &types))
            {
                lost.remove(&bytes);
            }
        }
        if lost.is_empty() {
            continue;
        }
        let child = Found { database: found.database, table: child };
        let children = find_children(work, &child, &fk, &types, &lost)?;
        if children.is_empty() {
            continue;
        }
        let columns = ordinals(&child.table, &fk.columns);
        let mut rows = Vec::with_capacity(children.len());
        for (key, row, new) in children {
            let action = if new.is_some() { fk.on_update } else { fk.on_delete };
            let change = match (action, new) {
                (ReferentialAction::NoAction, _) => {
                    let state = work.lock();
                    return Err(conflict(
                        &state,
                        prepared,
                        verb,
                        "REFERENCE",
                        &fk,
                        child.id(),
                        &fk.columns,
                    ));
                }
                (ReferentialAction::Cascade, None) => ChildChange::Delete,
                (ReferentialAction::Cascade, Some(values)) => ChildChange::Set(
                    columns.iter().copied().zip(values.into_iter().map(Some)).collect(),
                ),
                (ReferentialAction::SetNull, _) => {
                    ChildChange::Set(columns.iter().map(|at| (*at, Some(Value::Null))).collect())
                }
                (ReferentialAction::SetDefault, _) => {
                    ChildChange::Set(columns.iter().map(|at| (*at, None)).collect())
                }
            };
            rows.push((key, row, change));
        }
        cascades.push(Cascade { found: child, rows });
    }
    Ok(cascades)
}

fn encode(row: &Row, ordinals: &[usize], types: &[SqlType]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (at, ty) in ordinals.iter().zip(types) {
        if matches!(row[*at], Value::Null) || !key::encode(&mut out, ty, &row[*at], false) {
            return None;
        }
    }
    Some(out)
}

/// A parent key that is gone, and what it became.
struct Lost {
    old: Vec<Value>,
    new: Option<Vec<Value>>,
}

/// An index that starts with the foreign key's columns, and which of them each of its parts is.
fn seek_plan(child: &Found, fk: &ForeignKeyMeta) -> Option<(Arc<IndexMeta>, Vec<usize>)> {
    child
        .table
        .indexes
        .iter()
        .filter(|i| !i.disabled && i.filter.is_none() && !i.columnstore)
        .find_map(|index| {
            let parts = index.key.get(..fk.columns.len())?;
            let order: Option<Vec<usize>> = parts
                .iter()
                .map(|part| fk.columns.iter().position(|id| *id == part.column_id))
                .collect();
            Some((index.clone(), order?))
        })
}

type Child = (RowKey, Arc<Row>, Option<Vec<Value>>);

/// Seeks by an index whose first columns are the foreign key's when few keys are gone; else reads
/// the table once.
fn find_children(
    work: &Work,
    child: &Found,
    fk: &ForeignKeyMeta,
    types: &[SqlType],
    lost: &HashMap<Vec<u8>, Lost>,
) -> SqlResult<Vec<Child>> {
    let columns = ordinals(&child.table, &fk.columns);
    let txn = work.txn;
    loop {
        let state = work.lock();
        let Some(data) = state.tables.get(&child.id()).cloned() else { return Ok(Vec::new()) };
        drop(state);
        let mut out = Vec::new();
        let mut held = None;
        let mut visit = |key: &RowKey| {
            let Some(slot) = data.rows.get(key) else { return };
            let matches = |row: &Arc<Row>| {
                encode(row, &columns, types)
                    .and_then(|bytes| lost.get(&bytes).map(|l| l.new.clone()))
            };
            if let Some(owner) = slot.other_writer(txn) {
                let dirty = slot.dirty().and_then(matches).is_some()
                    || slot.committed.as_ref().and_then(matches).is_some();
                if dirty {
                    held = Some(owner);
                }
                return;
            }
            if let Some(row) = slot.visible(txn)
                && let Some(new) = matches(row)
            {
                out.push((key.clone(), row.clone(), new));
            }
        };
        match seek_plan(child, fk) {
            Some((index, order)) if lost.len() < data.rows.len().max(20) => {
                let plan = KeyPlan::new(&child.table, &index.key);
                for key in lost.values() {
                    let values: Vec<Value> = order.iter().map(|at| key.old[*at].clone()).collect();
                    let Some(prefix) = plan.prefix(&values) else { continue };
                    if index.clustered {
                        let to = key::after_prefix(&prefix);
                        let bounds = (
                            Bound::Included(prefix.as_slice()),
                            to.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
                        );
                        data.rows.range::<_, [u8]>(bounds).for_each(|(k, _)| visit(k));
                    } else if let Some(entries) = data.index(index.index_id) {
                        entries_from(&entries.entries, &prefix).for_each(|(_, k)| visit(k));
                    }
                }
            }
            Some(_) | None => data.rows.keys().for_each(&mut visit),
        }
        drop(data);
        let Some(owner) = held else { return Ok(out) };
        work.check_cancelled()?;
        drop(work.wait_while(work.lock(), |s| Work::spid_of(s, owner).into_iter().collect())?);
    }
}
