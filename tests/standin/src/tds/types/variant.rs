//! sql_variant (2.2.5.5.4): a value that carries its base type and that type's properties with it.

use super::{
    decimal_bytes,
    fixed::{
        EncodeResult, Misfit, collation as wire_collation, date_of, decimal_of, fixed_bytes,
        fixed_of, misfit, rescaled, ticks_of, utf16, write_date, write_decimal, write_fixed,
    },
    guid_order, time_bytes, token,
};
use crate::{
    tds::reader::{MessageReader, WireError, WireResult, malformed, utf16 as utf16_text},
    value::{Collation, Length, SqlType, Value},
};

pub(super) fn write(out: &mut Vec<u8>, value: &Value) -> EncodeResult {
    let Value::Variant(variant) = value else { return misfit(SqlType::SqlVariant, value) };
    let (ty, value) = (variant.0, &variant.1);
    if *value == Value::Null {
        out.extend_from_slice(&[0; 4]);
        return Ok(());
    }
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    match ty {
        SqlType::Decimal { precision, scale } => {
            out.extend_from_slice(&[token::NUMERIC_N, 2, precision, scale]);
            write_decimal(out, rescaled(ty, value, scale)?, precision)?;
        }
        SqlType::Date => {
            out.extend_from_slice(&[token::DATE_N, 0]);
            write_date(out, ty, value)?;
        }
        SqlType::Time(scale) | SqlType::DateTime2(scale) | SqlType::DateTimeOffset(scale) => {
            let token = match ty {
                SqlType::Time(_) => token::TIME_N,
                SqlType::DateTime2(_) => token::DATETIME2_N,
                _ => token::DATETIMEOFFSET_N,
            };
            out.extend_from_slice(&[token, 1, scale]);
            write_date(out, ty, value)?;
        }
        SqlType::UniqueIdentifier => {
            let Value::Guid(guid) = value else { return misfit(ty, value) };
            out.extend_from_slice(&[token::GUID, 0]);
            out.extend_from_slice(&guid_order(*guid));
        }
        SqlType::Binary(_) | SqlType::VarBinary(Length::N(_)) | SqlType::RowVersion => {
            let Value::Bytes(bytes) = value else { return misfit(ty, value) };
            let (token, n) = match ty {
                SqlType::Binary(n) => (token::BIG_BINARY, n),
                SqlType::VarBinary(Length::N(n)) => (token::BIG_VARBINARY, n),
                _ => (token::BIG_BINARY, 8),
            };
            out.extend_from_slice(&[token, 2]);
            out.extend_from_slice(&n.to_le_bytes());
            out.extend_from_slice(bytes);
        }
        SqlType::Char(n, collation) | SqlType::VarChar(Length::N(n), collation) => {
            let Value::Str(text) = value else { return misfit(ty, value) };
            text_properties(
                out,
                if matches!(ty, SqlType::Char(..)) { token::BIG_CHAR } else { token::BIG_VARCHAR },
                n,
                collation,
            );
            out.extend_from_slice(&collation.encode(text));
        }
        SqlType::NChar(n, collation) | SqlType::NVarChar(Length::N(n), collation) => {
            let Value::Str(text) = value else { return misfit(ty, value) };
            let token =
                if matches!(ty, SqlType::NChar(..)) { token::NCHAR } else { token::NVARCHAR };
            text_properties(out, token, n.saturating_mul(2), collation);
            utf16(out, text);
        }
        _ => {
            let (Some(token), Some(_)) = (base_token(ty), fixed_bytes(ty)) else {
                return Err(Misfit(format!("{ty:?} in a sql_variant")));
            };
            out.extend_from_slice(&[token, 0]);
            write_fixed(out, ty, value)?;
        }
    }
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn text_properties(out: &mut Vec<u8>, token: u8, bytes_max: u16, collation: Collation) {
    out.extend_from_slice(&[token, 7]);
    out.extend_from_slice(&collation.wire());
    out.extend_from_slice(&bytes_max.to_le_bytes());
}

fn base_token(ty: SqlType) -> Option<u8> {
    Some(match ty {
        SqlType::Bit => token::BIT,
        SqlType::TinyInt => token::INT1,
        SqlType::SmallInt => token::INT2,
        SqlType::Int => token::INT4,
        SqlType::BigInt => token::INT8,
        SqlType::Real => token::FLOAT4,
        SqlType::Float => token::FLOAT8,
        SqlType::Money => token::MONEY,
        SqlType::SmallMoney => token::MONEY4,
        SqlType::DateTime => token::DATETIME,
        SqlType::SmallDateTime => token::DATETIME4,
        _ => return None,
    })
}

pub(super) fn read(from: &mut MessageReader<'_>) -> WireResult<Value> {
    let length = from.u32()? as usize;
    if length == 0 {
        return Ok(Value::Null);
    }
    let bytes = from.bytes(length)?;
    let Some((&[base, properties], rest)) = bytes.split_first_chunk::<2>() else {
        return malformed("a sql_variant of one byte");
    };
    let Some((properties, data)) = rest.split_at_checked(usize::from(properties)) else {
        return malformed("a sql_variant shorter than its properties");
    };
    let (ty, value) = of_base(base, properties, data)?;
    Ok(Value::Variant(Box::new((ty, value))))
}

fn of_base(base: u8, properties: &[u8], data: &[u8]) -> WireResult<(SqlType, Value)> {
    let wrong = || {
        WireError::Malformed(format!(
            "a sql_variant of base type {base:#04x} with {} property bytes",
            properties.len()
        ))
    };
    let fixed = |ty: SqlType| fixed_of(ty, data).map(|value| (ty, value)).ok_or_else(wrong);
    match base {
        token::BIT | token::BIT_N => fixed(SqlType::Bit),
        token::INT1 => fixed(SqlType::TinyInt),
        token::INT2 => fixed(SqlType::SmallInt),
        token::INT4 => fixed(SqlType::Int),
        token::INT8 => fixed(SqlType::BigInt),
        token::FLOAT4 => fixed(SqlType::Real),
        token::FLOAT8 => fixed(SqlType::Float),
        token::MONEY => fixed(SqlType::Money),
        token::MONEY4 => fixed(SqlType::SmallMoney),
        token::DATETIME => fixed(SqlType::DateTime),
        token::DATETIME4 => fixed(SqlType::SmallDateTime),
        token::GUID => Ok((
            SqlType::UniqueIdentifier,
            Value::Guid(guid_order(data.try_into().map_err(|_| wrong())?)),
        )),
        token::DECIMAL_N | token::NUMERIC_N => {
            let &[precision, scale] = properties else { return Err(wrong()) };
            if data.len() != decimal_bytes(precision) + 1 {
                return Err(wrong());
            }
            Ok((SqlType::Decimal { precision, scale }, decimal_of(data, scale).ok_or_else(wrong)?))
        }
        token::DATE_N => Ok((SqlType::Date, Value::Date(date_of(data).ok_or_else(wrong)?))),
        token::TIME_N | token::DATETIME2_N | token::DATETIMEOFFSET_N => {
            let &[scale @ 0..=7] = properties else { return Err(wrong()) };
            let (time, rest) = data.split_at_checked(time_bytes(scale)).ok_or_else(wrong)?;
            let ticks = ticks_of(time, scale);
            Ok(match base {
                token::TIME_N => (SqlType::Time(scale), Value::Time(ticks)),
                token::DATETIME2_N => (
                    SqlType::DateTime2(scale),
                    Value::DateTime2 { days: date_of(rest).ok_or_else(wrong)?, ticks },
                ),
                _ => {
                    let (days, offset) = rest.split_at_checked(3).ok_or_else(wrong)?;
                    let offset_minutes =
                        i16::from_le_bytes(offset.try_into().map_err(|_| wrong())?);
                    let days = date_of(days).ok_or_else(wrong)?;
                    (
                        SqlType::DateTimeOffset(scale),
                        Value::DateTimeOffset { days, ticks, offset_minutes },
                    )
                }
            })
        }
        token::BIG_BINARY | token::BIG_VARBINARY => {
            let n = u16::from_le_bytes(properties.try_into().map_err(|_| wrong())?);
            let ty = if base == token::BIG_BINARY {
                SqlType::Binary(n)
            } else {
                SqlType::VarBinary(Length::N(n))
            };
            Ok((ty, Value::Bytes(data.into())))
        }
        token::BIG_CHAR | token::BIG_VARCHAR | token::NCHAR | token::NVARCHAR => {
            let properties: [u8; 7] = properties.try_into().map_err(|_| wrong())?;
            let [a, b, c, d, e, low, high] = properties;
            let collation = wire_collation([a, b, c, d, e])?;
            let n = u16::from_le_bytes([low, high]);
            let (ty, text) = match base {
                token::BIG_CHAR => (SqlType::Char(n, collation), collation.decode(data)),
                token::BIG_VARCHAR => {
                    (SqlType::VarChar(Length::N(n), collation), collation.decode(data))
                }
                token::NCHAR => (SqlType::NChar(n / 2, collation), utf16_text(data)),
                _ => (SqlType::NVarChar(Length::N(n / 2), collation), utf16_text(data)),
            };
            Ok((ty, Value::Str(text.into())))
        }
        _ => Err(WireError::Unsupported(format!("a sql_variant of base type {base:#04x}"))),
    }
}
