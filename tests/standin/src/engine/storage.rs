//! One table's rows and indexes.
//!
//! Rows live in a persistent ordered map under their clustered key (a heap's: a row number). A
//! [`Slot`] holds the latest committed image and, while a transaction is writing, that
//! transaction's pending image: the pending image is the row's exclusive lock. Indexes map encoded
//! keys (with the row key behind them) to row keys and cover committed and pending images alike, so
//! that uniqueness is checked against both; an index entry is a hint that is checked against the
//! row's visible image when it is read.
//!
//! Cloning a [`TableData`] is two pointers: that is what SNAPSHOT, a statement under
//! READ_COMMITTED_SNAPSHOT and the undo of DDL keep.

use crate::{
    engine::{
        catalog::{FilterOp, FilterTest, IndexMeta, KeyColumn, TableMeta},
        key,
    },
    value::{SqlType, Value},
};
use imbl::OrdMap;
use std::{cmp::Ordering, ops::Bound, sync::Arc};

pub use crate::engine::query::host::{Row, RowKey};

/// The number of a transaction.
pub type TxnId = u64;

/// A row that is (being) stored.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    pub committed: Option<Arc<Row>>,
    /// the writer and its image; an image of None is a deletion
    pub pending: Option<(TxnId, Option<Arc<Row>>)>,
}

impl Slot {
    /// What a transaction sees: its own pending image, else the committed one.
    pub fn visible(&self, txn: TxnId) -> Option<&Arc<Row>> {
        match &self.pending {
            Some((owner, image)) if *owner == txn => image.as_ref(),
            Some(_) | None => self.committed.as_ref(),
        }
    }

    /// What READ UNCOMMITTED sees.
    pub fn dirty(&self) -> Option<&Arc<Row>> {
        match &self.pending {
            Some((_, image)) => image.as_ref(),
            None => self.committed.as_ref(),
        }
    }

    pub fn other_writer(&self, txn: TxnId) -> Option<TxnId> {
        self.pending.as_ref().map(|(owner, _)| *owner).filter(|owner| *owner != txn)
    }
}

/// How an index's keys are made of a row.
#[derive(Clone, Debug)]
pub struct KeyPlan {
    parts: Vec<(usize, SqlType, bool)>,
}

impl KeyPlan {
    pub fn new(table: &TableMeta, columns: &[KeyColumn]) -> Self {
        Self {
            parts: columns
                .iter()
                .filter_map(|k| Some((k.ordinal, table.columns.get(k.ordinal)?.ty, k.descending)))
                .collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.parts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub fn encode(&self, row: &Row) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.parts.len() * 10 + 8);
        for (ordinal, ty, descending) in &self.parts {
            let value = row.get(*ordinal).unwrap_or(&Value::Null);
            if !key::encode(&mut out, ty, value, *descending) {
                key::encode(&mut out, ty, &Value::Null, *descending);
            }
        }
        out
    }

    /// The first parts of a key; None when a value cannot stand in its column, so that no row
    /// matches.
    pub fn prefix(&self, values: &[Value]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for ((_, ty, descending), value) in self.parts.iter().zip(values) {
            if !key::encode(&mut out, ty, value, *descending) {
                return None;
            }
        }
        Some(out)
    }

    /// Byte bounds for rows that equal `prefix` and, on the next part, lie between the bounds.
    /// None: no row can.
    pub fn range(
        &self,
        prefix: &[Value],
        lower: Option<&(Value, bool)>,
        upper: Option<&(Value, bool)>,
    ) -> Option<ByteRange> {
        let base = self.prefix(prefix)?;
        let mut from = Bound::Included(base.clone());
        let mut to = key::after_prefix(&base).map_or(Bound::Unbounded, Bound::Excluded);
        let Some((_, ty, descending)) = self.parts.get(prefix.len()) else {
            return Some(ByteRange { from, to });
        };
        let edge = |value: &Value| {
            let mut out = base.clone();
            key::encode(&mut out, ty, value, *descending).then_some(out)
        };
        let (low, high) = if *descending { (upper, lower) } else { (lower, upper) };
        if let Some((value, inclusive)) = low {
            let bytes = edge(value)?;
            from = if *inclusive {
                Bound::Included(bytes)
            } else {
                key::after_prefix(&bytes).map_or(Bound::Excluded(bytes), Bound::Included)
            };
        }
        if let Some((value, inclusive)) = high {
            let bytes = edge(value)?;
            to = if *inclusive {
                key::after_prefix(&bytes).map_or(Bound::Unbounded, Bound::Excluded)
            } else {
                Bound::Excluded(bytes)
            };
        }
        // A comparison is never true of NULL: with only one bound given, the NULLs on the open side
        // are kept out.
        if low.is_some() != high.is_some() {
            let mut null = base.clone();
            key::encode(&mut null, ty, &Value::Null, *descending);
            if *descending && high.is_none() {
                to = Bound::Excluded(null);
            } else if !*descending && low.is_none() {
                from = key::after_prefix(&null).map_or(from, Bound::Included);
            }
        }
        Some(ByteRange { from, to })
    }
}

#[derive(Clone, Debug)]
pub struct ByteRange {
    pub from: Bound<Vec<u8>>,
    pub to: Bound<Vec<u8>>,
}

impl ByteRange {
    pub fn all() -> Self {
        Self { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    pub fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(a), Bound::Included(b)) => a > b,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Excluded(b))
            | (Bound::Excluded(a), Bound::Included(b)) => a >= b,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        }
    }

    pub fn as_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.from.as_ref().map(Vec::as_slice), self.to.as_ref().map(Vec::as_slice))
    }
}

#[derive(Clone, Debug)]
pub struct IndexData {
    pub meta: Arc<IndexMeta>,
    pub plan: KeyPlan,
    /// encoded key, then the row key → row key
    pub entries: OrdMap<RowKey, RowKey>,
    filter: Vec<(usize, SqlType, FilterTest)>,
}

fn passes(value: &Value, ty: &SqlType, test: &FilterTest) -> bool {
    let null = matches!(value, Value::Null);
    let order = |other: &Value| {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        (!null && key::encode(&mut a, ty, value, false) && key::encode(&mut b, ty, other, false))
            .then(|| a.cmp(&b))
    };
    match test {
        FilterTest::IsNull => null,
        FilterTest::IsNotNull => !null,
        FilterTest::In(values) => values.iter().any(|v| order(v).is_some_and(Ordering::is_eq)),
        FilterTest::Compare(op, other) => order(other).is_some_and(|o| match op {
            FilterOp::Eq => o.is_eq(),
            FilterOp::NotEq => o.is_ne(),
            FilterOp::Lt => o.is_lt(),
            FilterOp::LtEq => o.is_le(),
            FilterOp::Gt => o.is_gt(),
            FilterOp::GtEq => o.is_ge(),
        }),
    }
}

impl IndexData {
    fn covers(&self, row: &Row) -> bool {
        self.filter
            .iter()
            .all(|(ordinal, ty, test)| passes(row.get(*ordinal).unwrap_or(&Value::Null), ty, test))
    }

    /// The entry's bytes for a row, if the index covers it.
    fn entry(&self, row: &Row, row_key: &RowKey) -> Option<RowKey> {
        self.covers(row).then(|| {
            let mut out = self.plan.encode(row);
            out.extend_from_slice(row_key);
            RowKey::from(out)
        })
    }

    /// Is the entry one of this image, or a leftover of another image of the row?
    pub fn entry_is_of(&self, entry: &RowKey, row: &Row, row_key: &RowKey) -> bool {
        self.entry(row, row_key).is_some_and(|own| own == *entry)
    }
}

/// Who stands in the way of a new image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// another transaction's pending row: wait for it
    Writer(TxnId),
    /// a row is there: 2627 or 2601, for this index
    Duplicate(i32),
}

#[derive(Clone, Debug)]
pub struct TableData {
    /// the [`TableMeta::version`] its rows are laid out by
    pub version: u64,
    pub rows: OrdMap<RowKey, Slot>,
    /// all but the clustered index, which is `rows`
    pub indexes: Vec<IndexData>,
    clustered: Option<(i32, KeyPlan, bool)>,
    next_number: u64,
    pub committed_rows: i64,
}

impl TableData {
    /// An empty table.
    pub fn new(meta: &TableMeta) -> Self {
        let filter = |index: &IndexMeta| {
            let tests = index.filter.iter().flat_map(|f| &f.tests);
            tests
                .filter_map(|(id, test)| {
                    meta.ordinal(*id).map(|at| (at, meta.columns[at].ty, test.clone()))
                })
                .collect()
        };
        let clustered =
            meta.clustered().map(|i| (i.index_id, KeyPlan::new(meta, &i.key), i.unique));
        let indexes = meta
            .indexes
            .iter()
            .filter(|i| !i.clustered && !i.disabled)
            .map(|i| IndexData {
                meta: i.clone(),
                plan: KeyPlan::new(meta, &i.key),
                entries: OrdMap::new(),
                filter: filter(i),
            })
            .collect();
        Self {
            version: meta.version,
            rows: OrdMap::new(),
            indexes,
            clustered,
            next_number: 1,
            committed_rows: 0,
        }
    }

    /// Keeps counting row numbers where `other` stopped, so that a rebuilt heap never repeats one.
    pub fn continue_numbers(&mut self, other: &Self) {
        self.next_number = self.next_number.max(other.next_number);
    }

    pub fn clustered_plan(&self) -> Option<&KeyPlan> {
        self.clustered.as_ref().map(|(_, plan, _)| plan)
    }

    pub fn index(&self, index_id: i32) -> Option<&IndexData> {
        self.indexes.iter().find(|i| i.meta.index_id == index_id)
    }

    pub fn has_filtered(&self) -> bool {
        self.indexes.iter().any(|i| i.meta.unique && !i.filter.is_empty())
    }

    /// The key a new row goes under.
    pub fn new_key(&mut self, row: &Row) -> RowKey {
        let number = |next: &mut u64| {
            let bytes = next.to_be_bytes();
            *next += 1;
            bytes
        };
        match &self.clustered {
            None => RowKey::from(&number(&mut self.next_number)[..]),
            Some((_, plan, true)) => RowKey::from(plan.encode(row)),
            Some((_, plan, false)) => {
                let mut out = plan.encode(row);
                out.extend_from_slice(&number(&mut self.next_number));
                RowKey::from(out)
            }
        }
    }

    /// The key an existing row has after an update: its own, unless the clustered key has changed.
    pub fn moved_key(&mut self, key: &RowKey, after: &Row) -> RowKey {
        match &self.clustered {
            None => key.clone(),
            Some((_, plan, true)) => {
                let new = plan.encode(after);
                if new == key[..] { key.clone() } else { RowKey::from(new) }
            }
            Some((_, plan, false)) => {
                let new = plan.encode(after);
                if key.len() == new.len() + 8 && key.starts_with(&new) {
                    key.clone()
                } else {
                    self.new_key(after)
                }
            }
        }
    }

    /// May `row` be written under `key`? Looks at the clustered key (when the row is new there) and
    /// every unique index. Index 1 is looked at first, as in SQL Server, so that the error names
    /// the same constraint.
    pub fn conflict(&self, txn: TxnId, key: &RowKey, row: &Row, new_key: bool) -> Option<Conflict> {
        if new_key
            && let Some((id, _, true)) = &self.clustered
            && let Some(slot) = self.rows.get(key)
        {
            if let Some(owner) = slot.other_writer(txn) {
                return Some(Conflict::Writer(owner));
            }
            if slot.visible(txn).is_some() {
                return Some(Conflict::Duplicate(*id));
            }
        }
        self.indexes
            .iter()
            .filter(|i| i.meta.unique)
            .find_map(|index| self.index_conflict(txn, index, key, row))
    }

    fn index_conflict(
        &self,
        txn: TxnId,
        index: &IndexData,
        key: &RowKey,
        row: &Row,
    ) -> Option<Conflict> {
        if !index.covers(row) {
            return None;
        }
        let prefix = index.plan.encode(row);
        let mut waits = None;
        for (entry, row_key) in entries_from(&index.entries, &prefix) {
            if row_key == key {
                continue;
            }
            let Some(slot) = self.rows.get(row_key) else { continue };
            if let Some(owner) = slot.other_writer(txn) {
                waits = Some(Conflict::Writer(owner));
                continue;
            }
            if slot.visible(txn).is_some_and(|image| index.entry_is_of(entry, image, row_key)) {
                return Some(Conflict::Duplicate(index.meta.index_id));
            }
        }
        waits
    }

    /// Puts a transaction's image in place (None takes the pending image away again: undo).
    pub fn set_pending(&mut self, txn: TxnId, key: &RowKey, image: Option<Option<Arc<Row>>>) {
        let mut slot = self.rows.get(key).cloned().unwrap_or_default();
        let committed = slot.committed.clone();
        let old = slot.pending.take().and_then(|(_, image)| image);
        let new = image.clone().flatten();
        for index in &mut self.indexes {
            let of = |row: &Option<Arc<Row>>| row.as_ref().and_then(|row| index.entry(row, key));
            let (kept, gone, come) = (of(&committed), of(&old), of(&new));
            if let Some(gone) = gone
                && Some(&gone) != kept.as_ref()
                && Some(&gone) != come.as_ref()
            {
                index.entries.remove(&gone);
            }
            if let Some(come) = come
                && Some(&come) != kept.as_ref()
            {
                index.entries.insert(come, key.clone());
            }
        }
        slot.pending = image.map(|image| (txn, image));
        if slot.committed.is_none() && slot.pending.is_none() {
            self.rows.remove(key);
        } else {
            self.rows.insert(key.clone(), slot);
        }
    }

    /// Makes a transaction's pending image the committed one.
    pub fn settle(&mut self, txn: TxnId, key: &RowKey) {
        let Some(slot) = self.rows.get_mut(key) else { return };
        match &slot.pending {
            Some((owner, _)) if *owner == txn => {}
            Some(_) | None => return,
        }
        let image = slot.pending.take().and_then(|(_, image)| image);
        let before = std::mem::replace(&mut slot.committed, image.clone());
        self.committed_rows += i64::from(image.is_some()) - i64::from(before.is_some());
        if image.is_none() {
            self.rows.remove(key);
        }
        let Some(before) = before else { return };
        for index in &mut self.indexes {
            let gone = index.entry(&before, key);
            if let Some(gone) = gone
                && image.as_ref().and_then(|row| index.entry(row, key)).as_ref() != Some(&gone)
            {
                index.entries.remove(&gone);
            }
        }
    }

    /// Stores a row as committed: rebuilding a table, or filling one that nobody else can see yet.
    pub fn put_committed(&mut self, key: RowKey, row: Arc<Row>) {
        for index in &mut self.indexes {
            if let Some(entry) = index.entry(&row, &key) {
                index.entries.insert(entry, key.clone());
            }
        }
        self.rows.insert(key, Slot { committed: Some(row), pending: None });
        self.committed_rows += 1;
    }
}

/// The entries that start with `prefix`.
pub fn entries_from<'a>(
    entries: &'a OrdMap<RowKey, RowKey>,
    prefix: &[u8],
) -> impl Iterator<Item = (&'a RowKey, &'a RowKey)> {
    let to = key::after_prefix(prefix);
    let bounds = (Bound::Included(prefix), to.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
    entries.range::<_, [u8]>(bounds)
}
