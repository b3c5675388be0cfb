//! Queries inside expressions.

use super::{exec, join::Kept};
use crate::{
    engine::expr::{
        bound::{Comparison, Context, Frame, Subquery},
        eval,
    },
    error::{SqlError, SqlResult},
    value::{Collation, SqlType, Value, order},
};
use std::{collections::HashSet, sync::Arc};

/// What a statement keeps of its subqueries.
pub enum Cached {
    Value(Value),
    Exists(bool),
    /// The values of an uncorrelated `IN (SELECT …)`: their keys, and whether NULL is among them.
    Set(Arc<(HashSet<Vec<u8>>, bool)>),
    /// The values of an uncorrelated `op ANY (SELECT …)`.
    List(Arc<Vec<Value>>),
    Index(Arc<Kept>),
}

pub fn scalar(query: &Subquery, cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<Value> {
    if query.cacheable
        && let Some(Cached::Value(value)) = cx.cache.borrow().get(&query.id)
    {
        return Ok(value.clone());
    }
    let mut found = None;
    let mut several = false;
    exec::run(&query.plan, cx, Some(frame), &mut |row| {
        several = found.is_some();
        found = row.drain(..).next();
        Ok(!several)
    })?;
    if several {
        return Err(SqlError::new(
            512,
            16,
            "Subquery returned more than 1 value. This is not permitted when the subquery follows =, !=, <, <= , >, >= or when the subquery is used as an expression.",
        ));
    }
    let value = found.unwrap_or(Value::Null);
    if query.cacheable {
        cx.cache.borrow_mut().insert(query.id, Cached::Value(value.clone()));
    }
    Ok(value)
}

pub fn exists(query: &Subquery, cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<bool> {
    if query.cacheable
        && let Some(Cached::Exists(found)) = cx.cache.borrow().get(&query.id)
    {
        return Ok(*found);
    }
    let mut found = false;
    exec::run(&query.plan, cx, Some(frame), &mut |_| {
        found = true;
        Ok(false)
    })?;
    if query.cacheable {
        cx.cache.borrow_mut().insert(query.id, Cached::Exists(found));
    }
    Ok(found)
}

/// `value op ANY|ALL (query)`.
#[expect(clippy::too_many_arguments, reason = "the parts of one predicate")]
pub fn quantified(
    query: &Subquery,
    op: Comparison,
    all: bool,
    value: &Value,
    ty: SqlType,
    collation: Collation,
    cx: &Context<'_>,
    frame: &Frame<'_>,
) -> SqlResult<Option<bool>> {
    let from = query.plan.columns.first().map_or(ty, |c| c.ty);
    let ty = ty.under(collation);
    let convert = |value: Value| {
        crate::engine::expr::cast::convert(&cx.settings, value, from, ty, None, false)
    };
    if query.cacheable && op == Comparison::Eq && !all {
        let known = match cx.cache.borrow().get(&query.id) {
            Some(Cached::Set(set)) => Some(set.clone()),
            _ => None,
        };
        let set = match known {
            Some(set) => set,
            None => {
                let mut keys = HashSet::new();
                let mut null = false;
                exec::run(&query.plan, cx, Some(frame), &mut |row| {
                    match convert(row.drain(..).next().unwrap_or(Value::Null))? {
                        Value::Null => null = true,
                        value => {
                            let mut key = Vec::new();
                            order::write_key(&value, ty, &mut key);
                            keys.insert(key);
                        }
                    }
                    Ok(true)
                })?;
                let set = Arc::new((keys, null));
                cx.cache.borrow_mut().insert(query.id, Cached::Set(set.clone()));
                set
            }
        };
        if set.0.is_empty() && !set.1 {
            return Ok(Some(false));
        }
        if *value == Value::Null {
            return Ok(None);
        }
        let mut key = Vec::new();
        order::write_key(value, ty, &mut key);
        return Ok(if set.0.contains(&key) {
            Some(true)
        } else if set.1 {
            None
        } else {
            Some(false)
        });
    }
    // ANY: true as soon as one is true; ALL: false as soon as one is false
    let decided = !all;
    let mut unknown = false;
    let mut hit = false;
    let mut test = |candidate: &Value| -> SqlResult<bool> {
        if *value == Value::Null || *candidate == Value::Null {
            unknown = true;
            return Ok(true);
        }
        if op.holds(eval::compare_values(value, candidate, collation)?) == decided {
            hit = true;
            return Ok(false);
        }
        Ok(true)
    };
    let known = match cx.cache.borrow().get(&query.id) {
        Some(Cached::List(list)) => Some(list.clone()),
        _ => None,
    };
    if let Some(list) = known {
        for candidate in list.iter() {
            if !test(candidate)? {
                break;
            }
        }
    } else if query.cacheable {
        let mut list = Vec::new();
        exec::run(&query.plan, cx, Some(frame), &mut |row| {
            list.push(convert(row.drain(..).next().unwrap_or(Value::Null))?);
            Ok(true)
        })?;
        let list = Arc::new(list);
        cx.cache.borrow_mut().insert(query.id, Cached::List(list.clone()));
        for candidate in list.iter() {
            if !test(candidate)? {
                break;
            }
        }
    } else {
        exec::run(&query.plan, cx, Some(frame), &mut |row| {
            test(&convert(row.drain(..).next().unwrap_or(Value::Null))?)
        })?;
    }
    Ok(if hit {
        Some(decided)
    } else if unknown {
        None
    } else {
        Some(!decided)
    })
}
