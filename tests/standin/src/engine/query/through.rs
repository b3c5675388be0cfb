//! DELETE through a common table expression: what goes are the rows of the table below it, where
//! that is one table.
//!
//! "Any updates to the view must reference columns from only one base table", with no grouping,
//! DISTINCT or TOP (CREATE VIEW, Updatable Views); window functions do not forbid it.

use super::{
    TargetRow, TargetRows, exec,
    host::{Host, RowSource},
    plan::{Body, From, Leaf, LeafKind, SOURCES, SelectPlan},
    window,
};
use crate::{
    engine::expr::{
        binder::{Binder, Scope, same_name},
        bound::Predicate,
        context::{Frame, Slot},
    },
    error::{SqlError, SqlResult},
    tsql::ast::{ObjectName, TargetName},
};
use std::sync::Arc;

pub struct Through<'h> {
    binder: Binder<'h>,
    name: String,
    select: SelectPlan,
    /// Of the table, among the expression's sources.
    slot: usize,
    pub source: Arc<dyn RowSource>,
    condition: Option<Predicate>,
}

/// `None`: the target is no common table expression.
pub fn bind<'h>(host: &'h dyn Host, rows: &TargetRows<'_>) -> SqlResult<Option<Through<'h>>> {
    let (
        Some(with),
        TargetName::Object(ObjectName { database: None, schema: None, name })
        | TargetName::Alias(name),
    ) = (rows.ctes, rows.target)
    else {
        return Ok(None);
    };
    let mut binder = Binder::new(host);
    binder.define_ctes(with)?;
    let Some(at) = binder.ctes.iter().rposition(|cte| same_name(&cte.name, name)) else {
        return Ok(None);
    };
    let not = |what: &str| {
        SqlError::unsupported(format!("changing the common table expression {name}{what}"))
    };
    if !rows.from.is_empty() {
        return Err(not(" of a FROM"));
    }
    binder.scopes.push(Scope::new(SOURCES));
    let From::Leaf(Leaf { kind: LeafKind::Derived { plan, .. }, .. }) =
        binder.cte(at, name.clone(), &[])?
    else {
        return Err(not(", which is recursive"));
    };
    let Body::Select(select) = plan.body else { return Err(not(", which is no plain SELECT")) };
    let tail = &select.tail;
    if select.group.is_some()
        || select.distinct
        || tail.top.is_some()
        || tail.offset.is_some()
        || tail.fetch.is_some()
    {
        return Err(not(", which groups or limits its rows"));
    }
    let Some(From::Leaf(Leaf { slot, kind: LeafKind::Table { source, .. }, .. })) = &select.from
    else {
        return Err(not(", which has not one table"));
    };
    let (slot, source) = (*slot, source.clone());
    let condition = rows.condition.map(|condition| binder.predicate(condition)).transpose()?;
    Ok(Some(Through { binder, name: name.clone(), select: *select, slot, source, condition }))
}

impl Through<'_> {
    pub fn run(
        mut self,
        rows: &TargetRows<'_>,
        on_row: &mut dyn FnMut(TargetRow) -> SqlResult<()>,
    ) -> SqlResult<()> {
        if !rows.exprs.is_empty() || rows.top.is_some() {
            return Err(SqlError::unsupported(format!(
                "UPDATE, or TOP, of the common table expression {}",
                self.name
            )));
        }
        let cx = self.binder.context();
        let mut inner = Frame::new(self.select.width, None);
        let mut kept: Vec<Vec<Slot>> = Vec::new();
        exec::source_rows(&self.select, &cx, &mut inner, &mut |frame| {
            kept.push(frame.slots.clone());
            Ok(true)
        })?;
        if !self.select.windows.is_empty() {
            window::compute(&self.select.windows, &mut kept, &cx, None)?;
        }
        // rows are handed over after the scan: a row that is gone must not change what is said of
        // another
        let mut outer = Frame::new(SOURCES + 1, None);
        let mut found = Vec::new();
        for slots in kept {
            inner.slots = slots;
            outer.slots[SOURCES] = Slot::row(
                self.select
                    .projection
                    .iter()
                    .map(|e| e.eval(&cx, &inner))
                    .collect::<SqlResult<Vec<_>>>()?,
            );
            let picked = match &self.condition {
                Some(condition) => condition.eval(&cx, &outer)? == Some(true),
                None => true,
            };
            if let (true, Slot { row: Some(row), key: Some(key) }) =
                (picked, &inner.slots[self.slot])
            {
                found.push(TargetRow {
                    key: key.clone(),
                    row: row.clone(),
                    values: Vec::new(),
                    types: Arc::new([]),
                });
            }
        }
        found.into_iter().try_for_each(on_row)
    }
}
