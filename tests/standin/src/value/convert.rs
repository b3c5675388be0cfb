//! CAST, CONVERT and assignment.
//!
//! [`cast`] is what CAST/CONVERT and every implicit conversion do (text cut silently); [`assign`]
//! is what a store into a column does (a cut text is error 2628). Legality is the caller's to ask
//! first, once per expression: [`super::types::check_implicit`] and
//! [`super::types::check_explicit`].

use std::sync::Arc;

use super::{
    Collation, Decimal, Length, SqlType, Value,
    binary::{from_bytes, to_bytes},
    datetime::{self, DateFormat, Moment, ParseFailure, conversion_failed, out_of_range},
    decimal::overflow,
    integers::{fit_integer, integer_limits},
    text::{guid, parse_guid, to_text},
};
use crate::error::{SqlError, SqlResult};

/// What of a session changes how values convert.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvertContext {
    pub date_format: DateFormat,
}

/// A column being stored into, for the words of an error.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// database.schema.table
    pub table: &'a str,
    pub column: &'a str,
}

/// Error numbers that TRY_CAST and TRY_CONVERT turn into NULL.
pub fn is_conversion_failure(error: &SqlError) -> bool {
    matches!(
        error.number,
        220 | 232
            | 234
            | 235
            | 241
            | 242
            | 244
            | 245
            | 248
            | 293
            | 295
            | 296
            | 298
            | 517
            | 8114
            | 8115
            | 8152
            | 8169
            | 8170
            | 9420
    )
}

/// Converts a cell of type `from` to type `to`.
pub fn cast(
    value: &Value,
    from: SqlType,
    to: SqlType,
    style: Option<i32>,
    cx: &ConvertContext,
) -> SqlResult<Value> {
    if matches!(value, Value::Null) {
        return Ok(Value::Null);
    }
    if let Value::Variant(v) = value {
        if matches!(to, SqlType::SqlVariant) {
            return Ok(value.clone());
        }
        super::types::check_explicit(v.0, to)?;
        return cast(&v.1, v.0, to, style, cx);
    }
    if from == to && style.is_none() {
        return Ok(value.clone());
    }
    match to {
        SqlType::SqlVariant => Ok(Value::Variant(Box::new((from, value.clone())))),
        SqlType::Bit | SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt => to_integer(value, from, to),
        SqlType::Decimal { precision, scale } => to_decimal(value, from, precision, scale),
        SqlType::Money | SqlType::SmallMoney => to_money(value, from, to),
        SqlType::Real | SqlType::Float => to_float(value, from, to),
        SqlType::Date
        | SqlType::Time(_)
        | SqlType::DateTime
        | SqlType::SmallDateTime
        | SqlType::DateTime2(_)
        | SqlType::DateTimeOffset(_) => to_datetime(value, from, to, style, cx),
        SqlType::Char(..) | SqlType::VarChar(..) | SqlType::NChar(..) | SqlType::NVarChar(..) | SqlType::Text(_) | SqlType::NText(_) => {
            to_characters(value, from, to, style)
        }
        SqlType::Xml => match value {
            // a byte order mark belongs to the encoding (mssql-tds loads xml as nvarchar with one)
            Value::Str(s) => Ok(Value::Str(s.strip_prefix('\u{FEFF}').map_or_else(|| s.clone(), Into::into))),
            Value::Bytes(b) => Ok(Value::Str(utf16_text(b).into())),
            _ => Err(SqlError::unsupported(format!("{} to xml", from.name()))),
        },
        SqlType::UniqueIdentifier => match value {
            Value::Guid(_) => Ok(value.clone()),
            Value::Str(s) => parse_guid(s)
                .map(Value::Guid)
                .ok_or_else(|| SqlError::new(8169, 16, "Conversion failed when converting from a character string to uniqueidentifier.")),
            _ => from_bytes(&to_bytes(value, from, None)?, to),
        },
        SqlType::Binary(_) | SqlType::VarBinary(_) | SqlType::Image | SqlType::RowVersion => to_binary(value, from, to, style),
        SqlType::HierarchyId | SqlType::Geometry | SqlType::Geography => match value {
            Value::Bytes(_) => Ok(value.clone()),
            _ => Err(SqlError::unsupported(format!("{} from text", to.name()))),
        },
    }
}

/// Converts a cell for a store into a column: as [`cast`], but text and binaries that do not fit
/// are refused (2628) unless only blanks (or, of binaries, zeros) are lost.
pub fn assign(
    value: &Value,
    from: SqlType,
    to: SqlType,
    cx: &ConvertContext,
    target: Target<'_>,
) -> SqlResult<Value> {
    let stored = cast(value, from, to, None, cx)?;
    let lost = match (value, &stored, to) {
        (Value::Str(v), Value::Str(_), SqlType::Char(n, c) | SqlType::VarChar(Length::N(n), c)) => {
            c.encoded_len(v.trim_end_matches(' ')) > usize::from(n)
        }
        (
            Value::Str(v),
            Value::Str(_),
            SqlType::NChar(n, _) | SqlType::NVarChar(Length::N(n), _),
        ) => {
            // bytes bound the units from above, so most values need no count
            v.len() > usize::from(n)
                && v.trim_end_matches(' ').encode_utf16().count() > usize::from(n)
        }
        (_, Value::Str(_), _) if from.is_datetime() || from.is_binary() => {
            let all =
                cast(value, from, SqlType::NVarChar(Length::Max, Collation::DEFAULT), None, cx)?;
            matches!((&all, &stored), (Value::Str(a), Value::Str(s)) if a.trim_end_matches(' ').len() > s.len())
        }
        (Value::Bytes(v), Value::Bytes(s), _) => v.len() > s.len(),
        (Value::Str(_), Value::Bytes(s), _) => to_bytes(value, from, None)?.len() > s.len(),
        _ => false,
    };
    if lost {
        let shown = match &stored {
            Value::Str(s) => s.to_string(),
            _ => String::new(),
        };
        return Err(SqlError::new(
            2628,
            16,
            format!(
                "String or binary data would be truncated in table '{}', column '{}'. Truncated value: '{shown}'.",
                target.table, target.column
            ),
        ));
    }
    Ok(stored)
}

fn characters(value: &Value) -> Option<&Arc<str>> {
    match value {
        Value::Str(s) => Some(s),
        _ => None,
    }
}

/// The name error texts give a type: a decimal is "numeric" there.
fn spoken(ty: SqlType) -> &'static str {
    match ty {
        SqlType::Decimal { .. } => "numeric",
        other => other.name(),
    }
}

fn to_integer(value: &Value, from: SqlType, to: SqlType) -> SqlResult<Value> {
    match value {
        Value::Int(i) => fit_integer(i128::from(*i), to, "expression"),
        Value::Bit(b) => fit_integer(i128::from(*b), to, "expression"),
        Value::Decimal(d) if to == SqlType::Bit => Ok(Value::Bit(d.mantissa != 0)),
        // money rounds, decimal truncates
        Value::Decimal(d) if matches!(from, SqlType::Money | SqlType::SmallMoney) => {
            fit_integer(d.rescale(0).unwrap_or(*d).mantissa, to, "expression")
        }
        Value::Decimal(d) => fit_integer(d.trunc(), to, "numeric")
            .map_err(|e| if e.number == 220 { overflow("numeric", to.name()) } else { e }),
        Value::Float(f) if to == SqlType::Bit => Ok(Value::Bit(*f != 0.0)),
        Value::Float(f) => {
            let (low, high) = integer_limits(to);
            let whole = f.trunc();
            // 2^63 itself is a float and not a bigint
            if whole >= low as f64 && whole <= high as f64 && whole < 9_223_372_036_854_775_808.0 {
                return Ok(Value::Int(whole as i64));
            }
            Err(SqlError::new(
                232,
                16,
                format!("Arithmetic overflow error for type {}, value = {f:.6}.", to.name()),
            ))
        }
        Value::Str(s) => string_to_integer(s, from, to),
        Value::DateTime { .. } | Value::SmallDateTime { .. } => {
            let days = datetime_as_days(value).unwrap_or(0.0);
            fit_integer(days.round() as i128, to, "expression")
        }
        Value::Bytes(b) => from_bytes(b, to),
        _ => Err(super::types::type_clash(from, to)),
    }
}

fn string_to_integer(text: &Arc<str>, from: SqlType, to: SqlType) -> SqlResult<Value> {
    let trimmed = text.trim_matches(' ');
    if to == SqlType::Bit {
        if trimmed.eq_ignore_ascii_case("true") {
            return Ok(Value::Bit(true));
        }
        if trimmed.eq_ignore_ascii_case("false") {
            return Ok(Value::Bit(false));
        }
    }
    let failed = || {
        if to == SqlType::BigInt {
            SqlError::new(
                8114,
                16,
                format!("Error converting data type {} to bigint.", from.name()),
            )
        } else {
            SqlError::new(
                245,
                16,
                format!(
                    "Conversion failed when converting the {} value '{text}' to data type {}.",
                    from.name(),
                    to.name()
                ),
            )
        }
    };
    if trimmed.is_empty() {
        return fit_integer(0, to, "expression");
    }
    let (sign, digits) = match trimmed.as_bytes()[0] {
        b'-' => (-1i128, trimmed[1..].trim_start()),
        b'+' => (1, trimmed[1..].trim_start()),
        _ => (1, trimmed),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(failed());
    }
    let number = sign * digits.parse::<i128>().unwrap_or(i128::MAX);
    fit_integer(number, to, "expression").map_err(|_| match to {
        SqlType::BigInt => failed(),
        SqlType::Int => SqlError::new(
            248,
            16,
            format!("The conversion of the {} value '{text}' overflowed an int column. Maximum integer value exceeded.", from.name()),
        ),
        _ => SqlError::new(
            244,
            16,
            format!(
                "The conversion of the {} value '{text}' overflowed an {} column. Use a larger integer column.",
                from.name(),
                if to == SqlType::TinyInt { "INT1" } else { "INT2" }
            ),
        ),
    })
}

fn datetime_as_days(value: &Value) -> Option<f64> {
    match *value {
        Value::DateTime { days, ticks300 } => {
            Some(f64::from(days) + f64::from(ticks300) / 25_920_000.0)
        }
        Value::SmallDateTime { days, minutes } => {
            Some(f64::from(days) + f64::from(minutes) / 1440.0)
        }
        _ => None,
    }
}

fn to_decimal(value: &Value, from: SqlType, precision: u8, scale: u8) -> SqlResult<Value> {
    let to = SqlType::Decimal { precision, scale };
    let exact = match value {
        Value::Decimal(d) => Some(*d),
        Value::Int(i) => Some(Decimal::new(i128::from(*i), 0)),
        Value::Bit(b) => Some(Decimal::new(i128::from(*b), 0)),
        Value::Float(f) => Decimal::from_f64(*f, scale),
        Value::Str(s) => {
            let parsed = Decimal::parse(s);
            if parsed.is_none() {
                return Err(SqlError::new(
                    8114,
                    16,
                    format!("Error converting data type {} to numeric.", from.name()),
                ));
            }
            parsed
        }
        Value::DateTime { .. } | Value::SmallDateTime { .. } => {
            datetime_as_days(value).and_then(|d| Decimal::from_f64(d, scale))
        }
        Value::Bytes(b) => return from_bytes(b, to),
        _ => return Err(super::types::type_clash(from, to)),
    };
    exact
        .and_then(|d| d.fit(precision, scale))
        .map(Value::Decimal)
        .ok_or_else(|| overflow(spoken(from), "numeric"))
}

fn to_money(value: &Value, from: SqlType, to: SqlType) -> SqlResult<Value> {
    let exact = match value {
        Value::Decimal(d) => d.rescale(4),
        Value::Int(i) => Decimal::new(i128::from(*i), 0).rescale(4),
        Value::Bit(b) => Decimal::new(i128::from(*b), 0).rescale(4),
        Value::Float(f) => Decimal::from_f64(*f, 4),
        Value::Str(s) => parse_money(s)
            .ok_or_else(|| {
                SqlError::new(
                    235,
                    16,
                    "Cannot convert a char value to money. The char value has incorrect syntax.",
                )
            })?
            .rescale(4),
        Value::DateTime { .. } | Value::SmallDateTime { .. } => {
            datetime_as_days(value).and_then(|d| Decimal::from_f64(d, 4))
        }
        Value::Bytes(b) => return from_bytes(b, to),
        _ => return Err(super::types::type_clash(from, to)),
    };
    let (low, high) = if to == SqlType::Money {
        (i64::MIN, i64::MAX)
    } else {
        (i32::MIN.into(), i32::MAX.into())
    };
    exact
        .filter(|d| (i128::from(low)..=i128::from(high)).contains(&d.mantissa))
        .map(Value::Decimal)
        .ok_or_else(|| overflow("expression", to.name()))
}

/// Sign, currency sign and thousands commas are all allowed.
fn parse_money(text: &str) -> Option<Decimal> {
    let cleaned: String =
        text.trim().chars().filter(|c| !matches!(c, ',' | '$' | '€' | '£' | '¥' | ' ')).collect();
    if cleaned.is_empty() || cleaned == "-" {
        return Some(Decimal::new(0, 4));
    }
    Decimal::parse(&cleaned)
}

fn to_float(value: &Value, from: SqlType, to: SqlType) -> SqlResult<Value> {
    let number = match value {
        Value::Float(f) => *f,
        Value::Int(i) => *i as f64,
        Value::Bit(b) => f64::from(u8::from(*b)),
        Value::Decimal(d) => d.to_f64(),
        Value::Str(s) => {
            let text = s.trim();
            let plain = text.bytes().all(|b| {
                b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E' | b'd' | b'D')
            });
            match text {
                "" => 0.0,
                _ if plain => text.replace(['d', 'D'], "e").parse().map_err(|_| {
                    SqlError::new(
                        8114,
                        16,
                        format!("Error converting data type {} to {}.", from.name(), to.name()),
                    )
                })?,
                _ => {
                    return Err(SqlError::new(
                        8114,
                        16,
                        format!("Error converting data type {} to {}.", from.name(), to.name()),
                    ));
                }
            }
        }
        Value::DateTime { .. } | Value::SmallDateTime { .. } => {
            datetime_as_days(value).unwrap_or(0.0)
        }
        _ => return Err(super::types::type_clash(from, to)),
    };
    let number = if to == SqlType::Real { f64::from(number as f32) } else { number };
    if number.is_finite() {
        Ok(Value::Float(number))
    } else {
        Err(overflow("expression", to.name()))
    }
}

fn to_datetime(
    value: &Value,
    from: SqlType,
    to: SqlType,
    style: Option<i32>,
    cx: &ConvertContext,
) -> SqlResult<Value> {
    if let Some(moment) = Moment::of(value) {
        let moment = match to {
            // a bare time has no day and a bare day no time; an offset is dropped where the target
            // has none
            SqlType::DateTimeOffset(_) => {
                Moment { offset_minutes: Some(moment.offset_minutes.unwrap_or(0)), ..moment }
            }
            _ => Moment { offset_minutes: None, ..moment },
        };
        return moment.into_value(to, from.name());
    }
    match value {
        Value::Str(s) => parse_datetime(s, from, to, style, cx),
        Value::Bytes(b) => from_bytes(b, to),
        Value::Int(_) | Value::Bit(_) | Value::Decimal(_) | Value::Float(_) => {
            let days = match to_float(value, from, SqlType::Float)? {
                Value::Float(f) => f,
                _ => 0.0,
            };
            let whole = days.floor();
            if !(-60_000.0..=3_000_000.0).contains(&whole) {
                return Err(overflow("expression", to.name()));
            }
            let ticks = ((days - whole) * 25_920_000.0).round() as u64;
            // whole days and 1/300 s; a remainder that rounds up to a day carries
            let (extra, ticks) = (ticks / 25_920_000, ticks % 25_920_000);
            let moment = Moment::new(
                whole as i32 + datetime::DAYS_TO_1900 + i32::from(extra > 0),
                (ticks * 100_000).div_ceil(3),
            );
            moment.into_value(to, from.name()).map_err(|_| overflow("expression", to.name()))
        }
        _ => Err(super::types::type_clash(from, to)),
    }
}

fn parse_datetime(
    text: &str,
    from: SqlType,
    to: SqlType,
    style: Option<i32>,
    cx: &ConvertContext,
) -> SqlResult<Value> {
    let old = matches!(to, SqlType::DateTime | SqlType::SmallDateTime);
    let format = match style {
        Some(1 | 101 | 10 | 110 | 0 | 100 | 7 | 107 | 9 | 109 | 22) => DateFormat::Mdy,
        Some(3 | 103 | 4 | 104 | 5 | 105 | 6 | 106 | 13 | 113) => DateFormat::Dmy,
        Some(2 | 102 | 11 | 111 | 12 | 112 | 20 | 21 | 23 | 25 | 120 | 121 | 126 | 127) => {
            DateFormat::Ymd
        }
        Some(s @ (130 | 131)) => {
            return Err(SqlError::unsupported(format!("CONVERT with the Hijri style {s}")));
        }
        _ => cx.date_format,
    };
    let failed = || match to {
        SqlType::SmallDateTime => SqlError::new(
            295,
            16,
            "Conversion failed when converting character string to smalldatetime data type.",
        ),
        _ => conversion_failed(),
    };
    let parsed =
        datetime::parse(text, format, !old || style.is_some()).map_err(|why| match why {
            ParseFailure::Range if old => out_of_range(from.name(), to.name()),
            _ => failed(),
        })?;
    // the old types know milliseconds and no offset but Z
    if old
        && (parsed.fraction_digits > 3 || (parsed.moment.offset_minutes.is_some() && !parsed.zulu))
    {
        return Err(failed());
    }
    let mut moment = parsed.moment;
    if !matches!(to, SqlType::DateTimeOffset(_)) {
        moment.offset_minutes = None;
    }
    moment.into_value(to, from.name()).map_err(|e| if old { e } else { failed() })
}

fn to_characters(
    value: &Value,
    from: SqlType,
    to: SqlType,
    style: Option<i32>,
) -> SqlResult<Value> {
    let text: Arc<str> = match value {
        Value::Str(s) => s.clone(),
        Value::Bytes(b) => match style.unwrap_or(0) {
            1 => format!("0x{}", super::text::hex(b)).into(),
            2 => super::text::hex(b).into(),
            _ if to.is_unicode() => utf16_text(b).into(),
            _ => to.collation().unwrap_or(Collation::DEFAULT).decode(b).into(),
        },
        Value::Guid(g) => guid(g).into(),
        _ => to_text(value, from, style)?.into(),
    };
    let fits = |text: &str| match to {
        SqlType::Char(n, c) | SqlType::VarChar(Length::N(n), c) => {
            c.encoded_len(text) <= usize::from(n)
        }
        SqlType::NChar(n, _) | SqlType::NVarChar(Length::N(n), _) => {
            text.len() <= usize::from(n) || text.encode_utf16().count() <= usize::from(n)
        }
        _ => true,
    };
    if characters(value).is_none() && !fits(&text) {
        // numbers are never cut; dates and binaries are
        match from {
            SqlType::TinyInt
            | SqlType::SmallInt
            | SqlType::Int
            | SqlType::BigInt
            | SqlType::Bit
                if !to.is_unicode() =>
            {
                return Ok(Value::Str(pad("*".into(), to)));
            }
            SqlType::Money | SqlType::SmallMoney => {
                return Err(SqlError::new(
                    234,
                    16,
                    format!(
                        "There is insufficient result space to convert a money value to {}.",
                        to.name()
                    ),
                ));
            }
            SqlType::UniqueIdentifier => {
                return Err(SqlError::new(
                    8170,
                    16,
                    "Insufficient result space to convert uniqueidentifier value to char.",
                ));
            }
            t if t.is_integer() => return Err(overflow("expression", to.name())),
            t if t.is_numeric() => return Err(overflow(spoken(t), to.name())),
            _ => {}
        }
    }
    Ok(Value::Str(pad(text, to)))
}

/// Through the code page, cut to the length, filled with blanks when the type is fixed.
fn pad(text: Arc<str>, to: SqlType) -> Arc<str> {
    match to {
        SqlType::Char(n, c) | SqlType::VarChar(Length::N(n), c) => {
            let n = usize::from(n);
            let text = c.squeeze(&text);
            let length = c.encoded_len(&text);
            if length > n {
                let mut cut = String::new();
                let mut used = 0;
                for ch in text.chars() {
                    let mut buffer = [0; 4];
                    used += c.encoded_len(ch.encode_utf8(&mut buffer));
                    if used > n {
                        break;
                    }
                    cut.push(ch);
                }
                return pad(cut.into(), to);
            }
            if matches!(to, SqlType::Char(..)) && length < n {
                return format!("{text}{:width$}", "", width = n - length).into();
            }
            text
        }
        SqlType::NChar(n, _) | SqlType::NVarChar(Length::N(n), _) => {
            let n = usize::from(n);
            let fixed = matches!(to, SqlType::NChar(..));
            if text.len() <= n && !fixed {
                return text;
            }
            let mut units = 0;
            let mut end = text.len();
            for (at, ch) in text.char_indices() {
                if units + ch.len_utf16() > n {
                    end = at;
                    break;
                }
                units += ch.len_utf16();
            }
            if fixed && units < n {
                return format!("{}{:width$}", &text[..end], "", width = n - units).into();
            }
            if end == text.len() { text } else { text[..end].into() }
        }
        SqlType::VarChar(Length::Max, c) | SqlType::Text(c) => c.squeeze(&text),
        _ => text,
    }
}

/// UTF-16LE; an odd last byte is dropped and a lone surrogate shown as U+FFFD, which is all a Rust
/// string can hold.
fn utf16_text(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|p| u16::from_le_bytes([p[0], p[1]])).collect();
    let text = String::from_utf16_lossy(&units);
    text.strip_prefix('\u{FEFF}').map_or(text.clone(), str::to_string)
}

fn to_binary(value: &Value, from: SqlType, to: SqlType, style: Option<i32>) -> SqlResult<Value> {
    let bytes = to_bytes(value, from, style).map_err(|e| match e.number {
        8114 => SqlError::new(
            8114,
            16,
            format!("Error converting data type {} to {}.", from.name(), to.name()),
        ),
        _ => e,
    })?;
    let wanted = match to {
        SqlType::Binary(n) => Some((usize::from(n), true)),
        SqlType::RowVersion => Some((8, true)),
        SqlType::VarBinary(Length::N(n)) => Some((usize::from(n), false)),
        _ => None,
    };
    let Some((n, fixed)) = wanted else { return Ok(Value::Bytes(bytes.into())) };
    // integers are right-aligned, everything else left-aligned
    let right = from.is_integer()
        || matches!(from, SqlType::Money | SqlType::SmallMoney | SqlType::Real | SqlType::Float);
    let right = right || matches!(from, SqlType::DateTime | SqlType::SmallDateTime);
    let mut bytes = bytes;
    if bytes.len() > n {
        if right {
            bytes.drain(..bytes.len() - n);
        } else {
            bytes.truncate(n);
        }
    } else if fixed && bytes.len() < n {
        if right {
            let mut padded = vec![0; n - bytes.len()];
            padded.append(&mut bytes);
            bytes = padded;
        } else {
            bytes.resize(n, 0);
        }
    }
    Ok(Value::Bytes(bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CX: ConvertContext = ConvertContext { date_format: DateFormat::Mdy };

    fn text(s: &str) -> Value {
        Value::Str(s.into())
    }

    fn bytes(b: &[u8]) -> Value {
        Value::Bytes(b.into())
    }

    /// The value or the error number.
    fn to(value: Value, from: SqlType, target: SqlType) -> Result<Value, i32> {
        cast(&value, from, target, None, &CX).map_err(|e| e.number)
    }

    const VC: SqlType = SqlType::varchar(100);
    const NVC: SqlType = SqlType::nvarchar(100);

    #[test]
    fn strings_to_numbers() {
        assert_eq!(to(text(" -12 "), VC, SqlType::Int), Ok(Value::Int(-12)));
        assert_eq!(to(text(""), VC, SqlType::Int), Ok(Value::Int(0)));
        assert_eq!(to(text("1.5"), VC, SqlType::Int), Err(245));
        assert_eq!(to(text("99999999999"), VC, SqlType::Int), Err(248));
        assert_eq!(to(text("300"), VC, SqlType::TinyInt), Err(244));
        assert_eq!(to(text("x"), VC, SqlType::BigInt), Err(8114));
        assert_eq!(to(text("TRUE"), VC, SqlType::Bit), Ok(Value::Bit(true)));
        assert_eq!(to(text(""), VC, SqlType::Decimal { precision: 5, scale: 2 }), Err(8114));
        assert_eq!(
            to(text("1234.567"), VC, SqlType::Decimal { precision: 5, scale: 2 }),
            Err(8115)
        );
        assert_eq!(
            to(text("$1,234.5"), VC, SqlType::Money),
            Ok(Value::Decimal(Decimal::new(12_345_000, 4)))
        );
        assert_eq!(to(text("1e3"), VC, SqlType::Float), Ok(Value::Float(1000.0)));
        assert_eq!(to(text("inf"), VC, SqlType::Float), Err(8114));
    }

    #[test]
    fn numbers_to_numbers() {
        let d = |m, s| Value::Decimal(Decimal::new(m, s));
        let dec = SqlType::Decimal { precision: 10, scale: 2 };
        assert_eq!(to(Value::Int(300), SqlType::Int, SqlType::TinyInt), Err(220));
        assert_eq!(to(Value::Int(1 << 40), SqlType::BigInt, SqlType::Int), Err(8115));
        assert_eq!(to(d(-199, 2), dec, SqlType::Int), Ok(Value::Int(-1)));
        assert_eq!(to(d(15_000, 4), SqlType::Money, SqlType::Int), Ok(Value::Int(2)));
        assert_eq!(to(Value::Float(2.9), SqlType::Float, SqlType::Int), Ok(Value::Int(2)));
        assert_eq!(to(Value::Float(1e300), SqlType::Float, SqlType::Int), Err(232));
        assert_eq!(to(Value::Float(1.005), SqlType::Float, dec), Ok(d(100, 2)));
        assert_eq!(to(Value::Float(1e39), SqlType::Float, SqlType::Real), Err(8115));
    }

    #[test]
    fn numbers_to_text() {
        assert_eq!(to(Value::Int(12345), SqlType::Int, SqlType::varchar(3)), Ok(text("*")));
        assert_eq!(to(Value::Int(12345), SqlType::Int, SqlType::nvarchar(3)), Err(8115));
        assert_eq!(
            to(
                Value::Decimal(Decimal::new(12345, 2)),
                SqlType::Decimal { precision: 5, scale: 2 },
                SqlType::varchar(3)
            ),
            Err(8115)
        );
        assert_eq!(
            to(Value::Int(7), SqlType::Int, SqlType::Char(3, Collation::DEFAULT)),
            Ok(text("7  "))
        );
        assert_eq!(to(text("héllo"), NVC, SqlType::varchar(3)), Ok(text("hél")));
        assert_eq!(to(text("日本"), NVC, SqlType::varchar(5)), Ok(text("??")));
        assert_eq!(to(text("a😀b"), NVC, SqlType::nvarchar(2)), Ok(text("a")));
    }

    #[test]
    fn assignment() {
        let target = Target { table: "db.dbo.t", column: "c" };
        let put = |v: &str, to| assign(&text(v), NVC, to, &CX, target).map_err(|e| e.number);
        assert_eq!(put("abc  ", SqlType::varchar(3)), Ok(text("abc")));
        assert_eq!(put("abcd", SqlType::varchar(3)), Err(2628));
        assert_eq!(put("abcd", SqlType::nvarchar(3)), Err(2628));
        assert_eq!(
            assign(
                &bytes(&[1, 2, 3]),
                SqlType::Binary(3),
                SqlType::VarBinary(Length::N(2)),
                &CX,
                target
            )
            .map_err(|e| e.number),
            Err(2628)
        );
        assert_eq!(put("20240101", SqlType::Date), Ok(Value::Date(738_885)));
    }

    #[test]
    fn dates() {
        assert_eq!(to(text("2024-01-01T00:00:00+01:00"), VC, SqlType::DateTime), Err(241));
        assert_eq!(to(text("2024-13-01"), VC, SqlType::DateTime), Err(242));
        assert_eq!(to(text("2024-13-01"), VC, SqlType::Date), Err(241));
        assert_eq!(
            to(text("1996-07-04 00:00:00.000"), VC, SqlType::DateTime),
            Ok(Value::DateTime { days: 35_248, ticks300: 0 })
        );
        assert_eq!(to(text("1996-07-04 00:00:00.0000"), VC, SqlType::DateTime), Err(241));
        assert_eq!(
            to(Value::Int(1), SqlType::Int, SqlType::DateTime),
            Ok(Value::DateTime { days: 1, ticks300: 0 })
        );
        assert_eq!(
            to(Value::Float(0.5), SqlType::Float, SqlType::DateTime),
            Ok(Value::DateTime { days: 0, ticks300: 12_960_000 })
        );
        assert_eq!(
            to(text("2024-01-01 12:00 +02:00"), VC, SqlType::DateTimeOffset(0)),
            Ok(Value::DateTimeOffset {
                days: 738_885,
                ticks: 360_000_000_000,
                offset_minutes: 120
            })
        );
        let style = |s: &str, style| {
            cast(&text(s), VC, SqlType::Date, Some(style), &CX).map_err(|e| e.number)
        };
        assert_eq!(style("31/12/2023", 103), Ok(Value::Date(738_884)));
        assert_eq!(style("12/31/2023", 103), Err(241));
    }

    #[test]
    fn binaries() {
        let vb = SqlType::VarBinary(Length::N(8));
        assert_eq!(to(Value::Int(258), SqlType::Int, vb), Ok(bytes(&[0, 0, 1, 2])));
        assert_eq!(to(Value::Int(258), SqlType::Int, SqlType::Binary(2)), Ok(bytes(&[1, 2])));
        assert_eq!(to(text("ab"), VC, SqlType::Binary(3)), Ok(bytes(&[b'a', b'b', 0])));
        assert_eq!(to(text("ab"), NVC, vb), Ok(bytes(&[b'a', 0, b'b', 0])));
        assert_eq!(to(bytes(&[1, 2]), SqlType::Binary(2), SqlType::Int), Ok(Value::Int(258)));
        assert_eq!(to(bytes(&[0xFF; 4]), SqlType::Binary(4), SqlType::Int), Ok(Value::Int(-1)));
        let styled =
            |v: Value, from, target, s| cast(&v, from, target, Some(s), &CX).map_err(|e| e.number);
        assert_eq!(styled(text("0x0aFF"), VC, vb, 1), Ok(bytes(&[10, 255])));
        assert_eq!(styled(text("0aFF"), VC, vb, 2), Ok(bytes(&[10, 255])));
        assert_eq!(styled(text("0aFF"), VC, vb, 1), Err(8114));
        assert_eq!(styled(bytes(&[10, 255]), vb, VC, 1), Ok(text("0x0AFF")));
        assert_eq!(styled(bytes(&[10, 255]), vb, NVC, 2), Ok(text("0AFF")));
        let guid = Value::Guid([
            0x6F, 0x96, 0x19, 0xFF, 0x8B, 0x86, 0xD0, 0x11, 0xB4, 0x2D, 0, 0xC0, 0x4F, 0xC9, 0x64,
            0xFF,
        ]);
        let wire = bytes(&[
            0xFF, 0x19, 0x96, 0x6F, 0x86, 0x8B, 0x11, 0xD0, 0xB4, 0x2D, 0, 0xC0, 0x4F, 0xC9, 0x64,
            0xFF,
        ]);
        assert_eq!(
            to(guid.clone(), SqlType::UniqueIdentifier, SqlType::Binary(16)),
            Ok(wire.clone())
        );
        assert_eq!(to(wire, SqlType::Binary(16), SqlType::UniqueIdentifier), Ok(guid));
    }

    #[test]
    fn variants() {
        let v = to(Value::Int(5), SqlType::Int, SqlType::SqlVariant);
        assert_eq!(v, Ok(Value::Variant(Box::new((SqlType::Int, Value::Int(5))))));
        assert_eq!(to(v.unwrap_or(Value::Null), SqlType::SqlVariant, VC), Ok(text("5")));
    }
}
