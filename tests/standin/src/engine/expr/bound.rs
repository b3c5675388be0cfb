//! Bound expressions: names are slots, types are known, conversions are written out.

use super::types::Coercibility;
use crate::{
    engine::query::{
        host::{Host, Row, RowKey, Settings},
        plan::Plan,
    },
    error::SqlResult,
    value::{Collation, SqlType, Value, decimal::Operation},
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

/// What one execution of a statement shares.
pub struct Context<'h> {
    pub host: &'h dyn Host,
    pub settings: Settings,
    /// Values of the variables the statement mentions, by the numbers the binder gave them.
    pub variables: RefCell<Vec<Value>>,
    /// Results of subqueries that depend on nothing, by the subquery's number.
    pub cache: RefCell<HashMap<usize, crate::engine::query::subquery::Cached>>,
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

/// A scalar expression.
#[derive(Clone)]
pub struct Bound {
    pub node: Node,
    pub ty: SqlType,
    pub nullable: bool,
    pub coercibility: Coercibility,
    /// The bare word NULL, which takes any type.
    pub is_null: bool,
}

#[derive(Clone)]
pub enum Node {
    Const(Value),
    Variable(usize),
    Column {
        depth: u16,
        slot: u16,
        column: u16,
    },
    Cast {
        expr: Box<Bound>,
        style: Option<Box<Bound>>,
        attempt: bool,
        explicit: bool,
    },
    Decimal {
        op: Operation,
        left: Box<Bound>,
        right: Box<Bound>,
        left_type: (u8, u8),
        right_type: (u8, u8),
    },
    Arithmetic {
        op: Operation,
        left: Box<Bound>,
        right: Box<Bound>,
    },
    Bits {
        op: BitOp,
        left: Box<Bound>,
        right: Box<Bound>,
    },
    /// datetime ± datetime or number, as days
    DateArithmetic {
        subtract: bool,
        left: Box<Bound>,
        right: Box<Bound>,
    },
    Concat {
        left: Box<Bound>,
        right: Box<Bound>,
    },
    Negate(Box<Bound>),
    BitNot(Box<Bound>),
    Case {
        whens: Vec<(Predicate, Bound)>,
        otherwise: Box<Bound>,
    },
    /// ISNULL and COALESCE: the first that is not NULL
    FirstOf(Vec<Bound>),
    Call {
        function: Builtin,
        args: Vec<Bound>,
    },
    Host {
        name: Arc<str>,
        args: Vec<Bound>,
    },
    Subquery(Arc<Subquery>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitOp {
    And,
    Or,
    Xor,
}

/// What a built-in function gets besides its arguments.
pub struct Call<'a> {
    pub context: &'a Context<'a>,
    /// Types of the arguments.
    pub args: &'a [Bound],
    pub ty: SqlType,
}

pub type Builtin = fn(&Call<'_>, &[Value]) -> SqlResult<Value>;

/// A query inside an expression.
pub struct Subquery {
    /// Its number, for the cache.
    pub id: usize,
    pub plan: Plan,
    /// Whether its result may be kept for the statement.
    pub cacheable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Comparison {
    pub fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Eq => ordering.is_eq(),
            Self::Ne => ordering.is_ne(),
            Self::Lt => ordering.is_lt(),
            Self::Le => ordering.is_le(),
            Self::Gt => ordering.is_gt(),
            Self::Ge => ordering.is_ge(),
        }
    }

    /// The same with the sides exchanged.
    pub fn flipped(self) -> Self {
        match self {
            Self::Eq => Self::Eq,
            Self::Ne => Self::Ne,
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
        }
    }
}

/// A condition. T-SQL has no boolean values, so conditions are not expressions.
#[derive(Clone)]
pub enum Predicate {
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
    /// Both sides have one type already.
    Compare {
        op: Comparison,
        left: Bound,
        right: Bound,
        collation: Collation,
    },
    /// `IS [NOT] DISTINCT FROM`; `equal` is NOT DISTINCT
    Distinct {
        equal: bool,
        left: Bound,
        right: Bound,
        collation: Collation,
    },
    IsNull(Bound),
    Like {
        text: Bound,
        pattern: Bound,
        escape: Option<Bound>,
        collation: Collation,
    },
    In {
        expr: Bound,
        list: Vec<Bound>,
        collation: Collation,
    },
    Exists(Arc<Subquery>),
    /// `expr op ANY|ALL (subquery)`; IN is `= ANY`. The right side is converted to `ty`, the left
    /// one already is.
    Quantified {
        op: Comparison,
        all: bool,
        left: Bound,
        subquery: Arc<Subquery>,
        ty: SqlType,
        collation: Collation,
    },
    Constant(Option<bool>),
}

impl Bound {
    pub fn constant(value: Value, ty: SqlType) -> Self {
        let nullable = value == Value::Null;
        Self {
            node: Node::Const(value),
            ty,
            nullable,
            coercibility: Coercibility::Default,
            is_null: false,
        }
    }

    pub fn null() -> Self {
        Self {
            node: Node::Const(Value::Null),
            ty: SqlType::Int,
            nullable: true,
            coercibility: Coercibility::Default,
            is_null: true,
        }
    }

    pub fn new(node: Node, ty: SqlType, nullable: bool) -> Self {
        Self { node, ty, nullable, coercibility: Coercibility::Default, is_null: false }
    }

    pub fn coerced(mut self, collation: Collation, coercibility: Coercibility) -> Self {
        self.ty = super::types::with_collation(self.ty, collation);
        self.coercibility = coercibility;
        self
    }

    pub fn collation(&self) -> Option<Collation> {
        super::types::collation_of(self.ty)
    }
}
