//! Queries: names are resolved and types found once ([`bind`]), then rows flow ([`exec`]) from cursor to sink.

pub mod host;

use crate::{
    engine::sink::{Column, Sink},
    error::{SqlError, SqlResult},
    tsql::ast::{AssignOp, TargetName},
    value::{SqlType, Value},
};
use host::{Host, Row, RowKey, RowSource};
use sqlparser::ast::{Expr, Query, TableWithJoins, With};
use std::sync::Arc;

/// Runs a query and sends its result set, without the DONE. Answers the number of rows.
pub fn select(_host: &dyn Host, _query: &Query, _sink: &mut dyn Sink) -> SqlResult<u64> {
    Err(SqlError::unsupported("SELECT"))
}

/// Runs a query and keeps its rows.
pub fn collect(_host: &dyn Host, _query: &Query) -> SqlResult<(Vec<Column>, Vec<Row>)> {
    Err(SqlError::unsupported("SELECT"))
}

/// Runs a query and hands over its columns, then each row. `on_columns` may fail (a table that cannot be made, say).
pub fn stream(
    _host: &dyn Host,
    _query: &Query,
    _on_columns: &mut dyn FnMut(&[OutputColumn]) -> SqlResult<()>,
    _on_row: &mut dyn FnMut(&[Value]) -> SqlResult<()>,
) -> SqlResult<u64> {
    Err(SqlError::unsupported("SELECT"))
}

/// `SELECT @a = …`: answers the final value of every variable assigned to (unchanged variables keep their value when no row came), and
/// the number of rows. Values have the variables' types already.
pub fn assign(_host: &dyn Host, _assignments: &[(String, AssignOp, Expr)], _query: &Query) -> SqlResult<(Vec<(String, Value)>, u64)> {
    Err(SqlError::unsupported("SELECT @variable"))
}

/// A column of a result, with what SELECT … INTO carries over.
#[derive(Clone, Debug)]
pub struct OutputColumn {
    pub column: Column,
    pub identity: Option<(i128, i128)>,
}

/// The rows an UPDATE or DELETE is about.
pub struct TargetRows<'a> {
    pub ctes: Option<&'a With>,
    pub target: &'a TargetName,
    pub from: &'a [TableWithJoins],
    pub condition: Option<&'a Expr>,
    pub top: Option<&'a crate::tsql::ast::Top>,
    /// Bound in the scope of FROM; converted to the given types (None: left as they are).
    pub exprs: Vec<(&'a Expr, Option<SqlType>)>,
}

/// One target row with the expressions' values. A target row met twice is handed over once.
pub struct TargetRow {
    pub key: RowKey,
    pub row: Arc<Row>,
    pub values: Vec<Value>,
}

/// Finds the target table of an UPDATE or DELETE.
pub fn target(_host: &dyn Host, _rows: &TargetRows<'_>) -> SqlResult<Arc<dyn RowSource>> {
    Err(SqlError::unsupported("UPDATE and DELETE"))
}

/// Runs the join and hands over the target rows.
pub fn target_rows(_host: &dyn Host, _rows: &TargetRows<'_>, _on_row: &mut dyn FnMut(TargetRow) -> SqlResult<()>) -> SqlResult<()> {
    Err(SqlError::unsupported("UPDATE and DELETE"))
}
