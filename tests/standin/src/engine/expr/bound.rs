//! Bound expressions: names are slots, types are known, conversions are written out.

use super::{
    context::{Context, Frame},
    types::Coercibility,
};
use crate::{
    error::SqlResult,
    value::{Collation, SqlType, Value, decimal::Operation},
};
use std::sync::Arc;

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
    Subquery(Arc<dyn Subquery>),
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

/// A query inside an expression, run for a row of the query around it.
pub trait Subquery: Send + Sync {
    /// Its one value; NULL of no rows, error 512 of several.
    fn scalar(&self, cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<Value>;
    fn exists(&self, cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<bool>;
    fn quantified(
        &self,
        test: &Quantified<'_>,
        cx: &Context<'_>,
        frame: &Frame<'_>,
    ) -> SqlResult<Option<bool>>;
}

/// `value op ANY|ALL (query)`; the query's values are converted to `ty`.
pub struct Quantified<'v> {
    pub op: Comparison,
    pub all: bool,
    pub value: &'v Value,
    pub ty: SqlType,
    pub collation: Collation,
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
    Exists(Arc<dyn Subquery>),
    /// `expr op ANY|ALL (subquery)`; IN is `= ANY`. The right side is converted to `ty`, the left
    /// one already is.
    Quantified {
        op: Comparison,
        all: bool,
        left: Bound,
        subquery: Arc<dyn Subquery>,
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
