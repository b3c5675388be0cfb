//! The capture job: from the commit log to change tables.
//!
//! What a change row holds follows "cdc.<capture_instance>_CT" (Transact-SQL reference): one
//! `__$start_lsn` per commit, 1/2 for delete and insert, a 3/4 pair for an update; the mask's last
//! byte has the first eight captured columns; text, ntext and image are NULL in images 1 and 3,
//! (max) and xml columns NULL in image 3 unless the update changed them; computed columns are
//! always NULL.

use super::{
    CaptureMode, KeyUpdates, ScanSession, UntouchedLob,
    instances::{self, CaptureInstance},
    lsn_text,
    store::{self, lsn_value},
};
use crate::{
    engine::{
        catalog::TableMeta,
        clock::Moment,
        instance::{Instance, State},
        log::{LogRecord, LoggedKind, LoggedOp, Lsn},
        storage::{Row, TxnId},
    },
    error::{SqlError, SqlResult},
    value::{
        SqlType, Value,
        convert::{ConvertContext, cast},
    },
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Called by every commit that changed a tracked table.
pub fn committed(state: &mut State, database: i32, now: Moment) {
    let random = state.random();
    let Some(db) = state.databases.get_mut(&database) else { return };
    match db.cdc.mode {
        CaptureMode::Immediate => {
            scan(state, database, now, usize::MAX);
        }
        CaptureMode::Manual => {}
        CaptureMode::Delayed { min_ms, max_ms } => {
            let wait = min_ms + (random * max_ms.saturating_sub(min_ms) as f64) as u64;
            db.cdc.due.get_or_insert_with(|| Instant::now() + Duration::from_millis(wait));
        }
    }
}

/// Runs the capture job once over everything committed so far, even while the job is stopped: the
/// hand of a test. Answers the number of transactions taken.
pub fn capture_now(instance: &Instance, database: &str) -> SqlResult<usize> {
    let now = instance.now();
    let mut state = instance.lock();
    let id = named(&state, database)?;
    let taken = scan_always(&mut state, id, now, usize::MAX);
    drop(state);
    instance.notify();
    Ok(taken)
}

/// As the job does: nothing while it is stopped.
pub fn scan(state: &mut State, database: i32, now: Moment, limit: usize) -> usize {
    if state.databases.get(&database).is_some_and(|d| d.cdc.running) {
        scan_always(state, database, now, limit)
    } else {
        0
    }
}

fn scan_always(state: &mut State, database: i32, now: Moment, limit: usize) -> usize {
    let Some(db) = state.databases.get_mut(&database) else { return 0 };
    db.cdc.due = None;
    db.cdc.scanned = Some(Instant::now());
    if !db.options.is_cdc_enabled {
        db.log.records.clear();
        return 0;
    }
    super::ddl::apply_events(state, database, now);
    let Some(db) = state.databases.get_mut(&database) else { return 0 };
    let count = if db.cdc.unhardened { 0 } else { db.log.records.len().min(limit) };
    let records: Vec<Arc<LogRecord>> = db.log.records.drain(..count).collect();
    let instances = instances::load(state, database, 0);
    let mut commands = 0;
    for record in &records {
        commands += take(state, database, &instances, record, None);
    }
    if count == 0 && store::is_empty(state, database, "lsn_time_mapping") {
        dummy(state, database, now);
    }
    let Some(db) = state.databases.get_mut(&database) else { return count };
    if count > 0 {
        db.cdc.last_entry = Some(now);
    }
    // an empty scan prolongs the last session instead of making one of its own
    let empty = count == 0 && db.cdc.sessions.back().is_some_and(|s| s.transactions == 0);
    if empty && let Some(last) = db.cdc.sessions.back_mut() {
        last.end = now;
        last.empty_scans += 1;
        return 0;
    }
    db.cdc.last_session += 1;
    let (first, last) = (records.first(), records.last());
    let zero = || lsn_text(&[0; 10]);
    db.cdc.sessions.push_back(ScanSession {
        id: db.cdc.last_session,
        start: now,
        end: now,
        start_lsn: first.map_or_else(zero, |r| lsn_text(&r.begin_lsn)),
        end_lsn: last.map_or_else(zero, |r| lsn_text(&r.lsn)),
        transactions: i64::try_from(count).unwrap_or(0),
        commands,
        last_commit: last.map(|r| r.commit_time),
        errors: 0,
        empty_scans: i64::from(count == 0),
    });
    while db.cdc.sessions.len() > 32 {
        db.cdc.sessions.pop_front();
    }
    count
}

/// An entry with transaction id 0.
pub fn dummy(state: &mut State, database: i32, now: Moment) {
    let Some(db) = state.databases.get_mut(&database) else { return };
    if !db.options.is_cdc_enabled {
        return;
    }
    // behind what was captured, and before what was committed and is not hardened
    let unhardened = db.log.records.front().map(|record| record.begin_lsn);
    let lsn = unhardened.unwrap_or_else(|| db.log.next_lsn());
    db.cdc.last_entry = Some(now);
    let row = entry(&lsn, &[0; 10], now, now, &[0]);
    if let Some(meta) = store::table(state, database, "lsn_time_mapping") {
        put(state, database, &meta, row, None);
    }
}

/// A row of `cdc.lsn_time_mapping`.
fn entry(lsn: &Lsn, begin: &Lsn, from: Moment, to: Moment, tran_id: &[u8]) -> Row {
    vec![
        lsn_value(lsn),
        from.datetime(),
        to.datetime(),
        Value::Bytes(Arc::from(tran_id)),
        lsn_value(begin),
    ]
}

/// Writes a row: committed at once, or in a transaction of capture's own.
fn put(state: &mut State, database: i32, meta: &Arc<TableMeta>, row: Row, txn: Option<TxnId>) {
    let Some(data) = state.tables.get_mut(&(database, meta.object_id)) else { return };
    let key = data.new_key(&row);
    match txn {
        None => data.put_committed(key, Arc::new(row)),
        Some(txn) => state.write(
            txn,
            (database, meta.object_id),
            meta,
            LoggedKind::Insert,
            key,
            Some(Arc::new(row)),
            false,
        ),
    }
}

/// The same as [`capture_now`], but capture's own transaction is still open: whoever reads dirty
/// sees what it wrote, and nobody else does until [`end`].
pub fn begin(instance: &Instance, database: &str) -> SqlResult<TxnId> {
    let now = instance.now();
    let mut state = instance.lock();
    let id = named(&state, database)?;
    let txn = state.begin(0, true, "cdc_capture", now);
    let instances = instances::load(&state, id, 0);
    let records: Vec<Arc<LogRecord>> = state.database_mut(id)?.log.records.drain(..).collect();
    for record in &records {
        take(&mut state, id, &instances, record, Some(txn));
    }
    Ok(txn)
}

/// Commits what [`begin`] began.
pub fn end(instance: &Instance, txn: TxnId) {
    instance.lock().commit(txn, instance.now());
    instance.notify();
}

fn named(state: &State, database: &str) -> SqlResult<i32> {
    state.database_named(database).map(|d| d.id).ok_or_else(|| {
        SqlError::new(911, 16, format!("Database '{database}' does not exist. Make sure that the name is entered correctly."))
    })
}

/// One transaction into every change table it belongs to, in capture's own transaction where that
/// is open. Answers the number of row changes.
fn take(
    state: &mut State,
    database: i32,
    instances: &[CaptureInstance],
    record: &LogRecord,
    txn: Option<TxnId>,
) -> i64 {
    let Some(db) = state.databases.get(&database) else { return 0 };
    let switches = Switches {
        untouched: db.cdc.untouched_lob,
        keys: db.cdc.key_updates,
        moved_lob_null: db.cdc.moved_lob_null,
    };
    let mut changes = 0;
    for instance in instances {
        // what was committed before an instance began is not its business
        if record.lsn <= instance.start_lsn {
            continue;
        }
        let Some(ct) = state
            .databases
            .get(&database)
            .and_then(|d| d.catalog.table(instance.object_id))
            .cloned()
        else {
            continue;
        };
        let rows = change_rows(instance, &ct, record, switches);
        changes += i64::try_from(rows.len()).unwrap_or(0);
        for row in rows {
            put(state, database, &ct, row, txn);
        }
    }
    if changes > 0
        && let Some(meta) = store::table(state, database, "lsn_time_mapping")
    {
        let id = record.transaction_id.to_be_bytes();
        let row =
            entry(&record.lsn, &record.begin_lsn, record.begin_time, record.commit_time, &id[2..]);
        put(state, database, &meta, row, txn);
    }
    changes
}

#[derive(Clone, Copy)]
struct Switches {
    untouched: UntouchedLob,
    keys: KeyUpdates,
    moved_lob_null: bool,
}

/// Where a captured column stands in the logged rows and its type there (`None`: dropped), its type
/// in the change table, and whether it is computed.
type Place = (Option<(usize, SqlType)>, SqlType, bool);

/// A [`Place`] for each captured column.
struct Plan {
    places: Vec<Place>,
}

impl Plan {
    fn new(instance: &CaptureInstance, ct: &TableMeta, source: &TableMeta) -> Self {
        let places = instance
            .columns
            .iter()
            .map(|c| {
                let place = source.ordinal(c.column_id).map(|at| (at, source.columns[at].ty));
                let ty = ct.column_named(&c.name).map_or(SqlType::Int, |c| c.ty);
                (place, ty, c.computed)
            })
            .collect();
        Self { places }
    }
}

fn change_rows(
    instance: &CaptureInstance,
    ct: &TableMeta,
    record: &LogRecord,
    switches: Switches,
) -> Vec<Row> {
    let mut plans: HashMap<*const TableMeta, Plan> = HashMap::new();
    let with_command = ct.column_named("__$command_id").is_some();
    let mut rows = Vec::new();
    let ops: Vec<&LoggedOp> =
        record.ops.iter().filter(|op| op.table.object_id == instance.source).collect();
    let moves = if switches.keys == KeyUpdates::UpdatePair || switches.moved_lob_null {
        pair_moves(&ops)
    } else {
        HashMap::new()
    };
    let moved_from: HashMap<usize, usize> =
        moves.iter().filter_map(|(delete, insert)| Some(((*insert)?, *delete))).collect();
    let pairs = if switches.keys == KeyUpdates::UpdatePair { moves } else { HashMap::new() };
    for (at, op) in ops.iter().enumerate() {
        let plan = plans
            .entry(Arc::as_ptr(&op.table))
            .or_insert_with(|| Plan::new(instance, ct, &op.table));
        let untouched = moved_from
            .get(&at)
            .filter(|_| switches.moved_lob_null)
            .and_then(|delete| ops[*delete].before.as_deref());
        let mut push = |operation: i64, image: &Row, other: Option<&Row>| {
            let mask = mask(instance, plan, image, other);
            let mut row = vec![
                lsn_value(&record.lsn),
                Value::Null,
                lsn_value(&op.seqval),
                Value::Int(operation),
                Value::Bytes(mask.clone().into()),
            ];
            for (i, (place, ty, computed)) in plan.places.iter().enumerate() {
                let touched = mask[mask.len() - 1 - i / 8] >> (i % 8) & 1 == 1;
                row.push(match place {
                    Some((at, source_type))
                        if operation == 2
                            && source_type.is_lob()
                            && untouched.is_some_and(|old| old.get(*at) == image.get(*at)) =>
                    {
                        Value::Null
                    }
                    Some((at, source_type)) if !computed => cell(
                        image.get(*at).unwrap_or(&Value::Null),
                        *source_type,
                        *ty,
                        operation,
                        touched,
                        switches.untouched,
                    ),
                    _ => Value::Null,
                });
            }
            if with_command {
                row.push(Value::Int(op.command_id.into()));
            }
            rows.push(row);
        };
        let (before, after) = match pairs.get(&at) {
            Some(Some(insert)) => (op.before.as_deref(), ops[*insert].after.as_deref()),
            Some(None) => continue,
            None => (op.before.as_deref(), op.after.as_deref()),
        };
        match (op.kind, before, after) {
            (LoggedKind::Insert, _, Some(after)) => push(2, after, None),
            (LoggedKind::Delete, Some(before), Some(after))
            | (LoggedKind::Update, Some(before), Some(after)) => {
                push(3, before, Some(after));
                push(4, after, Some(before));
            }
            (LoggedKind::Delete, Some(before), None) => push(1, before, None),
            _ => {}
        }
    }
    rows
}

/// The halves of moved rows: delete → Some(its insert), insert → None. Halves belong together in
/// their order within a statement.
fn pair_moves(ops: &[&LoggedOp]) -> HashMap<usize, Option<usize>> {
    let mut open: HashMap<i32, Vec<usize>> = HashMap::new();
    let mut pairs = HashMap::new();
    for (at, op) in ops.iter().enumerate().filter(|(_, op)| op.moved) {
        let waiting = open.entry(op.command_id).or_default();
        if op.kind == LoggedKind::Delete {
            waiting.push(at);
        } else if !waiting.is_empty() {
            pairs.insert(waiting.remove(0), Some(at));
            pairs.insert(at, None);
        }
    }
    pairs
}

/// All bits for inserts and deletes, the changed columns' for updates.
fn mask(instance: &CaptureInstance, plan: &Plan, image: &Row, other: Option<&Row>) -> Vec<u8> {
    let mut mask = vec![0u8; instance.mask_len()];
    let last = mask.len() - 1;
    for (i, (place, _, computed)) in plan.places.iter().enumerate() {
        let changed = match (place, other) {
            (_, None) => true,
            (Some((at, _)), Some(other)) => !computed && image.get(*at) != other.get(*at),
            (None, Some(_)) => false,
        };
        if changed {
            mask[last - i / 8] |= 1 << (i % 8);
        }
    }
    mask
}

fn cell(
    value: &Value,
    from: SqlType,
    to: SqlType,
    operation: i64,
    touched: bool,
    untouched: UntouchedLob,
) -> Value {
    if matches!(value, Value::Null) {
        return Value::Null;
    }
    if from.is_old_lob() && (matches!(operation, 1 | 3) || (operation == 4 && !touched)) {
        return Value::Null;
    }
    if from.is_lob() && !touched {
        let off_row = match value {
            Value::Str(s) => {
                s.encode_utf16().count() * if from.is_unicode() { 2 } else { 1 } > 8000
            }
            Value::Bytes(b) => b.len() > 8000,
            _ => false,
        };
        let null = operation == 3
            || match untouched {
                UntouchedLob::NullOffRow => off_row,
                UntouchedLob::Null => true,
                UntouchedLob::Value => false,
            };
        if null && matches!(operation, 3 | 4) {
            return Value::Null;
        }
    }
    // rowversion becomes binary(8); a type change that the change table has seen already is
    // followed
    if from == to {
        value.clone()
    } else {
        cast(value, from, to, None, &ConvertContext::default()).unwrap_or(Value::Null)
    }
}
