//! Converts cells to the column types that a destination describes for a bulk load.
//!
//! The driver encodes a cell by the type of the *cell*, not of the column: a time of scale 6 is sent
//! unchanged into a column of scale 7, and 23:59:59 becomes 02:24:00. The source's cells need not
//! have the staging column's type (a server may describe `time(7)` with another scale), so every
//! cell is compared with the type that the destination describes, and converted where the value
//! stays exactly the same (the scale of a time or decimal, the width of an integer). A value that
//! would have to be rounded or truncated is an error.

use std::fmt::Write;

use tiberius::{
    ColumnData, FixedLenType, MetaDataColumn, TypeInfo, VarLenType,
    numeric::Numeric,
    time::{DateTime, DateTime2, DateTimeOffset, Time},
};

/// The length that `(max)` types are described with.
const LENGTH_MAX: usize = 0xFFFF;

/// `None`: the cell is no value of the type at all. Otherwise the converted cell (`None`: it needs no
/// conversion), or the reason why the value has none; the type's name completes the sentence.
type Conversion = Option<Result<Option<ColumnData<'static>>, &'static str>>;

const UNCHANGED: Conversion = Some(Ok(None));

/// `cell` converted to the described type; `None` when it needs no conversion. `Err` is the reason
/// why it cannot be converted.
pub(super) fn converted(
    cell: &ColumnData<'_>,
    ty: &TypeInfo,
) -> Result<Option<ColumnData<'static>>, String> {
    let conversion = match ty {
        TypeInfo::VarLenSizedPrecision {
            ty: VarLenType::Decimaln | VarLenType::Numericn,
            precision,
            scale,
            ..
        } => match cell {
            ColumnData::Numeric(None) => UNCHANGED,
            ColumnData::Numeric(Some(value)) => Some(decimal(*value, *precision, *scale)),
            _ => None,
        },
        // a type without NULL
        TypeInfo::FixedLen(_) if is_null(cell) => Some(Err("NULL does not go into")),
        TypeInfo::FixedLen(fixed) => {
            nullable(fixed).and_then(|(family, length)| of_nullable(cell, family, length))
        }
        TypeInfo::VarLenSized(context) => of_nullable(cell, context.r#type(), context.len()),
        _ => None,
    };
    match conversion {
        Some(converted) => converted.map_err(|why| format!("{why} {}", type_name(ty))),
        None => Err(format!("{} does not go into {}", cell_type_name(cell), type_name(ty))),
    }
}

/// The nullable type with the same values, and its length in bytes.
fn nullable(fixed: &FixedLenType) -> Option<(VarLenType, usize)> {
    Some(match fixed {
        FixedLenType::Int1 => (VarLenType::Intn, 1),
        FixedLenType::Int2 => (VarLenType::Intn, 2),
        FixedLenType::Int4 => (VarLenType::Intn, 4),
        FixedLenType::Int8 => (VarLenType::Intn, 8),
        FixedLenType::Bit => (VarLenType::Bitn, 1),
        FixedLenType::Float4 => (VarLenType::Floatn, 4),
        FixedLenType::Float8 => (VarLenType::Floatn, 8),
        FixedLenType::Datetime => (VarLenType::Datetimen, 8),
        _ => return None,
    })
}

/// `length` is the type's length in bytes, or its scale where it has one.
fn of_nullable(cell: &ColumnData<'_>, family: VarLenType, length: usize) -> Conversion {
    use ColumnData as Cell;
    match (cell, family) {
        (Cell::U8(_) | Cell::I16(_) | Cell::I32(_) | Cell::I64(_), VarLenType::Intn) => {
            Some(integer(cell, length).ok_or("an integer is too large for"))
        }
        (Cell::F32(value), VarLenType::Floatn) if length == 8 => {
            Some(Ok(Some(Cell::F64(value.map(f64::from)))))
        }
        (Cell::F32(_), VarLenType::Floatn) if length == 4 => UNCHANGED,
        (Cell::F64(_), VarLenType::Floatn) if length == 8 => UNCHANGED,
        (Cell::Bit(_), VarLenType::Bitn)
        | (Cell::Date(_), VarLenType::Daten)
        | (Cell::Guid(_), VarLenType::Guid) => UNCHANGED,
        (Cell::String(text), VarLenType::NVarchar) => {
            let too_long = |text: &str| {
                length < LENGTH_MAX
                    && 2 * text.len() > length
                    && 2 * text.encode_utf16().count() > length
            };
            let refused = text.as_deref().is_some_and(too_long);
            if refused { Some(Err("a text is too long for")) } else { UNCHANGED }
        }
        (Cell::Binary(bytes), VarLenType::BigVarBin) => {
            let too_long = |bytes: &[u8]| length < LENGTH_MAX && bytes.len() > length;
            let refused = bytes.as_deref().is_some_and(too_long);
            if refused { Some(Err("a binary is too long for")) } else { UNCHANGED }
        }
        (Cell::Binary(bytes), VarLenType::BigBinary) => {
            // a shorter one would be padded
            let refused = bytes.as_deref().is_some_and(|bytes| bytes.len() != length);
            if refused {
                Some(Err("a binary of another length does not go into"))
            } else {
                UNCHANGED
            }
        }
        _ => of_time(cell, family, length),
    }
}

/// [`of_nullable`] for dates and times.
fn of_time(cell: &ColumnData<'_>, family: VarLenType, length: usize) -> Conversion {
    use ColumnData as Cell;
    Some(match (cell, family) {
        (Cell::Time(None), VarLenType::Timen)
        | (Cell::DateTime2(None), VarLenType::Datetime2)
        | (Cell::DateTimeOffset(None), VarLenType::DatetimeOffsetn) => Ok(None),
        (Cell::Time(Some(value)), VarLenType::Timen) => {
            time(*value, length).map(|time| time.map(|time| Cell::Time(Some(time))))
        }
        (Cell::DateTime2(Some(value)), VarLenType::Datetime2) => time(value.time(), length)
            .map(|time| time.map(|time| Cell::DateTime2(Some(DateTime2::new(value.date(), time))))),
        (Cell::DateTimeOffset(Some(value)), VarLenType::DatetimeOffsetn) => {
            let utc = value.datetime2();
            let with_time = |time| {
                let utc = DateTime2::new(utc.date(), time);
                Cell::DateTimeOffset(Some(DateTimeOffset::new(utc, value.offset())))
            };
            time(utc.time(), length).map(|time| time.map(with_time))
        }
        (Cell::DateTime(_), VarLenType::Datetimen) if length == 8 => Ok(None),
        (Cell::SmallDateTime(value), VarLenType::Datetimen) if length == 8 => {
            // smalldatetime counts minutes, datetime 1/300 s
            let from_minutes = |v: tiberius::time::SmallDateTime| {
                DateTime::new(i32::from(v.days()), u32::from(v.seconds_fragments()) * 60 * 300)
            };
            Ok(Some(Cell::DateTime(value.map(from_minutes))))
        }
        _ => return None,
    })
}

/// A time at another scale; `None` when it has that scale already.
fn time(value: Time, scale: usize) -> Result<Option<Time>, &'static str> {
    const SCALE_MAX: u8 = 7;
    let wanted = u8::try_from(scale).unwrap_or(u8::MAX);
    if value.scale() == wanted {
        return Ok(None);
    }
    if value.scale() > SCALE_MAX || wanted > SCALE_MAX {
        return Err("a time has a scale that SQL Server does not have, for");
    }
    let unit = |places: u8| 10u64.pow(u32::from(places));
    let increments = match wanted.checked_sub(value.scale()) {
        Some(more) => value.increments().checked_mul(unit(more)),
        None => {
            let unit = unit(value.scale() - wanted);
            value.increments().is_multiple_of(unit).then_some(value.increments() / unit)
        }
    };
    increments
        .map(|increments| Some(Time::new(increments, wanted)))
        .ok_or("a time has more digits than")
}

/// A decimal at another scale; `None` when it has that scale already.
fn decimal(
    value: Numeric,
    precision: u8,
    scale: u8,
) -> Result<Option<ColumnData<'static>>, &'static str> {
    const TOO_MANY: &str = "a decimal has more digits than";
    let unit = |places: u8| 10i128.checked_pow(u32::from(places)).ok_or(TOO_MANY);
    let mantissa = match scale.checked_sub(value.scale()) {
        Some(0) => value.value(),
        Some(more) => value.value().checked_mul(unit(more)?).ok_or(TOO_MANY)?,
        None => {
            let unit = unit(value.scale() - scale)?;
            if value.value() % unit != 0 {
                return Err(TOO_MANY);
            }
            value.value() / unit
        }
    };
    if mantissa.unsigned_abs() >= unit(precision)?.unsigned_abs()
        || scale > Numeric::MAX_NUMERIC_SCALE
    {
        return Err(TOO_MANY);
    }
    Ok((scale != value.scale())
        .then(|| ColumnData::Numeric(Some(Numeric::new_with_scale(mantissa, scale)))))
}

/// An integer of another width. The outer `None`: that width does not hold the value; the inner one:
/// it has that width already.
fn integer(cell: &ColumnData<'_>, bytes: usize) -> Option<Option<ColumnData<'static>>> {
    let (value, width) = match cell {
        ColumnData::U8(v) => (v.map(i64::from), 1),
        ColumnData::I16(v) => (v.map(i64::from), 2),
        ColumnData::I32(v) => (v.map(i64::from), 4),
        ColumnData::I64(v) => (*v, 8),
        _ => return None,
    };
    if width == bytes {
        return Some(None);
    }
    Some(Some(match (bytes, value) {
        (1, value) => ColumnData::U8(value.map(u8::try_from).transpose().ok()?),
        (2, value) => ColumnData::I16(value.map(i16::try_from).transpose().ok()?),
        (4, value) => ColumnData::I32(value.map(i32::try_from).transpose().ok()?),
        (8, value) => ColumnData::I64(value),
        _ => return None,
    }))
}

fn is_null(cell: &ColumnData<'_>) -> bool {
    matches!(
        cell,
        ColumnData::U8(None)
            | ColumnData::I16(None)
            | ColumnData::I32(None)
            | ColumnData::I64(None)
            | ColumnData::F32(None)
            | ColumnData::F64(None)
            | ColumnData::Bit(None)
            | ColumnData::DateTime(None)
            | ColumnData::SmallDateTime(None)
    )
}

/// The type of a cell, for messages: never its value.
fn cell_type_name(cell: &ColumnData<'_>) -> &'static str {
    match cell {
        ColumnData::U8(_) | ColumnData::I16(_) | ColumnData::I32(_) | ColumnData::I64(_) => {
            "an integer"
        }
        ColumnData::F32(_) | ColumnData::F64(_) => "a float",
        ColumnData::Bit(_) => "a bit",
        ColumnData::String(_) => "a Unicode text",
        ColumnData::Guid(_) => "a uniqueidentifier",
        ColumnData::Binary(_) => "a binary",
        ColumnData::Numeric(_) => "a decimal",
        ColumnData::Xml(_) => "an xml",
        ColumnData::DateTime(_) | ColumnData::SmallDateTime(_) => "a datetime",
        ColumnData::Time(_) => "a time",
        ColumnData::Date(_) => "a date",
        ColumnData::DateTime2(_) => "a datetime2",
        ColumnData::DateTimeOffset(_) => "a datetimeoffset",
    }
}

/// The type as SQL names it, with the scale or length that the driver leaves out.
fn type_name(ty: &TypeInfo) -> String {
    if let TypeInfo::VarLenSized(context) = ty {
        match context.r#type() {
            VarLenType::Timen => return format!("time({})", context.len()),
            VarLenType::DatetimeOffsetn => return format!("datetimeoffset({})", context.len()),
            VarLenType::NVarchar if context.len() < LENGTH_MAX => {
                return format!("nvarchar({})", context.len() / 2);
            }
            _ => {}
        }
    }
    let column = MetaDataColumn {
        base: tiberius::BaseMetaDataColumn {
            flags: Default::default(),
            ty: ty.clone(),
            table_name: None,
        },
        col_name: "".into(),
    };
    let mut text = String::new();
    // the driver cannot name all types
    match write!(text, "{column}") {
        Ok(()) => text.split_once("] ").map_or(text.clone(), |(_, ty)| ty.to_owned()),
        Err(_) => "a type that is not staged".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiberius::{VarLenContext, time::Date};

    fn sized(ty: VarLenType, length: usize) -> TypeInfo {
        TypeInfo::VarLenSized(VarLenContext::new(ty, length, None))
    }

    fn numeric(precision: u8, scale: u8) -> TypeInfo {
        TypeInfo::VarLenSizedPrecision { ty: VarLenType::Decimaln, size: 17, precision, scale }
    }

    fn decimal(mantissa: i128, scale: u8) -> ColumnData<'static> {
        ColumnData::Numeric(Some(Numeric::new_with_scale(mantissa, scale)))
    }

    #[test]
    fn a_time_of_another_scale_says_the_same_or_is_refused() {
        let cell = |increments, scale| ColumnData::Time(Some(Time::new(increments, scale)));
        let fit = |cell: &ColumnData<'_>, scale| match converted(
            cell,
            &sized(VarLenType::Timen, scale),
        ) {
            Ok(Some(ColumnData::Time(Some(time)))) => Ok(Some((time.increments(), time.scale()))),
            Ok(None) => Ok(None),
            other => Err(format!("{other:?}")),
        };
        assert_eq!(fit(&cell(5, 7), 7), Ok(None));
        // 23:59:59 in microseconds
        assert_eq!(fit(&cell(86_399_000_000, 6), 7), Ok(Some((863_990_000_000, 7))));
        assert_eq!(fit(&cell(863_990_000_000, 7), 0), Ok(Some((86_399, 0))));
        assert!(
            fit(&cell(863_990_000_001, 7), 6)
                .unwrap_err()
                .contains("a time has more digits than time(6)")
        );
        assert!(fit(&cell(1, 9), 7).is_err());
        let stamp = |increments| {
            ColumnData::DateTime2(Some(DateTime2::new(Date::new(1), Time::new(increments, 7))))
        };
        assert!(matches!(converted(&stamp(10), &sized(VarLenType::Datetime2, 6)), Ok(Some(_))));
        assert!(converted(&stamp(15), &sized(VarLenType::Datetime2, 6)).is_err(), "never rounded");
        let offset = ColumnData::DateTimeOffset(Some(DateTimeOffset::new(
            DateTime2::new(Date::new(1), Time::new(5, 6)),
            -60,
        )));
        let Ok(Some(ColumnData::DateTimeOffset(Some(fitted)))) =
            converted(&offset, &sized(VarLenType::DatetimeOffsetn, 7))
        else {
            panic!()
        };
        assert_eq!((fitted.datetime2().time().increments(), fitted.offset()), (50, -60));
    }

    #[test]
    fn a_decimal_of_another_scale_says_the_same_or_is_refused() {
        let fit = |cell: &ColumnData<'_>, precision, scale| match converted(
            cell,
            &numeric(precision, scale),
        ) {
            Ok(Some(ColumnData::Numeric(Some(value)))) => Ok(Some((value.value(), value.scale()))),
            Ok(None) => Ok(None),
            other => Err(format!("{other:?}")),
        };
        assert_eq!(fit(&decimal(123, 2), 5, 2), Ok(None));
        assert_eq!(fit(&decimal(-123, 2), 9, 4), Ok(Some((-12_300, 4))));
        assert_eq!(fit(&decimal(12_300, 4), 5, 2), Ok(Some((123, 2))));
        assert!(
            fit(&decimal(12_301, 4), 5, 2)
                .unwrap_err()
                .contains("a decimal has more digits than decimal(5,2)")
        );
        assert!(fit(&decimal(100_000, 2), 5, 2).is_err());
        assert!(fit(&decimal(10i128.pow(37), 0), 38, 2).is_err());
        assert_eq!(fit(&decimal(10i128.pow(38) - 1, 38), 38, 38), Ok(None));
    }

    #[test]
    fn integers_and_floats_of_another_width_and_lengths() {
        let int = |bytes| sized(VarLenType::Intn, bytes);
        assert!(matches!(
            converted(&ColumnData::I32(Some(7)), &int(8)),
            Ok(Some(ColumnData::I64(Some(7))))
        ));
        assert!(matches!(
            converted(&ColumnData::I64(Some(255)), &int(1)),
            Ok(Some(ColumnData::U8(Some(255))))
        ));
        assert!(converted(&ColumnData::I64(Some(-1)), &int(1)).is_err());
        assert!(matches!(converted(&ColumnData::I32(None), &int(4)), Ok(None)));
        assert!(matches!(
            converted(&ColumnData::I64(Some(1)), &TypeInfo::FixedLen(FixedLenType::Int8)),
            Ok(None)
        ));
        assert!(
            converted(&ColumnData::I64(None), &TypeInfo::FixedLen(FixedLenType::Int8)).is_err()
        );
        assert!(matches!(
            converted(&ColumnData::F32(Some(1.5)), &sized(VarLenType::Floatn, 8)),
            Ok(Some(ColumnData::F64(Some(1.5))))
        ));
        assert!(converted(&ColumnData::F64(Some(1.5)), &sized(VarLenType::Floatn, 4)).is_err());
        let text = |text: &'static str| ColumnData::String(Some(text.into()));
        assert!(matches!(converted(&text("東京"), &sized(VarLenType::NVarchar, 4)), Ok(None)));
        assert_eq!(
            converted(&text("abc"), &sized(VarLenType::NVarchar, 4)).unwrap_err(),
            "a text is too long for nvarchar(2)"
        );
        assert!(matches!(
            converted(&text("abc"), &sized(VarLenType::NVarchar, LENGTH_MAX)),
            Ok(None)
        ));
        // in which code page would it be read?
        assert_eq!(
            converted(&text("abc"), &sized(VarLenType::BigVarChar, 9)).unwrap_err(),
            "a Unicode text does not go into varchar(9)"
        );
        let bytes = ColumnData::Binary(Some(vec![1, 2].into()));
        assert!(converted(&bytes, &sized(VarLenType::BigVarBin, 1)).is_err());
        assert!(converted(&bytes, &sized(VarLenType::BigBinary, 3)).is_err());
        assert!(matches!(converted(&bytes, &sized(VarLenType::BigBinary, 2)), Ok(None)));
    }
}
