//! Conversions, as expressions need them.

use crate::{
    engine::query::host::Settings,
    error::SqlResult,
    value::{
        SqlType, Value,
        convert::{self, ConvertContext},
        order, types,
    },
};
use std::cmp::Ordering;

pub use types::{check_explicit, check_implicit};

/// Converts a value. An implicit conversion of text to a shorter text cuts it, as a variable's
/// assignment does.
pub fn convert(
    settings: &Settings,
    value: Value,
    from: SqlType,
    to: SqlType,
    style: Option<i32>,
    _explicit: bool,
) -> SqlResult<Value> {
    if from == to {
        return Ok(value);
    }
    convert::cast(&value, from, to, style, &ConvertContext { date_format: settings.date_format })
}

/// Two values of sql_variant: families first, values within one.
pub fn compare_variants(a: &(SqlType, Value), b: &(SqlType, Value)) -> SqlResult<Ordering> {
    let (a, b) = (Value::Variant(Box::new(a.clone())), Value::Variant(Box::new(b.clone())));
    Ok(order::compare(&a, &b, SqlType::SqlVariant))
}
