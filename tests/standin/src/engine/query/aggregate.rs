//! GROUP BY: one accumulator per group and aggregate.

use super::plan::{Aggregate, AggregateKind, GroupPlan};
use crate::{
    engine::expr::{
        arithmetic,
        context::{Context, Frame, Slot},
        eval,
    },
    error::SqlResult,
    value::{
        Collation, Decimal, SqlType, Value,
        decimal::{Operation, overflow},
        order,
    },
};
use std::collections::{HashMap, HashSet};

/// What an aggregate has seen so far.
pub struct Accumulator<'p> {
    aggregate: &'p Aggregate,
    count: i64,
    int: i64,
    decimal: i128,
    float: f64,
    best: Value,
    seen: Option<HashSet<Vec<u8>>>,
}

impl<'p> Accumulator<'p> {
    pub fn new(aggregate: &'p Aggregate) -> Self {
        Self {
            aggregate,
            count: 0,
            int: 0,
            decimal: 0,
            float: 0.0,
            best: Value::Null,
            seen: aggregate.distinct.then(HashSet::new),
        }
    }

    pub fn add(&mut self, cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<()> {
        let Some(arg) = &self.aggregate.arg else {
            self.count += 1;
            return Ok(());
        };
        let value = arg.eval(cx, frame)?;
        if value == Value::Null {
            return Ok(());
        }
        let arg_type = self.aggregate.arg.as_ref().map_or(SqlType::Int, |a| a.ty);
        if let Some(seen) = &mut self.seen {
            let mut key = Vec::new();
            order::write_key(&value, arg_type, &mut key);
            if !seen.insert(key) {
                return Ok(());
            }
        }
        self.count += 1;
        let too_large = || match self.aggregate.ty {
            SqlType::Decimal { .. } => overflow("expression", "numeric"),
            ty => arithmetic::overflow(ty),
        };
        match self.aggregate.kind {
            AggregateKind::Count | AggregateKind::CountRows => {}
            AggregateKind::Sum | AggregateKind::Avg => match value {
                Value::Int(i) => self.int = self.int.checked_add(i).ok_or_else(too_large)?,
                Value::Decimal(d) => {
                    self.decimal = self.decimal.checked_add(d.mantissa).ok_or_else(too_large)?
                }
                Value::Float(f) => self.float += f,
                _ => {}
            },
            AggregateKind::Min | AggregateKind::Max => {
                let collation = arg_type.compared_by().unwrap_or(Collation::DEFAULT);
                let better = self.best == Value::Null || {
                    let ordering = eval::compare_values(&value, &self.best, collation)?;
                    if self.aggregate.kind == AggregateKind::Min {
                        ordering.is_lt()
                    } else {
                        ordering.is_gt()
                    }
                };
                if better {
                    self.best = value;
                }
            }
        }
        Ok(())
    }

    pub fn finish(&mut self) -> SqlResult<Value> {
        let ty = self.aggregate.ty;
        Ok(match self.aggregate.kind {
            AggregateKind::Count | AggregateKind::CountRows => {
                if !arithmetic::fits(self.count, ty) {
                    return Err(arithmetic::overflow(ty));
                }
                Value::Int(self.count)
            }
            AggregateKind::Min | AggregateKind::Max => self.best.clone(),
            AggregateKind::Sum | AggregateKind::Avg if self.count == 0 => Value::Null,
            AggregateKind::Sum => match ty {
                SqlType::Float => arithmetic::float(self.float, ty)?,
                SqlType::Decimal { scale, .. } => {
                    if self.decimal.unsigned_abs() >= 10u128.pow(38) {
                        return Err(overflow("expression", "numeric"));
                    }
                    Value::Decimal(Decimal { mantissa: self.decimal, scale })
                }
                SqlType::Money => match i64::try_from(self.decimal) {
                    Ok(_) => Value::Decimal(Decimal { mantissa: self.decimal, scale: 4 }),
                    Err(_) => return Err(arithmetic::overflow(ty)),
                },
                _ if arithmetic::fits(self.int, ty) => Value::Int(self.int),
                _ => return Err(arithmetic::overflow(ty)),
            },
            AggregateKind::Avg => match ty {
                #[expect(clippy::cast_precision_loss, reason = "a count as a float")]
                SqlType::Float => Value::Float(self.float / self.count as f64),
                SqlType::Decimal { scale, .. } => {
                    let own = match self.aggregate.arg.as_ref().map(|a| a.ty) {
                        Some(SqlType::Decimal { scale, .. }) => scale,
                        _ => scale,
                    };
                    let sum = Decimal { mantissa: self.decimal, scale: own };
                    let count = Decimal { mantissa: i128::from(self.count), scale: 0 };
                    let quotient =
                        Decimal::operate(Operation::Divide, sum, (38, own), count, (10, 0))?;
                    let fine = sum
                        .rescale(scale)
                        .map(|s| Decimal { mantissa: s.mantissa / i128::from(self.count), scale });
                    Value::Decimal(fine.unwrap_or(quotient.rescale(scale).unwrap_or(quotient)))
                }
                SqlType::Money => Value::Decimal(Decimal {
                    mantissa: self.decimal / i128::from(self.count),
                    scale: 4,
                }),
                _ => Value::Int(self.int / self.count),
            },
        })
    }
}

/// A row of a group (none: of no rows at all) and the aggregates' results.
pub type GroupRow = (Option<Vec<Slot>>, Vec<Value>);

struct Group<'p> {
    slots: Option<Vec<Slot>>,
    accumulators: Vec<Accumulator<'p>>,
}

/// The groups of one execution.
pub struct Groups<'p> {
    plan: &'p GroupPlan,
    groups: Vec<Group<'p>>,
    places: HashMap<Vec<u8>, usize>,
    key: Vec<u8>,
}

impl<'p> Groups<'p> {
    pub fn new(plan: &'p GroupPlan) -> Self {
        let mut groups = Self { plan, groups: Vec::new(), places: HashMap::new(), key: Vec::new() };
        if plan.keys.is_empty() {
            // without GROUP BY there is one group, even of no rows
            groups.open(None);
        }
        groups
    }

    fn open(&mut self, slots: Option<Vec<Slot>>) -> usize {
        self.groups.push(Group {
            slots,
            accumulators: self.plan.aggregates.iter().map(Accumulator::new).collect(),
        });
        self.groups.len() - 1
    }

    pub fn add(&mut self, cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<()> {
        let at = if self.plan.keys.is_empty() {
            if self.groups[0].slots.is_none() {
                self.groups[0].slots = Some(frame.slots.clone());
            }
            0
        } else {
            let mut key = std::mem::take(&mut self.key);
            key.clear();
            for expr in &self.plan.keys {
                order::write_key(&expr.eval(cx, frame)?, expr.ty, &mut key);
            }
            let at = match self.places.get(&key) {
                Some(at) => *at,
                None => {
                    let at = self.open(Some(frame.slots.clone()));
                    self.places.insert(key.clone(), at);
                    at
                }
            };
            self.key = key;
            at
        };
        for accumulator in &mut self.groups[at].accumulators {
            accumulator.add(cx, frame)?;
        }
        Ok(())
    }

    /// A row of each group, and the aggregates' results.
    pub fn finish(self, cx: &Context<'_>) -> SqlResult<Vec<GroupRow>> {
        let mut out = Vec::with_capacity(self.groups.len());
        for mut group in self.groups {
            cx.tick()?;
            let results =
                group.accumulators.iter_mut().map(Accumulator::finish).collect::<SqlResult<_>>()?;
            out.push((group.slots, results));
        }
        Ok(out)
    }
}
