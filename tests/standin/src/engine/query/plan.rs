//! What a query looks like once its names and types are known.

use super::host::{RowSource, TableFunction};
use crate::{
    engine::expr::{
        bound::{Bound, Predicate},
        types::Coercibility,
    },
    value::{Collation, SqlType},
};
use std::sync::Arc;

/// Slot of the aggregates' results in a frame.
pub const AGGREGATES: usize = 0;
/// Slot of the window functions' results.
pub const WINDOWS: usize = 1;
/// Slot of the first source.
pub const SOURCES: usize = 2;

/// A bound query.
pub struct Plan {
    pub columns: Vec<PlanColumn>,
    pub body: Body,
}

/// A column of a query's result.
#[derive(Clone, Debug)]
pub struct PlanColumn {
    pub name: String,
    pub ty: SqlType,
    pub nullable: bool,
    pub coercibility: Coercibility,
    pub identity: Option<(i128, i128)>,
    pub computed: bool,
    pub is_null: bool,
}

pub enum Body {
    Select(Box<SelectPlan>),
    Set(Box<SetPlan>),
    Values(Vec<Vec<Bound>>),
    /// A recursive CTE: the anchor, then the step until it gives nothing.
    Recursive {
        id: usize,
        anchor: Box<Plan>,
        step: Box<Plan>,
    },
}

pub struct SetPlan {
    pub op: SetOp,
    pub all: bool,
    pub left: Plan,
    pub right: Plan,
    pub tail: Tail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOp {
    Union,
    Except,
    Intersect,
}

/// ORDER BY, TOP, OFFSET and FETCH.
#[derive(Default)]
pub struct Tail {
    pub order: Vec<SortKey>,
    pub top: Option<TopPlan>,
    pub offset: Option<Bound>,
    pub fetch: Option<Bound>,
}

pub struct TopPlan {
    pub count: Bound,
    pub percent: bool,
    pub ties: bool,
}

pub struct SortKey {
    pub by: SortBy,
    pub descending: bool,
}

pub enum SortBy {
    Output(usize),
    Expr(Bound),
}

pub struct SelectPlan {
    pub width: usize,
    /// Conditions that concern no row of this query: asked once.
    pub startup: Vec<Predicate>,
    pub from: Option<From>,
    pub filter: Vec<Predicate>,
    pub group: Option<GroupPlan>,
    pub having: Vec<Predicate>,
    pub windows: Vec<WindowCall>,
    pub projection: Vec<Bound>,
    pub distinct: bool,
    pub tail: Tail,
    /// Rows come in the order of ORDER BY already.
    pub presorted: bool,
}

pub struct GroupPlan {
    pub keys: Vec<Bound>,
    pub aggregates: Vec<Aggregate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateKind {
    CountRows,
    Count,
    Sum,
    Avg,
    Min,
    Max,
}

pub struct Aggregate {
    pub kind: AggregateKind,
    /// Absent for COUNT(*).
    pub arg: Option<Bound>,
    pub distinct: bool,
    pub ty: SqlType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    RowNumber,
    Aggregate(AggregateKind),
}

/// A window function: over its whole partition, or with ORDER BY over the rows up to the current
/// one's last peer.
pub struct WindowCall {
    pub kind: WindowKind,
    pub args: Vec<Bound>,
    pub partition: Vec<Bound>,
    pub order: Vec<(Bound, bool)>,
    pub ty: SqlType,
}

/// A conjunct of WHERE or ON, with the sources it concerns (bit per slot).
pub struct Conjunct {
    pub predicate: Predicate,
    pub mask: u128,
    /// For comparisons: the sources of each side.
    pub sides: Option<(u128, u128)>,
    /// Refers to a row of an enclosing query.
    pub outer: bool,
}

pub struct Leaf {
    pub slot: usize,
    pub kind: LeafKind,
    pub filter: Vec<Conjunct>,
}

pub enum LeafKind {
    Table {
        source: Arc<dyn RowSource>,
        seek: Option<Seek>,
    },
    Derived {
        plan: Plan,
        lateral: bool,
    },
    Function {
        function: Arc<dyn TableFunction>,
        args: Vec<Bound>,
    },
    /// A recursive CTE's own name.
    Work(usize),
}

/// Which part of a key to read. The conditions stay in the filter, so that a seek only has to be
/// generous, never exact.
#[derive(Default)]
pub struct Seek {
    pub key: usize,
    /// Values and whether NULL matches NULL.
    pub prefix: Vec<(Bound, bool)>,
    pub lower: Option<(Bound, bool)>,
    pub upper: Option<(Bound, bool)>,
    pub reverse: bool,
}

#[expect(clippy::large_enum_variant, reason = "a handful per query")]
pub enum From {
    Leaf(Leaf),
    Join(Box<Join>),
    /// Rows kept for the statement in a hash table, asked with the values of the enclosing query's
    /// row.
    Indexed(Box<Indexed>),
}

pub struct Indexed {
    pub id: usize,
    pub inner: From,
    pub keys: Vec<Bound>,
    pub probes: Vec<Bound>,
    pub null_safe: Vec<bool>,
    pub collations: Vec<Option<Collation>>,
    pub residual: Vec<Conjunct>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    Full,
}

pub enum Method {
    /// The right side is read again for every row of the left: it seeks, or is an APPLY.
    Loop,
    /// The right side is kept, and compared row by row.
    Kept,
    Hash {
        left: Vec<Bound>,
        right: Vec<Bound>,
        null_safe: Vec<bool>,
    },
}

pub struct Join {
    pub kind: JoinKind,
    pub apply: bool,
    pub left: From,
    pub right: From,
    pub on: Vec<Conjunct>,
    pub method: Method,
}

impl From {
    /// The slots below this node.
    pub fn mask(&self) -> u128 {
        match self {
            Self::Leaf(leaf) => 1 << leaf.slot,
            Self::Join(join) => join.left.mask() | join.right.mask(),
            Self::Indexed(indexed) => indexed.inner.mask(),
        }
    }

    pub fn estimated_rows(&self) -> u64 {
        match self {
            Self::Leaf(leaf) => match &leaf.kind {
                LeafKind::Table { source, seek } => match seek {
                    Some(seek) if !seek.prefix.is_empty() => {
                        let key = &source.keys()[seek.key];
                        if key.unique && key.columns.len() == seek.prefix.len() {
                            1
                        } else {
                            (source.estimated_rows() / 100).max(1)
                        }
                    }
                    Some(seek) if seek.lower.is_some() || seek.upper.is_some() => {
                        (source.estimated_rows() / 3).max(1)
                    }
                    _ if leaf.filter.is_empty() => source.estimated_rows(),
                    _ => (source.estimated_rows() / 2).max(1),
                },
                LeafKind::Derived { .. } | LeafKind::Function { .. } | LeafKind::Work(_) => 1000,
            },
            Self::Join(join) => join.left.estimated_rows().max(join.right.estimated_rows()),
            Self::Indexed(_) => 1,
        }
    }
}
