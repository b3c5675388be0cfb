//! The binder: what a SELECT brings into view, and which column or variable a name is.
//!
//! Value expressions are bound in [`super::values`], conditions in [`super::conditions`], functions
//! in [`super::functions`], queries in `engine::query::bind`.

use super::{
    bound::{Bound, Node},
    context::Context,
    types::{self, Coercibility},
};
use crate::{
    engine::query::{
        host::{Host, Settings, SourceColumn},
        plan::{Aggregate, WindowCall},
    },
    error::{SqlError, SqlResult},
    tsql::ast::ObjectName,
    value::{SqlType, Value},
};
use sqlparser::ast::{self, Expr, Ident, ObjectNamePart};
use std::{collections::BTreeSet, sync::Arc};

/// A column as a scope offers it.
#[derive(Clone, Debug)]
pub struct ScopeColumn {
    pub name: Arc<str>,
    pub ty: SqlType,
    pub nullable: bool,
    pub coercibility: Coercibility,
    pub identity: Option<(i128, i128)>,
    pub computed: bool,
    pub rowguid: bool,
    pub hidden: bool,
    /// Found under its name as written only: of a database whose collation is case-sensitive.
    pub exact_name: bool,
}

impl ScopeColumn {
    pub fn is_named(&self, name: &str) -> bool {
        if self.exact_name { *self.name == *name } else { same_name(&self.name, name) }
    }
}

/// A source of a FROM clause.
#[derive(Clone, Debug)]
pub struct ScopeSource {
    /// Alias, or the table's own name.
    pub name: String,
    /// The table's full name, when it has no alias.
    pub full: Option<ObjectName>,
    pub columns: Vec<ScopeColumn>,
}

/// What may stand in an expression here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// WHERE, ON, GROUP BY: rows only.
    Rows,
    /// The select list, HAVING and ORDER BY: aggregates too.
    Groups,
    /// Inside an aggregate.
    Aggregate,
}

/// The names one SELECT brings into view.
pub struct Scope {
    /// The slot of the first source.
    pub first_slot: usize,
    pub sources: Vec<ScopeSource>,
    pub phase: Phase,
    pub windows_allowed: bool,
    pub aggregates: Vec<Aggregate>,
    pub windows: Vec<WindowCall>,
    /// Columns used outside aggregates: they must be grouped by, if anything is grouped.
    pub free: Vec<(usize, usize, String)>,
    /// GROUP BY's expressions in canonical text.
    pub group_texts: Vec<String>,
}

impl Scope {
    pub fn new(first_slot: usize) -> Self {
        Self {
            first_slot,
            sources: Vec::new(),
            phase: Phase::Rows,
            windows_allowed: false,
            aggregates: Vec::new(),
            windows: Vec::new(),
            free: Vec::new(),
            group_texts: Vec::new(),
        }
    }
}

/// A common table expression in view.
#[derive(Clone)]
pub struct CteDefinition {
    pub name: String,
    pub columns: Vec<String>,
    pub query: Arc<ast::Query>,
    /// How many CTEs were in view where it was defined.
    pub visible: usize,
    /// While its own step is bound: the number and columns of its rows so far.
    pub work: Option<(usize, Vec<ScopeColumn>)>,
}

pub struct Binder<'h> {
    pub host: &'h dyn Host,
    pub settings: Settings,
    pub scopes: Vec<Scope>,
    pub ctes: Vec<CteDefinition>,
    /// Where unqualified names are looked up: a view's own database.
    pub database: Option<String>,
    pub view_depth: usize,
    variables: Vec<(String, SqlType)>,
    values: Vec<Value>,
    /// (scope, slot) of every column met since the recorder was last taken.
    pub seen: BTreeSet<(usize, usize)>,
    /// Something with a new value every time was met (NEWID): results must not be kept.
    pub volatile: bool,
    counter: usize,
}

pub fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!a.is_ascii() && a.to_lowercase() == b.to_lowercase())
}

/// `a.b.c` as an object name; `a..c` leaves the schema out.
pub fn object_name(name: &ast::ObjectName) -> SqlResult<ObjectName> {
    let mut parts: Vec<String> = name
        .0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(ident.value.clone()),
            ObjectNamePart::Function(_) => Err(SqlError::unsupported(format!("the name {name}"))),
        })
        .collect::<SqlResult<_>>()?;
    if parts.len() > 3 {
        return Err(SqlError::unsupported(format!("a linked server's name, {name}")));
    }
    let last = parts.pop().unwrap_or_default();
    let schema = parts.pop().filter(|s| !s.is_empty());
    let database = parts.pop().filter(|s| !s.is_empty());
    Ok(ObjectName { database, schema, name: last })
}

pub fn scope_column(column: &SourceColumn) -> ScopeColumn {
    ScopeColumn {
        name: column.name.clone(),
        ty: column.ty,
        nullable: column.nullable,
        coercibility: if types::is_text(column.ty) {
            Coercibility::Implicit
        } else {
            Coercibility::Default
        },
        identity: column.identity,
        computed: column.computed,
        rowguid: column.rowguid,
        hidden: column.hidden,
        exact_name: column.exact_name,
    }
}

pub fn source_matches(source: &ScopeSource, qualifier: &[&str]) -> bool {
    match qualifier {
        [alias] => same_name(&source.name, alias),
        [schema, table] => source.full.as_ref().is_some_and(|full| {
            same_name(&full.name, table)
                && (schema.is_empty()
                    || full.schema.as_deref().is_none_or(|own| same_name(own, schema)))
        }),
        [database, schema, table] => source.full.as_ref().is_some_and(|full| {
            same_name(&full.name, table)
                && (schema.is_empty()
                    || full.schema.as_deref().is_none_or(|own| same_name(own, schema)))
                && full.database.as_deref().is_none_or(|own| same_name(own, database))
        }),
        _ => false,
    }
}

impl<'h> Binder<'h> {
    pub fn new(host: &'h dyn Host) -> Self {
        Self {
            host,
            settings: host.settings(),
            scopes: Vec::new(),
            ctes: Vec::new(),
            database: None,
            view_depth: 0,
            variables: Vec::new(),
            values: Vec::new(),
            seen: BTreeSet::new(),
            volatile: false,
            counter: 0,
        }
    }

    /// The context to evaluate what was bound in.
    pub fn context(&mut self) -> Context<'h> {
        Context::new(self.host, std::mem::take(&mut self.values))
    }

    /// The variables' values, for whoever evaluates later.
    pub fn take_values(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.values)
    }

    pub fn next_number(&mut self) -> usize {
        self.counter += 1;
        self.counter
    }

    /// The number of a variable, which is read now, once for the statement.
    pub fn variable(&mut self, name: &str) -> SqlResult<(usize, SqlType)> {
        if let Some(at) = self.variables.iter().position(|(known, _)| same_name(known, name)) {
            return Ok((at, self.variables[at].1));
        }
        let Some((ty, value)) = self.host.variable(name) else {
            return Err(SqlError::new(
                137,
                15,
                format!("Must declare the scalar variable \"{name}\"."),
            ));
        };
        self.variables.push((name.to_owned(), ty));
        self.values.push(value);
        Ok((self.variables.len() - 1, ty))
    }

    // ---- names

    /// Finds a column: (how many frames out, scope, slot, column).
    fn find_column(&self, parts: &[&str]) -> SqlResult<(usize, usize, usize, ScopeColumn)> {
        let Some((column, qualifier)) = parts.split_last() else {
            return Err(SqlError::unsupported("an empty name"));
        };
        let mut qualifier_found = false;
        for (depth, level) in (0..self.scopes.len()).rev().enumerate() {
            let scope = &self.scopes[level];
            let mut found = None;
            for (at, source) in scope.sources.iter().enumerate() {
                if !qualifier.is_empty() && !source_matches(source, qualifier) {
                    continue;
                }
                qualifier_found |= !qualifier.is_empty();
                if let Some(ordinal) = source.columns.iter().position(|c| c.is_named(column)) {
                    if found.is_some() {
                        return Err(SqlError::new(
                            209,
                            16,
                            format!("Ambiguous column name '{column}'."),
                        ));
                    }
                    found = Some((at, ordinal));
                }
            }
            if let Some((at, ordinal)) = found {
                return Ok((
                    depth,
                    at + scope.first_slot,
                    ordinal,
                    scope.sources[at].columns[ordinal].clone(),
                ));
            }
            if qualifier_found {
                break;
            }
        }
        if qualifier.is_empty() || qualifier_found {
            Err(SqlError::new(207, 16, format!("Invalid column name '{column}'.")))
        } else {
            Err(SqlError::new(
                4104,
                16,
                format!("The multi-part identifier \"{}\" could not be bound.", parts.join(".")),
            ))
        }
    }

    pub fn column(&mut self, parts: &[&str]) -> SqlResult<Bound> {
        let (depth, slot, ordinal, column) = self.find_column(parts)?;
        Ok(self.column_at(depth, slot, ordinal, &column))
    }

    pub fn column_at(
        &mut self,
        depth: usize,
        slot: usize,
        ordinal: usize,
        column: &ScopeColumn,
    ) -> Bound {
        let level = self.scopes.len() - 1 - depth;
        self.seen.insert((level, slot));
        let scope = &mut self.scopes[level];
        if scope.phase == Phase::Groups {
            let source = &scope.sources[slot - scope.first_slot];
            scope.free.push((slot, ordinal, format!("{}.{}", source.name, column.name)));
        }
        let node = Node::Column {
            depth: u16::try_from(depth).unwrap_or(u16::MAX),
            slot: u16::try_from(slot).unwrap_or(u16::MAX),
            column: u16::try_from(ordinal).unwrap_or(u16::MAX),
        };
        let mut bound = Bound::new(node, column.ty, column.nullable);
        bound.coercibility = column.coercibility;
        bound
    }

    /// Text that is the same for the same expression, however its names are written.
    pub fn canonical(&self, expr: &Expr) -> String {
        let mut copy = expr.clone();
        let _ = ast::visit_expressions_mut(&mut copy, |e: &mut Expr| {
            let parts: Vec<&str> = match &*e {
                Expr::Identifier(ident) => vec![&ident.value],
                Expr::CompoundIdentifier(idents) => {
                    idents.iter().map(|i| i.value.as_str()).collect()
                }
                _ => return std::ops::ControlFlow::<()>::Continue(()),
            };
            if let Ok((depth, slot, ordinal, _)) = self.find_column(&parts) {
                *e = Expr::Identifier(Ident::new(format!("#{depth}_{slot}_{ordinal}")));
            }
            std::ops::ControlFlow::Continue(())
        });
        while let Expr::Nested(inner) = copy {
            copy = *inner;
        }
        copy.to_string()
    }
}
