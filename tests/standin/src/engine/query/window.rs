//! Window functions, over rows that are all in memory.

use super::{
    aggregate::Accumulator,
    keys,
    plan::{Aggregate, WINDOWS, WindowCall, WindowKind},
};
use crate::{
    engine::expr::bound::{Context, Frame, Slot},
    error::{SqlError, SqlResult},
    value::{SqlType, Value, order},
};
use std::{ops::Range, sync::Arc};

/// Fills the windows' slot of every row.
pub fn compute(
    calls: &[WindowCall],
    rows: &mut [Vec<Slot>],
    cx: &Context<'_>,
    outer: Option<&Frame<'_>>,
) -> SqlResult<()> {
    let mut results: Vec<Vec<Value>> =
        (0..rows.len()).map(|_| Vec::with_capacity(calls.len())).collect();
    let mut frame = Frame::new(0, outer);
    for call in calls {
        let mut sorted: Vec<(Vec<u8>, usize, usize)> = Vec::with_capacity(rows.len());
        for (at, row) in rows.iter_mut().enumerate() {
            std::mem::swap(&mut frame.slots, row);
            let mut key = Vec::new();
            let filled = sort_key(call, cx, &frame, &mut key);
            std::mem::swap(&mut frame.slots, row);
            sorted.push((key, filled?, at));
        }
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let mut start = 0;
        while start < sorted.len() {
            let (key, split, _) = &sorted[start];
            let partition = key[..*split].to_vec();
            let mut end = start + 1;
            while end < sorted.len() && sorted[end].0.get(..sorted[end].1) == Some(&partition[..]) {
                end += 1;
            }
            part(call, &sorted[start..end], rows, &mut results, cx, &mut frame)?;
            start = end;
        }
    }
    for (row, values) in rows.iter_mut().zip(results) {
        row[WINDOWS] = Slot { row: Some(Arc::new(values)), key: None };
    }
    Ok(())
}

/// Partition, then order; answers where the partition's part ends.
fn sort_key(
    call: &WindowCall,
    cx: &Context<'_>,
    frame: &Frame<'_>,
    key: &mut Vec<u8>,
) -> SqlResult<usize> {
    for expr in &call.partition {
        order::write_key(&expr.eval(cx, frame)?, expr.ty, key);
    }
    let split = key.len();
    for (expr, descending) in &call.order {
        keys::encode_ordered(&expr.eval(cx, frame)?, expr.ty, *descending, key);
    }
    Ok(split)
}

fn part(
    call: &WindowCall,
    sorted: &[(Vec<u8>, usize, usize)],
    rows: &mut [Vec<Slot>],
    results: &mut [Vec<Value>],
    cx: &Context<'_>,
    frame: &mut Frame<'_>,
) -> SqlResult<()> {
    let mut eval = |arg: usize, at: usize, frame: &mut Frame<'_>| -> SqlResult<Value> {
        let Some(expr) = call.args.get(arg) else { return Ok(Value::Null) };
        std::mem::swap(&mut frame.slots, &mut rows[at]);
        let value = expr.eval(cx, frame);
        std::mem::swap(&mut frame.slots, &mut rows[at]);
        value
    };
    let count = sorted.len();
    let integer = |n: usize| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    // the first and last row with the same ordering
    let peers = |at: usize| -> Range<usize> {
        let key = &sorted[at].0;
        let mut start = at;
        while start > 0 && sorted[start - 1].0 == *key {
            start -= 1;
        }
        let mut end = at + 1;
        while end < count && sorted[end].0 == *key {
            end += 1;
        }
        start..end
    };
    match call.kind {
        WindowKind::RowNumber => {
            for (n, (_, _, at)) in sorted.iter().enumerate() {
                cx.tick()?;
                results[*at].push(integer(n + 1));
            }
        }
        WindowKind::Rank | WindowKind::DenseRank | WindowKind::PercentRank => {
            let (mut rank, mut dense) = (0, 0);
            for n in 0..count {
                if n == 0 || sorted[n].0 != sorted[n - 1].0 {
                    rank = n + 1;
                    dense += 1;
                }
                #[expect(clippy::cast_precision_loss, reason = "a rank as a share")]
                let value = match call.kind {
                    WindowKind::Rank => integer(rank),
                    WindowKind::DenseRank => integer(dense),
                    _ if count == 1 => Value::Float(0.0),
                    _ => Value::Float((rank - 1) as f64 / (count - 1) as f64),
                };
                results[sorted[n].2].push(value);
            }
        }
        WindowKind::CumeDist => {
            for (n, (_, _, at)) in sorted.iter().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "a rank as a share")]
                results[*at].push(Value::Float(peers(n).end as f64 / count as f64));
            }
        }
        WindowKind::Ntile => {
            let tiles = match eval(0, sorted[0].2, frame)? {
                Value::Int(n) if n > 0 => usize::try_from(n).unwrap_or(usize::MAX),
                _ => {
                    return Err(SqlError::new(
                        9819,
                        16,
                        "The NTILE function takes a positive number.",
                    ));
                }
            };
            let (size, larger) = (count / tiles, count % tiles);
            for (n, (_, _, at)) in sorted.iter().enumerate() {
                let boundary = larger * (size + 1);
                let tile = if n < boundary {
                    n / (size + 1)
                } else {
                    larger + (n - boundary) / size.max(1)
                };
                results[*at].push(integer(tile + 1));
            }
        }
        WindowKind::Lag | WindowKind::Lead => {
            for n in 0..count {
                let at = sorted[n].2;
                let offset = if call.args.len() > 1 {
                    match eval(1, at, frame)? {
                        Value::Int(n) if n >= 0 => usize::try_from(n).unwrap_or(usize::MAX),
                        _ => {
                            return Err(SqlError::new(
                                8730,
                                16,
                                "Offset parameter for Lag and Lead functions cannot be a negative value.",
                            ));
                        }
                    }
                } else {
                    1
                };
                let other = if call.kind == WindowKind::Lag {
                    n.checked_sub(offset)
                } else {
                    n.checked_add(offset).filter(|o| *o < count)
                };
                let value = match other {
                    Some(other) => eval(0, sorted[other].2, frame)?,
                    None => eval(2, at, frame)?,
                };
                results[at].push(value);
            }
        }
        WindowKind::FirstValue | WindowKind::LastValue => {
            for n in 0..count {
                let range = extent(call, n, count, &peers);
                let chosen = if call.kind == WindowKind::FirstValue {
                    range.start
                } else {
                    range.end.saturating_sub(1)
                };
                let value =
                    if range.is_empty() { Value::Null } else { eval(0, sorted[chosen].2, frame)? };
                results[sorted[n].2].push(value);
            }
        }
        WindowKind::Aggregate(kind) => {
            let aggregate = Aggregate {
                kind,
                arg: call.args.first().cloned(),
                separator: None,
                order: Vec::new(),
                distinct: false,
                ty: call.ty,
            };
            let mut values = Vec::with_capacity(count);
            for (_, _, at) in sorted {
                values.push(if call.args.is_empty() {
                    Value::Int(1)
                } else {
                    eval(0, *at, frame)?
                });
            }
            let counts_rows = call.args.is_empty();
            let stand_in = Aggregate {
                arg: call.args.first().cloned().or_else(|| {
                    Some(crate::engine::expr::bound::Bound::constant(Value::Int(1), SqlType::Int))
                }),
                kind: if counts_rows { super::plan::AggregateKind::Count } else { aggregate.kind },
                ..aggregate
            };
            let mut running = Accumulator::new(&stand_in);
            let mut done = 0;
            let mut last: Option<(Range<usize>, Value)> = None;
            for n in 0..count {
                cx.tick()?;
                let range = extent(call, n, count, &peers);
                let value = match &last {
                    Some((known, value)) if *known == range => value.clone(),
                    _ if call.frame.start.is_none() => {
                        // frames that only grow are added to
                        while done < range.end {
                            running.add_value(values[done].clone())?;
                            done += 1;
                        }
                        running.finish()?
                    }
                    _ => {
                        let mut fresh = Accumulator::new(&stand_in);
                        for value in &values[range.clone()] {
                            fresh.add_value(value.clone())?;
                        }
                        fresh.finish()?
                    }
                };
                last = Some((range, value.clone()));
                results[sorted[n].2].push(value);
            }
        }
    }
    Ok(())
}

/// The rows of the frame of row `n`.
fn extent(
    call: &WindowCall,
    n: usize,
    count: usize,
    peers: &dyn Fn(usize) -> Range<usize>,
) -> Range<usize> {
    let frame = call.frame;
    let offset = |by: i64| i64::try_from(n).unwrap_or(0) + by;
    let clamp = |at: i64| usize::try_from(at.max(0)).unwrap_or(0).min(count);
    let start = match frame.start {
        None => 0,
        Some(_) if frame.range => peers(n).start,
        Some(by) => clamp(offset(by)),
    };
    let end = match frame.end {
        None => count,
        Some(_) if frame.range => peers(n).end,
        Some(by) => clamp(offset(by) + 1),
    };
    start..end.max(start)
}
