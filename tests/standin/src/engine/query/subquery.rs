//! Queries inside expressions.

use super::{exec, plan::Plan};
use crate::{
    engine::expr::{
        binder::Binder,
        bound::{Comparison, Quantified, Subquery},
        context::{Cached, Context, Frame},
        eval,
    },
    error::{SqlError, SqlResult},
    value::{Value, order},
};
use sqlparser::ast;
use std::{collections::HashSet, sync::Arc};

/// A query inside an expression.
pub struct BoundSubquery {
    /// Its number, for the cache.
    id: usize,
    pub plan: Plan,
    /// Whether its result may be kept for the statement.
    cacheable: bool,
}

impl Binder<'_> {
    pub fn subquery(&mut self, query: &ast::Query) -> SqlResult<Arc<BoundSubquery>> {
        let level = self.scopes.len();
        let before = std::mem::take(&mut self.seen);
        let volatile = std::mem::replace(&mut self.volatile, false);
        let plan: SqlResult<Plan> = self.query(query);
        let inside = std::mem::replace(&mut self.seen, before);
        let correlated = inside.iter().any(|(l, _)| *l < level);
        self.seen.extend(inside.into_iter().filter(|(l, _)| *l < level));
        let cacheable = !correlated && !self.volatile;
        self.volatile |= volatile;
        Ok(Arc::new(BoundSubquery { id: self.next_number(), plan: plan?, cacheable }))
    }
}

impl Subquery for BoundSubquery {
    fn scalar(&self, cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<Value> {
        if self.cacheable
            && let Some(Cached::Value(value)) = cx.cache.borrow().get(&self.id)
        {
            return Ok(value.clone());
        }
        let mut found = None;
        let mut several = false;
        exec::run(&self.plan, cx, Some(frame), &mut |row| {
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
        if self.cacheable {
            cx.cache.borrow_mut().insert(self.id, Cached::Value(value.clone()));
        }
        Ok(value)
    }

    fn exists(&self, cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<bool> {
        if self.cacheable
            && let Some(Cached::Exists(found)) = cx.cache.borrow().get(&self.id)
        {
            return Ok(*found);
        }
        let mut found = false;
        exec::run(&self.plan, cx, Some(frame), &mut |_| {
            found = true;
            Ok(false)
        })?;
        if self.cacheable {
            cx.cache.borrow_mut().insert(self.id, Cached::Exists(found));
        }
        Ok(found)
    }

    fn quantified(
        &self,
        test: &Quantified<'_>,
        cx: &Context<'_>,
        frame: &Frame<'_>,
    ) -> SqlResult<Option<bool>> {
        let Quantified { op, all, value, ty, collation } = *test;
        let from = self.plan.columns.first().map_or(ty, |c| c.ty);
        let ty = ty.under(collation);
        let convert = |value: Value| {
            crate::engine::expr::cast::convert(&cx.settings, value, from, ty, None, false)
        };
        if self.cacheable && op == Comparison::Eq && !all {
            let known = match cx.cache.borrow().get(&self.id) {
                Some(Cached::Set(set)) => Some(set.clone()),
                _ => None,
            };
            let set = match known {
                Some(set) => set,
                None => {
                    let mut keys = HashSet::new();
                    let mut null = false;
                    exec::run(&self.plan, cx, Some(frame), &mut |row| {
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
                    cx.cache.borrow_mut().insert(self.id, Cached::Set(set.clone()));
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
        let known = match cx.cache.borrow().get(&self.id) {
            Some(Cached::List(list)) => Some(list.clone()),
            _ => None,
        };
        if let Some(list) = known {
            for candidate in list.iter() {
                if !test(candidate)? {
                    break;
                }
            }
        } else if self.cacheable {
            let mut list = Vec::new();
            exec::run(&self.plan, cx, Some(frame), &mut |row| {
                list.push(convert(row.drain(..).next().unwrap_or(Value::Null))?);
                Ok(true)
            })?;
            let list = Arc::new(list);
            cx.cache.borrow_mut().insert(self.id, Cached::List(list.clone()));
            for candidate in list.iter() {
                if !test(candidate)? {
                    break;
                }
            }
        } else {
            exec::run(&self.plan, cx, Some(frame), &mut |row| {
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
}
