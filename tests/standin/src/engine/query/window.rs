//! Window functions, over rows that are all in memory.

use super::{
    aggregate::Accumulator,
    keys,
    plan::{Aggregate, WINDOWS, WindowCall, WindowKind},
};
use crate::{
    engine::expr::context::{Context, Frame, Slot},
    error::SqlResult,
    value::{Value, order},
};
use std::sync::Arc;

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

/// One partition. With ORDER BY an aggregate grows from peers to peers; without, all are peers.
fn part(
    call: &WindowCall,
    sorted: &[(Vec<u8>, usize, usize)],
    rows: &mut [Vec<Slot>],
    results: &mut [Vec<Value>],
    cx: &Context<'_>,
    frame: &mut Frame<'_>,
) -> SqlResult<()> {
    match call.kind {
        WindowKind::RowNumber => {
            for (n, (_, _, at)) in sorted.iter().enumerate() {
                cx.tick()?;
                results[*at].push(Value::Int(i64::try_from(n + 1).unwrap_or(i64::MAX)));
            }
        }
        WindowKind::Aggregate(kind) => {
            let arg = call.args.first().cloned();
            let aggregate = Aggregate { kind, arg, distinct: false, ty: call.ty };
            let mut running = Accumulator::new(&aggregate);
            let mut start = 0;
            while start < sorted.len() {
                let mut end = start;
                while end < sorted.len() && sorted[end].0 == sorted[start].0 {
                    cx.tick()?;
                    let row = sorted[end].2;
                    std::mem::swap(&mut frame.slots, &mut rows[row]);
                    let added = running.add(cx, frame);
                    std::mem::swap(&mut frame.slots, &mut rows[row]);
                    added?;
                    end += 1;
                }
                let value = running.finish()?;
                for (_, _, row) in &sorted[start..end] {
                    results[*row].push(value.clone());
                }
                start = end;
            }
        }
    }
    Ok(())
}
