//! Queries: names are resolved and types found once ([`bind`], [`from`]), a way to the rows is
//! chosen ([`access`]), then rows flow ([`exec`], [`join`]) from cursor to sink.

pub mod access;
pub mod aggregate;
pub mod bind;
pub mod dml;
pub mod exec;
pub mod from;
pub mod host;
pub mod join;
pub mod keys;
pub mod outputs;
pub mod plan;
pub mod select;
pub mod subquery;
#[cfg(test)]
mod tests;
pub mod through;
pub mod window;

use crate::{
    engine::expr::{
        binder::Binder,
        bound::{BitOp, Node},
        context::{Context, Frame},
        conversions, operators,
    },
    error::{SqlError, SqlResult},
    exchange::sink::{Column, Sink},
    tsql::ast::{AssignOp, TargetName},
    value::{Length, SqlType, Value, decimal::Operation},
};
use host::{Host, Row, RowKey, RowSource};
use plan::{Body, Plan, SortBy, SortKey};
use sqlparser::ast::{Expr, Query, TableWithJoins, With};
use std::sync::Arc;

/// The code page of UTF-8.
const UTF8: u16 = 65_001;

/// Runs a query and sends its result set, without the DONE. Answers the number of rows.
pub fn select(host: &dyn Host, query: &Query, sink: &mut dyn Sink) -> SqlResult<u64> {
    let sink = std::cell::RefCell::new(sink);
    let large = std::cell::RefCell::new(Vec::new());
    let text_bytes_max = host.settings().text_bytes_max;
    stream(
        host,
        query,
        &mut |columns, order| {
            let columns: Vec<Column> = columns.iter().map(|c| c.column.clone()).collect();
            *large.borrow_mut() = columns
                .iter()
                .map(|column| column.ty)
                .enumerate()
                .filter(|(_, ty)| is_large(*ty))
                .collect();
            let mut sink = sink.borrow_mut();
            sink.columns(&columns).map_err(|_| SqlError::cancelled())?;
            order.map_or(Ok(()), |order| sink.order(order)).map_err(|_| SqlError::cancelled())
        },
        &mut |row| {
            let large = large.borrow();
            let sent = match text_bytes_max.filter(|_| !large.is_empty()) {
                None => sink.borrow_mut().row(row),
                Some(bytes_max) => {
                    let mut row = row.to_vec();
                    large.iter().for_each(|(at, ty)| cut(&mut row[*at], *ty, bytes_max));
                    sink.borrow_mut().row(&row)
                }
            };
            sent.map_err(|_| SqlError::cancelled())
        },
    )
}

/// The types whose values SET TEXTSIZE cuts.
/// <https://learn.microsoft.com/sql/t-sql/statements/set-textsize-transact-sql>
fn is_large(ty: SqlType) -> bool {
    matches!(
        ty,
        SqlType::VarChar(Length::Max, _)
            | SqlType::NVarChar(Length::Max, _)
            | SqlType::VarBinary(Length::Max)
            | SqlType::Text(_)
            | SqlType::NText(_)
            | SqlType::Image
    )
}

fn cut(value: &mut Value, ty: SqlType, bytes_max: usize) {
    match value {
        Value::Bytes(bytes) if bytes.len() > bytes_max => *bytes = bytes[..bytes_max].into(),
        Value::Str(text) => {
            let bytes_of = |c: char| match ty {
                SqlType::NVarChar(..) | SqlType::NText(_) => 2 * c.len_utf16(),
                SqlType::VarChar(_, collation) | SqlType::Text(collation)
                    if collation.code_page() == UTF8 =>
                {
                    c.len_utf8()
                }
                _ => 1,
            };
            let mut left = bytes_max;
            let end = text.char_indices().find(|(_, c)| match left.checked_sub(bytes_of(*c)) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            });
            if let Some((at, _)) = end {
                *text = text[..at].into();
            }
        }
        _ => {}
    }
}

/// Runs a query and keeps its rows.
pub fn collect(host: &dyn Host, query: &Query) -> SqlResult<(Vec<Column>, Vec<Row>)> {
    let mut columns = Vec::new();
    let mut rows = Vec::new();
    stream(
        host,
        query,
        &mut |list, _| {
            columns = list.iter().map(|c| c.column.clone()).collect();
            Ok(())
        },
        &mut |row| {
            rows.push(row.to_vec());
            Ok(())
        },
    )?;
    Ok((columns, rows))
}

/// What a query's result looks like, without running it: for a view's columns and SELECT … INTO.
pub fn describe(host: &dyn Host, query: &Query) -> SqlResult<Vec<OutputColumn>> {
    let plan = Binder::new(host).query(query)?;
    output_columns(&plan, false)
}

/// What is told of a result before its rows: its columns, and the numbers of those it is ordered
/// by, if there is an ORDER BY.
pub type OnColumns<'a> = &'a mut dyn FnMut(&[OutputColumn], Option<&[u16]>) -> SqlResult<()>;

/// The columns, counted from 1, that a query's rows are ordered by, of those that it has.
fn ordered_by(plan: &Plan) -> Option<Vec<u16>> {
    let (order, projection) = match &plan.body {
        Body::Select(select) => (&select.tail.order, select.projection.as_slice()),
        Body::Set(set) => (&set.tail.order, &[][..]),
        _ => return None,
    };
    let place = |key: &SortKey| match &key.by {
        SortBy::Output(at) => Some(*at),
        SortBy::Expr(by) => {
            let column = |node: &Node| {
                if let Node::Column { depth, slot, column } = node {
                    Some((*depth, *slot, *column))
                } else {
                    None
                }
            };
            let wanted = column(&by.node)?;
            projection.iter().position(|output| column(&output.node) == Some(wanted))
        }
    };
    let numbers: Vec<u16> =
        order.iter().filter_map(place).filter_map(|at| u16::try_from(at + 1).ok()).collect();
    (!numbers.is_empty()).then_some(numbers)
}

/// Runs a query and hands over its columns, then each row. `on_columns` may fail (a table that
/// cannot be made, say).
pub fn stream(
    host: &dyn Host,
    query: &Query,
    on_columns: OnColumns<'_>,
    on_row: &mut dyn FnMut(&[Value]) -> SqlResult<()>,
) -> SqlResult<u64> {
    let mut binder = Binder::new(host);
    let plan = binder.query(query)?;
    on_columns(&output_columns(&plan, true)?, ordered_by(&plan).as_deref())?;
    let cx = binder.context();
    let mut count = 0;
    exec::run(&plan, &cx, None, &mut |row| {
        count += 1;
        on_row(row)?;
        Ok(true)
    })?;
    Ok(count)
}

/// Error 451 for a column nobody can say the collation of.
fn output_columns(plan: &Plan, needs_collation: bool) -> SqlResult<Vec<OutputColumn>> {
    plan.columns
        .iter()
        .enumerate()
        .map(|(at, c)| {
            if let (crate::engine::expr::types::Coercibility::NoCollation(a, b), true) = (c.coercibility, needs_collation) {
                return Err(SqlError::new(
                    451,
                    16,
                    format!(
                        "Cannot resolve collation conflict between \"{}\" and \"{}\" in add operator occurring in SELECT statement column {}.",
                        a.name(),
                        b.name(),
                        at + 1
                    ),
                ));
            }
            let column =
                Column { name: c.name.clone(), ty: c.ty, nullable: c.nullable, identity: c.identity.is_some(), computed: c.computed };
            Ok(OutputColumn { column, identity: c.identity })
        })
        .collect()
}

/// `SELECT @a = …`: answers the final value of every variable assigned to (unchanged variables keep
/// their value when no row came), and the number of rows. Values have the variables' types already.
pub fn assign(
    host: &dyn Host,
    assignments: &[(String, AssignOp, Expr)],
    query: &Query,
) -> SqlResult<(Vec<(String, Value)>, u64)> {
    // the query has no select list of its own: the assigned expressions are it
    let mut query = query.clone();
    let sqlparser::ast::SetExpr::Select(select) = &mut *query.body else {
        return Err(SqlError::unsupported("this form of SELECT @variable"));
    };
    select.projection = assignments
        .iter()
        .map(|(_, _, expr)| sqlparser::ast::SelectItem::UnnamedExpr(expr.clone()))
        .collect();
    let mut binder = Binder::new(host);
    let mut targets = Vec::with_capacity(assignments.len());
    for (name, _, _) in assignments {
        targets.push(binder.variable(name)?);
    }
    let mut plan = binder.query(&query)?;
    let Body::Select(select) = &mut plan.body else {
        return Err(SqlError::unsupported("this form of SELECT @variable"));
    };
    let mut updates = Vec::with_capacity(targets.len());
    for (((number, ty), (_, op, _)), bound) in
        targets.iter().zip(assignments).zip(&mut select.projection)
    {
        let value = std::mem::replace(bound, crate::engine::expr::bound::Bound::null());
        *bound = assigned(*op, *number, *ty, value)?;
        updates.push((*number, bound.node.clone()));
    }
    // a later item of the list sees what an earlier one assigned, and a later row what an earlier
    // row did: each item is evaluated by the receiver, right before it is stored
    let exprs = std::mem::take(&mut select.projection);
    let plain = !select.distinct
        && select.tail.offset.is_none()
        && select.group.is_none()
        && select.windows.is_empty();
    let by_source = select.tail.order.iter().all(|item| matches!(item.by, SortBy::Expr(_)));
    let cx = binder.context();
    let mut count = 0;
    if plain && by_source && select.tail.top.is_none() {
        let mut store = |frame: &Frame<'_>| {
            count += 1;
            for (expr, (number, _)) in exprs.iter().zip(&targets) {
                let value = expr.eval(&cx, frame)?;
                cx.variables.borrow_mut()[*number] = value;
            }
            SqlResult::Ok(())
        };
        let mut frame = Frame::new(select.width, None);
        // the receiver is above the sort, as in the plans that make `SELECT @list = @list + name …
        // ORDER BY id` a list in order
        let mut sorted = Vec::new();
        exec::source_rows(select, &cx, &mut frame, &mut |frame| {
            if select.tail.order.is_empty() {
                store(frame)?;
            } else {
                sorted.push((sort_key(&select.tail.order, &cx, frame)?, frame.slots.clone()));
            }
            Ok(true)
        })?;
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (_, slots) in sorted {
            store(&Frame { slots, outer: None })?;
        }
    } else {
        select.projection = exprs;
        exec::run(&plan, &cx, None, &mut |row| {
            count += 1;
            for (value, (number, _)) in row.iter().zip(&targets) {
                cx.variables.borrow_mut()[*number] = value.clone();
            }
            Ok(true)
        })?;
    }
    let values = cx.variables.borrow();
    Ok((
        assignments
            .iter()
            .zip(&targets)
            .map(|((name, _, _), (number, _))| (name.clone(), values[*number].clone()))
            .collect(),
        count,
    ))
}

/// Bytes that sort as ORDER BY's expressions do.
fn sort_key(order: &[SortKey], cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<Vec<u8>> {
    let mut key = Vec::new();
    for item in order {
        if let SortBy::Expr(expr) = &item.by {
            keys::encode_ordered(&expr.eval(cx, frame)?, expr.ty, item.descending, &mut key);
        }
    }
    Ok(key)
}

/// The value a variable gets, as its own type.
fn assigned(
    op: AssignOp,
    number: usize,
    ty: SqlType,
    value: crate::engine::expr::bound::Bound,
) -> SqlResult<crate::engine::expr::bound::Bound> {
    let own = crate::engine::expr::bound::Bound::new(Node::Variable(number), ty, true);
    let operation = match op {
        AssignOp::Set => return conversions::implicit(value, ty),
        AssignOp::Add => Operation::Add,
        AssignOp::Sub => Operation::Subtract,
        AssignOp::Mul => Operation::Multiply,
        AssignOp::Div => Operation::Divide,
        AssignOp::Mod => Operation::Modulo,
        AssignOp::And => {
            return conversions::implicit(operators::bits(BitOp::And, own, value)?, ty);
        }
        AssignOp::Or => return conversions::implicit(operators::bits(BitOp::Or, own, value)?, ty),
        AssignOp::Xor => {
            return conversions::implicit(operators::bits(BitOp::Xor, own, value)?, ty);
        }
    };
    conversions::implicit(operators::arithmetic(operation, own, value)?, ty)
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
    /// Hints on the target itself.
    pub hints: &'a [String],
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
    /// The values' static types.
    pub types: Arc<[SqlType]>,
}

/// Finds the target table of an UPDATE or DELETE.
pub fn target(host: &dyn Host, rows: &TargetRows<'_>) -> SqlResult<Arc<dyn RowSource>> {
    if let Some(through) = through::bind(host, rows)? {
        return Ok(through.source);
    }
    dml::bind(host, &TargetRows { exprs: Vec::new(), ..*rows }).map(|b| b.source())
}

/// Runs the join and hands over the target rows.
pub fn target_rows(
    host: &dyn Host,
    rows: &TargetRows<'_>,
    on_row: &mut dyn FnMut(TargetRow) -> SqlResult<()>,
) -> SqlResult<()> {
    if let Some(through) = through::bind(host, rows)? {
        return through.run(rows, on_row);
    }
    dml::bind(host, rows)?.run(on_row)
}
