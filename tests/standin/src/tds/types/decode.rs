//! TYPE_INFO and values from the client's side: parameters and bulk rows.

use super::{
    MAX_MARK, NULL_MARK, PLP_NULL, PLP_UNKNOWN, Place,
    fixed::{collation, date_of, decimal_of, fixed_bytes, fixed_of, ticks_of},
    guid_order, time_bytes, token, variant,
};
use crate::{
    tds::reader::{MessageReader, WireError, WireResult, malformed, utf16},
    value::{Collation, Length, SqlType, Value},
};
use std::borrow::Cow;

/// A TYPE_INFO as read: the type it means, and how its values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeInfo {
    pub ty: SqlType,
    layout: Layout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// no length: always that many bytes
    Fixed,
    /// a length of one byte, at most that many
    Decimal(u8),
    /// no bytes at all: the type of an untyped NULL
    Nothing,
    /// a length of one byte, 0 for NULL
    Byte,
    /// a length of one byte and no NULL but by 0xFF; only in types of before 7.0
    OldByte,
    /// a length of two bytes, 0xFFFF for NULL
    Short,
    Plp,
    /// text, ntext, image
    Long,
    Variant,
}

pub fn read_type_info(from: &mut MessageReader<'_>, place: Place) -> WireResult<TypeInfo> {
    let info = |ty, layout| Ok(TypeInfo { ty, layout });
    let of = |byte: u8| from_token(byte);
    let kind = from.u8()?;
    if let Some(ty) = of(kind) {
        return info(ty, Layout::Fixed);
    }
    match kind {
        // Any type does for NULL; int is what the server itself says of an untyped one.
        token::NULL => info(SqlType::Int, Layout::Nothing),
        token::GUID => match from.u8()? {
            0 | 16 => info(SqlType::UniqueIdentifier, Layout::Byte),
            n => malformed(format!("a uniqueidentifier of {n} bytes")),
        },
        token::INT_N => match from.u8()? {
            1 => info(SqlType::TinyInt, Layout::Byte),
            2 => info(SqlType::SmallInt, Layout::Byte),
            4 => info(SqlType::Int, Layout::Byte),
            8 => info(SqlType::BigInt, Layout::Byte),
            n => malformed(format!("an integer of {n} bytes")),
        },
        token::BIT_N => match from.u8()? {
            1 => info(SqlType::Bit, Layout::Byte),
            n => malformed(format!("a bit of {n} bytes")),
        },
        token::FLOAT_N => match from.u8()? {
            4 => info(SqlType::Real, Layout::Byte),
            8 => info(SqlType::Float, Layout::Byte),
            n => malformed(format!("a float of {n} bytes")),
        },
        token::MONEY_N => match from.u8()? {
            4 => info(SqlType::SmallMoney, Layout::Byte),
            8 => info(SqlType::Money, Layout::Byte),
            n => malformed(format!("money of {n} bytes")),
        },
        token::DATETIME_N => match from.u8()? {
            4 => info(SqlType::SmallDateTime, Layout::Byte),
            8 => info(SqlType::DateTime, Layout::Byte),
            n => malformed(format!("a datetime of {n} bytes")),
        },
        token::DECIMAL_N | token::NUMERIC_N | token::OLD_DECIMAL | token::OLD_NUMERIC => {
            let [bytes, precision, scale] = from.exact()?;
            if !(1..=38).contains(&precision) || scale > precision {
                return malformed(format!("decimal({precision}, {scale})"));
            }
            info(SqlType::Decimal { precision, scale }, Layout::Decimal(bytes))
        }
        token::DATE_N => info(SqlType::Date, Layout::Byte),
        token::TIME_N => info(SqlType::Time(scale(from)?), Layout::Byte),
        token::DATETIME2_N => info(SqlType::DateTime2(scale(from)?), Layout::Byte),
        token::DATETIMEOFFSET_N => info(SqlType::DateTimeOffset(scale(from)?), Layout::Byte),
        token::BIG_CHAR => {
            let n = from.u16()?;
            info(SqlType::Char(n, collation(from.exact()?)?), Layout::Short)
        }
        token::BIG_VARCHAR => {
            let n = from.u16()?;
            let collation = collation(from.exact()?)?;
            let (length, layout) = length_of(n, 1);
            info(SqlType::VarChar(length, collation), layout)
        }
        token::NCHAR => {
            let n = from.u16()?;
            info(SqlType::NChar(n / 2, collation(from.exact()?)?), Layout::Short)
        }
        token::NVARCHAR => {
            let n = from.u16()?;
            let collation = collation(from.exact()?)?;
            let (length, layout) = length_of(n, 2);
            info(SqlType::NVarChar(length, collation), layout)
        }
        token::BIG_BINARY => info(SqlType::Binary(from.u16()?), Layout::Short),
        token::BIG_VARBINARY => {
            let (length, layout) = length_of(from.u16()?, 1);
            info(SqlType::VarBinary(length), layout)
        }
        token::OLD_CHAR => {
            info(SqlType::Char(u16::from(from.u8()?), Collation::DEFAULT), Layout::OldByte)
        }
        token::OLD_VARCHAR => info(
            SqlType::VarChar(Length::N(u16::from(from.u8()?)), Collation::DEFAULT),
            Layout::OldByte,
        ),
        token::OLD_BINARY => info(SqlType::Binary(u16::from(from.u8()?)), Layout::OldByte),
        token::OLD_VARBINARY => {
            info(SqlType::VarBinary(Length::N(u16::from(from.u8()?))), Layout::OldByte)
        }
        token::TEXT | token::NTEXT => {
            from.u32()?;
            let collation = collation(from.exact()?)?;
            table_name(from, place)?;
            info(
                if kind == token::TEXT {
                    SqlType::Text(collation)
                } else {
                    SqlType::NText(collation)
                },
                Layout::Long,
            )
        }
        token::IMAGE => {
            from.u32()?;
            table_name(from, place)?;
            info(SqlType::Image, Layout::Long)
        }
        token::XML => {
            if from.u8()? != 0 {
                // database, owning schema and collection of a typed xml
                from.b_varchar()?;
                from.b_varchar()?;
                from.us_varchar()?;
            }
            info(SqlType::Xml, Layout::Plp)
        }
        token::VARIANT => {
            from.u32()?;
            info(SqlType::SqlVariant, Layout::Variant)
        }
        token::UDT => info(udt(from, place)?, Layout::Plp),
        token::TVP => Err(WireError::Unsupported("a table-valued parameter".into())),
        _ => malformed(format!("a TYPE_INFO of type {kind:#04x}")),
    }
}

fn from_token(kind: u8) -> Option<SqlType> {
    Some(match kind {
        token::BIT => SqlType::Bit,
        token::INT1 => SqlType::TinyInt,
        token::INT2 => SqlType::SmallInt,
        token::INT4 => SqlType::Int,
        token::INT8 => SqlType::BigInt,
        token::FLOAT4 => SqlType::Real,
        token::FLOAT8 => SqlType::Float,
        token::MONEY => SqlType::Money,
        token::MONEY4 => SqlType::SmallMoney,
        token::DATETIME => SqlType::DateTime,
        token::DATETIME4 => SqlType::SmallDateTime,
        _ => return None,
    })
}

fn scale(from: &mut MessageReader<'_>) -> WireResult<u8> {
    match from.u8()? {
        scale @ 0..=7 => Ok(scale),
        scale => malformed(format!("a time of scale {scale}")),
    }
}

/// A parameter that is NULL or empty may come with a length of 0; the shortest type there is has 1.
fn length_of(bytes: u16, unit: u16) -> (Length, Layout) {
    if bytes == MAX_MARK {
        (Length::Max, Layout::Plp)
    } else {
        (Length::N((bytes / unit).max(1)), Layout::Short)
    }
}

fn table_name(from: &mut MessageReader<'_>, place: Place) -> WireResult<()> {
    match place {
        Place::Column => {
            for _ in 0..from.u8()? {
                from.us_varchar()?;
            }
        }
        Place::Bulk => drop(from.us_varchar()?),
        Place::Param => {}
    }
    Ok(())
}

fn udt(from: &mut MessageReader<'_>, place: Place) -> WireResult<SqlType> {
    if place != Place::Param {
        from.u16()?;
    }
    from.b_varchar()?;
    from.b_varchar()?;
    let name = from.b_varchar()?;
    if place != Place::Param {
        from.us_varchar()?;
    }
    match name.to_ascii_lowercase().as_str() {
        "hierarchyid" => Ok(SqlType::HierarchyId),
        "geometry" => Ok(SqlType::Geometry),
        "geography" => Ok(SqlType::Geography),
        _ => Err(WireError::Unsupported(format!("the CLR type {name}"))),
    }
}

pub fn read_value(
    from: &mut MessageReader<'_>,
    info: &TypeInfo,
    place: Place,
) -> WireResult<Value> {
    match info.layout {
        Layout::Nothing => Ok(Value::Null),
        Layout::Fixed => {
            let Some(length) = fixed_bytes(info.ty) else {
                return malformed("a fixed type of no length");
            };
            let mut bytes = [0u8; 8];
            for byte in &mut bytes[..length] {
                *byte = from.u8()?;
            }
            of_bytes(info.ty, &bytes[..length])
        }
        Layout::Byte => match from.u8()? {
            0 => Ok(Value::Null),
            length if length <= 17 => {
                let mut bytes = [0u8; 17];
                let length = usize::from(length);
                for byte in &mut bytes[..length] {
                    *byte = from.u8()?;
                }
                of_bytes(info.ty, &bytes[..length])
            }
            length => malformed(format!("{length} bytes for {:?}", info.ty)),
        },
        // a value that is longer than its type declares is error 4815 (colid) of a bulk load
        Layout::Decimal(most) => match from.u8()? {
            0 => Ok(Value::Null),
            length if length <= most => of_bytes(info.ty, &from.bytes(usize::from(length))?),
            length => {
                malformed(format!("{length} bytes for {:?}, which has {most} at most", info.ty))
            }
        },
        Layout::OldByte => match from.u8()? {
            0xFF => Ok(Value::Null),
            length => of_bytes(info.ty, &from.bytes(usize::from(length))?),
        },
        Layout::Short => match from.u16()? {
            NULL_MARK => Ok(Value::Null),
            length => of_bytes(info.ty, &from.bytes(usize::from(length))?),
        },
        Layout::Plp => match plp(from, place)? {
            None => Ok(Value::Null),
            Some(bytes) => of_bytes(info.ty, &bytes),
        },
        Layout::Long => {
            if place != Place::Param {
                let pointer = from.u8()?;
                if pointer == 0 {
                    return Ok(Value::Null);
                }
                from.bytes(usize::from(pointer) + 8)?;
            }
            match from.u32()? {
                u32::MAX => Ok(Value::Null),
                length => of_bytes(info.ty, &from.bytes(length as usize)?),
            }
        }
        Layout::Variant => variant::read(from),
    }
}

fn plp(from: &mut MessageReader<'_>, place: Place) -> WireResult<Option<Vec<u8>>> {
    let announced = from.u64()?;
    if announced == PLP_NULL {
        return Ok(None);
    }
    // a bulk load takes a known total for the value's bytes themselves, the first chunk's length
    // being some of them, and is out of step from there on (4804, or worse): found by FreeTDS
    // (`tds_generic_put`) and pytds (#92, #197), in no document
    if place == Place::Bulk && announced != PLP_UNKNOWN {
        return malformed(format!(
            "a bulk load announces {announced} bytes for a (max) value, whose total must be unknown there"
        ));
    }
    let mut bytes = Vec::new();
    loop {
        match from.u32()? {
            0 => break,
            length => from.append(&mut bytes, length as usize)?,
        }
    }
    if announced != PLP_UNKNOWN && announced != bytes.len() as u64 {
        return malformed(format!(
            "{} bytes in chunks where {announced} were announced",
            bytes.len()
        ));
    }
    Ok(Some(bytes))
}

/// A value of a type of fixed length may come shorter than that (as bulk loads of several drivers
/// have it): it is padded.
fn padded(ty: SqlType, bytes: &[u8]) -> Cow<'_, [u8]> {
    let (wanted, filler): (usize, &[u8]) = match ty {
        SqlType::Char(n, _) => (n.into(), b" "),
        SqlType::NChar(n, _) => (usize::from(n) * 2, b" \0"),
        SqlType::Binary(n) => (n.into(), b"\0"),
        _ => return Cow::Borrowed(bytes),
    };
    if bytes.len() >= wanted {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(
        bytes.iter().chain(filler.iter().cycle().take(wanted - bytes.len())).copied().collect(),
    )
}

/// The value these bytes are, of a type whose NULL has been ruled out.
fn of_bytes(ty: SqlType, bytes: &[u8]) -> WireResult<Value> {
    let bytes = &*padded(ty, bytes);
    let value = match ty {
        SqlType::Char(_, collation) | SqlType::VarChar(_, collation) | SqlType::Text(collation) => {
            Some(Value::Str(collation.decode(bytes).into()))
        }
        SqlType::NChar(..) | SqlType::NVarChar(..) | SqlType::NText(_) => {
            Some(Value::Str(utf16(bytes).into()))
        }
        // A byte order mark belongs to the encoding, not to the value.
        SqlType::Xml => {
            Some(Value::Str(utf16(bytes.strip_prefix(&[0xFF, 0xFE]).unwrap_or(bytes)).into()))
        }
        SqlType::Binary(_)
        | SqlType::VarBinary(_)
        | SqlType::Image
        | SqlType::RowVersion
        | SqlType::HierarchyId
        | SqlType::Geometry
        | SqlType::Geography => Some(Value::Bytes(bytes.into())),
        SqlType::UniqueIdentifier => {
            bytes.try_into().ok().map(|bytes| Value::Guid(guid_order(bytes)))
        }
        SqlType::Decimal { scale, .. } => decimal_of(bytes, scale),
        SqlType::Date => date_of(bytes).map(Value::Date),
        SqlType::Time(scale) => {
            (bytes.len() == time_bytes(scale)).then(|| Value::Time(ticks_of(bytes, scale)))
        }
        SqlType::DateTime2(scale) => {
            bytes.split_at_checked(time_bytes(scale)).and_then(|(time, date)| {
                Some(Value::DateTime2 { days: date_of(date)?, ticks: ticks_of(time, scale) })
            })
        }
        SqlType::DateTimeOffset(scale) => {
            bytes.split_at_checked(time_bytes(scale)).and_then(|(time, rest)| {
                let (date, offset) = rest.split_at_checked(3)?;
                let offset_minutes = i16::from_le_bytes(offset.try_into().ok()?);
                Some(Value::DateTimeOffset {
                    days: date_of(date)?,
                    ticks: ticks_of(time, scale),
                    offset_minutes,
                })
            })
        }
        _ => fixed_of(ty, bytes),
    };
    value.ok_or_else(|| WireError::Malformed(format!("{} bytes for {ty:?}", bytes.len())))
}
