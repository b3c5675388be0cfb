//! Execution: rows are pushed from cursors through joins, groups and windows to whoever asked.

use super::{
    aggregate, join, keys,
    plan::{AGGREGATES, Body, Plan, SelectPlan, SetOp, SetPlan, SortBy, Tail, TopPlan},
    window,
};
use crate::{
    engine::expr::bound::Predicate,
    engine::expr::context::{Context, Frame, Slot},
    error::{SqlError, SqlResult},
    value::{SqlType, Value},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Takes a row (it may take the vector's contents); false: no more, please.
pub type Emit<'e> = &'e mut dyn FnMut(&mut Vec<Value>) -> SqlResult<bool>;

/// Runs a plan. False when the receiver has had enough.
pub fn run(
    plan: &Plan,
    cx: &Context<'_>,
    outer: Option<&Frame<'_>>,
    emit: Emit<'_>,
) -> SqlResult<bool> {
    match &plan.body {
        Body::Select(select) => run_select(select, cx, outer, emit),
        Body::Values(rows) => {
            let frame = Frame::new(0, outer);
            // a table of values stands in the scope of the query around it
            let scope = outer.unwrap_or(&frame);
            for row in rows {
                let mut values =
                    row.iter().map(|e| e.eval(cx, scope)).collect::<SqlResult<Vec<_>>>()?;
                if !emit(&mut values)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Body::Set(set) => run_set(set, plan, cx, outer, emit),
        Body::Recursive { id, anchor, step } => {
            let mut round = Vec::new();
            let mut going = run(anchor, cx, None, &mut |row| {
                round.push(Arc::new(row.clone()));
                emit(row)
            })?;
            let mut depth = 0;
            while going && !round.is_empty() {
                depth += 1;
                if depth > 100 {
                    return Err(SqlError::new(
                        530,
                        16,
                        "The statement terminated. The maximum recursion 100 has been exhausted before statement completion.",
                    ));
                }
                cx.work.borrow_mut().insert(*id, Arc::new(std::mem::take(&mut round)));
                going = run(step, cx, None, &mut |row| {
                    round.push(Arc::new(row.clone()));
                    emit(row)
                })?;
            }
            cx.work.borrow_mut().remove(id);
            Ok(going)
        }
    }
}

/// All rows of a plan.
pub fn rows(
    plan: &Plan,
    cx: &Context<'_>,
    outer: Option<&Frame<'_>>,
) -> SqlResult<Vec<Vec<Value>>> {
    let mut rows = Vec::new();
    run(plan, cx, outer, &mut |row| {
        rows.push(std::mem::take(row));
        Ok(true)
    })?;
    Ok(rows)
}

pub fn all_true(list: &[Predicate], cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<bool> {
    for predicate in list {
        if predicate.eval(cx, frame)? != Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Runs FROM and WHERE of a select.
pub fn source_rows<'o>(
    select: &SelectPlan,
    cx: &Context<'_>,
    frame: &mut Frame<'o>,
    each: &mut dyn FnMut(&mut Frame<'o>) -> SqlResult<bool>,
) -> SqlResult<bool> {
    if !all_true(&select.startup, cx, frame)? {
        return Ok(true);
    }
    match &select.from {
        None => {
            if all_true(&select.filter, cx, frame)? {
                each(frame)
            } else {
                Ok(true)
            }
        }
        Some(from) if select.filter.is_empty() => join::run(from, cx, frame, each),
        Some(from) => join::run(from, cx, frame, &mut |frame| {
            if all_true(&select.filter, cx, frame)? { each(frame) } else { Ok(true) }
        }),
    }
}

fn run_select(
    select: &SelectPlan,
    cx: &Context<'_>,
    outer: Option<&Frame<'_>>,
    emit: Emit<'_>,
) -> SqlResult<bool> {
    let mut frame = Frame::new(select.width, outer);
    let types: Vec<SqlType> = select.projection.iter().map(|b| b.ty).collect();
    let mut end = TailRun::new(&select.tail, types, select.distinct, select.presorted, cx, &frame)?;
    if end.wants_nothing() {
        return Ok(true);
    }
    let mut buffer = Vec::with_capacity(select.projection.len());
    let going = {
        let mut project = |frame: &mut Frame<'_>| -> SqlResult<bool> {
            buffer.clear();
            for expr in &select.projection {
                buffer.push(expr.eval(cx, frame)?);
            }
            end.push(&mut buffer, cx, Some(frame), emit)
        };
        if select.group.is_none() && select.windows.is_empty() {
            source_rows(select, cx, &mut frame, &mut |frame| project(frame))?
        } else {
            grouped(select, cx, &mut frame, &mut project)?
        }
    };
    let finished = end.finish(emit)?;
    Ok(finished && (going || end.stopped_by_itself))
}

fn grouped<'o>(
    select: &SelectPlan,
    cx: &Context<'_>,
    frame: &mut Frame<'o>,
    project: &mut dyn FnMut(&mut Frame<'_>) -> SqlResult<bool>,
) -> SqlResult<bool> {
    let mut kept: Vec<Vec<Slot>> = Vec::new();
    match &select.group {
        Some(group) => {
            let mut groups = aggregate::Groups::new(group);
            source_rows(select, cx, frame, &mut |frame| {
                groups.add(cx, frame)?;
                Ok(true)
            })?;
            for (slots, results) in groups.finish(cx)? {
                frame.slots = slots.unwrap_or_else(|| vec![Slot::default(); select.width]);
                frame.slots[AGGREGATES] = Slot::row(results);
                if !all_true(&select.having, cx, frame)? {
                    continue;
                }
                if select.windows.is_empty() {
                    if !project(frame)? {
                        return Ok(false);
                    }
                } else {
                    kept.push(frame.slots.clone());
                }
            }
        }
        None => {
            source_rows(select, cx, frame, &mut |frame| {
                kept.push(frame.slots.clone());
                Ok(true)
            })?;
        }
    }
    if select.windows.is_empty() {
        return Ok(true);
    }
    window::compute(&select.windows, &mut kept, cx, frame.outer)?;
    for slots in kept {
        frame.slots = slots;
        if !project(frame)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn run_set(
    set: &SetPlan,
    plan: &Plan,
    cx: &Context<'_>,
    outer: Option<&Frame<'_>>,
    emit: Emit<'_>,
) -> SqlResult<bool> {
    let types: Vec<SqlType> = plan.columns.iter().map(|c| c.ty).collect();
    let frame = Frame::new(super::plan::SOURCES, outer);
    let mut end = TailRun::new(&set.tail, types.clone(), false, false, cx, &frame)?;
    let mut going = true;
    match set.op {
        SetOp::Union if set.all => {
            going = run(&set.left, cx, outer, &mut |row| end.push(row, cx, None, emit))?
                && run(&set.right, cx, outer, &mut |row| end.push(row, cx, None, emit))?;
        }
        SetOp::Union => {
            let mut seen = HashSet::new();
            for side in [&set.left, &set.right] {
                going = going
                    && run(side, cx, outer, &mut |row| {
                        if seen.insert(keys::of_row(row, &types)) {
                            end.push(row, cx, None, emit)
                        } else {
                            Ok(true)
                        }
                    })?;
            }
        }
        SetOp::Except | SetOp::Intersect => {
            let mut right: HashMap<Vec<u8>, ()> = HashMap::new();
            run(&set.right, cx, outer, &mut |row| {
                right.insert(keys::of_row(row, &types), ());
                Ok(true)
            })?;
            let mut seen = HashSet::new();
            let keep = set.op == SetOp::Intersect;
            going = run(&set.left, cx, outer, &mut |row| {
                let key = keys::of_row(row, &types);
                if right.contains_key(&key) == keep && seen.insert(key) {
                    end.push(row, cx, None, emit)
                } else {
                    Ok(true)
                }
            })?;
        }
    }
    let finished = end.finish(emit)?;
    Ok(finished && (going || end.stopped_by_itself))
}

/// DISTINCT, ORDER BY, TOP, OFFSET and FETCH, at the end of a query.
struct TailRun<'p> {
    tail: &'p Tail,
    types: Vec<SqlType>,
    distinct: Option<HashSet<Vec<u8>>>,
    sort: bool,
    /// How many rows may go out; None is no limit.
    limit: Option<u64>,
    percent: Option<f64>,
    ties: bool,
    skip: u64,
    sent: u64,
    last_key: Vec<u8>,
    rows: Vec<(Vec<u8>, Vec<Value>)>,
    /// Enough rows went out, by TOP's or FETCH's own count.
    stopped_by_itself: bool,
}

impl<'p> TailRun<'p> {
    fn new(
        tail: &'p Tail,
        types: Vec<SqlType>,
        distinct: bool,
        presorted: bool,
        cx: &Context<'_>,
        frame: &Frame<'_>,
    ) -> SqlResult<Self> {
        let mut limit = None;
        let mut percent = None;
        let mut ties = false;
        if let Some(TopPlan { count, percent: as_percent, ties: with_ties }) = &tail.top {
            ties = *with_ties;
            match count.eval(cx, frame)? {
                Value::Float(p) if *as_percent && (0.0..=100.0).contains(&p) => percent = Some(p),
                Value::Float(_) => {
                    return Err(SqlError::new(
                        1031,
                        15,
                        "Percent values must be between 0 and 100.",
                    ));
                }
                Value::Int(n) => {
                    limit = Some(u64::try_from(n).map_err(|_| {
                        SqlError::new(1014, 15, "A TOP or FETCH clause contains an invalid value.")
                    })?)
                }
                _ => {
                    return Err(SqlError::new(
                        1014,
                        15,
                        "A TOP or FETCH clause contains an invalid value.",
                    ));
                }
            }
        }
        let skip = match &tail.offset {
            None => 0,
            Some(expr) => match expr.eval(cx, frame)? {
                Value::Int(n) => u64::try_from(n).map_err(|_| {
                    SqlError::new(
                        10742,
                        15,
                        "The offset specified in a OFFSET clause may not be negative.",
                    )
                })?,
                _ => {
                    return Err(SqlError::new(
                        10743,
                        15,
                        "The number of rows provided for a OFFSET clause must be an integer.",
                    ));
                }
            },
        };
        if let Some(expr) = &tail.fetch {
            match expr.eval(cx, frame)? {
                Value::Int(n) if n > 0 => limit = Some(n.unsigned_abs()),
                _ => {
                    return Err(SqlError::new(
                        10744,
                        15,
                        "The number of rows provided for a FETCH clause must be greater then zero.",
                    ));
                }
            }
        }
        Ok(Self {
            tail,
            types,
            distinct: distinct.then(HashSet::new),
            sort: !tail.order.is_empty() && !presorted || percent.is_some(),
            limit,
            percent,
            ties,
            skip,
            sent: 0,
            last_key: Vec::new(),
            rows: Vec::new(),
            stopped_by_itself: false,
        })
    }

    fn wants_nothing(&self) -> bool {
        self.limit == Some(0)
    }

    fn key(
        &self,
        row: &[Value],
        cx: &Context<'_>,
        frame: Option<&Frame<'_>>,
    ) -> SqlResult<Vec<u8>> {
        let mut key = Vec::with_capacity(16);
        for item in &self.tail.order {
            match (&item.by, frame) {
                (SortBy::Output(at), _) => {
                    keys::encode_ordered(&row[*at], self.types[*at], item.descending, &mut key)
                }
                (SortBy::Expr(expr), Some(frame)) => {
                    keys::encode_ordered(&expr.eval(cx, frame)?, expr.ty, item.descending, &mut key)
                }
                (SortBy::Expr(_), None) => {}
            }
        }
        Ok(key)
    }

    fn push(
        &mut self,
        row: &mut Vec<Value>,
        cx: &Context<'_>,
        frame: Option<&Frame<'_>>,
        emit: Emit<'_>,
    ) -> SqlResult<bool> {
        if let Some(seen) = &mut self.distinct
            && !seen.insert(keys::of_row(row, &self.types))
        {
            return Ok(true);
        }
        if self.sort {
            let key = self.key(row, cx, frame)?;
            self.rows.push((key, std::mem::take(row)));
            // of a TOP only so many rows can matter
            if let (Some(limit), false) = (self.limit, self.ties) {
                let wanted = usize::try_from(limit.saturating_add(self.skip)).unwrap_or(usize::MAX);
                if self.rows.len() >= wanted.saturating_mul(2).saturating_add(1024) {
                    self.rows.sort_by(|a, b| a.0.cmp(&b.0));
                    self.rows.truncate(wanted);
                }
            }
            return Ok(true);
        }
        let key = if self.ties { self.key(row, cx, frame)? } else { Vec::new() };
        self.send(&key, row, emit)
    }

    fn send(&mut self, key: &[u8], row: &mut Vec<Value>, emit: Emit<'_>) -> SqlResult<bool> {
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(true);
        }
        if let Some(limit) = self.limit
            && self.sent >= limit
            && !(self.ties && key == self.last_key)
        {
            self.stopped_by_itself = true;
            return Ok(false);
        }
        self.sent += 1;
        if self.ties {
            key.clone_into(&mut self.last_key);
        }
        if !emit(row)? {
            return Ok(false);
        }
        if self.limit == Some(self.sent) && !self.ties {
            self.stopped_by_itself = true;
            return Ok(false);
        }
        Ok(true)
    }

    /// False when the receiver had enough.
    fn finish(&mut self, emit: Emit<'_>) -> SqlResult<bool> {
        if !self.sort {
            return Ok(true);
        }
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(percent) = self.percent {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a row count"
            )]
            let limit = (rows.len() as f64 * percent / 100.0).ceil() as u64;
            self.limit = Some(limit);
            if limit == 0 {
                return Ok(true);
            }
        }
        for (key, mut row) in rows {
            if !self.send(&key, &mut row, emit)? {
                return Ok(self.stopped_by_itself);
            }
        }
        Ok(true)
    }
}
