//! Cells as bytes and back, as CAST to and from binary does it.
//!
//! Integers, money, datetime and floats are big-endian; decimals, date, time, datetime2 and
//! datetimeoffset show their storage format with precision or scale in front; a GUID shows its wire
//! order.

use super::{
    Collation, Decimal, SqlType, Value,
    datetime::{DAYS_TO_1900, Moment},
    integers::fit_integer,
};
use crate::error::{SqlError, SqlResult};

/// The 16 bytes on the wire of a GUID in text order, and the other way round (the swap is its own
/// inverse).
pub fn swap_guid(g: &[u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, h, i, rest @ ..] = *g;
    let [j, k, l, m, n, o, p, q] = rest;
    [d, c, b, a, f, e, i, h, j, k, l, m, n, o, p, q]
}

/// The natural bytes of a non-NULL cell. Styles 1 and 2 read text as hex (error 8114 when it is
/// not).
pub fn to_bytes(value: &Value, from: SqlType, style: Option<i32>) -> SqlResult<Vec<u8>> {
    let low = |i: i64, n: usize| i.to_be_bytes()[8 - n..].to_vec();
    Ok(match value {
        Value::Null => Vec::new(),
        Value::Bytes(b) => b.to_vec(),
        Value::Bit(b) => vec![u8::from(*b)],
        Value::Int(i) => match from {
            SqlType::TinyInt => low(*i, 1),
            SqlType::SmallInt => low(*i, 2),
            SqlType::Int => low(*i, 4),
            _ => low(*i, 8),
        },
        Value::Decimal(d) => match from {
            SqlType::Money | SqlType::SmallMoney => {
                let mantissa =
                    d.rescale(4).and_then(|d| i64::try_from(d.mantissa).ok()).unwrap_or(0);
                low(mantissa, if from == SqlType::Money { 8 } else { 4 })
            }
            _ => {
                let precision = from.precision().max(1);
                let words = match precision {
                    0..=9 => 1,
                    10..=19 => 2,
                    20..=28 => 3,
                    _ => 4,
                };
                let mut out = vec![precision, d.scale, 0, u8::from(d.mantissa >= 0)];
                out.extend_from_slice(&d.mantissa.unsigned_abs().to_le_bytes()[..words * 4]);
                out
            }
        },
        Value::Float(f) if from == SqlType::Real => (*f as f32).to_be_bytes().to_vec(),
        Value::Float(f) => f.to_be_bytes().to_vec(),
        Value::Guid(g) => swap_guid(g).to_vec(),
        Value::DateTime { days, ticks300 } => [days.to_be_bytes(), ticks300.to_be_bytes()].concat(),
        Value::SmallDateTime { days, minutes } => {
            [days.to_be_bytes(), minutes.to_be_bytes()].concat()
        }
        Value::Date(days) => days.to_le_bytes()[..3].to_vec(),
        Value::Time(ticks) => time_bytes(*ticks, from.scale()),
        Value::DateTime2 { days, ticks } => {
            [time_bytes(*ticks, from.scale()), days.to_le_bytes()[..3].to_vec()].concat()
        }
        Value::DateTimeOffset { days, ticks, offset_minutes } => [
            time_bytes(*ticks, from.scale()),
            days.to_le_bytes()[..3].to_vec(),
            offset_minutes.to_le_bytes().to_vec(),
        ]
        .concat(),
        Value::Str(s) => match style.unwrap_or(0) {
            1 | 2 => parse_hex(s, style == Some(1)).ok_or_else(|| {
                SqlError::new(8114, 16, "Error converting data type varchar to varbinary.")
            })?,
            _ if from == SqlType::Xml => [0xFF, 0xFE]
                .into_iter()
                .chain(s.encode_utf16().flat_map(u16::to_le_bytes))
                .collect(),
            _ if from.is_unicode() => s.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            _ => from.collation().unwrap_or(Collation::DEFAULT).encode(s),
        },
        Value::Variant(v) => to_bytes(&v.1, v.0, style)?,
    })
}

fn time_bytes(ticks: u64, scale: u8) -> Vec<u8> {
    let units = ticks / 10u64.pow(7u32.saturating_sub(scale.into()));
    let length = match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    };
    let mut out = vec![scale];
    out.extend_from_slice(&units.to_le_bytes()[..length]);
    out
}

fn parse_hex(text: &str, prefixed: bool) -> Option<Vec<u8>> {
    let text = text.trim_end_matches(' ');
    let digits =
        if prefixed { text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))? } else { text };
    if digits.len() % 2 != 0 {
        return None;
    }
    let nibbles: Vec<u8> = digits
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<_>>()?;
    Some(nibbles.chunks_exact(2).map(|p| p[0] << 4 | p[1]).collect())
}

/// Bytes as a cell of a numeric, date or GUID type.
pub fn from_bytes(bytes: &[u8], to: SqlType) -> SqlResult<Value> {
    // the last n bytes, sign-extended from the left with zeros: binary to integer keeps the low end
    let tail = |n: usize| {
        let mut out = [0u8; 8];
        let taken = &bytes[bytes.len().saturating_sub(n)..];
        out[8 - taken.len()..].copy_from_slice(taken);
        u64::from_be_bytes(out)
    };
    let number = |at: usize, n: usize| {
        let mut out = [0u8; 8];
        for (o, b) in out.iter_mut().zip(bytes.iter().skip(at).take(n)) {
            *o = *b;
        }
        u64::from_le_bytes(out)
    };
    let bad = || {
        SqlError::new(
            8114,
            16,
            format!(
                "Error converting data type varbinary to {}.",
                if to.name() == "decimal" { "numeric" } else { to.name() }
            ),
        )
    };
    let time_length = |scale: u8| match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    };
    let ticks =
        |scale: u8| number(1, time_length(scale)) * 10u64.pow(7u32.saturating_sub(scale.into()));
    match to {
        SqlType::Bit => Ok(Value::Bit(bytes.last().is_some_and(|b| *b != 0))),
        SqlType::TinyInt => fit_integer(i128::from(tail(1)), to, "expression"),
        SqlType::SmallInt => Ok(Value::Int(i64::from(tail(2) as u16 as i16))),
        SqlType::Int => Ok(Value::Int(i64::from(tail(4) as u32 as i32))),
        SqlType::BigInt => Ok(Value::Int(tail(8) as i64)),
        SqlType::Money => Ok(Value::Decimal(Decimal::new(i128::from(tail(8) as i64), 4))),
        SqlType::SmallMoney => {
            Ok(Value::Decimal(Decimal::new(i128::from(tail(4) as u32 as i32), 4)))
        }
        SqlType::Decimal { precision, scale } => {
            let [_, stored_scale, _, sign, digits @ ..] = bytes else { return Err(bad()) };
            if digits.len() > 16 || *stored_scale > 38 {
                return Err(bad());
            }
            let mut wide = [0u8; 16];
            wide[..digits.len()].copy_from_slice(digits);
            let magnitude = i128::try_from(u128::from_le_bytes(wide)).map_err(|_| bad())?;
            let mantissa = if *sign == 0 { -magnitude } else { magnitude };
            Decimal::new(mantissa, *stored_scale)
                .fit(precision, scale)
                .map(Value::Decimal)
                .ok_or_else(bad)
        }
        SqlType::DateTime => {
            let word = tail(8);
            let (days, ticks300) = ((word >> 32) as u32 as i32, word as u32);
            let shown = Value::DateTime { days, ticks300 };
            if ticks300 >= 300 * 86_400 || !(-53_690..=2_958_463).contains(&days) {
                return Err(super::decimal::overflow("expression", "datetime"));
            }
            Ok(shown)
        }
        SqlType::SmallDateTime => {
            let word = tail(4) as u32;
            Ok(Value::SmallDateTime { days: (word >> 16) as u16, minutes: (word & 0xFFFF) as u16 })
        }
        SqlType::Date if bytes.len() == 3 => Ok(Value::Date(number(0, 3) as i32)),
        SqlType::Time(_) | SqlType::DateTime2(_) | SqlType::DateTimeOffset(_) => {
            let scale = *bytes.first().filter(|s| **s <= 7).ok_or_else(|| date_failed(to))?;
            let date_at = 1 + time_length(scale);
            let expected = match to {
                SqlType::Time(_) => date_at,
                SqlType::DateTime2(_) => date_at + 3,
                _ => date_at + 5,
            };
            if bytes.len() != expected {
                return Err(date_failed(to));
            }
            let days = if matches!(to, SqlType::Time(_)) {
                DAYS_TO_1900
            } else {
                number(date_at, 3) as i32
            };
            let moment = Moment::new(days, ticks(scale));
            if let SqlType::DateTimeOffset(_) = to {
                let offset_minutes = number(date_at + 3, 2) as u16 as i16;
                return Ok(Value::DateTimeOffset {
                    days: moment.days,
                    ticks: moment.ticks,
                    offset_minutes,
                });
            }
            moment.into_value(to, "varbinary")
        }
        SqlType::UniqueIdentifier => {
            let mut wide = [0u8; 16];
            if bytes.len() < 16 {
                return Err(SqlError::new(
                    8169,
                    16,
                    "Conversion failed when converting from a character string to uniqueidentifier.",
                ));
            }
            wide.copy_from_slice(&bytes[..16]);
            Ok(Value::Guid(swap_guid(&wide)))
        }
        _ => Err(date_failed(to)),
    }
}

fn date_failed(to: SqlType) -> SqlError {
    SqlError::new(241, 16, format!("Conversion failed when converting {} from binary.", to.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_forms_come_back() {
        let d = |precision, scale| SqlType::Decimal { precision, scale };
        let cases = [
            (Value::Decimal(Decimal::new(-15, 1)), d(2, 1), vec![2, 1, 0, 0, 15, 0, 0, 0]),
            (
                Value::DateTime { days: -1, ticks300: 3 },
                SqlType::DateTime,
                vec![255, 255, 255, 255, 0, 0, 0, 3],
            ),
            (Value::Date(738_885), SqlType::Date, vec![0x45, 0x46, 0x0B]),
            (Value::Time(12_340_000), SqlType::Time(3), vec![3, 0xD2, 4, 0, 0]),
            (
                Value::DateTime2 { days: 1, ticks: 7 },
                SqlType::DateTime2(7),
                vec![7, 7, 0, 0, 0, 0, 1, 0, 0],
            ),
            (
                Value::DateTimeOffset { days: 1, ticks: 7, offset_minutes: -60 },
                SqlType::DateTimeOffset(7),
                vec![7, 7, 0, 0, 0, 0, 1, 0, 0, 0xC4, 0xFF],
            ),
            (Value::Decimal(Decimal::new(-1, 4)), SqlType::SmallMoney, vec![255; 4]),
        ];
        for (value, ty, expected) in cases {
            let bytes = to_bytes(&value, ty, None).unwrap_or_default();
            assert_eq!(bytes, expected, "{ty:?}");
            assert_eq!(from_bytes(&bytes, ty), Ok(value), "{ty:?}");
        }
    }
}
