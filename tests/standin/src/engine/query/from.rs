//! Binding of FROM: tables, views, derived tables, functions, joins and APPLY.

use super::{
    host::{Relation, TableHints},
    plan::{Body, Conjunct, From, Join, JoinKind, Leaf, LeafKind, Method, Plan},
};
use crate::{
    engine::expr::{
        binder::{
            Binder, CteDefinition, ScopeColumn, ScopeSource, object_name, same_name, scope_column,
        },
        functions::arguments::argument,
        types,
    },
    error::{SqlError, SqlResult},
    tsql::ast::ObjectName,
};
use sqlparser::ast::{
    self, Expr, JoinConstraint, JoinOperator, SetExpr, TableAlias, TableFactor, TableWithJoins,
};
use std::sync::Arc;

impl Binder<'_> {
    /// `loose` gets conditions that concern no one join (none at present stays in a join it does
    /// not belong to).
    pub fn table_with_joins(
        &mut self,
        table: &TableWithJoins,
        loose: &mut Vec<Conjunct>,
    ) -> SqlResult<From> {
        let mut left = self.factor(&table.relation, false, loose)?;
        for join in &table.joins {
            let (kind, constraint, swap) = match &join.join_operator {
                JoinOperator::Join(c) | JoinOperator::Inner(c) => (JoinKind::Inner, Some(c), false),
                JoinOperator::Left(c) | JoinOperator::LeftOuter(c) => {
                    (JoinKind::Left, Some(c), false)
                }
                JoinOperator::Right(c) | JoinOperator::RightOuter(c) => {
                    (JoinKind::Left, Some(c), true)
                }
                JoinOperator::FullOuter(c) => (JoinKind::Full, Some(c), false),
                JoinOperator::CrossJoin(JoinConstraint::None) => (JoinKind::Inner, None, false),
                JoinOperator::CrossApply | JoinOperator::OuterApply => {
                    let kind = if join.join_operator == JoinOperator::CrossApply {
                        JoinKind::Inner
                    } else {
                        JoinKind::Left
                    };
                    let right = self.factor(&join.relation, true, loose)?;
                    // rows without a match have NULLs there
                    if kind == JoinKind::Left {
                        self.make_nullable(right.mask());
                    }
                    left = From::Join(Box::new(Join {
                        kind,
                        apply: true,
                        left,
                        right,
                        on: Vec::new(),
                        method: Method::Loop,
                    }));
                    continue;
                }
                other => return Err(SqlError::unsupported(format!("{other:?}"))),
            };
            let right = self.factor(&join.relation, false, loose)?;
            let on = match constraint {
                None => Vec::new(),
                Some(JoinConstraint::On(expr)) => self.conjunct_list(expr)?,
                Some(_) => {
                    return Err(SqlError::new(
                        102,
                        15,
                        "Incorrect syntax near 'JOIN': ON is missing.",
                    ));
                }
            };
            match kind {
                JoinKind::Inner => {}
                JoinKind::Left if swap => self.make_nullable(left.mask()),
                JoinKind::Left => self.make_nullable(right.mask()),
                JoinKind::Full => self.make_nullable(left.mask() | right.mask()),
            }
            let (l, r) = if swap { (right, left) } else { (left, right) };
            left = From::Join(Box::new(Join {
                kind,
                apply: false,
                left: l,
                right: r,
                on,
                method: Method::Kept,
            }));
        }
        Ok(left)
    }
}

impl Binder<'_> {
    fn slots(&self) -> usize {
        self.scopes.last().map_or(0, |s| s.first_slot + s.sources.len())
    }

    /// The columns of these sources may be NULL: an outer join made them so.
    fn make_nullable(&mut self, mask: u128) {
        if let Some(scope) = self.scopes.last_mut() {
            let first = scope.first_slot;
            for (at, source) in scope.sources.iter_mut().enumerate() {
                if mask & (1 << (at + first)) != 0 {
                    for column in &mut source.columns {
                        column.nullable = true;
                    }
                }
            }
        }
    }

    /// Adds a source to the scope; error 1011/1013 for a name twice.
    fn add_source(&mut self, source: ScopeSource) -> SqlResult<usize> {
        let slot = self.slots();
        let Some(scope) = self.scopes.last_mut() else {
            return Err(SqlError::unsupported("a table outside a query"));
        };
        for other in &scope.sources {
            if same_name(&other.name, &source.name)
                && (source.full.is_none() || other.full.is_none() || other.full == source.full)
            {
                return Err(match (&source.full, &other.full) {
                    (None, None) => SqlError::new(
                        1011,
                        16,
                        format!(
                            "The correlation name '{}' is specified multiple times in a FROM clause.",
                            source.name
                        ),
                    ),
                    _ => SqlError::new(
                        1013,
                        16,
                        format!(
                            "The objects \"{0}\" and \"{0}\" in the FROM clause have the same exposed names. Use correlation names to distinguish them.",
                            source.name
                        ),
                    ),
                });
            }
        }
        scope.sources.push(source);
        Ok(slot)
    }

    fn leaf(&mut self, source: ScopeSource, kind: LeafKind) -> SqlResult<From> {
        let slot = self.add_source(source)?;
        Ok(From::Leaf(Leaf { slot, kind, filter: Vec::new() }))
    }

    fn factor(
        &mut self,
        factor: &TableFactor,
        lateral: bool,
        loose: &mut Vec<Conjunct>,
    ) -> SqlResult<From> {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                sample,
                partitions,
                ..
            } => {
                if version.is_some() {
                    return Err(SqlError::unsupported("FOR SYSTEM_TIME"));
                }
                if sample.is_some() || !partitions.is_empty() {
                    return Err(SqlError::unsupported("TABLESAMPLE"));
                }
                let hints = hints(with_hints);
                if let Some(args) = args {
                    // sqlparser reads the old form of hints, t (NOLOCK), as a function's arguments
                    let list: Vec<&Expr> = args.args.iter().filter_map(argument).collect();
                    if list.len() == args.args.len()
                        && let [Expr::Identifier(only)] = list.as_slice()
                        && !only.value.starts_with('@')
                        && is_hint(&only.value)
                    {
                        return self.named_table(
                            name,
                            alias.as_ref(),
                            &TableHints(vec![only.value.to_ascii_uppercase()]),
                        );
                    }
                    if list.len() != args.args.len() {
                        return Err(SqlError::unsupported(format!("the arguments of {name}")));
                    }
                    return self.table_function(name, &list, alias.as_ref(), lateral);
                }
                self.named_table(name, alias.as_ref(), &hints)
            }
            TableFactor::Function { name, args, alias, .. } => {
                let list: Vec<&Expr> = args.iter().filter_map(argument).collect();
                self.table_function(name, &list, alias.as_ref(), lateral)
            }
            TableFactor::Derived { subquery, alias, sample: None, .. } => {
                let (name, columns) = alias_parts(alias.as_ref());
                let Some(name) = name else {
                    return Err(SqlError::new(
                        102,
                        15,
                        "Incorrect syntax near ')'. A derived table needs an alias.",
                    ));
                };
                let plan = if lateral {
                    self.query(subquery)?
                } else {
                    self.isolated(|binder| binder.query(subquery))?
                };
                self.derived(name, &columns, plan, lateral)
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.table_with_joins(table_with_joins, loose)
            }
            other => Err(SqlError::unsupported(format!("{other} in FROM"))),
        }
    }

    /// Binds something that does not see the other sources of this FROM.
    fn isolated<T>(&mut self, bind: impl FnOnce(&mut Self) -> SqlResult<T>) -> SqlResult<T> {
        let own = self.scopes.pop();
        let result = bind(self);
        self.scopes.extend(own);
        result
    }

    fn derived(
        &mut self,
        name: String,
        names: &[String],
        plan: Plan,
        lateral: bool,
    ) -> SqlResult<From> {
        let columns = columns_of(&plan, names, &name, self.exact_names()?)?;
        self.leaf(ScopeSource { name, full: None, columns }, LeafKind::Derived { plan, lateral })
    }

    fn table_function(
        &mut self,
        name: &ast::ObjectName,
        args: &[&Expr],
        alias: Option<&TableAlias>,
        lateral: bool,
    ) -> SqlResult<From> {
        let mut own = object_name(name)?;
        if own.database.is_none() && own.schema.is_some() {
            own.database.clone_from(&self.database);
        }
        let Some(function) = self.host.table_function(&own)? else {
            return Err(SqlError::new(208, 16, format!("Invalid object name '{name}'.")));
        };
        // without APPLY the other sources are out of sight
        let hidden = if lateral {
            None
        } else {
            self.scopes.last_mut().map(|s| std::mem::take(&mut s.sources))
        };
        let bound: SqlResult<Vec<_>> = args
            .iter()
            .map(|e| match e {
                // DEFAULT
                Expr::Identifier(i)
                    if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("DEFAULT") =>
                {
                    Ok(crate::engine::expr::bound::Bound::null())
                }
                e => self.expr(e),
            })
            .collect();
        if let (Some(sources), Some(scope)) = (hidden, self.scopes.last_mut()) {
            scope.sources = sources;
        }
        let bound = bound?;
        let (alias, names) = alias_parts(alias);
        let mut columns: Vec<ScopeColumn> = function.columns().iter().map(scope_column).collect();
        for (column, name) in columns.iter_mut().zip(&names) {
            column.name = name.as_str().into();
        }
        let source =
            ScopeSource { name: alias.unwrap_or_else(|| own.name.clone()), full: None, columns };
        self.leaf(source, LeafKind::Function { function, args: bound })
    }

    fn named_table(
        &mut self,
        name: &ast::ObjectName,
        alias: Option<&TableAlias>,
        hints: &TableHints,
    ) -> SqlResult<From> {
        let mut own = object_name(name)?;
        let (alias_name, alias_columns) = alias_parts(alias);
        let exposed = alias_name.clone().unwrap_or_else(|| own.name.clone());
        if own.schema.is_none() && own.database.is_none() {
            if let Some(at) = self.ctes.iter().rposition(|c| same_name(&c.name, &own.name)) {
                return self.cte(at, exposed, &alias_columns);
            }
            if own.name.starts_with('@') {
                let Some(source) = self.host.table_variable(&own.name, hints)? else {
                    return Err(SqlError::new(
                        1087,
                        15,
                        format!("Must declare the table variable \"{}\".", own.name),
                    ));
                };
                let columns = source.columns().iter().map(scope_column).collect();
                let scope = ScopeSource { name: exposed, full: None, columns };
                return self.leaf(scope, LeafKind::Table { source, seek: None });
            }
        }
        if own.database.is_none() && !own.name.starts_with('#') {
            own.database.clone_from(&self.database);
        }
        match self.host.relation(&own, hints)? {
            Some(Relation::Rows(source)) => {
                let columns = source.columns().iter().map(scope_column).collect();
                let full = if alias_name.is_some() { None } else { Some(source.name()) };
                self.leaf(
                    ScopeSource { name: exposed, full, columns },
                    LeafKind::Table { source, seek: None },
                )
            }
            Some(Relation::View { database, name: view, columns, query }) => {
                if self.view_depth >= 32 {
                    return Err(SqlError::new(
                        217,
                        16,
                        "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).",
                    ));
                }
                let scopes = std::mem::take(&mut self.scopes);
                let ctes = std::mem::take(&mut self.ctes);
                let outside = self.database.replace(database);
                self.view_depth += 1;
                let plan = self.query(&query);
                self.view_depth -= 1;
                self.database = outside;
                self.ctes = ctes;
                self.scopes = scopes;
                let plan = plan.map_err(|e| {
                    if e.number == 207 || e.number == 208 {
                        let inner = e.message.clone();
                        SqlError::new(
                            4413,
                            16,
                            format!("Could not use view or function '{}' because of binding errors. {inner}", view.name),
                        )
                    } else {
                        e
                    }
                })?;
                let columns = columns_of(&plan, &columns, &view.name, self.exact_names()?)?;
                let full = if alias_name.is_some() { None } else { Some(view) };
                self.leaf(
                    ScopeSource { name: exposed, full, columns },
                    LeafKind::Derived { plan, lateral: false },
                )
            }
            None => Err(SqlError::new(208, 16, format!("Invalid object name '{}'.", shown(name)))),
        }
    }

    /// The common table expression at this place, as a source of the scope.
    pub fn cte(&mut self, at: usize, exposed: String, alias_columns: &[String]) -> SqlResult<From> {
        let definition = self.ctes[at].clone();
        if let Some((id, columns)) = definition.work {
            return self
                .leaf(ScopeSource { name: exposed, full: None, columns }, LeafKind::Work(id));
        }
        let scopes = std::mem::take(&mut self.scopes);
        let later = self.ctes.split_off(definition.visible);
        let plan = if refers_to(&definition.query.body, &definition.name) {
            self.recursive(&definition)
        } else {
            let query = definition.query.clone();
            self.query(&query)
        };
        self.ctes.truncate(definition.visible);
        self.ctes.extend(later);
        self.scopes = scopes;
        let mut plan = plan?;
        name_columns(&mut plan, &definition.columns, &definition.name)?;
        self.derived(exposed, alias_columns, plan, false)
    }

    fn recursive(&mut self, definition: &CteDefinition) -> SqlResult<Plan> {
        let SetExpr::SetOperation {
            left,
            op: ast::SetOperator::Union,
            set_quantifier: ast::SetQuantifier::All,
            right,
        } = &*definition.query.body
        else {
            return Err(SqlError::new(
                252,
                16,
                format!(
                    "Recursive common table expression '{}' does not contain a top-level UNION ALL operator.",
                    definition.name
                ),
            ));
        };
        let mut anchor = self.set_expr(left)?;
        name_columns(&mut anchor, &definition.columns, &definition.name)?;
        let mut columns = columns_of(&anchor, &[], &definition.name, self.exact_names()?)?;
        for column in &mut columns {
            column.nullable = true;
        }
        let id = self.next_number();
        let mut own = definition.clone();
        own.work = Some((id, columns));
        self.ctes.push(own);
        let step = self.set_expr(right);
        self.ctes.pop();
        let mut step = step?;
        if step.columns.len() != anchor.columns.len() {
            return Err(SqlError::new(
                205,
                16,
                "All queries combined using a UNION, INTERSECT or EXCEPT operator must have an equal number of expressions in their target lists.",
            ));
        }
        for (a, s) in anchor.columns.iter().zip(&step.columns) {
            if !s.is_null
                && types::common(a.ty, s.ty) != a.ty
                && types::family(a.ty) != types::family(s.ty)
            {
                return Err(SqlError::new(
                    240,
                    16,
                    format!(
                        "Types don't match between the anchor and the recursive part in column \"{}\" of recursive query \"{}\".",
                        a.name, definition.name
                    ),
                ));
            }
        }
        let wanted: Vec<_> = anchor.columns.iter().map(|c| c.ty).collect();
        super::outputs::cast_outputs(&mut step, &wanted)?;
        let mut columns = anchor.columns.clone();
        for column in &mut columns {
            column.nullable = true;
            column.identity = None;
        }
        Ok(Plan {
            columns,
            body: Body::Recursive { id, anchor: Box::new(anchor), step: Box::new(step) },
        })
    }
}

/// Whether a body mentions a table of this name in a FROM of its own set operations.
fn refers_to(body: &SetExpr, name: &str) -> bool {
    match body {
        SetExpr::Select(select) => select.from.iter().any(|t| {
            std::iter::once(&t.relation).chain(t.joins.iter().map(|j| &j.relation)).any(|factor| {
                match factor {
                    TableFactor::Table { name: table, .. } => {
                        table.0.len() == 1
                            && table.0[0].as_ident().is_some_and(|i| same_name(&i.value, name))
                    }
                    _ => false,
                }
            })
        }),
        SetExpr::SetOperation { left, right, .. } => {
            refers_to(left, name) || refers_to(right, name)
        }
        SetExpr::Query(query) => refers_to(&query.body, name),
        _ => false,
    }
}

fn shown(name: &ast::ObjectName) -> String {
    name.0
        .iter()
        .map(|p| p.as_ident().map(|i| i.value.clone()).unwrap_or_default())
        .collect::<Vec<_>>()
        .join(".")
}

fn name_columns(plan: &mut Plan, names: &[String], table: &str) -> SqlResult<()> {
    if !names.is_empty() && names.len() != plan.columns.len() {
        let (number, what) = if names.len() > plan.columns.len() {
            (8158, "fewer columns than were specified in the column list")
        } else {
            (8159, "more columns than were specified in the column list")
        };
        return Err(SqlError::new(number, 16, format!("'{table}' has {what}.")));
    }
    for (column, name) in plan.columns.iter_mut().zip(names) {
        column.name.clone_from(name);
    }
    Ok(())
}

/// The columns a query shows to the query around it, found under their names as written only where
/// these are `exact`.
fn columns_of(
    plan: &Plan,
    names: &[String],
    table: &str,
    exact: bool,
) -> SqlResult<Vec<ScopeColumn>> {
    if !names.is_empty() && names.len() != plan.columns.len() {
        return Err(SqlError::new(
            8159,
            16,
            format!(
                "'{table}' has a different number of columns than were specified in the column list."
            ),
        ));
    }
    let mut columns: Vec<ScopeColumn> = Vec::with_capacity(plan.columns.len());
    for (at, column) in plan.columns.iter().enumerate() {
        let name = names.get(at).unwrap_or(&column.name);
        if name.is_empty() {
            return Err(SqlError::new(
                8155,
                16,
                format!("No column name was specified for column {} of '{table}'.", at + 1),
            ));
        }
        if columns.iter().any(|c| c.is_named(name)) {
            return Err(SqlError::new(
                8156,
                16,
                format!("The column '{name}' was specified multiple times for '{table}'."),
            ));
        }
        columns.push(ScopeColumn {
            name: name.as_str().into(),
            ty: column.ty,
            nullable: column.nullable,
            coercibility: column.coercibility,
            identity: column.identity,
            computed: column.computed,
            rowguid: false,
            hidden: false,
            exact_name: exact,
        });
    }
    Ok(columns)
}

fn alias_parts(alias: Option<&TableAlias>) -> (Option<String>, Vec<String>) {
    match alias {
        None => (None, Vec::new()),
        Some(alias) => (
            Some(alias.name.value.clone()),
            alias.columns.iter().map(|c| c.name.value.clone()).collect(),
        ),
    }
}

fn is_hint(word: &str) -> bool {
    [
        "NOLOCK",
        "READUNCOMMITTED",
        "HOLDLOCK",
        "UPDLOCK",
        "TABLOCK",
        "TABLOCKX",
        "XLOCK",
        "ROWLOCK",
        "PAGLOCK",
        "READPAST",
        "READCOMMITTED",
        "REPEATABLEREAD",
        "SERIALIZABLE",
        "NOWAIT",
    ]
    .iter()
    .any(|h| word.eq_ignore_ascii_case(h))
}

/// Hints as upper-case text.
pub fn hints(list: &[Expr]) -> TableHints {
    TableHints(list.iter().map(|h| h.to_string().to_ascii_uppercase()).collect())
}

/// An object's name as a source of its own, for targets outside FROM.
pub fn source_of(name: &ObjectName, source: &Arc<dyn super::host::RowSource>) -> ScopeSource {
    ScopeSource {
        name: name.name.clone(),
        full: Some(source.name()),
        columns: source.columns().iter().map(scope_column).collect(),
    }
}
