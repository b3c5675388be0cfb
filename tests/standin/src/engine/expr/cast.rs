//! Conversions, as expressions need them.

use crate::{
    engine::query::host::{DateFormat, Settings},
    error::SqlResult,
    value::{
        SqlType, Value,
        convert::{self, ConvertContext},
        datetime, order, types,
    },
};
use std::cmp::Ordering;

pub use types::{check_explicit, check_implicit};

/// Converts a value. An implicit conversion of text to a shorter text cuts it, as a variable's assignment does.
pub fn convert(settings: &Settings, value: Value, from: SqlType, to: SqlType, style: Option<i32>, _explicit: bool) -> SqlResult<Value> {
    if from == to {
        return Ok(value);
    }
    let date_format = match settings.date_format {
        DateFormat::Mdy => datetime::DateFormat::Mdy,
        DateFormat::Dmy => datetime::DateFormat::Dmy,
        DateFormat::Ymd => datetime::DateFormat::Ymd,
        DateFormat::Ydm => datetime::DateFormat::Ydm,
        DateFormat::Myd => datetime::DateFormat::Myd,
        DateFormat::Dym => datetime::DateFormat::Dym,
    };
    convert::cast(&value, from, to, style, &ConvertContext { date_format })
}

/// Two values of sql_variant: families first, values within one.
pub fn compare_variants(a: &(SqlType, Value), b: &(SqlType, Value)) -> SqlResult<Ordering> {
    let (a, b) = (Value::Variant(Box::new(a.clone())), Value::Variant(Box::new(b.clone())));
    Ok(order::compare(&a, &b, SqlType::SqlVariant))
}
