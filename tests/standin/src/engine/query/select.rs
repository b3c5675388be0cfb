//! Binding of a SELECT: its rows, groups, outputs and order.

use super::{
    access,
    outputs::ordinal,
    plan::{
        Aggregate, Body, Conjunct, From, GroupPlan, Plan, PlanColumn, SOURCES, SelectPlan, SortBy,
        SortKey, TopPlan, WINDOWS, WindowCall,
    },
};
use crate::{
    engine::expr::{
        binder::{Binder, Phase, Scope, ScopeColumn, same_name, source_matches},
        bound::{Bound, Node, Predicate},
        conditions::conjuncts,
        conversions::implicit,
        sorting::{is_descending, sortable},
        types::{self, Coercibility},
    },
    error::{SqlError, SqlResult},
    value::{SqlType, Value},
};
use sqlparser::ast::{
    self, Expr, GroupByExpr, Select, SelectItem, SelectItemQualifiedWildcardKind, TopQuantity,
};

impl Binder<'_> {
    pub fn select(
        &mut self,
        select: &Select,
        order: &[ast::OrderByExpr],
        offset: Option<&Expr>,
        fetch: Option<&Expr>,
    ) -> SqlResult<Plan> {
        if select.prewhere.is_some()
            || select.qualify.is_some()
            || !select.lateral_views.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || !select.named_window.is_empty()
            || !select.connect_by.is_empty()
            || select.exclude.is_some()
        {
            return Err(SqlError::unsupported("a clause of another dialect in SELECT"));
        }
        self.scopes.push(Scope::new(SOURCES));
        let result = self.select_inner(select, order, offset, fetch);
        self.scopes.pop();
        result
    }

    fn scope(&mut self) -> &mut Scope {
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    /// Binds the conjuncts of a condition, noting which sources each side concerns.
    pub fn conjunct_list(&mut self, expr: &Expr) -> SqlResult<Vec<Conjunct>> {
        let mut list = Vec::new();
        for part in conjuncts(expr) {
            self.conjunct(part, &mut list)?;
        }
        Ok(list)
    }

    fn conjunct(&mut self, part: &Expr, list: &mut Vec<Conjunct>) -> SqlResult<()> {
        let level = self.scopes.len() - 1;
        let outside = std::mem::take(&mut self.seen);
        let bound = self.predicate(part);
        let seen = std::mem::replace(&mut self.seen, outside);
        let mask = mask_of(&seen, level);
        let outer = seen.iter().any(|(l, _)| *l < level);
        self.seen.extend(seen);
        let mut predicates = vec![bound?];
        while let Some(predicate) = predicates.pop() {
            match predicate {
                // BETWEEN and null-safe lists fall apart as well
                Predicate::And(parts) => predicates.extend(parts.into_iter().rev()),
                predicate => {
                    let sides = match &predicate {
                        Predicate::Compare { left, right, .. }
                        | Predicate::Distinct { equal: true, left, right, .. } => {
                            access::simple_mask(left).zip(access::simple_mask(right))
                        }
                        _ => None,
                    };
                    list.push(Conjunct { predicate, mask, sides, outer });
                }
            }
        }
        Ok(())
    }

    fn select_inner(
        &mut self,
        select: &Select,
        order: &[ast::OrderByExpr],
        offset: Option<&Expr>,
        fetch: Option<&Expr>,
    ) -> SqlResult<Plan> {
        // FROM and WHERE
        let mut from: Option<From> = None;
        let mut loose = Vec::new();
        for table in &select.from {
            let next = self.table_with_joins(table, &mut loose)?;
            from = Some(match from {
                None => next,
                Some(left) => access::cross(left, next),
            });
        }
        if let Some(condition) = &select.selection {
            loose.extend(self.conjunct_list(condition)?);
        }

        // GROUP BY
        let group_exprs = match &select.group_by {
            GroupByExpr::Expressions(list, modifiers) if modifiers.is_empty() => list.as_slice(),
            _ => return Err(SqlError::unsupported("GROUP BY ALL, CUBE or ROLLUP")),
        };
        let mut keys = Vec::with_capacity(group_exprs.len());
        let mut group_columns = Vec::new();
        for expr in group_exprs {
            if matches!(expr, Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_)) {
                return Err(SqlError::unsupported("GROUPING SETS, CUBE and ROLLUP"));
            }
            if matches!(expr, Expr::Value(_)) {
                return Err(SqlError::new(
                    164,
                    15,
                    "Each GROUP BY expression must contain at least one column that is not an outer reference.",
                ));
            }
            let text = self.canonical(expr);
            let key = self.expr(expr)?;
            if let Node::Column { depth: 0, slot, column } = key.node {
                group_columns.push((usize::from(slot), usize::from(column)));
            } else {
                self.scope().group_texts.push(text);
            }
            keys.push(key);
        }

        // the select list, HAVING, ORDER BY
        {
            let scope = self.scope();
            scope.phase = Phase::Groups;
            scope.windows_allowed = true;
            scope.free.clear();
        }
        let mut columns = Vec::new();
        let mut projection = Vec::new();
        let mut texts = Vec::new();
        for item in &select.projection {
            self.select_item(item, &mut columns, &mut projection, &mut texts)?;
        }
        self.scope().windows_allowed = false;
        let having = match &select.having {
            Some(expr) => vec![self.predicate(expr)?],
            None => Vec::new(),
        };
        self.scope().windows_allowed = true;
        let distinct = match &select.distinct {
            None | Some(ast::Distinct::All) => false,
            Some(ast::Distinct::Distinct) => true,
            Some(ast::Distinct::On(_)) => return Err(SqlError::unsupported("DISTINCT ON")),
        };
        let mut tail_order = Vec::new();
        for item in order {
            let by = self.sort_item(&item.expr, &columns, &projection, &texts, distinct)?;
            tail_order.push(SortKey { by, descending: is_descending(item) });
        }
        {
            let scope = self.scope();
            scope.phase = Phase::Rows;
            scope.windows_allowed = false;
        }
        let mut tail = self.limits(offset, fetch)?;
        if offset.is_some() && order.is_empty() {
            return Err(SqlError::new(
                102,
                15,
                "Incorrect syntax near 'OFFSET'. OFFSET needs ORDER BY.",
            ));
        }
        tail.order = tail_order;
        tail.top = select.top.as_ref().map(|top| self.top(top)).transpose()?;
        if tail.top.as_ref().is_some_and(|t| t.ties) && tail.order.is_empty() {
            return Err(SqlError::new(
                1062,
                15,
                "The TOP N WITH TIES clause is not allowed without a corresponding ORDER BY clause.",
            ));
        }

        let scope = self.scope();
        let aggregates = std::mem::take(&mut scope.aggregates);
        let windows = std::mem::take(&mut scope.windows);
        let free = std::mem::take(&mut scope.free);
        let width = SOURCES + scope.sources.len();
        if width > 127 {
            return Err(SqlError::new(
                106,
                15,
                "Too many table names in the query. The maximum allowable is 256.",
            ));
        }
        let grouped = !keys.is_empty() || !aggregates.is_empty() || select.having.is_some();
        if grouped
            && let Some((_, _, name)) =
                free.iter().find(|(slot, column, _)| !group_columns.contains(&(*slot, *column)))
        {
            return Err(SqlError::new(
                8120,
                16,
                format!(
                    "Column '{name}' is invalid in the select list because it is not contained in either an aggregate function or the GROUP BY clause."
                ),
            ));
        }
        let group = grouped.then_some(GroupPlan { keys, aggregates });

        let mut plan = SelectPlan {
            width,
            startup: Vec::new(),
            from,
            filter: Vec::new(),
            group,
            having,
            windows,
            projection,
            distinct,
            tail,
            presorted: false,
        };
        let number = self.next_number();
        access::choose(&mut plan, loose, number);
        Ok(Plan { columns, body: Body::Select(Box::new(plan)) })
    }

    fn top(&mut self, top: &ast::Top) -> SqlResult<TopPlan> {
        let count = match &top.quantity {
            Some(TopQuantity::Constant(n)) => {
                Bound::constant(Value::Int(i64::try_from(*n).unwrap_or(i64::MAX)), SqlType::BigInt)
            }
            Some(TopQuantity::Expr(expr)) => self.expr(expr)?,
            None => return Err(SqlError::unsupported("TOP without a number")),
        };
        top_plan(count, top.percent, top.with_ties)
    }

    fn select_item(
        &mut self,
        item: &SelectItem,
        columns: &mut Vec<PlanColumn>,
        projection: &mut Vec<Bound>,
        texts: &mut Vec<String>,
    ) -> SqlResult<()> {
        match item {
            SelectItem::UnnamedExpr(Expr::BinaryOp {
                left,
                op: ast::BinaryOperator::Eq,
                right,
            }) if matches!(&**left, Expr::Identifier(i) if i.quote_style.is_some() || !i.value.starts_with('@')) =>
            {
                // alias = expression
                let Expr::Identifier(alias) = &**left else {
                    return Err(SqlError::unsupported("this select item"));
                };
                texts.push(self.canonical(right));
                let bound = self.expr(right)?;
                self.output(alias.value.clone(), bound, columns, projection);
            }
            SelectItem::UnnamedExpr(expr) => {
                texts.push(self.canonical(expr));
                let bound = self.expr(expr)?;
                let name = match expr {
                    Expr::Identifier(ident)
                        if ident.quote_style.is_some() || !ident.value.starts_with('@') =>
                    {
                        ident.value.clone()
                    }
                    Expr::CompoundIdentifier(idents) => {
                        idents.last().map(|i| i.value.clone()).unwrap_or_default()
                    }
                    _ => String::new(),
                };
                let name = self
                    .own_name(&bound)
                    .filter(|own| same_name(own, &name) || name.starts_with('$'))
                    .unwrap_or(name);
                self.output(name, bound, columns, projection);
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                texts.push(self.canonical(expr));
                let bound = self.expr(expr)?;
                self.output(alias.value.clone(), bound, columns, projection);
            }
            SelectItem::Wildcard(_) => {
                if self.scope().sources.is_empty() {
                    return Err(SqlError::new(263, 16, "Must specify table to select from."));
                }
                for at in 0..self.scope().sources.len() {
                    self.all_of(at, columns, projection, texts);
                }
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let parts: Vec<String> = name
                    .0
                    .iter()
                    .map(|p| p.as_ident().map(|i| i.value.clone()).unwrap_or_default())
                    .collect();
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                let Some(at) = self.scope().sources.iter().position(|s| source_matches(s, &parts))
                else {
                    return Err(SqlError::new(
                        107,
                        15,
                        format!(
                            "The column prefix '{}' does not match with a table name or alias name used in the query.",
                            parts.join(".")
                        ),
                    ));
                };
                self.all_of(at, columns, projection, texts);
            }
            other => return Err(SqlError::unsupported(format!("the select item {other}"))),
        }
        Ok(())
    }

    /// The declared spelling of the column an expression is.
    fn own_name(&self, bound: &Bound) -> Option<String> {
        self.scope_column(bound).map(|c| c.name.to_string())
    }

    fn scope_column(&self, bound: &Bound) -> Option<&ScopeColumn> {
        let Node::Column { depth: 0, slot, column } = bound.node else { return None };
        let scope = self.scopes.last()?;
        scope
            .sources
            .get(usize::from(slot).checked_sub(scope.first_slot)?)?
            .columns
            .get(usize::from(column))
    }

    fn output(
        &mut self,
        name: String,
        bound: Bound,
        columns: &mut Vec<PlanColumn>,
        projection: &mut Vec<Bound>,
    ) {
        let own = self.scope_column(&bound);
        columns.push(PlanColumn {
            name,
            ty: bound.ty,
            nullable: bound.nullable,
            coercibility: bound.coercibility,
            identity: own.and_then(|c| c.identity),
            computed: own.is_some_and(|c| c.computed),
            is_null: bound.is_null,
        });
        projection.push(bound);
    }

    fn all_of(
        &mut self,
        at: usize,
        columns: &mut Vec<PlanColumn>,
        projection: &mut Vec<Bound>,
        texts: &mut Vec<String>,
    ) {
        let first = self.scope().first_slot;
        for (ordinal, column) in self.scope().sources[at].columns.clone().iter().enumerate() {
            if column.hidden {
                continue;
            }
            let bound = self.column_at(0, first + at, ordinal, column);
            texts.push(format!("#0_{}_{ordinal}", first + at));
            self.output(column.name.to_string(), bound, columns, projection);
        }
    }

    fn sort_item(
        &mut self,
        expr: &Expr,
        columns: &[PlanColumn],
        projection: &[Bound],
        texts: &[String],
        distinct: bool,
    ) -> SqlResult<SortBy> {
        if let Some(at) = ordinal(expr, columns.len())? {
            return Ok(SortBy::Output(at));
        }
        if let Expr::Identifier(ident) = expr {
            let mut named = self.named_outputs(columns, &ident.value)?;
            if let Some(at) = named.next() {
                // the same column twice is no ambiguity
                if named.any(|other| texts[other] != texts[at]) {
                    return Err(SqlError::new(
                        209,
                        16,
                        format!("Ambiguous column name '{}'.", ident.value),
                    ));
                }
                return Ok(SortBy::Output(at));
            }
        }
        let text = self.canonical(expr);
        if let Some(at) = texts.iter().position(|t| *t == text) {
            return Ok(SortBy::Output(at));
        }
        if distinct {
            return Err(SqlError::new(
                145,
                15,
                "ORDER BY items must appear in the select list if SELECT DISTINCT is specified.",
            ));
        }
        let _ = projection;
        let bound = self.expr(expr)?;
        if matches!(bound.node, Node::Const(_)) {
            return Err(SqlError::new(
                408,
                16,
                "A constant expression was encountered in the ORDER BY list, position 1.",
            ));
        }
        sortable(&bound)?;
        Ok(SortBy::Expr(bound))
    }

    // ---- aggregates and windows: called by the function binder

    /// An aggregate, in the innermost SELECT.
    pub fn aggregate(&mut self, aggregate: Aggregate, nullable: bool) -> SqlResult<Bound> {
        let scope = self.scope();
        let ty = aggregate.ty;
        let number = scope.aggregates.len();
        scope.aggregates.push(aggregate);
        let level = self.scopes.len() - 1;
        self.seen.insert((level, super::plan::AGGREGATES));
        let mut bound = Bound::new(
            Node::Column {
                depth: 0,
                slot: u16::try_from(super::plan::AGGREGATES).unwrap_or(0),
                column: u16::try_from(number).unwrap_or(u16::MAX),
            },
            ty,
            nullable,
        );
        if types::is_text(ty) {
            bound.coercibility = Coercibility::Implicit;
        }
        Ok(bound)
    }

    pub fn window(&mut self, call: WindowCall, nullable: bool) -> SqlResult<Bound> {
        let scope = self.scope();
        if !scope.windows_allowed {
            return Err(SqlError::new(
                4108,
                15,
                "Windowed functions can only appear in the SELECT or ORDER BY clauses.",
            ));
        }
        let ty = call.ty;
        let number = scope.windows.len();
        scope.windows.push(call);
        let level = self.scopes.len() - 1;
        self.seen.insert((level, WINDOWS));
        let node = Node::Column {
            depth: 0,
            slot: u16::try_from(WINDOWS).unwrap_or(1),
            column: u16::try_from(number).unwrap_or(u16::MAX),
        };
        Ok(Bound::new(node, ty, nullable))
    }
}

fn mask_of(seen: &std::collections::BTreeSet<(usize, usize)>, level: usize) -> u128 {
    seen.iter()
        .filter(|(l, slot)| *l == level && *slot < 128)
        .fold(0, |mask, (_, slot)| mask | 1 << slot)
}

pub fn top_plan(count: Bound, percent: bool, ties: bool) -> SqlResult<TopPlan> {
    let count = implicit(count, if percent { SqlType::Float } else { SqlType::BigInt })?;
    Ok(TopPlan { count, percent, ties })
}
