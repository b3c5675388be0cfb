//! Operators on values whose types the binder has already brought together.

use super::types;
use crate::{
    error::{SqlError, SqlResult},
    value::{
        Decimal, Length, SqlType, Value,
        decimal::{Operation, divide_by_zero},
    },
};
use std::sync::Arc;

/// Error 8115 for a result that does not fit its type.
pub fn overflow(ty: SqlType) -> SqlError {
    SqlError::new(
        8115,
        16,
        format!(
            "Arithmetic overflow error converting expression to data type {}.",
            types::name(ty)
        ),
    )
}

/// Integers, money and floats: both operands and the result have one type.
pub fn number(op: Operation, left: &Value, right: &Value, ty: SqlType) -> SqlResult<Value> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => {
            let result = match op {
                Operation::Add => a.checked_add(*b),
                Operation::Subtract => a.checked_sub(*b),
                Operation::Multiply => a.checked_mul(*b),
                Operation::Divide | Operation::Modulo if *b == 0 => return Err(divide_by_zero()),
                Operation::Divide => a.checked_div(*b),
                Operation::Modulo => Some(a.checked_rem(*b).unwrap_or(0)),
            };
            match result {
                Some(n) if fits(n, ty) => Ok(Value::Int(n)),
                _ => Err(overflow(ty)),
            }
        }
        (Value::Float(a), Value::Float(b)) => {
            let result = match op {
                Operation::Add => a + b,
                Operation::Subtract => a - b,
                Operation::Multiply => a * b,
                Operation::Divide | Operation::Modulo if *b == 0.0 => return Err(divide_by_zero()),
                Operation::Divide => a / b,
                Operation::Modulo => {
                    return Err(SqlError::new(
                        402,
                        16,
                        "The data types float and float are incompatible in the modulo operator.",
                    ));
                }
            };
            float(result, ty)
        }
        (Value::Decimal(a), Value::Decimal(b)) => {
            // money: 19 digits, 4 of them decimals; division truncates
            let (a, b) = (a.mantissa, b.mantissa);
            let result = match op {
                Operation::Add => a.checked_add(b),
                Operation::Subtract => a.checked_sub(b),
                Operation::Multiply => a.checked_mul(b).map(|n| decimal_round(n, 10_000)),
                Operation::Divide | Operation::Modulo if b == 0 => return Err(divide_by_zero()),
                Operation::Divide => a.checked_mul(10_000).map(|n| n / b),
                Operation::Modulo => Some(a % b),
            };
            let limit =
                if ty == SqlType::SmallMoney { i128::from(i32::MAX) } else { i128::from(i64::MAX) };
            match result {
                Some(n) if n <= limit && n >= -limit - 1 => {
                    Ok(Value::Decimal(Decimal { mantissa: n, scale: 4 }))
                }
                _ => Err(overflow(ty)),
            }
        }
        _ => Ok(Value::Null),
    }
}

fn decimal_round(n: i128, divisor: i128) -> i128 {
    let half = divisor / 2;
    if n < 0 { (n - half) / divisor } else { (n + half) / divisor }
}

pub fn float(result: f64, ty: SqlType) -> SqlResult<Value> {
    #[expect(clippy::cast_possible_truncation, reason = "a real is an f32")]
    let result = if ty == SqlType::Real { f64::from(result as f32) } else { result };
    if result.is_finite() { Ok(Value::Float(result)) } else { Err(overflow(ty)) }
}

pub fn fits(n: i64, ty: SqlType) -> bool {
    match ty {
        SqlType::TinyInt => u8::try_from(n).is_ok(),
        SqlType::SmallInt => i16::try_from(n).is_ok(),
        SqlType::Int => i32::try_from(n).is_ok(),
        _ => true,
    }
}

pub fn decimal(
    op: Operation,
    left: &Value,
    left_type: (u8, u8),
    right: &Value,
    right_type: (u8, u8),
    ty: SqlType,
) -> SqlResult<Value> {
    match (as_decimal(left), as_decimal(right)) {
        (Some(a), Some(b)) => {
            let result = Decimal::operate(op, a, left_type, b, right_type)?;
            match ty {
                SqlType::Decimal { scale, .. } if scale != result.scale => {
                    result.rescale(scale).map(Value::Decimal).ok_or_else(|| overflow(ty))
                }
                _ => Ok(Value::Decimal(result)),
            }
        }
        _ => Ok(Value::Null),
    }
}

pub fn as_decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::Decimal(d) => Some(*d),
        Value::Int(i) => Some(Decimal { mantissa: i128::from(*i), scale: 0 }),
        Value::Bit(b) => Some(Decimal { mantissa: i128::from(*b), scale: 0 }),
        _ => None,
    }
}

pub fn negate(value: Value, ty: SqlType) -> SqlResult<Value> {
    Ok(match value {
        Value::Int(i) => match i.checked_neg() {
            Some(n) if fits(n, ty) => Value::Int(n),
            _ => return Err(overflow(ty)),
        },
        Value::Float(f) => Value::Float(-f),
        Value::Decimal(d) => Value::Decimal(Decimal { mantissa: -d.mantissa, scale: d.scale }),
        other => other,
    })
}

const TICKS_PER_DAY: i64 = 300 * 86_400;

/// datetime and smalldatetime arithmetic: both sides are datetimes, counted in 1/300 s since 1900.
pub fn dates(subtract: bool, left: &Value, right: &Value, ty: SqlType) -> SqlResult<Value> {
    let ticks = |value: &Value| match value {
        Value::DateTime { days, ticks300 } => {
            Some(i64::from(*days) * TICKS_PER_DAY + i64::from(*ticks300))
        }
        _ => None,
    };
    let (Some(a), Some(b)) = (ticks(left), ticks(right)) else { return Ok(Value::Null) };
    let sum = if subtract { a - b } else { a + b };
    let days = sum.div_euclid(TICKS_PER_DAY);
    // 1753-01-01 to 9999-12-31
    match (i32::try_from(days), u32::try_from(sum.rem_euclid(TICKS_PER_DAY))) {
        (Ok(days), Ok(ticks300)) if (-53_690..=2_958_463).contains(&days) => {
            Ok(Value::DateTime { days, ticks300 })
        }
        _ => Err(overflow(ty)),
    }
}

pub fn concat(
    left: &Value,
    right: &Value,
    ty: SqlType,
    null_yields_null: bool,
) -> SqlResult<Value> {
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => Ok(Value::Str(join(a, b, ty))),
        (Value::Bytes(a), Value::Bytes(b)) => {
            let mut both = Vec::with_capacity(a.len() + b.len());
            both.extend_from_slice(a);
            both.extend_from_slice(b);
            if let SqlType::VarBinary(Length::N(n)) = ty {
                both.truncate(usize::from(n));
            }
            Ok(Value::Bytes(both.into()))
        }
        (Value::Str(_), Value::Null) if !null_yields_null => Ok(left.clone()),
        (Value::Null, Value::Str(_)) if !null_yields_null => Ok(right.clone()),
        (Value::Null, Value::Null) if !null_yields_null && types::is_text(ty) => {
            Ok(Value::Str("".into()))
        }
        _ => Ok(Value::Null),
    }
}

fn join(a: &Arc<str>, b: &Arc<str>, ty: SqlType) -> Arc<str> {
    if b.is_empty() {
        return a.clone();
    }
    if a.is_empty() {
        return b.clone();
    }
    let mut both = String::with_capacity(a.len() + b.len());
    both.push_str(a);
    both.push_str(b);
    truncate(both, ty).into()
}

/// Cuts to the declared length: a concatenation of two short types stays one.
pub fn truncate(text: String, ty: SqlType) -> String {
    let limit = match ty {
        SqlType::VarChar(Length::N(n), _)
        | SqlType::NVarChar(Length::N(n), _)
        | SqlType::Char(n, _)
        | SqlType::NChar(n, _) => usize::from(n),
        _ => return text,
    };
    if text.len() <= limit {
        return text;
    }
    let units = types::is_unicode(ty);
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += if units { c.len_utf16() } else { 1 };
        if used > limit {
            return text[..at].to_owned();
        }
    }
    text
}
