//! The rows an UPDATE or DELETE is about: its target, found among the sources of its FROM, and the
//! join that picks the rows.

use super::{
    TargetRow, TargetRows, access, exec,
    from::source_of,
    host::{Host, Relation, RowSource, TableHints},
    plan::{From, Leaf, LeafKind, SOURCES, SelectPlan, Tail},
    select::top_plan,
};
use crate::{
    engine::expr::{
        binder::{Binder, Scope, same_name},
        bound::Bound,
        conversions::implicit,
    },
    error::{SqlError, SqlResult},
    tsql::ast::{ObjectName, TargetName},
    value::{SqlType, Value},
};
use std::{collections::HashSet, sync::Arc};

/// A bound UPDATE or DELETE.
pub struct Bindings<'h> {
    binder: Binder<'h>,
    plan: SelectPlan,
    slot: usize,
    source: Arc<dyn RowSource>,
    exprs: Vec<Bound>,
}

fn tables(from: &From, out: &mut Vec<(usize, Arc<dyn RowSource>)>) {
    match from {
        From::Leaf(Leaf { slot, kind: LeafKind::Table { source, .. }, .. }) => {
            out.push((*slot, source.clone()))
        }
        From::Leaf(_) => {}
        From::Join(join) => {
            tables(&join.left, out);
            tables(&join.right, out);
        }
        From::Indexed(indexed) => tables(&indexed.inner, out),
    }
}

fn direct(
    host: &dyn Host,
    target: &TargetName,
    hints: &TableHints,
) -> SqlResult<Arc<dyn RowSource>> {
    match target {
        TargetName::Variable(name) => host.table_variable(name, hints)?.ok_or_else(|| {
            SqlError::new(1087, 15, format!("Must declare the table variable \"{name}\"."))
        }),
        TargetName::Object(name) => match host.relation(name, hints)? {
            Some(Relation::Rows(source)) => Ok(source),
            Some(Relation::View { .. }) => {
                Err(SqlError::unsupported("UPDATE or DELETE through a view"))
            }
            None => Err(SqlError::new(208, 16, format!("Invalid object name '{}'.", name.name))),
        },
        TargetName::Alias(name) => {
            Err(SqlError::new(208, 16, format!("Invalid object name '{name}'.")))
        }
    }
}

/// The target among the sources of FROM: by alias, or by the table itself when it stands there
/// once.
fn in_from(
    target: &TargetName,
    binder: &Binder<'_>,
    found: &[(usize, Arc<dyn RowSource>)],
) -> SqlResult<Option<(usize, Arc<dyn RowSource>)>> {
    let Some(scope) = binder.scopes.last() else { return Ok(None) };
    let alias = match target {
        TargetName::Alias(name) | TargetName::Variable(name) => Some(name.as_str()),
        TargetName::Object(ObjectName { database: None, schema: None, name }) => {
            Some(name.as_str())
        }
        TargetName::Object(_) => None,
    };
    if let Some(alias) = alias {
        for (slot, source) in found {
            if same_name(&scope.sources[slot - SOURCES].name, alias) {
                return Ok(Some((*slot, source.clone())));
            }
        }
    }
    let TargetName::Object(name) = target else { return Ok(None) };
    let Some(Relation::Rows(wanted)) = binder.host.relation(name, &TableHints::default())? else {
        return Ok(None);
    };
    let wanted = wanted.name();
    let mut matches = found.iter().filter(|(_, source)| source.name() == wanted);
    match (matches.next(), matches.next()) {
        (Some((slot, source)), None) => Ok(Some((*slot, source.clone()))),
        (Some(_), Some(_)) => {
            Err(SqlError::new(8154, 16, format!("The table '{}' is ambiguous.", name.name)))
        }
        _ => Ok(None),
    }
}

pub fn bind<'h>(host: &'h dyn Host, rows: &TargetRows<'_>) -> SqlResult<Bindings<'h>> {
    let mut binder = Binder::new(host);
    if let Some(with) = rows.ctes {
        binder.define_ctes(with)?;
    }
    binder.scopes.push(Scope::new(SOURCES));
    let mut loose = Vec::new();
    let mut from: Option<From> = None;
    for table in rows.from {
        let next = binder.table_with_joins(table, &mut loose)?;
        from = Some(match from {
            None => next,
            Some(left) => access::cross(left, next),
        });
    }
    let mut found = Vec::new();
    if let Some(from) = &from {
        tables(from, &mut found);
    }
    let (slot, source) = match in_from(rows.target, &binder, &found)? {
        Some(found) => found,
        None => {
            let source = direct(host, rows.target, &TableHints(rows.hints.to_vec()))?;
            let name = match rows.target {
                TargetName::Object(name) => name.clone(),
                TargetName::Variable(name) | TargetName::Alias(name) => {
                    ObjectName { database: None, schema: None, name: name.clone() }
                }
            };
            let slot = SOURCES + binder.scopes[0].sources.len();
            binder.scopes[0].sources.push(source_of(&name, &source));
            let leaf = From::Leaf(Leaf {
                slot,
                kind: LeafKind::Table { source: source.clone(), seek: None },
                filter: Vec::new(),
            });
            from = Some(match from {
                None => leaf,
                Some(other) => access::cross(leaf, other),
            });
            (slot, source)
        }
    };
    if let Some(condition) = rows.condition {
        loose.extend(binder.conjunct_list(condition)?);
    }
    let mut exprs = Vec::with_capacity(rows.exprs.len());
    for (expr, ty) in &rows.exprs {
        let bound = binder.expr(expr)?;
        exprs.push(match ty {
            Some(ty) => implicit(bound, *ty)?,
            None => bound,
        });
    }
    let top = match rows.top {
        None => None,
        Some(top) => {
            let count = binder.expr(&top.count)?;
            Some(top_plan(count, top.percent, false)?)
        }
    };
    let mut plan = SelectPlan {
        width: SOURCES + binder.scopes[0].sources.len(),
        startup: Vec::new(),
        from,
        filter: Vec::new(),
        group: None,
        having: Vec::new(),
        windows: Vec::new(),
        projection: Vec::new(),
        distinct: false,
        tail: Tail { top, ..Tail::default() },
        presorted: false,
    };
    let number = binder.next_number();
    access::choose(&mut plan, loose, number);
    Ok(Bindings { binder, plan, slot, source, exprs })
}

impl Bindings<'_> {
    pub fn source(&self) -> Arc<dyn RowSource> {
        self.source.clone()
    }

    pub fn run(mut self, on_row: &mut dyn FnMut(TargetRow) -> SqlResult<()>) -> SqlResult<()> {
        let cx = self.binder.context();
        let mut frame = crate::engine::expr::context::Frame::new(self.plan.width, None);
        let mut limit = u64::MAX;
        if let Some(top) = &self.plan.tail.top {
            if top.percent {
                return Err(SqlError::unsupported("TOP … PERCENT in UPDATE or DELETE"));
            }
            match top.count.eval(&cx, &frame)? {
                Value::Int(n) if n >= 0 => limit = n.unsigned_abs(),
                _ => {
                    return Err(SqlError::new(
                        1014,
                        15,
                        "A TOP or FETCH clause contains an invalid value.",
                    ));
                }
            }
        }
        if limit == 0 {
            return Ok(());
        }
        // rows are handed over after the scan: a row written must not come by again
        let single = matches!(self.plan.from, Some(From::Leaf(_)));
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        let types: Arc<[SqlType]> = self.exprs.iter().map(|e| e.ty).collect();
        exec::source_rows(&self.plan, &cx, &mut frame, &mut |frame| {
            let slot = &frame.slots[self.slot];
            let (Some(row), Some(key)) = (&slot.row, &slot.key) else { return Ok(true) };
            if !single && !seen.insert(key.clone()) {
                return Ok(true);
            }
            let values =
                self.exprs.iter().map(|e| e.eval(&cx, frame)).collect::<SqlResult<Vec<_>>>()?;
            found.push(TargetRow {
                key: key.clone(),
                row: row.clone(),
                values,
                types: types.clone(),
            });
            Ok((found.len() as u64) < limit)
        })?;
        found.into_iter().try_for_each(on_row)
    }
}
