//! What an evaluation has around it: the statement, the row, and what is kept of subqueries.

use crate::{
    engine::query::host::{Host, Row, RowKey, Settings},
    error::SqlResult,
    value::Value,
};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// What one execution of a statement shares.
pub struct Context<'h> {
    pub host: &'h dyn Host,
    pub settings: Settings,
    /// Values of the variables the statement mentions, by the numbers the binder gave them.
    pub variables: RefCell<Vec<Value>>,
    /// Results of subqueries that depend on nothing, by the subquery's number.
    pub cache: RefCell<HashMap<usize, Cached>>,
    /// What a recursive CTE refers to by its own name.
    pub work: RefCell<HashMap<usize, Arc<Vec<Arc<Row>>>>>,
    ticks: Cell<u32>,
}

impl<'h> Context<'h> {
    pub fn new(host: &'h dyn Host, variables: Vec<Value>) -> Self {
        Self {
            host,
            settings: host.settings(),
            variables: RefCell::new(variables),
            cache: RefCell::default(),
            work: RefCell::default(),
            ticks: Cell::new(0),
        }
    }

    /// Called per row; asks the host now and then whether the client has had enough.
    pub fn tick(&self) -> SqlResult<()> {
        let ticks = self.ticks.get().wrapping_add(1);
        self.ticks.set(ticks);
        if ticks.is_multiple_of(256) { self.host.check_cancelled() } else { Ok(()) }
    }
}

/// The row of one source in a frame. No row: the NULLs of an outer join.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    pub row: Option<Arc<Row>>,
    pub key: Option<RowKey>,
}

impl Slot {
    pub fn row(row: Row) -> Self {
        Self { row: Some(Arc::new(row)), key: None }
    }
}

/// The current row of a SELECT: one slot per source, then one for aggregates and one for window
/// functions; and the frame of the query this one is part of.
pub struct Frame<'o> {
    pub slots: Vec<Slot>,
    pub outer: Option<&'o Frame<'o>>,
}

impl<'o> Frame<'o> {
    pub fn new(width: usize, outer: Option<&'o Frame<'o>>) -> Self {
        Self { slots: vec![Slot::default(); width], outer }
    }
}

/// What a statement keeps of its subqueries.
pub enum Cached {
    Value(Value),
    Exists(bool),
    /// The values of an uncorrelated `IN (SELECT …)`: their keys, and whether NULL is among them.
    Set(Arc<(HashSet<Vec<u8>>, bool)>),
    /// The values of an uncorrelated `op ANY (SELECT …)`.
    List(Arc<Vec<Value>>),
    Index(Arc<Kept>),
}

/// Rows by hash key; rows of one key are chained.
#[derive(Default)]
pub struct Kept {
    pub rows: Vec<(Box<[Slot]>, u32)>,
    first: HashMap<Box<[u8]>, u32>,
    /// Rows whose key is NULL match nothing, but a FULL JOIN shows them.
    pub matchless: Vec<Box<[Slot]>>,
}

/// The end of a chain.
pub const NONE: u32 = u32::MAX;

impl Kept {
    pub fn add(&mut self, key: Option<&[u8]>, row: Box<[Slot]>) {
        let Some(key) = key else {
            self.matchless.push(row);
            return;
        };
        let number = u32::try_from(self.rows.len()).unwrap_or(NONE);
        let next = match self.first.get_mut(key) {
            Some(first) => std::mem::replace(first, number),
            None => {
                self.first.insert(key.into(), number);
                NONE
            }
        };
        self.rows.push((row, next));
    }

    pub fn chain(&self, key: &[u8]) -> u32 {
        self.first.get(key).copied().unwrap_or(NONE)
    }
}
