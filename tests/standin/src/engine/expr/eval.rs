//! Evaluation of bound expressions and conditions, with SQL's three-valued logic.

use super::{
    arithmetic,
    bound::{BitOp, Bound, Call, Comparison, Node, Predicate, Quantified},
    cast,
    context::{Context, Frame},
};
use crate::{
    error::{SqlError, SqlResult},
    value::{Collation, SqlType, Value, order},
};
use std::cmp::Ordering;

impl Bound {
    pub fn eval(&self, cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<Value> {
        match &self.node {
            Node::Const(value) => Ok(value.clone()),
            Node::Variable(number) => Ok(cx.variables.borrow()[*number].clone()),
            Node::Column { depth, slot, column } => Ok(column_of(frame, *depth, *slot, *column)),
            Node::Cast { expr, style, attempt, explicit } => {
                let value = expr.eval(cx, frame)?;
                if value == Value::Null {
                    return Ok(Value::Null);
                }
                let style = match style {
                    None => None,
                    Some(style) => match style.eval(cx, frame)? {
                        Value::Int(n) => Some(i32::try_from(n).unwrap_or(-1)),
                        _ => return Ok(Value::Null),
                    },
                };
                match cast::convert(&cx.settings, value, expr.ty, self.ty, style, *explicit) {
                    Err(error) if *attempt && error.number != 529 => Ok(Value::Null),
                    other => other,
                }
            }
            Node::Decimal { op, left, right, left_type, right_type } => {
                let (left, right) = (left.eval(cx, frame)?, right.eval(cx, frame)?);
                arithmetic::decimal(*op, &left, *left_type, &right, *right_type, self.ty)
            }
            Node::Arithmetic { op, left, right } => {
                let (left, right) = (left.eval(cx, frame)?, right.eval(cx, frame)?);
                arithmetic::number(*op, &left, &right, self.ty)
            }
            Node::Bits { op, left, right } => {
                Ok(match (left.eval(cx, frame)?, right.eval(cx, frame)?) {
                    (Value::Int(a), Value::Int(b)) => Value::Int(bits(*op, a, b)),
                    (Value::Bit(a), Value::Bit(b)) => {
                        Value::Bit(bits(*op, i64::from(a), i64::from(b)) != 0)
                    }
                    _ => Value::Null,
                })
            }
            Node::DateArithmetic { subtract, left, right } => {
                let (left, right) = (left.eval(cx, frame)?, right.eval(cx, frame)?);
                arithmetic::dates(*subtract, &left, &right, self.ty)
            }
            Node::Concat { left, right } => {
                let (left, right) = (left.eval(cx, frame)?, right.eval(cx, frame)?);
                arithmetic::concat(&left, &right, self.ty, cx.settings.concat_null_yields_null)
            }
            Node::Negate(expr) => arithmetic::negate(expr.eval(cx, frame)?, self.ty),
            Node::BitNot(expr) => Ok(match expr.eval(cx, frame)? {
                Value::Int(i) if self.ty == crate::value::SqlType::TinyInt => Value::Int(!i & 0xFF),
                Value::Int(i) => Value::Int(!i),
                Value::Bit(b) => Value::Bit(!b),
                _ => Value::Null,
            }),
            Node::Case { whens, otherwise } => {
                for (condition, result) in whens {
                    if condition.eval(cx, frame)? == Some(true) {
                        return result.eval(cx, frame);
                    }
                }
                otherwise.eval(cx, frame)
            }
            Node::FirstOf(list) => {
                for expr in list {
                    let value = expr.eval(cx, frame)?;
                    if value != Value::Null {
                        return Ok(value);
                    }
                }
                Ok(Value::Null)
            }
            Node::Call { function, args } => {
                let call = Call { context: cx, args, ty: self.ty };
                match args.as_slice() {
                    [one] => function(&call, &[one.eval(cx, frame)?]),
                    [one, two] => function(&call, &[one.eval(cx, frame)?, two.eval(cx, frame)?]),
                    more => {
                        let values = more
                            .iter()
                            .map(|arg| arg.eval(cx, frame))
                            .collect::<SqlResult<Vec<_>>>()?;
                        function(&call, &values)
                    }
                }
            }
            Node::Host { name, args } => {
                let values =
                    args.iter().map(|arg| arg.eval(cx, frame)).collect::<SqlResult<Vec<_>>>()?;
                match cx.host.function(name, &values)? {
                    Some(value) => Ok(value),
                    None => Err(SqlError::unsupported(format!("the function {name}"))),
                }
            }
            Node::Subquery(query) => query.scalar(cx, frame),
        }
    }
}

fn column_of(frame: &Frame<'_>, depth: u16, slot: u16, column: u16) -> Value {
    let mut frame = frame;
    for _ in 0..depth {
        match frame.outer {
            Some(outer) => frame = outer,
            None => return Value::Null,
        }
    }
    match &frame.slots[usize::from(slot)].row {
        Some(row) => row[usize::from(column)].clone(),
        None => Value::Null,
    }
}

fn bits(op: BitOp, a: i64, b: i64) -> i64 {
    match op {
        BitOp::And => a & b,
        BitOp::Or => a | b,
        BitOp::Xor => a ^ b,
    }
}

impl Predicate {
    /// None is unknown.
    pub fn eval(&self, cx: &Context<'_>, frame: &Frame<'_>) -> SqlResult<Option<bool>> {
        match self {
            Self::Constant(value) => Ok(*value),
            Self::And(list) => {
                let mut unknown = false;
                for predicate in list {
                    match predicate.eval(cx, frame)? {
                        Some(false) => return Ok(Some(false)),
                        None => unknown = true,
                        Some(true) => {}
                    }
                }
                Ok(if unknown { None } else { Some(true) })
            }
            Self::Or(list) => {
                let mut unknown = false;
                for predicate in list {
                    match predicate.eval(cx, frame)? {
                        Some(true) => return Ok(Some(true)),
                        None => unknown = true,
                        Some(false) => {}
                    }
                }
                Ok(if unknown { None } else { Some(false) })
            }
            Self::Not(inner) => Ok(inner.eval(cx, frame)?.map(|b| !b)),
            Self::Compare { op, left, right, collation } => {
                // a column is looked at where it is: most conditions compare one with something
                let compare = |left: &Value, right: &Value| match (left, right) {
                    (Value::Null, _) | (_, Value::Null) => Ok(None),
                    (Value::Str(a), Value::Str(b)) if *op == Comparison::Eq => {
                        Ok(Some(collation.equal(a, b)))
                    }
                    _ => compare_values(left, right, *collation).map(|o| Some(op.holds(o))),
                };
                match (peek(left, frame), peek(right, frame)) {
                    (Some(l), Some(r)) => compare(l, r),
                    (Some(l), None) => compare(l, &right.eval(cx, frame)?),
                    (None, Some(r)) => compare(&left.eval(cx, frame)?, r),
                    (None, None) => compare(&left.eval(cx, frame)?, &right.eval(cx, frame)?),
                }
            }
            Self::Distinct { equal, left, right, collation } => {
                let (left, right) = (left.eval(cx, frame)?, right.eval(cx, frame)?);
                Ok(Some(same(&left, &right, *collation)? == *equal))
            }
            Self::IsNull(expr) => Ok(Some(match peek(expr, frame) {
                Some(value) => *value == Value::Null,
                None => expr.eval(cx, frame)? == Value::Null,
            })),
            Self::Like { text, pattern, escape, collation } => {
                let (Value::Str(text), Value::Str(pattern)) =
                    (text.eval(cx, frame)?, pattern.eval(cx, frame)?)
                else {
                    return Ok(None);
                };
                let escape = match escape {
                    None => None,
                    Some(escape) => match escape.eval(cx, frame)? {
                        Value::Str(e) => {
                            let mut chars = e.chars();
                            match (chars.next(), chars.next()) {
                                (Some(c), None) => Some(c),
                                _ => {
                                    return Err(SqlError::new(
                                        506,
                                        16,
                                        format!(
                                            "The invalid escape character \"{e}\" was specified in a LIKE predicate."
                                        ),
                                    ));
                                }
                            }
                        }
                        _ => return Ok(None),
                    },
                };
                Ok(Some(collation.like(&text, &pattern, escape)))
            }
            Self::In { expr, list, collation } => {
                let value = expr.eval(cx, frame)?;
                if value == Value::Null {
                    return Ok(None);
                }
                let mut unknown = false;
                for item in list {
                    let item = item.eval(cx, frame)?;
                    if item == Value::Null {
                        unknown = true;
                    } else if compare_values(&value, &item, *collation)?.is_eq() {
                        return Ok(Some(true));
                    }
                }
                Ok(if unknown { None } else { Some(false) })
            }
            Self::Exists(query) => query.exists(cx, frame).map(Some),
            Self::Quantified { op, all, left, subquery: query, ty, collation } => {
                let value = left.eval(cx, frame)?;
                let test = Quantified {
                    op: *op,
                    all: *all,
                    value: &value,
                    ty: *ty,
                    collation: *collation,
                };
                query.quantified(&test, cx, frame)
            }
        }
    }
}

/// The value of a constant or column without a copy.
fn peek<'v>(expr: &'v Bound, frame: &'v Frame<'_>) -> Option<&'v Value> {
    match &expr.node {
        Node::Const(value) => Some(value),
        Node::Column { depth: 0, slot, column } => match &frame.slots[usize::from(*slot)].row {
            Some(row) => Some(&row[usize::from(*column)]),
            None => Some(&Value::Null),
        },
        _ => None,
    }
}

/// Whether two values are equal, NULL being equal to NULL.
pub fn same(a: &Value, b: &Value, collation: Collation) -> SqlResult<bool> {
    match (a, b) {
        (Value::Null, Value::Null) => Ok(true),
        (Value::Null, _) | (_, Value::Null) => Ok(false),
        _ => compare_values(a, b, collation).map(Ordering::is_eq),
    }
}

/// Orders two values of one type; NULL comes first.
pub fn compare_values(a: &Value, b: &Value, collation: Collation) -> SqlResult<Ordering> {
    Ok(match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Str(a), Value::Str(b)) => collation.compare(a, b),
        (Value::Bit(a), Value::Bit(b)) => a.cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => a.compare(*b),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (Value::Date(_), Value::Date(_))
        | (Value::Time(_), Value::Time(_))
        | (Value::DateTime { .. }, Value::DateTime { .. })
        | (Value::SmallDateTime { .. }, Value::SmallDateTime { .. })
        | (Value::DateTime2 { .. }, Value::DateTime2 { .. })
        | (Value::DateTimeOffset { .. }, Value::DateTimeOffset { .. })
        | (Value::Bytes(_), Value::Bytes(_))
        | (Value::Guid(_), Value::Guid(_)) => order::compare(a, b, SqlType::SqlVariant),
        (Value::Variant(a), Value::Variant(b)) => cast::compare_variants(a, b)?,
        _ => return Err(SqlError::unsupported("a comparison of these types")),
    })
}
