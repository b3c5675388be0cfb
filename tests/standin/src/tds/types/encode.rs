//! TYPE_INFO and values from the server's side.

use super::{
    MAX_MARK, NULL_MARK, PLP_NULL, PLP_UNKNOWN, Place, decimal_bytes,
    fixed::{
        EncodeResult, Misfit, fixed_bytes, misfit, rescaled, utf16, write_date, write_decimal,
        write_fixed,
    },
    guid_order, token, variant,
};
use crate::value::{Length, SqlType, Value};

/// Length of the chunks a (max) value is sent in: a client must put them together again.
const CHUNK_BYTES: usize = 8040;

/// User type of a rowversion (2.2.5.4 UserType, as in `systypes`); 0 for what needs none.
pub fn user_type(ty: SqlType) -> u32 {
    if ty == SqlType::RowVersion { 80 } else { 0 }
}

/// The type's fixed-length token, when it has one: used for columns that take no NULL.
fn fixed_token(ty: SqlType) -> Option<u8> {
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

pub fn write_type_info(out: &mut Vec<u8>, ty: SqlType, nullable: bool, place: Place) {
    if !nullable && let Some(fixed) = fixed_token(ty) {
        out.push(fixed);
        return;
    }
    let sized =
        |out: &mut Vec<u8>, token: u8, size: usize| out.extend_from_slice(&[token, size as u8]);
    let long = |out: &mut Vec<u8>, token: u8, size: u16| {
        out.push(token);
        out.extend_from_slice(&size.to_le_bytes());
    };
    match ty {
        SqlType::Bit => sized(out, token::BIT_N, 1),
        SqlType::TinyInt => sized(out, token::INT_N, 1),
        SqlType::SmallInt => sized(out, token::INT_N, 2),
        SqlType::Int => sized(out, token::INT_N, 4),
        SqlType::BigInt => sized(out, token::INT_N, 8),
        SqlType::Real => sized(out, token::FLOAT_N, 4),
        SqlType::Float => sized(out, token::FLOAT_N, 8),
        SqlType::Money => sized(out, token::MONEY_N, 8),
        SqlType::SmallMoney => sized(out, token::MONEY_N, 4),
        SqlType::DateTime => sized(out, token::DATETIME_N, 8),
        SqlType::SmallDateTime => sized(out, token::DATETIME_N, 4),
        SqlType::UniqueIdentifier => sized(out, token::GUID, 16),
        SqlType::Decimal { precision, scale } => {
            out.extend_from_slice(&[
                token::NUMERIC_N,
                decimal_bytes(precision) as u8 + 1,
                precision,
                scale,
            ]);
        }
        SqlType::Date => out.push(token::DATE_N),
        SqlType::Time(scale) => out.extend_from_slice(&[token::TIME_N, scale]),
        SqlType::DateTime2(scale) => out.extend_from_slice(&[token::DATETIME2_N, scale]),
        SqlType::DateTimeOffset(scale) => out.extend_from_slice(&[token::DATETIMEOFFSET_N, scale]),
        SqlType::Char(n, collation) => {
            long(out, token::BIG_CHAR, n);
            out.extend_from_slice(&collation.wire());
        }
        SqlType::VarChar(length, collation) => {
            long(out, token::BIG_VARCHAR, bytes_of(length, 1));
            out.extend_from_slice(&collation.wire());
        }
        SqlType::NChar(n, collation) => {
            long(out, token::NCHAR, n.saturating_mul(2));
            out.extend_from_slice(&collation.wire());
        }
        SqlType::NVarChar(length, collation) => {
            long(out, token::NVARCHAR, bytes_of(length, 2));
            out.extend_from_slice(&collation.wire());
        }
        SqlType::Binary(n) => long(out, token::BIG_BINARY, n),
        SqlType::RowVersion => long(out, token::BIG_BINARY, 8),
        SqlType::VarBinary(length) => long(out, token::BIG_VARBINARY, bytes_of(length, 1)),
        SqlType::Text(collation) | SqlType::NText(collation) => {
            let (token, size) = if matches!(ty, SqlType::Text(_)) {
                (token::TEXT, 0x7FFF_FFFFu32)
            } else {
                (token::NTEXT, 0x7FFF_FFFE)
            };
            out.push(token);
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(&collation.wire());
            table_name(out, place);
        }
        SqlType::Image => {
            out.push(token::IMAGE);
            out.extend_from_slice(&0x7FFF_FFFFu32.to_le_bytes());
            table_name(out, place);
        }
        SqlType::Xml => out.extend_from_slice(&[token::XML, 0]),
        SqlType::SqlVariant => {
            out.push(token::VARIANT);
            out.extend_from_slice(&8009u32.to_le_bytes());
        }
        SqlType::HierarchyId => udt(out, "hierarchyid", "SqlHierarchyId", 892, place),
        SqlType::Geometry => udt(out, "geometry", "SqlGeometry", MAX_MARK, place),
        SqlType::Geography => udt(out, "geography", "SqlGeography", MAX_MARK, place),
    }
}

fn bytes_of(length: Length, unit: u16) -> u16 {
    match length {
        Length::N(n) => n.saturating_mul(unit),
        Length::Max => MAX_MARK,
    }
}

/// A text column's table: one part, empty, because a result set does not know which table a column
/// is of.
fn table_name(out: &mut Vec<u8>, place: Place) {
    match place {
        Place::Column => out.extend_from_slice(&[1, 0, 0]),
        Place::Bulk => us_varchar(out, ""),
        Place::Param => {}
    }
}

fn udt(out: &mut Vec<u8>, name: &str, class: &str, bytes_max: u16, place: Place) {
    out.push(token::UDT);
    if place != Place::Param {
        out.extend_from_slice(&bytes_max.to_le_bytes());
    }
    for part in ["master", "sys", name] {
        b_varchar(out, part);
    }
    if place != Place::Param {
        us_varchar(
            out,
            &format!(
                "Microsoft.SqlServer.Types.{class}, Microsoft.SqlServer.Types, Version=11.0.0.0, Culture=neutral, \
                 PublicKeyToken=89845dcd8080cc91"
            ),
        );
    }
}

/// One cell of that type.
pub fn write_value(
    out: &mut Vec<u8>,
    ty: SqlType,
    nullable: bool,
    value: &Value,
    place: Place,
) -> EncodeResult {
    if *value == Value::Null {
        return write_null(out, ty, nullable);
    }
    if let Some(bytes) = fixed_bytes(ty) {
        if nullable {
            out.push(bytes as u8);
        }
        return write_fixed(out, ty, value);
    }
    match ty {
        SqlType::UniqueIdentifier => {
            let Value::Guid(guid) = value else { return misfit(ty, value) };
            out.push(16);
            out.extend_from_slice(&guid_order(*guid));
        }
        SqlType::Decimal { precision, scale } => {
            let number = rescaled(ty, value, scale)?;
            out.push(decimal_bytes(precision) as u8 + 1);
            write_decimal(out, number, precision)?;
        }
        SqlType::Date | SqlType::Time(_) | SqlType::DateTime2(_) | SqlType::DateTimeOffset(_) => {
            let at = out.len();
            out.push(0);
            write_date(out, ty, value)?;
            out[at] = (out.len() - at - 1) as u8;
        }
        SqlType::Char(_, collation) | SqlType::VarChar(Length::N(_), collation) => {
            let Value::Str(text) = value else { return misfit(ty, value) };
            short(out, &collation.encode(text))?;
        }
        SqlType::NChar(..) | SqlType::NVarChar(Length::N(_), _) => {
            let Value::Str(text) = value else { return misfit(ty, value) };
            let at = out.len();
            out.extend_from_slice(&[0, 0]);
            utf16(out, text);
            let length = u16::try_from(out.len() - at - 2).ok().filter(|&n| n != NULL_MARK);
            let length = length.ok_or_else(|| {
                Misfit(format!("a text of {} bytes for {ty:?}", out.len() - at - 2))
            })?;
            out[at..at + 2].copy_from_slice(&length.to_le_bytes());
        }
        SqlType::Binary(_) | SqlType::VarBinary(Length::N(_)) | SqlType::RowVersion => {
            let Value::Bytes(bytes) = value else { return misfit(ty, value) };
            short(out, bytes)?;
        }
        SqlType::VarChar(Length::Max, collation) => {
            let Value::Str(text) = value else { return misfit(ty, value) };
            plp(out, &collation.encode(text), place != Place::Bulk);
        }
        SqlType::NVarChar(Length::Max, _) | SqlType::Xml => {
            let Value::Str(text) = value else { return misfit(ty, value) };
            let mut units = Vec::with_capacity(text.len() * 2);
            utf16(&mut units, text);
            // A server does not know how long an xml value will be as text before it has written
            // it.
            plp(out, &units, ty != SqlType::Xml && place != Place::Bulk);
        }
        SqlType::VarBinary(Length::Max)
        | SqlType::HierarchyId
        | SqlType::Geometry
        | SqlType::Geography => {
            let Value::Bytes(bytes) = value else { return misfit(ty, value) };
            plp(out, bytes, place != Place::Bulk);
        }
        SqlType::Text(collation) => {
            let Value::Str(text) = value else { return misfit(ty, value) };
            long(out, &collation.encode(text), place);
        }
        SqlType::NText(_) => {
            let Value::Str(text) = value else { return misfit(ty, value) };
            let mut units = Vec::with_capacity(text.len() * 2);
            utf16(&mut units, text);
            long(out, &units, place);
        }
        SqlType::Image => {
            let Value::Bytes(bytes) = value else { return misfit(ty, value) };
            long(out, bytes, place);
        }
        SqlType::SqlVariant => variant::write(out, value)?,
        SqlType::Bit
        | SqlType::TinyInt
        | SqlType::SmallInt
        | SqlType::Int
        | SqlType::BigInt
        | SqlType::Real
        | SqlType::Float
        | SqlType::Money
        | SqlType::SmallMoney
        | SqlType::DateTime
        | SqlType::SmallDateTime => return misfit(ty, value),
    }
    Ok(())
}

fn write_null(out: &mut Vec<u8>, ty: SqlType, nullable: bool) -> EncodeResult {
    match ty {
        _ if fixed_bytes(ty).is_some() => {
            if !nullable {
                return Err(Misfit(format!("NULL for a column of {ty:?} that is NOT NULL")));
            }
            out.push(0);
        }
        SqlType::Char(..)
        | SqlType::VarChar(Length::N(_), _)
        | SqlType::NChar(..)
        | SqlType::NVarChar(Length::N(_), _)
        | SqlType::Binary(_)
        | SqlType::RowVersion
        | SqlType::VarBinary(Length::N(_)) => out.extend_from_slice(&NULL_MARK.to_le_bytes()),
        SqlType::VarChar(Length::Max, _)
        | SqlType::NVarChar(Length::Max, _)
        | SqlType::VarBinary(Length::Max)
        | SqlType::Xml
        | SqlType::HierarchyId
        | SqlType::Geometry
        | SqlType::Geography => out.extend_from_slice(&PLP_NULL.to_le_bytes()),
        SqlType::SqlVariant => out.extend_from_slice(&[0; 4]),
        // A text pointer of no bytes; a date, decimal or GUID of no bytes.
        _ => out.push(0),
    }
    Ok(())
}

fn short(out: &mut Vec<u8>, bytes: &[u8]) -> EncodeResult {
    let length = u16::try_from(bytes.len()).ok().filter(|&n| n != NULL_MARK);
    let length =
        length.ok_or_else(|| Misfit(format!("{} bytes where 65534 is the most", bytes.len())))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

fn plp(out: &mut Vec<u8>, bytes: &[u8], known: bool) {
    out.extend_from_slice(&(if known { bytes.len() as u64 } else { PLP_UNKNOWN }).to_le_bytes());
    for chunk in bytes.chunks(CHUNK_BYTES) {
        out.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
        out.extend_from_slice(chunk);
    }
    out.extend_from_slice(&0u32.to_le_bytes());
}

/// text, ntext, image: with a text pointer and a timestamp in a row, which mean nothing to anybody
/// any more.
fn long(out: &mut Vec<u8>, bytes: &[u8], place: Place) {
    if place != Place::Param {
        out.push(16);
        out.extend_from_slice(b"dummy textptr\0\0\0");
        out.extend_from_slice(b"dummyTS\0");
    }
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// B_VARCHAR; cut at 255 units.
pub fn b_varchar(out: &mut Vec<u8>, text: &str) {
    let units: Vec<u16> = text.encode_utf16().take(255).collect();
    out.push(units.len() as u8);
    units.iter().for_each(|unit| out.extend_from_slice(&unit.to_le_bytes()));
}

/// US_VARCHAR; cut at 32,000 units: with two names of up to 255 it must fit a token's length of 16
/// bits.
pub fn us_varchar(out: &mut Vec<u8>, text: &str) {
    let units: Vec<u16> = text.encode_utf16().take(32_000).collect();
    out.extend_from_slice(&(units.len() as u16).to_le_bytes());
    units.iter().for_each(|unit| out.extend_from_slice(&unit.to_le_bytes()));
}
