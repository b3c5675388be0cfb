//! The bytes of single values, whose length their type fixes or tells: what columns, parameters and
//! variants have in common.

use super::{decimal_bytes, ticks_per_unit, time_bytes};
use crate::{
    tds::reader::{WireError, WireResult},
    value::{Collation, Decimal, SqlType, Value},
};

/// A value that its column's type cannot hold: the engine's mistake, told rather than sent as
/// something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit(pub String);

pub type EncodeResult = Result<(), Misfit>;

/// Bytes of a type that has a fixed number of them.
pub(super) fn fixed_bytes(ty: SqlType) -> Option<usize> {
    Some(match ty {
        SqlType::Bit | SqlType::TinyInt => 1,
        SqlType::SmallInt => 2,
        SqlType::Int | SqlType::Real | SqlType::SmallMoney | SqlType::SmallDateTime => 4,
        SqlType::BigInt | SqlType::Float | SqlType::Money | SqlType::DateTime => 8,
        _ => return None,
    })
}

/// The bytes of a type that has a fixed number of them, without a length.
pub(super) fn write_fixed(out: &mut Vec<u8>, ty: SqlType, value: &Value) -> EncodeResult {
    let range = |v: i64, low: i64, high: i64| {
        if (low..=high).contains(&v) { Ok(v) } else { Err(Misfit(format!("{v} for {ty:?}"))) }
    };
    match (ty, value) {
        (SqlType::Bit, Value::Bit(bit)) => out.push(u8::from(*bit)),
        (SqlType::TinyInt, Value::Int(v)) => out.push(range(*v, 0, 255)? as u8),
        (SqlType::SmallInt, Value::Int(v)) => {
            out.extend_from_slice(
                &(range(*v, i16::MIN.into(), i16::MAX.into())? as i16).to_le_bytes(),
            );
        }
        (SqlType::Int, Value::Int(v)) => out.extend_from_slice(
            &(range(*v, i32::MIN.into(), i32::MAX.into())? as i32).to_le_bytes(),
        ),
        (SqlType::BigInt, Value::Int(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (SqlType::Real, Value::Float(v)) => out.extend_from_slice(&(*v as f32).to_le_bytes()),
        (SqlType::Float, Value::Float(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (SqlType::Money, _) => {
            let v = i64::try_from(rescaled(ty, value, 4)?.mantissa)
                .map_err(|_| Misfit(format!("{value:?} for money")))?;
            // The high half comes first (2.2.5.5.1.2).
            out.extend_from_slice(&((v >> 32) as i32).to_le_bytes());
            out.extend_from_slice(&(v as u32).to_le_bytes());
        }
        (SqlType::SmallMoney, _) => {
            let v = i32::try_from(rescaled(ty, value, 4)?.mantissa)
                .map_err(|_| Misfit(format!("{value:?} for smallmoney")))?;
            out.extend_from_slice(&v.to_le_bytes());
        }
        (SqlType::DateTime, Value::DateTime { days, ticks300 }) => {
            out.extend_from_slice(&days.to_le_bytes());
            out.extend_from_slice(&ticks300.to_le_bytes());
        }
        (SqlType::SmallDateTime, Value::SmallDateTime { days, minutes }) => {
            out.extend_from_slice(&days.to_le_bytes());
            out.extend_from_slice(&minutes.to_le_bytes());
        }
        _ => return misfit(ty, value),
    }
    Ok(())
}

pub(super) fn rescaled(ty: SqlType, value: &Value, scale: u8) -> Result<Decimal, Misfit> {
    let number = match value {
        Value::Decimal(number) => *number,
        Value::Int(v) => Decimal { mantissa: i128::from(*v), scale: 0 },
        _ => return Err(Misfit(format!("{value:?} for {ty:?}"))),
    };
    let mantissa = if number.scale <= scale {
        number.mantissa.checked_mul(10i128.pow(u32::from(scale - number.scale)))
    } else {
        let unit = 10i128.pow(u32::from(number.scale - scale));
        (number.mantissa % unit == 0).then_some(number.mantissa / unit)
    };
    let mantissa = mantissa.ok_or_else(|| Misfit(format!("{value:?} for {ty:?}")))?;
    Ok(Decimal { mantissa, scale })
}

/// Sign and magnitude (2.2.5.5.1.6), without a length.
pub(super) fn write_decimal(out: &mut Vec<u8>, number: Decimal, precision: u8) -> EncodeResult {
    let bytes = decimal_bytes(precision);
    let magnitude = number.mantissa.unsigned_abs().to_le_bytes();
    if magnitude[bytes..].iter().any(|&b| b != 0) {
        return Err(Misfit(format!("{number:?} for a decimal of {precision} digits")));
    }
    out.push(u8::from(number.mantissa >= 0));
    out.extend_from_slice(&magnitude[..bytes]);
    Ok(())
}

/// date, time, datetime2, datetimeoffset without a length (2.2.5.5.1.8).
pub(super) fn write_date(out: &mut Vec<u8>, ty: SqlType, value: &Value) -> EncodeResult {
    let time = |out: &mut Vec<u8>, ticks: u64, scale: u8| {
        out.extend_from_slice(&(ticks / ticks_per_unit(scale)).to_le_bytes()[..time_bytes(scale)]);
    };
    let date = |out: &mut Vec<u8>, days: i32| out.extend_from_slice(&days.to_le_bytes()[..3]);
    match (ty, value) {
        (SqlType::Date, Value::Date(days)) => date(out, *days),
        (SqlType::Time(scale), Value::Time(ticks)) => time(out, *ticks, scale),
        (SqlType::DateTime2(scale), Value::DateTime2 { days, ticks }) => {
            time(out, *ticks, scale);
            date(out, *days);
        }
        (SqlType::DateTimeOffset(scale), Value::DateTimeOffset { days, ticks, offset_minutes }) => {
            time(out, *ticks, scale);
            date(out, *days);
            out.extend_from_slice(&offset_minutes.to_le_bytes());
        }
        _ => return misfit(ty, value),
    }
    Ok(())
}

pub(super) fn misfit(ty: SqlType, value: &Value) -> EncodeResult {
    Err(Misfit(format!("{value:?} for {ty:?}")))
}

/// A type of a fixed number of bytes; `None` when the number is wrong.
pub(super) fn fixed_of(ty: SqlType, bytes: &[u8]) -> Option<Value> {
    Some(match ty {
        SqlType::Bit => Value::Bit(<[u8; 1]>::try_from(bytes).ok()?[0] != 0),
        SqlType::TinyInt => Value::Int(<[u8; 1]>::try_from(bytes).ok()?[0].into()),
        SqlType::SmallInt => Value::Int(i16::from_le_bytes(bytes.try_into().ok()?).into()),
        SqlType::Int => Value::Int(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        SqlType::BigInt => Value::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
        SqlType::Real => Value::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        SqlType::Float => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        SqlType::Money => {
            let [a, b, c, d, e, f, g, h] = <[u8; 8]>::try_from(bytes).ok()?;
            let mantissa = i64::from(i32::from_le_bytes([a, b, c, d])) << 32
                | i64::from(u32::from_le_bytes([e, f, g, h]));
            Value::Decimal(Decimal { mantissa: mantissa.into(), scale: 4 })
        }
        SqlType::SmallMoney => Value::Decimal(Decimal {
            mantissa: i32::from_le_bytes(bytes.try_into().ok()?).into(),
            scale: 4,
        }),
        SqlType::DateTime => {
            let [a, b, c, d, e, f, g, h] = <[u8; 8]>::try_from(bytes).ok()?;
            Value::DateTime {
                days: i32::from_le_bytes([a, b, c, d]),
                ticks300: u32::from_le_bytes([e, f, g, h]),
            }
        }
        SqlType::SmallDateTime => {
            let [a, b, c, d] = <[u8; 4]>::try_from(bytes).ok()?;
            Value::SmallDateTime {
                days: u16::from_le_bytes([a, b]),
                minutes: u16::from_le_bytes([c, d]),
            }
        }
        _ => return None,
    })
}

/// Sign and magnitude. The magnitude has 4, 8, 12 or 16 bytes (2.2.5.5.1.6), and as few as the
/// precision needs in FreeTDS's bulk loads.
pub(super) fn decimal_of(bytes: &[u8], scale: u8) -> Option<Value> {
    let (&sign, magnitude) = bytes.split_first()?;
    if magnitude.is_empty() || magnitude.len() > 16 {
        return None;
    }
    let mut all = [0u8; 16];
    all[..magnitude.len()].copy_from_slice(magnitude);
    let mantissa = i128::try_from(u128::from_le_bytes(all)).ok()?;
    (mantissa < 10i128.pow(38)).then_some(Value::Decimal(Decimal {
        mantissa: if sign == 0 { -mantissa } else { mantissa },
        scale,
    }))
}

/// Days since 0001-01-01, up to 9999-12-31.
pub(super) fn date_of(bytes: &[u8]) -> Option<i32> {
    let &[a, b, c] = bytes else { return None };
    let days = i32::from_le_bytes([a, b, c, 0]);
    (days <= 3_652_058).then_some(days)
}

pub(super) fn ticks_of(bytes: &[u8], scale: u8) -> u64 {
    let mut all = [0u8; 8];
    all[..bytes.len().min(8)].copy_from_slice(&bytes[..bytes.len().min(8)]);
    u64::from_le_bytes(all).saturating_mul(ticks_per_unit(scale))
}

pub fn utf16(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() * 2);
    if text.is_ascii() {
        for byte in text.bytes() {
            out.extend_from_slice(&[byte, 0]);
        }
    } else {
        for unit in text.encode_utf16() {
            out.extend_from_slice(&unit.to_le_bytes());
        }
    }
}

/// The collation of the wire, if this server has it.
pub(super) fn collation(wire: [u8; 5]) -> WireResult<Collation> {
    if wire == [0; 5] {
        // A client that leaves the choice to the server.
        return Ok(Collation::DEFAULT);
    }
    Collation::from_wire(wire)
        .ok_or_else(|| WireError::Unsupported(format!("text in the collation {wire:02x?}")))
}
