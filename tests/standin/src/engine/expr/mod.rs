//! Expressions: bound once to slots and static types ([`binder`], [`functions`]), then evaluated
//! ([`eval`]) without looking at a name again.

pub mod arithmetic;
pub mod binder;
pub mod bound;
pub mod cast;
pub mod conditions;
pub mod context;
pub mod conversions;
pub mod eval;
pub mod functions;
pub mod hash;
pub mod operators;
pub mod sorting;
pub mod types;
pub mod values;

use crate::{
    engine::query::{
        host::{Host, SourceColumn},
        plan::SOURCES,
    },
    error::SqlResult,
    value::{SqlType, Value},
};
use binder::{Binder, Scope, ScopeSource, scope_column};
use bound::{Bound, Predicate};
use context::{Context, Frame, Slot};
use conversions::implicit;
use sqlparser::ast::Expr;

/// Evaluates an expression outside any query (`SET @v = …`, an argument, PRINT). Subqueries are
/// allowed.
pub fn evaluate(host: &dyn Host, expr: &Expr) -> SqlResult<(SqlType, Value)> {
    let mut binder = Binder::new(host);
    let bound = binder.expr(expr)?;
    let cx = binder.context();
    Ok((bound.ty, bound.eval(&cx, &Frame::new(SOURCES, None))?))
}

/// Evaluates an expression and converts it as an assignment to `ty` would.
pub fn evaluate_as(host: &dyn Host, expr: &Expr, ty: SqlType) -> SqlResult<Value> {
    let mut binder = Binder::new(host);
    let bound = implicit(binder.expr(expr)?, ty)?;
    let cx = binder.context();
    bound.eval(&cx, &Frame::new(SOURCES, None))
}

/// Evaluates a condition (IF, WHILE): true only when it is true, not unknown.
pub fn condition(host: &dyn Host, expr: &Expr) -> SqlResult<bool> {
    let mut binder = Binder::new(host);
    let predicate = binder.predicate(expr)?;
    let cx = binder.context();
    Ok(predicate.eval(&cx, &Frame::new(SOURCES, None))? == Some(true))
}

/// Named row sources an expression may refer to: `("t" or "inserted", columns)`.
pub type RowScope<'a> = &'a [(&'a str, &'a [SourceColumn])];

fn binder_for<'h>(host: &'h dyn Host, scope: RowScope<'_>) -> Binder<'h> {
    let mut binder = Binder::new(host);
    let mut own = Scope::new(SOURCES);
    for (name, columns) in scope {
        own.sources.push(ScopeSource {
            name: (*name).to_owned(),
            full: None,
            columns: columns.iter().map(scope_column).collect(),
        });
    }
    binder.scopes.push(own);
    binder
}

/// Something bound over rows, with the variables it read when it was bound.
struct OverRows<T> {
    bound: T,
    variables: Vec<Value>,
    sources: usize,
}

impl<T> OverRows<T> {
    fn run<R>(
        &self,
        host: &dyn Host,
        rows: &[&[Value]],
        eval: impl FnOnce(&T, &Context<'_>, &Frame<'_>) -> SqlResult<R>,
    ) -> SqlResult<R> {
        let cx = Context::new(host, self.variables.clone());
        let mut frame = Frame::new(SOURCES + self.sources, None);
        for (slot, row) in frame.slots[SOURCES..].iter_mut().zip(rows) {
            *slot = Slot::row(row.to_vec());
        }
        eval(&self.bound, &cx, &frame)
    }
}

/// An expression over the columns of one or more named rows: a default, a computed column, an
/// OUTPUT item.
pub struct RowExpr(OverRows<Bound>);

impl RowExpr {
    pub fn bind(host: &dyn Host, expr: &Expr, scope: RowScope<'_>) -> SqlResult<Self> {
        let mut binder = binder_for(host, scope);
        let bound = binder.expr(expr)?;
        Ok(Self(OverRows { bound, variables: binder.take_values(), sources: scope.len() }))
    }

    /// Binds and converts the result to `ty`, as an assignment does.
    pub fn bind_as(
        host: &dyn Host,
        expr: &Expr,
        scope: RowScope<'_>,
        ty: SqlType,
    ) -> SqlResult<Self> {
        let mut binder = binder_for(host, scope);
        let bound = implicit(binder.expr(expr)?, ty)?;
        Ok(Self(OverRows { bound, variables: binder.take_values(), sources: scope.len() }))
    }

    pub fn ty(&self) -> SqlType {
        self.0.bound.ty
    }

    pub fn nullable(&self) -> bool {
        self.0.bound.nullable
    }

    /// `rows` in the order of the scope.
    pub fn evaluate(&self, host: &dyn Host, rows: &[&[Value]]) -> SqlResult<Value> {
        self.0.run(host, rows, |bound, cx, frame| bound.eval(cx, frame))
    }
}

/// A condition over the columns of one or more named rows: a CHECK, an index filter.
pub struct RowCondition(OverRows<Predicate>);

impl RowCondition {
    pub fn bind(host: &dyn Host, expr: &Expr, scope: RowScope<'_>) -> SqlResult<Self> {
        let mut binder = binder_for(host, scope);
        let bound = binder.predicate(expr)?;
        Ok(Self(OverRows { bound, variables: binder.take_values(), sources: scope.len() }))
    }

    /// None is unknown: a CHECK passes, a filter does not.
    pub fn evaluate(&self, host: &dyn Host, rows: &[&[Value]]) -> SqlResult<Option<bool>> {
        self.0.run(host, rows, |bound, cx, frame| bound.eval(cx, frame))
    }
}
