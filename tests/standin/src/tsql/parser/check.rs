//! What `sqlparser` lets through and T-SQL does not, or this server does not know; and the old hint
//! syntax `FROM t (NOLOCK)`, which looks like a function's argument.

use crate::error::{SqlError, SqlResult};
use sqlparser::ast::{
    Distinct, Expr, FunctionArg, FunctionArgExpr, JoinConstraint, JoinOperator, Query, Select,
    TableFactor, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// Checks an expression with all its subqueries.
pub fn expression(expr: &mut Expr) -> SqlResult<()> {
    result(expr.visit(&mut Check))
}

/// Checks a query with all its subqueries.
pub fn query(query: &mut Query) -> SqlResult<()> {
    result(query.visit(&mut Check))
}

/// Checks what stands in a FROM clause.
pub fn tables(from: &mut [sqlparser::ast::TableWithJoins]) -> SqlResult<()> {
    from.iter_mut().try_for_each(|t| {
        joins(&t.joins)?;
        result(t.visit(&mut Check))
    })
}

fn result(flow: ControlFlow<SqlError>) -> SqlResult<()> {
    match flow {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Check;

fn stop(result: SqlResult<()>) -> ControlFlow<SqlError> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl VisitorMut for Check {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        let refused = if query.for_clause.is_some() {
            Some("FOR XML, FOR JSON and FOR BROWSE")
        } else if !query.locks.is_empty() {
            Some("FOR UPDATE")
        } else {
            None
        };
        match refused {
            Some(what) => ControlFlow::Break(SqlError::unsupported(what)),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        if matches!(select.distinct, Some(Distinct::On(_))) {
            return ControlFlow::Break(SqlError::new(
                156,
                15,
                "Incorrect syntax near the keyword 'ON'.",
            ));
        }
        stop(select.from.iter().try_for_each(|t| joins(&t.joins)))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        stop(table(factor))
    }
}

fn joins(list: &[sqlparser::ast::Join]) -> SqlResult<()> {
    for join in list {
        let constraint = match &join.join_operator {
            JoinOperator::Join(c)
            | JoinOperator::Inner(c)
            | JoinOperator::Left(c)
            | JoinOperator::LeftOuter(c)
            | JoinOperator::Right(c)
            | JoinOperator::RightOuter(c)
            | JoinOperator::FullOuter(c) => c,
            JoinOperator::CrossJoin(_) | JoinOperator::CrossApply | JoinOperator::OuterApply => {
                continue;
            }
            _ => return Err(SqlError::unsupported("this kind of join")),
        };
        if !matches!(constraint, JoinConstraint::On(_)) {
            return Err(SqlError::new(
                102,
                15,
                format!("Incorrect syntax near '{}'.", join.relation),
            ));
        }
    }
    Ok(())
}

fn table(factor: &mut TableFactor) -> SqlResult<()> {
    match factor {
        TableFactor::Table { name, args, with_hints, sample, json_path, .. } => {
            if name.0.len() > 3 {
                return Err(SqlError::unsupported("linked servers (a name of four parts)"));
            }
            if sample.is_some() {
                return Err(SqlError::unsupported("TABLESAMPLE"));
            }
            if json_path.is_some() {
                return Err(SqlError::unsupported("a path in FROM"));
            }
            let old_hints = args
                .as_ref()
                .and_then(|a| a.args.iter().map(hint).collect::<Option<Vec<_>>>())
                .filter(|h| !h.is_empty());
            if let Some(hints) = old_hints {
                *with_hints = hints;
                *args = None;
            }
            Ok(())
        }
        TableFactor::NestedJoin { table_with_joins, .. } => joins(&table_with_joins.joins),
        TableFactor::Derived { .. } => Ok(()),
        TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => {
            Err(SqlError::unsupported("PIVOT and UNPIVOT"))
        }
        TableFactor::OpenJsonTable { .. } => Err(SqlError::unsupported("OPENJSON")),
        other => Err(SqlError::unsupported(format!("{other} in FROM"))),
    }
}

const OLD_HINTS: [&str; 12] = [
    "NOLOCK",
    "READUNCOMMITTED",
    "READCOMMITTED",
    "REPEATABLEREAD",
    "SERIALIZABLE",
    "HOLDLOCK",
    "UPDLOCK",
    "XLOCK",
    "TABLOCK",
    "TABLOCKX",
    "READPAST",
    "ROWLOCK",
];

fn hint(arg: &FunctionArg) -> Option<Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(i)))
            if i.quote_style.is_none()
                && OLD_HINTS.iter().any(|h| i.value.eq_ignore_ascii_case(h)) =>
        {
            Some(Expr::Identifier(i.clone()))
        }
        _ => None,
    }
}
