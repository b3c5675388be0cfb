//! Binding of queries: CTEs, set operations, VALUES, ORDER BY and limits of what is no SELECT.

use super::{
    outputs::{ordinal, reconcile},
    plan::{Body, Plan, PlanColumn, SetOp, SetPlan, SortBy, SortKey, Tail},
};
use crate::{
    engine::expr::{
        binder::{Binder, CteDefinition, same_name},
        bound::Bound,
        conversions::{implicit, unify},
        sorting::is_descending,
    },
    error::{SqlError, SqlResult},
    value::{Collation, SqlType},
};
use sqlparser::ast::{
    self, Expr, LimitClause, OrderByKind, Query, SetExpr, SetOperator, SetQuantifier,
};
use std::sync::Arc;

impl Binder<'_> {
    /// Binds a query in the scopes there are.
    pub fn query(&mut self, query: &Query) -> SqlResult<Plan> {
        if let Some(clause) = &query.for_clause
            && !matches!(clause, ast::ForClause::Browse)
        {
            return Err(SqlError::unsupported(format!("{clause}")));
        }
        if query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
            || !query.locks.is_empty()
        {
            return Err(SqlError::unsupported("a clause of another dialect in a query"));
        }
        let known = self.ctes.len();
        let plan = self.with(query).and_then(|()| self.body(query));
        self.ctes.truncate(known);
        plan
    }

    pub fn with(&mut self, query: &Query) -> SqlResult<()> {
        query.with.as_ref().map_or(Ok(()), |with| self.define_ctes(with))
    }

    pub fn define_ctes(&mut self, with: &ast::With) -> SqlResult<()> {
        for cte in &with.cte_tables {
            self.ctes.push(CteDefinition {
                name: cte.alias.name.value.clone(),
                columns: cte.alias.columns.iter().map(|c| c.name.value.clone()).collect(),
                query: Arc::new((*cte.query).clone()),
                visible: self.ctes.len(),
                work: None,
            });
        }
        Ok(())
    }

    fn body(&mut self, query: &Query) -> SqlResult<Plan> {
        let order: &[ast::OrderByExpr] = match &query.order_by {
            None => &[],
            Some(order) => match &order.kind {
                OrderByKind::Expressions(list) => list,
                OrderByKind::All(_) => return Err(SqlError::unsupported("ORDER BY ALL")),
            },
        };
        let offset = match &query.limit_clause {
            None => None,
            Some(LimitClause::LimitOffset { limit: None, offset: Some(offset), limit_by })
                if limit_by.is_empty() =>
            {
                Some(&offset.value)
            }
            Some(_) => return Err(SqlError::unsupported("LIMIT")),
        };
        let fetch = match &query.fetch {
            None => None,
            Some(fetch) if !fetch.with_ties && !fetch.percent => fetch.quantity.as_ref(),
            Some(_) => return Err(SqlError::unsupported("FETCH … PERCENT or WITH TIES")),
        };
        match &*query.body {
            SetExpr::Select(select) => self.select(select, order, offset, fetch),
            SetExpr::Query(inner) if order.is_empty() && offset.is_none() => self.query(inner),
            other => {
                let mut plan = self.set_expr(other)?;
                let mut tail = self.limits(offset, fetch)?;
                for item in order {
                    tail.order.push(SortKey {
                        by: SortBy::Output(self.output_of(&item.expr, &plan.columns)?),
                        descending: is_descending(item),
                    });
                }
                match &mut plan.body {
                    Body::Set(set) => set.tail = tail,
                    _ if tail.order.is_empty() && tail.offset.is_none() => {}
                    _ => return Err(SqlError::unsupported("ORDER BY on this query")),
                }
                Ok(plan)
            }
        }
    }

    pub fn limits(&mut self, offset: Option<&Expr>, fetch: Option<&Expr>) -> SqlResult<Tail> {
        let mut count = |e: &Expr| self.expr(e).and_then(|b| implicit(b, SqlType::BigInt));
        Ok(Tail {
            offset: offset.map(&mut count).transpose()?,
            fetch: fetch.map(&mut count).transpose()?,
            ..Tail::default()
        })
    }

    /// Names that differ in case only are different names: the current database's collation is
    /// case-sensitive.
    pub(super) fn exact_names(&self) -> SqlResult<bool> {
        Ok(self.host.collation("database_default")?.is_some_and(Collation::is_case_sensitive))
    }

    pub fn named_outputs<'c>(
        &self,
        columns: &'c [PlanColumn],
        name: &'c str,
    ) -> SqlResult<impl Iterator<Item = usize> + use<'c>> {
        let exact = self.exact_names()?;
        let named =
            move |c: &PlanColumn| if exact { c.name == name } else { same_name(&c.name, name) };
        Ok(columns.iter().enumerate().filter(move |(_, c)| named(c)).map(|(at, _)| at))
    }

    /// The output column an ORDER BY item of a set operation names.
    fn output_of(&self, expr: &Expr, columns: &[PlanColumn]) -> SqlResult<usize> {
        if let Some(ordinal) = ordinal(expr, columns.len())? {
            return Ok(ordinal);
        }
        if let Expr::Identifier(ident) = expr
            && let Some(at) = self.named_outputs(columns, &ident.value)?.next()
        {
            return Ok(at);
        }
        Err(SqlError::new(
            104,
            16,
            "ORDER BY items must appear in the select list if the statement contains a UNION, INTERSECT or EXCEPT operator.",
        ))
    }

    pub fn set_expr(&mut self, body: &SetExpr) -> SqlResult<Plan> {
        match body {
            SetExpr::Select(select) => self.select(select, &[], None, None),
            SetExpr::Query(query) => self.query(query),
            SetExpr::Values(values) => {
                let rows: Vec<&Vec<Expr>> = values.rows.iter().map(|r| &r.content).collect();
                self.values(&rows)
            }
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let all = match set_quantifier {
                    SetQuantifier::All => true,
                    SetQuantifier::None | SetQuantifier::Distinct => false,
                    _ => return Err(SqlError::unsupported("BY NAME")),
                };
                let (op, name) = match op {
                    SetOperator::Union => (SetOp::Union, if all { "UNION ALL" } else { "UNION" }),
                    SetOperator::Except => (SetOp::Except, "EXCEPT"),
                    SetOperator::Intersect => (SetOp::Intersect, "INTERSECT"),
                    SetOperator::Minus => return Err(SqlError::unsupported("MINUS")),
                };
                if all && op != SetOp::Union {
                    return Err(SqlError::unsupported(format!("{name} ALL")));
                }
                let mut left = self.set_expr(left)?;
                let mut right = self.set_expr(right)?;
                let columns = reconcile(&mut left, &mut right, name, !all)?;
                Ok(Plan {
                    columns,
                    body: Body::Set(Box::new(SetPlan {
                        op,
                        all,
                        left,
                        right,
                        tail: Tail::default(),
                    })),
                })
            }
            other => Err(SqlError::unsupported(format!("the query {other}"))),
        }
    }

    pub fn values(&mut self, rows: &[&Vec<Expr>]) -> SqlResult<Plan> {
        let width = rows.first().map_or(0, |r| r.len());
        let mut columns: Vec<Vec<Bound>> =
            (0..width).map(|_| Vec::with_capacity(rows.len())).collect();
        for row in rows {
            if row.len() != width {
                return Err(SqlError::new(
                    10709,
                    16,
                    "The number of columns for each row in a table value constructor must be the same.",
                ));
            }
            for (column, expr) in columns.iter_mut().zip(row.iter()) {
                column.push(self.expr(expr)?);
            }
        }
        let mut described = Vec::with_capacity(width);
        let mut bound_rows: Vec<Vec<Bound>> =
            (0..rows.len()).map(|_| Vec::with_capacity(width)).collect();
        for column in columns {
            let is_null = column.iter().all(|b| b.is_null);
            let (column, ty, coercibility) = unify(column, "VALUES")?;
            described.push(PlanColumn {
                name: String::new(),
                ty,
                nullable: column.iter().any(|b| b.nullable),
                coercibility,
                identity: None,
                computed: false,
                is_null,
            });
            for (row, value) in bound_rows.iter_mut().zip(column) {
                row.push(value);
            }
        }
        Ok(Plan { columns: described, body: Body::Values(bound_rows) })
    }
}
