//! Can a value be in a column at all?
//!
//! The destination's types may be wider than the source's, and somebody may have written what the
//! source cannot hold: 5,000,000,000 where the source has an `int`. Asking the source for such a
//! key is an error there (Msg 8115, 242), or finds another row, whose text was cut to length or
//! whose number or time was rounded. Such a key is simply not there.

use crate::model::{
    table::{ColumnType, Length},
    value::Value,
};

/// Days from 0001-01-01 to 1753-01-01, where `datetime` begins, and to 1900-01-01, where
/// `smalldatetime` does. <https://learn.microsoft.com/sql/t-sql/data-types/datetime-transact-sql>
const DAYS_TO_1753: i32 = 639_905;
const DAYS_TO_1900: i32 = 693_595;

/// `false` only if no value of the type is equal to this one, or the server could not turn it into
/// one.
pub fn can_hold(value: &Value, ty: &ColumnType) -> bool {
    match value {
        Value::Int(v) => number(i128::from(*v), 0, ty),
        Value::Decimal { mantissa, scale } => number(*mantissa, *scale, ty),
        Value::Text(text) => match ty {
            // a character takes at least one byte, or one unit
            ColumnType::Char(n)
            | ColumnType::VarChar(Length::N(n))
            | ColumnType::NChar(n)
            | ColumnType::NVarChar(Length::N(n)) => {
                text.trim_end_matches(' ').encode_utf16().count() <= usize::from(*n)
            }
            _ => true,
        },
        Value::Bytes(bytes) => match ty {
            ColumnType::Binary(n) | ColumnType::VarBinary(Length::N(n)) => {
                bytes.len() <= usize::from(*n)
            }
            _ => true,
        },
        Value::Date(days) => date(*days, ty),
        Value::Time(ticks) => time(*ticks, ty),
        Value::DateTime2 { days, ticks } | Value::DateTimeOffset { days, ticks, .. } => {
            date(*days, ty) && time(*ticks, ty)
        }
        // smalldatetime counts minutes
        Value::DateTime { ticks300, .. }
            if *ty == ColumnType::SmallDateTime && ticks300 % (60 * 300) != 0 =>
        {
            false
        }
        Value::DateTime { days_since_1900, .. } => {
            date(days_since_1900.saturating_add(DAYS_TO_1900), ty)
        }
        Value::Float(v) => float(*v, ty),
        Value::Real(v) => float(f64::from(*v), ty),
        Value::Null | Value::Bit(_) | Value::Guid(_) => true,
    }
}

fn number(mantissa: i128, scale: u8, ty: &ColumnType) -> bool {
    let within = |low: i128, high: i128| match 10i128.checked_pow(u32::from(scale)) {
        Some(unit) => mantissa % unit == 0 && (low..=high).contains(&(mantissa / unit)),
        None => mantissa == 0,
    };
    // money counts ten-thousandths
    let money = |least: i128, most: i128| match 10i128.checked_pow(u32::from(scale)) {
        Some(unit) => mantissa
            .checked_mul(10_000)
            .is_some_and(|v| v % unit == 0 && (least..=most).contains(&(v / unit))),
        None => mantissa == 0,
    };
    match ty {
        ColumnType::Bit => within(0, 1),
        ColumnType::TinyInt => within(0, 255),
        ColumnType::SmallInt => within(i128::from(i16::MIN), i128::from(i16::MAX)),
        ColumnType::Int => within(i128::from(i32::MIN), i128::from(i32::MAX)),
        ColumnType::BigInt => within(i128::from(i64::MIN), i128::from(i64::MAX)),
        ColumnType::SmallMoney => money(i128::from(i32::MIN), i128::from(i32::MAX)),
        ColumnType::Money => money(i128::from(i64::MIN), i128::from(i64::MAX)),
        ColumnType::Decimal { precision, scale: to } => {
            let whole = u32::from(precision.saturating_sub(*to));
            let unit = 10u128.checked_pow(u32::from(scale)).unwrap_or(u128::MAX);
            let rest =
                10i128.checked_pow(u32::from(scale.saturating_sub(*to))).unwrap_or(i128::MAX);
            mantissa % rest == 0
                && 10u128
                    .checked_pow(whole)
                    .is_none_or(|limit| mantissa.unsigned_abs() / unit < limit)
        }
        _ => true,
    }
}

/// Ticks of 100 ns since midnight.
fn time(ticks: u64, ty: &ColumnType) -> bool {
    const PER_DAY: u64 = 864_000_000_000;
    match ty {
        ColumnType::Time(scale)
        | ColumnType::DateTime2(scale)
        | ColumnType::DateTimeOffset(scale) => {
            ticks.is_multiple_of(10u64.pow(u32::from(7u8.saturating_sub(*scale))))
        }
        ColumnType::Date => ticks == 0,
        ColumnType::SmallDateTime => ticks.is_multiple_of(60 * 10_000_000),
        // What a datetime becomes in datetime2 depends on the scale, and on the database's
        // compatibility level: .0033333 or .003.
        ColumnType::DateTime => {
            let of_300 = (ticks.min(PER_DAY) * 3 + 50_000) / 100_000;
            let exact = (of_300 * 200_000 + 3) / 6;
            ticks < PER_DAY
                && (3..=7).any(|scale| {
                    rounded(exact, scale) == ticks || rounded(rounded(exact, 3), scale) == ticks
                })
        }
        _ => true,
    }
}

/// Half a unit is rounded up, as SQL Server does.
fn rounded(ticks: u64, scale: u32) -> u64 {
    let unit = 10u64.pow(7 - scale);
    (ticks + unit / 2) / unit * unit
}

fn float(value: f64, ty: &ColumnType) -> bool {
    /// 2^53: whole numbers up to here are exact.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    match ty {
        ColumnType::Bit
        | ColumnType::TinyInt
        | ColumnType::SmallInt
        | ColumnType::Int
        | ColumnType::BigInt => {
            value.fract() == 0.0 && value.abs() <= WHOLE_MAX && number(value as i128, 0, ty)
        }
        #[allow(clippy::cast_possible_truncation, reason = "whether it is exact is what is asked")]
        ColumnType::Real => f64::from(value as f32) == value,
        _ => true,
    }
}

fn date(days: i32, ty: &ColumnType) -> bool {
    match ty {
        ColumnType::DateTime => days >= DAYS_TO_1753,
        // it counts days in two bytes
        ColumnType::SmallDateTime => {
            (DAYS_TO_1900..=DAYS_TO_1900 + i32::from(u16::MAX)).contains(&days)
        }
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
            // what would be rounded is another row's key
            (decimal(1_234, 3), ColumnType::Decimal { precision: 9, scale: 2 }, false),
            (decimal(1_230, 3), ColumnType::Decimal { precision: 9, scale: 2 }, true),
            (Value::Time(863_990_000_001), ColumnType::Time(6), false),
            (Value::Time(863_990_000_010), ColumnType::Time(6), true),
            (Value::DateTime2 { days: 1, ticks: 1 }, ColumnType::Date, false),
            (Value::DateTime2 { days: 1, ticks: 0 }, ColumnType::Date, true),
            (Value::DateTime2 { days: 738_000, ticks: 12_345 }, ColumnType::DateTime2(3), false),
            (
                Value::DateTimeOffset { days: 1, ticks: 5, offset_minutes: 0 },
                ColumnType::DateTimeOffset(6),
                false,
            ),
            (Value::DateTime2 { days: 738_000, ticks: 33_333 }, ColumnType::DateTime, true),
            (Value::DateTime2 { days: 738_000, ticks: 30_000 }, ColumnType::DateTime, true),
            (Value::DateTime2 { days: 738_000, ticks: 66_667 }, ColumnType::DateTime, true),
            (Value::DateTime2 { days: 738_000, ticks: 70_000 }, ColumnType::DateTime, true),
            (Value::DateTime2 { days: 738_000, ticks: 33_334 }, ColumnType::DateTime, false),
            (Value::DateTime2 { days: 738_000, ticks: 10_000 }, ColumnType::DateTime, false),
            (
                Value::DateTime { days_since_1900: 1, ticks300: 18_001 },
                ColumnType::SmallDateTime,
                false,
            ),
            (
                Value::DateTime { days_since_1900: 1, ticks300: 18_000 },
                ColumnType::SmallDateTime,
                true,
            ),
            (Value::Float(1.5), ColumnType::Int, false),
            (Value::Float(2.0), ColumnType::Int, true),
            (Value::Float(0.1), ColumnType::Real, false),
            (Value::Float(0.5), ColumnType::Real, true),
            (Value::Int(2), ColumnType::Bit, false),
            (Value::Int(1), ColumnType::Bit, true),
            (Value::Null, ColumnType::Int, true),
        ] {
            assert_eq!(can_hold(&value, &ty), fits, "{value:?} as {ty:?}");
        }
    }
}
