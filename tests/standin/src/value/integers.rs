//! The integer types' limits.

use super::{SqlType, Value, decimal::overflow};
use crate::error::{SqlError, SqlResult};

pub fn integer_limits(ty: SqlType) -> (i64, i64) {
    match ty {
        SqlType::TinyInt => (0, 255),
        SqlType::SmallInt => (i16::MIN.into(), i16::MAX.into()),
        SqlType::Int => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN, i64::MAX),
    }
}

/// A whole number into an integer type, or what the server says when it does not fit (220 for the
/// small types, 8115 for the others).
pub fn fit_integer(number: i128, to: SqlType, from: &str) -> SqlResult<Value> {
    if to == SqlType::Bit {
        return Ok(Value::Bit(number != 0));
    }
    let (low, high) = integer_limits(to);
    match i64::try_from(number).ok().filter(|n| (low..=high).contains(n)) {
        Some(n) => Ok(Value::Int(n)),
        None if matches!(to, SqlType::TinyInt | SqlType::SmallInt) => Err(SqlError::new(
            220,
            16,
            format!("Arithmetic overflow error for data type {}, value = {number}.", to.name()),
        )),
        None => Err(overflow(from, to.name())),
    }
}
