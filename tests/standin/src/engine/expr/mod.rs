//! Expressions: bound once to slots and static types, then evaluated without looking at a name again.

use crate::{
    engine::query::host::{Host, SourceColumn},
    error::{SqlError, SqlResult},
    value::{SqlType, Value},
};
use sqlparser::ast::Expr;

/// Evaluates an expression outside any query (`SET @v = …`, an argument, PRINT). Subqueries are allowed.
pub fn evaluate(_host: &dyn Host, _expr: &Expr) -> SqlResult<(SqlType, Value)> {
    Err(SqlError::unsupported("expressions"))
}

/// Evaluates an expression and converts it as an assignment to `ty` would.
pub fn evaluate_as(_host: &dyn Host, _expr: &Expr, _ty: SqlType) -> SqlResult<Value> {
    Err(SqlError::unsupported("expressions"))
}

/// Evaluates a condition (IF, WHILE): true only when it is true, not unknown.
pub fn condition(_host: &dyn Host, _expr: &Expr) -> SqlResult<bool> {
    Err(SqlError::unsupported("conditions"))
}

/// An expression over the columns of one table: a default, a computed column, an OUTPUT item.
pub struct RowExpr {}

/// A condition over the columns of one table: a CHECK, an index filter.
pub struct RowCondition {}

/// Named row sources an expression may refer to: `("t" or "inserted", columns)`.
pub type RowScope<'a> = &'a [(&'a str, &'a [SourceColumn])];

impl RowExpr {
    pub fn bind(_host: &dyn Host, _expr: &Expr, _scope: RowScope<'_>) -> SqlResult<Self> {
        Err(SqlError::unsupported("row expressions"))
    }

    /// Binds and converts the result to `ty`, as an assignment does.
    pub fn bind_as(_host: &dyn Host, _expr: &Expr, _scope: RowScope<'_>, _ty: SqlType) -> SqlResult<Self> {
        Err(SqlError::unsupported("row expressions"))
    }

    pub fn ty(&self) -> SqlType {
        SqlType::Int
    }

    pub fn nullable(&self) -> bool {
        true
    }

    /// `rows` in the order of the scope.
    pub fn evaluate(&self, _host: &dyn Host, _rows: &[&[Value]]) -> SqlResult<Value> {
        Err(SqlError::unsupported("row expressions"))
    }
}

impl RowCondition {
    pub fn bind(_host: &dyn Host, _expr: &Expr, _scope: RowScope<'_>) -> SqlResult<Self> {
        Err(SqlError::unsupported("row conditions"))
    }

    /// None is unknown: a CHECK passes, a filter does not.
    pub fn evaluate(&self, _host: &dyn Host, _rows: &[&[Value]]) -> SqlResult<Option<bool>> {
        Err(SqlError::unsupported("row conditions"))
    }
}
