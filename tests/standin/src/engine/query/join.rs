//! FROM at work: scans, seeks, joins, APPLY.

use super::{
    exec,
    host::{Access, SourceRow},
    plan::{Conjunct, From, Indexed, Join, JoinKind, Leaf, LeafKind, Method, Seek},
};
use crate::{
    engine::expr::{
        bound::Bound,
        cast,
        context::{Cached, Context, Frame, Kept, NONE, Slot},
        eval, types,
    },
    error::SqlResult,
    value::{Collation, Value, order},
};
use std::sync::Arc;

pub type Each<'e, 'o> = &'e mut dyn FnMut(&mut Frame<'o>) -> SqlResult<bool>;

pub fn run<'o>(
    from: &From,
    cx: &Context<'_>,
    frame: &mut Frame<'o>,
    each: Each<'_, 'o>,
) -> SqlResult<bool> {
    match from {
        From::Leaf(leaf) => run_leaf(leaf, cx, frame, each),
        From::Join(join) => run_join(join, cx, frame, each),
        From::Indexed(indexed) => run_indexed(indexed, cx, frame, each),
    }
}

fn holds(list: &[Conjunct], cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<bool> {
    for condition in list {
        if condition.predicate.eval(cx, frame)? != Some(true) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn run_leaf<'o>(
    leaf: &Leaf,
    cx: &Context<'_>,
    frame: &mut Frame<'o>,
    each: Each<'_, 'o>,
) -> SqlResult<bool> {
    match &leaf.kind {
        LeafKind::Table { source, seek } => {
            let access = match seek {
                None => Access::default(),
                Some(seek) => match access(seek, &**source, cx, frame)? {
                    Some(access) => access,
                    None => return Ok(true),
                },
            };
            let mut cursor = source.open(&access)?;
            let mut page: Vec<SourceRow> = Vec::new();
            loop {
                page.clear();
                let more = cursor.next_page(&mut page)?;
                for SourceRow { key, row } in page.drain(..) {
                    cx.tick()?;
                    frame.slots[leaf.slot] = Slot { row: Some(row), key: Some(key) };
                    if holds(&leaf.filter, cx, frame)? && !each(frame)? {
                        return Ok(false);
                    }
                }
                if !more {
                    return Ok(true);
                }
            }
        }
        LeafKind::Derived { plan, lateral: false } => {
            let outer = frame.outer;
            exec::run(plan, cx, outer, &mut |row| {
                cx.tick()?;
                frame.slots[leaf.slot] = Slot::row(std::mem::take(row));
                if holds(&leaf.filter, cx, frame)? { each(frame) } else { Ok(true) }
            })
        }
        LeafKind::Derived { plan, lateral: true } => {
            let rows = exec::rows(plan, cx, Some(frame))?;
            plain_rows(rows, leaf, cx, frame, each)
        }
        LeafKind::Function { function, args } => {
            let args = args.iter().map(|a| a.eval(cx, frame)).collect::<SqlResult<Vec<_>>>()?;
            let rows = function.rows(cx.host, &args)?;
            plain_rows(rows, leaf, cx, frame, each)
        }
        LeafKind::Work(id) => {
            let rows = cx.work.borrow().get(id).cloned().unwrap_or_default();
            for row in rows.iter() {
                cx.tick()?;
                frame.slots[leaf.slot] = Slot { row: Some(row.clone()), key: None };
                if holds(&leaf.filter, cx, frame)? && !each(frame)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

fn plain_rows<'o>(
    rows: Vec<Vec<Value>>,
    leaf: &Leaf,
    cx: &Context<'_>,
    frame: &mut Frame<'o>,
    each: Each<'_, 'o>,
) -> SqlResult<bool> {
    for row in rows {
        cx.tick()?;
        frame.slots[leaf.slot] = Slot::row(row);
        if holds(&leaf.filter, cx, frame)? && !each(frame)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The values to seek with; None: no row can match.
fn access(
    seek: &Seek,
    source: &dyn super::host::RowSource,
    cx: &Context<'_>,
    frame: &Frame<'_>,
) -> SqlResult<Option<Access>> {
    let key = &source.keys()[seek.key];
    let mut access = Access { key: Some(seek.key), reverse: seek.reverse, ..Access::default() };
    for ((expr, null_safe), (column, _)) in seek.prefix.iter().zip(&key.columns) {
        let ty = source.columns()[*column].ty;
        let value = expr.eval(cx, frame)?;
        if value == Value::Null {
            if !null_safe {
                return Ok(None);
            }
            access.prefix.push(value);
            continue;
        }
        // a value the column's type cannot hold equals none of its values
        let Ok(converted) = cast::convert(&cx.settings, value.clone(), expr.ty, ty, None, false)
        else {
            return Ok(None);
        };
        let back = cast::convert(&cx.settings, converted.clone(), ty, expr.ty, None, false);
        let kept = match back {
            Ok(back) => {
                eval::same(&back, &value, ty.compared_by().unwrap_or(Collation::LATIN1_BIN2))?
            }
            Err(_) => true,
        };
        if !kept {
            return Ok(None);
        }
        access.prefix.push(converted);
    }
    let next = key.columns.get(seek.prefix.len()).map(|(column, _)| source.columns()[*column].ty);
    for (bound, place) in [(&seek.lower, &mut access.lower), (&seek.upper, &mut access.upper)] {
        if let (Some((expr, inclusive)), Some(ty)) = (bound, next) {
            let value = expr.eval(cx, frame)?;
            if value == Value::Null {
                return Ok(None);
            }
            // the same family: an integer too large for the column bounds nothing, the filter
            // decides
            if let Ok(converted) = cast::convert(&cx.settings, value, expr.ty, ty, None, false) {
                let exact = expr.ty == ty || types::family(expr.ty) == types::Family::Integer;
                *place = Some((converted, *inclusive || !exact));
            }
        }
    }
    Ok(Some(access))
}

/// The slots below a node, in order.
fn slots_of(from: &From) -> Vec<usize> {
    let mask = from.mask();
    (0..128).filter(|slot| mask & (1 << slot) != 0).collect()
}

fn put(frame: &mut Frame<'_>, slots: &[usize], rows: &[Slot]) {
    for (slot, row) in slots.iter().zip(rows) {
        frame.slots[*slot] = row.clone();
    }
}

fn clear(frame: &mut Frame<'_>, slots: &[usize]) {
    for slot in slots {
        frame.slots[*slot] = Slot::default();
    }
}

/// The hash key of expressions; None when a NULL makes it equal to nothing.
fn key_of(
    exprs: &[Bound],
    null_safe: &[bool],
    cx: &Context<'_>,
    frame: &Frame<'_>,
    out: &mut Vec<u8>,
) -> SqlResult<bool> {
    out.clear();
    for (expr, null_safe) in exprs.iter().zip(null_safe) {
        let value = expr.eval(cx, frame)?;
        if value == Value::Null && !null_safe {
            return Ok(false);
        }
        order::write_key(&value, expr.ty, out);
    }
    Ok(true)
}

fn keep(
    from: &From,
    exprs: &[Bound],
    null_safe: &[bool],
    cx: &Context<'_>,
    frame: &mut Frame<'_>,
) -> SqlResult<Kept> {
    let slots = slots_of(from);
    let mut kept = Kept::default();
    let mut key = Vec::new();
    run(from, cx, frame, &mut |frame| {
        let row: Box<[Slot]> = slots.iter().map(|s| frame.slots[*s].clone()).collect();
        let known = key_of(exprs, null_safe, cx, frame, &mut key)?;
        kept.add(known.then_some(key.as_slice()), row);
        Ok(true)
    })?;
    clear(frame, &slots);
    Ok(kept)
}

fn run_join<'o>(
    join: &Join,
    cx: &Context<'_>,
    frame: &mut Frame<'o>,
    each: Each<'_, 'o>,
) -> SqlResult<bool> {
    let right_slots = slots_of(&join.right);
    match &join.method {
        Method::Loop => run(&join.left, cx, frame, &mut |frame| {
            let mut matched = false;
            let going = run(&join.right, cx, frame, &mut |frame| {
                if !holds(&join.on, cx, frame)? {
                    return Ok(true);
                }
                matched = true;
                each(frame)
            })?;
            if going && !matched && join.kind == JoinKind::Left {
                clear(frame, &right_slots);
                return each(frame);
            }
            Ok(going)
        }),
        Method::Kept => {
            let kept = keep(&join.right, &[], &[], cx, frame)?;
            probe(join, &kept, &right_slots, None, cx, frame, each)
        }
        Method::Hash { left, right, null_safe } => {
            let kept = keep(&join.right, right, null_safe, cx, frame)?;
            if kept.rows.is_empty() && join.kind == JoinKind::Inner {
                return Ok(true);
            }
            probe(join, &kept, &right_slots, Some((left, null_safe)), cx, frame, each)
        }
    }
}

fn probe<'o>(
    join: &Join,
    kept: &Kept,
    right_slots: &[usize],
    hash: Option<(&[Bound], &[bool])>,
    cx: &Context<'_>,
    frame: &mut Frame<'o>,
    each: Each<'_, 'o>,
) -> SqlResult<bool> {
    let mut used =
        if join.kind == JoinKind::Full { vec![false; kept.rows.len()] } else { Vec::new() };
    let mut key = Vec::new();
    let going = run(&join.left, cx, frame, &mut |frame| {
        let mut matched = false;
        let mut at = match hash {
            Some((exprs, null_safe)) => {
                if key_of(exprs, null_safe, cx, frame, &mut key)? {
                    kept.chain(&key)
                } else {
                    NONE
                }
            }
            None => kept.chain(&[]),
        };
        while at != NONE {
            let (row, next) = &kept.rows[at as usize];
            cx.tick()?;
            put(frame, right_slots, row);
            if holds(&join.on, cx, frame)? {
                matched = true;
                if let Some(flag) = used.get_mut(at as usize) {
                    *flag = true;
                }
                if !each(frame)? {
                    return Ok(false);
                }
            }
            at = *next;
        }
        if !matched && join.kind != JoinKind::Inner {
            clear(frame, right_slots);
            return each(frame);
        }
        Ok(true)
    })?;
    if !going || join.kind != JoinKind::Full {
        return Ok(going);
    }
    clear(frame, &slots_of(&join.left));
    let unused = kept.rows.iter().zip(&used).filter(|(_, used)| !**used).map(|((row, _), _)| row);
    for row in unused.chain(&kept.matchless) {
        put(frame, right_slots, row);
        if !each(frame)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Rows of a correlated query, kept by the values they are asked for.
fn run_indexed<'o>(
    indexed: &Indexed,
    cx: &Context<'_>,
    frame: &mut Frame<'o>,
    each: Each<'_, 'o>,
) -> SqlResult<bool> {
    let known = match cx.cache.borrow().get(&indexed.id) {
        Some(Cached::Index(kept)) => Some(kept.clone()),
        _ => None,
    };
    let with_collation = |list: &[Bound]| -> Vec<Bound> {
        list.iter()
            .zip(&indexed.collations)
            .map(|(e, c)| {
                let mut e = e.clone();
                if let Some(c) = c {
                    e.ty = e.ty.under(*c);
                }
                e
            })
            .collect()
    };
    let kept = match known {
        Some(kept) => kept,
        None => {
            let mut own = Frame::new(frame.slots.len(), None);
            let kept = Arc::new(keep(
                &indexed.inner,
                &with_collation(&indexed.keys),
                &indexed.null_safe,
                cx,
                &mut own,
            )?);
            cx.cache.borrow_mut().insert(indexed.id, Cached::Index(kept.clone()));
            kept
        }
    };
    let mut key = Vec::new();
    if !key_of(&with_collation(&indexed.probes), &indexed.null_safe, cx, frame, &mut key)? {
        return Ok(true);
    }
    let slots = slots_of(&indexed.inner);
    let mut at = kept.chain(&key);
    while at != NONE {
        let (row, next) = &kept.rows[at as usize];
        cx.tick()?;
        put(frame, &slots, row);
        if holds(&indexed.residual, cx, frame)? && !each(frame)? {
            return Ok(false);
        }
        at = *next;
    }
    Ok(true)
}
