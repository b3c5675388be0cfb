//! The driver's cells and our values, one into the other. Nothing is rounded.

use std::borrow::Cow;

use tiberius::{ColumnData, numeric::Numeric};

use crate::{
    error::{Error, Kind, Result},
    model::value::{Value, ValueRef},
};

pub(super) fn datetime2(days: i32, ticks: u64) -> tiberius::time::DateTime2 {
    tiberius::time::DateTime2::new(
        tiberius::time::Date::new(u32::try_from(days).unwrap_or(0)),
        tiberius::time::Time::new(ticks, 7),
    )
}

/// A value as a cell.
pub(super) fn cell(value: &Value) -> ColumnData<'_> {
    match value {
        Value::Null => ColumnData::String(None),
        Value::Bit(v) => ColumnData::Bit(Some(*v)),
        Value::Int(v) => ColumnData::I64(Some(*v)),
        Value::Decimal { mantissa, scale } if *scale <= Numeric::MAX_NUMERIC_SCALE => {
            ColumnData::Numeric(Some(Numeric::new_with_scale(*mantissa, *scale)))
        }
        // SQL Server has no such value. As text, it answers with an error that says so.
        Value::Decimal { mantissa, scale } => {
            ColumnData::String(Some(Cow::Owned(format!("{mantissa}e-{scale}"))))
        }
        Value::Real(v) => ColumnData::F32(Some(*v)),
        Value::Float(v) => ColumnData::F64(Some(*v)),
        Value::Date(days) => {
            ColumnData::Date(Some(tiberius::time::Date::new(u32::try_from(*days).unwrap_or(0))))
        }
        Value::Time(ticks) => ColumnData::Time(Some(tiberius::time::Time::new(*ticks, 7))),
        Value::DateTime { days_since_1900, ticks300 } => {
            ColumnData::DateTime(Some(tiberius::time::DateTime::new(*days_since_1900, *ticks300)))
        }
        Value::DateTime2 { days, ticks } => ColumnData::DateTime2(Some(datetime2(*days, *ticks))),
        Value::DateTimeOffset { days, ticks, offset_minutes } => ColumnData::DateTimeOffset(Some(
            tiberius::time::DateTimeOffset::new(datetime2(*days, *ticks), *offset_minutes),
        )),
        Value::Text(v) => ColumnData::String(Some(Cow::Borrowed(v))),
        Value::Bytes(v) => ColumnData::Binary(Some(Cow::Borrowed(v))),
        Value::Guid(v) => ColumnData::Guid(Some(tiberius::Uuid::from_bytes(*v))),
    }
}

/// A decimal as SQL text: `-12.340`.
pub(super) fn decimal_text(mantissa: i128, scale: u8) -> String {
    let digits = format!("{:0>width$}", mantissa.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if mantissa < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

pub(super) fn into_owned(cell: ColumnData<'_>) -> ColumnData<'static> {
    match cell {
        ColumnData::U8(v) => ColumnData::U8(v),
        ColumnData::I16(v) => ColumnData::I16(v),
        ColumnData::I32(v) => ColumnData::I32(v),
        ColumnData::I64(v) => ColumnData::I64(v),
        ColumnData::F32(v) => ColumnData::F32(v),
        ColumnData::F64(v) => ColumnData::F64(v),
        ColumnData::Bit(v) => ColumnData::Bit(v),
        ColumnData::String(v) => ColumnData::String(v.map(|v| Cow::Owned(v.into_owned()))),
        ColumnData::Guid(v) => ColumnData::Guid(v),
        ColumnData::Binary(v) => ColumnData::Binary(v.map(|v| Cow::Owned(v.into_owned()))),
        ColumnData::Numeric(v) => ColumnData::Numeric(v),
        ColumnData::Xml(v) => ColumnData::Xml(v.map(|v| Cow::Owned(v.into_owned()))),
        ColumnData::DateTime(v) => ColumnData::DateTime(v),
        ColumnData::SmallDateTime(v) => ColumnData::SmallDateTime(v),
        ColumnData::Time(v) => ColumnData::Time(v),
        ColumnData::Date(v) => ColumnData::Date(v),
        ColumnData::DateTime2(v) => ColumnData::DateTime2(v),
        ColumnData::DateTimeOffset(v) => ColumnData::DateTimeOffset(v),
    }
}

/// Roughly the bytes that a cell takes in memory.
pub(super) fn size_bytes(cell: &ColumnData<'_>) -> usize {
    let heap = match cell {
        ColumnData::String(Some(v)) => v.len(),
        ColumnData::Binary(Some(v)) => v.len(),
        ColumnData::Xml(Some(v)) => AsRef::<str>::as_ref(v.as_ref()).len(),
        _ => 0,
    };
    size_of::<ColumnData<'_>>() + heap
}

/// A driver cell as a value of its own.
pub(super) fn value(cell: &ColumnData<'_>) -> Result<Value> {
    Ok(value_ref(cell)?.to_value())
}

/// A driver cell as a value that borrows its text and bytes.
pub(super) fn value_ref<'a>(cell: &'a ColumnData<'_>) -> Result<ValueRef<'a>> {
    Ok(match cell {
        ColumnData::U8(Some(v)) => Value::Int(i64::from(*v)),
        ColumnData::I16(Some(v)) => Value::Int(i64::from(*v)),
        ColumnData::I32(Some(v)) => Value::Int(i64::from(*v)),
        ColumnData::I64(Some(v)) => Value::Int(*v),
        ColumnData::F32(Some(v)) => Value::Real(*v),
        ColumnData::F64(Some(v)) => Value::Float(*v),
        ColumnData::Bit(Some(v)) => Value::Bit(*v),
        ColumnData::String(Some(v)) => Value::Text(v.as_ref()),
        ColumnData::Guid(Some(v)) => Value::Guid(v.into_bytes()),
        ColumnData::Binary(Some(v)) => Value::Bytes(v.as_ref()),
        ColumnData::Numeric(Some(v)) => Value::Decimal { mantissa: v.value(), scale: v.scale() },
        ColumnData::Xml(Some(v)) => Value::Text(AsRef::<str>::as_ref(v.as_ref())),
        ColumnData::DateTime(Some(v)) => {
            Value::DateTime { days_since_1900: v.days(), ticks300: v.seconds_fragments() }
        }
        ColumnData::SmallDateTime(Some(v)) => {
            // smalldatetime counts minutes
            Value::DateTime {
                days_since_1900: i32::from(v.days()),
                ticks300: u32::from(v.seconds_fragments()) * 60 * 300,
            }
        }
        ColumnData::Time(Some(v)) => Value::Time(ticks(v)?),
        ColumnData::Date(Some(v)) => Value::Date(days(*v)?),
        ColumnData::DateTime2(Some(v)) => {
            Value::DateTime2 { days: days(v.date())?, ticks: ticks(&v.time())? }
        }
        ColumnData::DateTimeOffset(Some(v)) => {
            let utc = v.datetime2();
            Value::DateTimeOffset {
                days: days(utc.date())?,
                ticks: ticks(&utc.time())?,
                offset_minutes: v.offset(),
            }
        }
        ColumnData::U8(None)
        | ColumnData::I16(None)
        | ColumnData::I32(None)
        | ColumnData::I64(None)
        | ColumnData::F32(None)
        | ColumnData::F64(None)
        | ColumnData::Bit(None)
        | ColumnData::String(None)
        | ColumnData::Guid(None)
        | ColumnData::Binary(None)
        | ColumnData::Numeric(None)
        | ColumnData::Xml(None)
        | ColumnData::DateTime(None)
        | ColumnData::SmallDateTime(None)
        | ColumnData::Time(None)
        | ColumnData::Date(None)
        | ColumnData::DateTime2(None)
        | ColumnData::DateTimeOffset(None) => Value::Null,
    })
}

fn days(date: tiberius::time::Date) -> Result<i32> {
    i32::try_from(date.days()).map_err(|_| Error::new(Kind::Data, "a date is out of range"))
}

fn ticks(time: &tiberius::time::Time) -> Result<u64> {
    let places = 7u8.checked_sub(time.scale()).ok_or_else(|| {
        Error::new(
            Kind::Data,
            format!("a time has scale {}, which SQL Server does not have", time.scale()),
        )
    })?;
    Ok(time.increments() * 10u64.pow(u32::from(places)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(v: Value) {
        assert_eq!(value(&cell(&v)).unwrap(), v);
    }

    #[test]
    fn values_survive_the_drivers_cells() {
        round_trip(Value::Null);
        round_trip(Value::Bit(true));
        round_trip(Value::Int(i64::MIN));
        round_trip(Value::Decimal { mantissa: -(10i128.pow(38) - 1), scale: 38 });
        round_trip(Value::Real(-0.0));
        round_trip(Value::Float(f64::MIN_POSITIVE));
        round_trip(Value::Date(3_652_058));
        round_trip(Value::Time(863_999_999_999));
        round_trip(Value::DateTime { days_since_1900: -53_690, ticks300: 25_919_999 });
        round_trip(Value::DateTime2 { days: 0, ticks: 1 });
        round_trip(Value::DateTimeOffset { days: 1, ticks: 2, offset_minutes: -840 });
        round_trip(Value::Text("näive 𝄞 ".into()));
        round_trip(Value::Bytes(vec![0, 255]));
        round_trip(Value::Guid([1; 16]));
    }

    #[test]
    fn decimals_as_text() {
        for (mantissa, scale, text) in [
            (0, 0, "0"),
            (-1, 4, "-0.0001"),
            (123_450, 3, "123.450"),
            (7, 0, "7"),
            (5, 38, "0.00000000000000000000000000000000000005"),
        ] {
            assert_eq!(decimal_text(mantissa, scale), text);
        }
    }

    #[test]
    fn times_of_any_scale_become_ticks() {
        let cell = ColumnData::Time(Some(tiberius::time::Time::new(5, 3)));
        assert_eq!(value(&cell).unwrap(), Value::Time(50_000));
        assert!(value(&ColumnData::Time(Some(tiberius::time::Time::new(5, 9)))).is_err());
    }
}
