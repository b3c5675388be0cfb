//! Can a value be in a column at all?
//!
//! The destination's types may be wider than the source's, and somebody may have written what the source cannot hold: 5,000,000,000 where
//! the source has an `int`. Asking the source for such a key is an error there (Msg 8115, 242), or finds another row whose text was cut
//! to length. Such a key is simply not there.

use crate::model::{
    table::{ColumnType, Length},
    value::Value,
};

/// Days from 0001-01-01 to 1753-01-01, where `datetime` begins, and to 1900-01-01, where `smalldatetime` does.
/// <https://learn.microsoft.com/sql/t-sql/data-types/datetime-transact-sql>
const DAYS_TO_1753: i32 = 639_905;
const DAYS_TO_1900: i32 = 693_595;

/// `false` only if no value of the type is equal to this one, or the server could not turn it into one.
pub fn may_be(value: &Value, ty: &ColumnType) -> bool {
    match value {
        Value::Int(v) => number(i128::from(*v), 0, ty),
        Value::Decimal { mantissa, scale } => number(*mantissa, *scale, ty),
        Value::Text(text) => match ty {
            // a character takes at least one byte, or one unit
            ColumnType::Char(n) | ColumnType::VarChar(Length::N(n)) | ColumnType::NChar(n) | ColumnType::NVarChar(Length::N(n)) => {
                text.trim_end_matches(' ').encode_utf16().count() <= usize::from(*n)
            }
            _ => true,
        },
        Value::Bytes(bytes) => match ty {
            ColumnType::Binary(n) | ColumnType::VarBinary(Length::N(n)) => bytes.len() <= usize::from(*n),
            _ => true,
        },
        Value::Date(days) | Value::DateTime2 { days, .. } | Value::DateTimeOffset { days, .. } => date(*days, ty),
        Value::DateTime { days_since_1900, .. } => date(days_since_1900.saturating_add(DAYS_TO_1900), ty),
        Value::Null | Value::Bit(_) | Value::Real(_) | Value::Float(_) | Value::Time(_) | Value::Guid(_) => true,
    }
}

fn number(mantissa: i128, scale: u8, ty: &ColumnType) -> bool {
    let within = |low: i128, high: i128| match 10i128.checked_pow(u32::from(scale)) {
        Some(unit) => mantissa % unit == 0 && (low..=high).contains(&(mantissa / unit)),
        None => mantissa == 0,
    };
    // money counts ten-thousandths
    let money = |least: i128, most: i128| match 10i128.checked_pow(u32::from(scale)) {
        Some(unit) => mantissa.checked_mul(10_000).is_some_and(|v| v % unit == 0 && (least..=most).contains(&(v / unit))),
        None => mantissa == 0,
    };
    match ty {
        ColumnType::TinyInt => within(0, 255),
        ColumnType::SmallInt => within(i128::from(i16::MIN), i128::from(i16::MAX)),
        ColumnType::Int => within(i128::from(i32::MIN), i128::from(i32::MAX)),
        ColumnType::BigInt => within(i128::from(i64::MIN), i128::from(i64::MAX)),
        ColumnType::SmallMoney => money(i128::from(i32::MIN), i128::from(i32::MAX)),
        ColumnType::Money => money(i128::from(i64::MIN), i128::from(i64::MAX)),
        ColumnType::Decimal { precision, scale: to } => {
            let whole = u32::from(precision.saturating_sub(*to));
            let unit = 10u128.checked_pow(u32::from(scale)).unwrap_or(u128::MAX);
            10u128.checked_pow(whole).is_none_or(|limit| mantissa.unsigned_abs() / unit < limit)
        }
        _ => true,
    }
}

fn date(days: i32, ty: &ColumnType) -> bool {
    match ty {
        ColumnType::DateTime => days >= DAYS_TO_1753,
        // it counts days in two bytes
        ColumnType::SmallDateTime => (DAYS_TO_1900..=DAYS_TO_1900 + i32::from(u16::MAX)).contains(&days),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_type_cannot_hold_is_not_there() {
        let decimal = |mantissa, scale| Value::Decimal { mantissa, scale };
        for (value, ty, fits) in [
            (Value::Int(5_000_000_000), ColumnType::Int, false),
            (Value::Int(5_000_000_000), ColumnType::BigInt, true),
            (Value::Int(-1), ColumnType::TinyInt, false),
            (decimal(1_500, 3), ColumnType::Int, false),
            (decimal(2_000, 3), ColumnType::TinyInt, true),
            (decimal(99_999, 2), ColumnType::Decimal { precision: 5, scale: 2 }, true),
            (Value::Int(1_000), ColumnType::Decimal { precision: 5, scale: 2 }, false),
            (decimal(2_147_483_648, 4), ColumnType::SmallMoney, false),
            (Value::Text("abcd".into()), ColumnType::VarChar(Length::N(3)), false),
            (Value::Text("abc  ".into()), ColumnType::Char(3), true),
            (Value::Bytes(vec![1; 5]), ColumnType::Binary(4), false),
            (Value::Date(DAYS_TO_1753 - 1), ColumnType::DateTime, false),
            (Value::DateTime2 { days: DAYS_TO_1753, ticks: 0 }, ColumnType::DateTime, true),
            (Value::Date(DAYS_TO_1900 + 65_536), ColumnType::SmallDateTime, false),
            (Value::Null, ColumnType::Int, true),
        ] {
            assert_eq!(may_be(&value, &ty), fits, "{value:?} as {ty:?}");
        }
    }
}
