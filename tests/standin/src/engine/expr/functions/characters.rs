//! What functions of text share: their arguments, and counting in units of length.

use crate::{
    engine::expr::{
        bound::Bound,
        conversions::implicit,
        types::{self, Coercibility, Family},
    },
    error::SqlResult,
    value::{Collation, Length, SqlType, Value},
};

/// A text argument as it is; anything else as text.
pub fn text_arg(arg: Bound, collation: Collation) -> SqlResult<Bound> {
    if types::is_text(arg.ty) && !arg.is_null {
        return Ok(arg);
    }
    let length = if arg.is_null { Some(1) } else { types::length(arg.ty) };
    let ty = types::text(false, length, false, collation);
    implicit(arg, ty)
}

pub fn keep_collation(mut bound: Bound, of: Coercibility) -> Bound {
    bound.coercibility = of;
    bound
}

pub fn int_arg(arg: Bound) -> SqlResult<Bound> {
    if types::family(arg.ty) == Family::Integer && !arg.is_null {
        Ok(arg)
    } else {
        implicit(arg, SqlType::BigInt)
    }
}

/// The variable-length form of a text type.
pub fn varying(ty: SqlType) -> SqlType {
    match ty {
        SqlType::Char(n, c) => SqlType::VarChar(Length::N(n), c),
        SqlType::NChar(n, c) => SqlType::NVarChar(Length::N(n), c),
        other => other,
    }
}

pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Str(s) => Some(s),
        _ => None,
    }
}

pub fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(i) => Some(*i),
        _ => None,
    }
}

/// How many units of length a character is: UTF-16 units, or code points under collations that
/// count those.
pub fn unit(c: char, collation: Option<Collation>) -> usize {
    if collation.is_some_and(Collation::counts_code_points) { 1 } else { c.len_utf16() }
}

pub fn length_of(s: &str, collation: Option<Collation>) -> usize {
    if s.is_ascii() { s.len() } else { s.chars().map(|c| unit(c, collation)).sum() }
}

pub fn str_value(s: impl Into<std::sync::Arc<str>>) -> SqlResult<Value> {
    Ok(Value::Str(s.into()))
}

pub fn integer(n: usize) -> SqlResult<Value> {
    Ok(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))
}
