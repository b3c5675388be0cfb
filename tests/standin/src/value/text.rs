//! How cells are shown as text: CONVERT's styles ("CAST and CONVERT", Transact-SQL reference).

use super::{
    Decimal, SqlType, Value,
    datetime::{MONTHS, Moment, TICKS_PER_SECOND, civil_from_days},
};
use crate::error::{SqlError, SqlResult};

/// The text of a non-NULL cell under a style; binaries and characters are not this function's (they
/// need a code page).
pub fn to_text(value: &Value, ty: SqlType, style: Option<i32>) -> SqlResult<String> {
    Ok(match value {
        Value::Null => String::new(),
        Value::Bit(b) => u8::from(*b).to_string(),
        Value::Int(i) => i.to_string(),
        Value::Decimal(d) if matches!(ty, SqlType::Money | SqlType::SmallMoney) => {
            money(*d, style.unwrap_or(0))?
        }
        Value::Decimal(d) => d.to_string(),
        Value::Float(f) => float(*f, matches!(ty, SqlType::Real), style.unwrap_or(0))?,
        Value::Guid(g) => guid(g),
        Value::Str(s) => s.to_string(),
        Value::Bytes(b) => hex(b),
        Value::Variant(v) => to_text(&v.1, v.0, style)?,
        _ => date_time(value, ty, style)?,
    })
}

/// Upper-case hex without a prefix.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

pub fn guid(g: &[u8; 16]) -> String {
    let h = hex(g);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

/// Accepts the plain and the braced form; whatever follows the 36 characters is ignored, as the
/// server does.
pub fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let text = text.trim_start();
    let text = match text.strip_prefix('{') {
        Some(rest) => rest.get(36..37).filter(|c| *c == "}").and(rest.get(..36))?,
        None => text.get(..36)?,
    };
    let dashes = [8, 13, 18, 23];
    let mut nibbles = Vec::with_capacity(32);
    for (i, c) in text.chars().enumerate() {
        if dashes.contains(&i) {
            if c != '-' {
                return None;
            }
            continue;
        }
        nibbles.push(u8::try_from(c.to_digit(16)?).ok()?);
    }
    let mut out = [0; 16];
    for (byte, pair) in out.iter_mut().zip(nibbles.chunks(2)) {
        *byte = pair[0] << 4 | pair.get(1)?;
    }
    Some(out)
}

fn bad_style(style: i32, ty: SqlType) -> SqlError {
    SqlError::new(
        281,
        16,
        format!(
            "{style} is not a valid style number when converting from {} to a character string.",
            ty.name()
        ),
    )
}

/// 0: two decimals, 1: with thousands commas, 2: four decimals.
fn money(d: Decimal, style: i32) -> SqlResult<String> {
    match style {
        1 => {
            let text = d.rescale(2).unwrap_or(d).to_string();
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, "00"));
            let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |d| ("-", d));
            let mut grouped = String::new();
            for (i, c) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(c);
            }
            Ok(format!("{sign}{grouped}.{fraction}"))
        }
        2 | 126 => Ok(d.rescale(4).unwrap_or(d).to_string()),
        _ => Ok(d.rescale(2).unwrap_or(d).to_string()),
    }
}

/// 0: six digits; 1: eight digits, 2: sixteen, scientific; 3: as many as a round trip needs.
fn float(f: f64, real: bool, style: i32) -> SqlResult<String> {
    let scientific = |digits: usize| {
        let text = format!("{f:.*e}", digits - 1);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        (mantissa.to_string(), exponent)
    };
    let show = |mantissa: &str, exponent: i32| {
        format!("{mantissa}e{}{:03}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
    };
    if f == 0.0 && matches!(style, 0) {
        return Ok("0".into());
    }
    match style {
        0 => Ok(general(f, 6, &scientific, &show)),
        1 | 2 => {
            let (m, e) = scientific(if style == 1 { 8 } else { 16 });
            Ok(show(&m, e))
        }
        3 | 126 | 128 | 129 => {
            let digits = if real { 9 } else { 17 };
            let (m, e) = scientific(digits);
            Ok(if style == 3 { general(f, digits, &scientific, &show) } else { show(&m, e) })
        }
        other => Err(bad_style(other, if real { SqlType::Real } else { SqlType::Float })),
    }
}

/// C's %g with a three-digit exponent.
fn general(
    f: f64,
    digits: usize,
    scientific: &dyn Fn(usize) -> (String, i32),
    show: &dyn Fn(&str, i32) -> String,
) -> String {
    let (mantissa, exponent) = scientific(digits);
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        } else {
            text.to_string()
        }
    };
    let limit = i32::try_from(digits).unwrap_or(17);
    if exponent < -4 || exponent >= limit {
        show(&trim(&mantissa), exponent)
    } else {
        let decimals = usize::try_from(limit - 1 - exponent).unwrap_or(0);
        trim(&format!("{f:.decimals$}"))
    }
}

/// Hour, minute, second and ticks of the second.
struct Clock {
    hour: u64,
    minute: u64,
    second: u64,
    fraction: u64,
}

impl Clock {
    fn of(ticks: u64) -> Self {
        let seconds = ticks / TICKS_PER_SECOND;
        Self {
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            fraction: ticks % TICKS_PER_SECOND,
        }
    }

    fn hms(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second)
    }

    fn twelve(&self) -> (u64, &'static str) {
        ((self.hour + 11) % 12 + 1, if self.hour < 12 { "AM" } else { "PM" })
    }
}

fn date_time(value: &Value, ty: SqlType, style: Option<i32>) -> SqlResult<String> {
    let Some(moment) = Moment::of(value) else {
        return Err(SqlError::unsupported(format!("{} as text", ty.name())));
    };
    let old = matches!(ty, SqlType::DateTime | SqlType::SmallDateTime);
    let style = style.unwrap_or(if old { 0 } else { 121 });
    let (y, m, d) = civil_from_days(moment.days);
    let yy = y % 100;
    let mon =
        usize::try_from(m).ok().and_then(|m| MONTHS.get(m.wrapping_sub(1))).map_or("", |n| &n[..3]);
    let clock = Clock::of(moment.ticks);
    let scale = match ty {
        SqlType::Time(s) | SqlType::DateTime2(s) | SqlType::DateTimeOffset(s) => s,
        SqlType::DateTime => 3,
        _ => 0,
    };
    let millis = match value {
        Value::DateTime { ticks300, .. } => u64::from((ticks300 % 300 * 10 + 1) / 3),
        _ => clock.fraction / 10_000,
    };
    let fraction = |separator: char| match (old, scale) {
        (true, _) => format!("{separator}{millis:03}"),
        (false, 0) => String::new(),
        (false, s) => format!("{separator}{}", &format!("{:07}", clock.fraction)[..usize::from(s)]),
    };
    let offset = |space: &str| match moment.offset_minutes {
        Some(o) => format!(
            "{space}{}{:02}:{:02}",
            if o < 0 { '-' } else { '+' },
            o.unsigned_abs() / 60,
            o.unsigned_abs() % 60
        ),
        None => String::new(),
    };
    let (has_date, has_time) = (!matches!(ty, SqlType::Time(_)), !matches!(ty, SqlType::Date));
    let join = |date: String, separator: &str, time: String| match (has_date, has_time) {
        (true, true) => format!("{date}{separator}{time}"),
        (true, false) => date,
        _ => time,
    };
    let (h12, half) = clock.twelve();
    let only_date = |text: String| if has_date { Ok(text) } else { Err(bad_style(style, ty)) };
    match style {
        0 | 100 => Ok(join(
            format!("{mon} {d:>2} {y:04}"),
            " ",
            format!("{h12:>2}:{:02}{half}", clock.minute),
        ) + &offset(" ")),
        9 | 109 => Ok(join(
            format!("{mon} {d:>2} {y:04}"),
            " ",
            format!(
                "{h12:>2}:{:02}:{:02}{}{half}",
                clock.minute,
                clock.second,
                fraction(if old { ':' } else { '.' })
            ),
        ) + &offset(" ")),
        13 | 113 => Ok(join(
            format!("{d:02} {mon} {y:04}"),
            " ",
            format!("{}{}", clock.hms(), fraction(if old { ':' } else { '.' })),
        ) + &offset(" ")),
        8 | 24 | 108 if has_time => Ok(clock.hms()),
        14 | 114 if has_time => {
            Ok(format!("{}{}{}", clock.hms(), fraction(if old { ':' } else { '.' }), offset(" ")))
        }
        20 | 120 => Ok(join(format!("{y:04}-{m:02}-{d:02}"), " ", clock.hms()) + &offset(" ")),
        21 | 25 | 121 => Ok(join(
            format!("{y:04}-{m:02}-{d:02}"),
            " ",
            format!("{}{}", clock.hms(), fraction('.')),
        ) + &offset(" ")),
        126 | 127 => {
            // ISO 8601 leaves a fraction of zero out for the old types
            let digits = if old && millis == 0 { String::new() } else { fraction('.') };
            if style == 127 && moment.offset_minutes.is_some() {
                let utc = moment.to_utc();
                let (y, m, d) = civil_from_days(utc.days);
                return Ok(format!("{y:04}-{m:02}-{d:02}T{}{digits}Z", Clock::of(utc.ticks).hms()));
            }
            Ok(join(format!("{y:04}-{m:02}-{d:02}"), "T", format!("{}{digits}", clock.hms()))
                + &offset(""))
        }
        22 => Ok(join(
            format!("{m:02}/{d:02}/{yy:02}"),
            " ",
            format!("{h12:>2}:{:02}:{:02} {half}", clock.minute, clock.second),
        )),
        1 => only_date(format!("{m:02}/{d:02}/{yy:02}")),
        101 => only_date(format!("{m:02}/{d:02}/{y:04}")),
        2 => only_date(format!("{yy:02}.{m:02}.{d:02}")),
        102 => only_date(format!("{y:04}.{m:02}.{d:02}")),
        3 => only_date(format!("{d:02}/{m:02}/{yy:02}")),
        103 => only_date(format!("{d:02}/{m:02}/{y:04}")),
        4 => only_date(format!("{d:02}.{m:02}.{yy:02}")),
        104 => only_date(format!("{d:02}.{m:02}.{y:04}")),
        5 => only_date(format!("{d:02}-{m:02}-{yy:02}")),
        105 => only_date(format!("{d:02}-{m:02}-{y:04}")),
        6 => only_date(format!("{d:02} {mon} {yy:02}")),
        106 => only_date(format!("{d:02} {mon} {y:04}")),
        7 => only_date(format!("{mon} {d:02}, {yy:02}")),
        107 => only_date(format!("{mon} {d:02}, {y:04}")),
        10 => only_date(format!("{m:02}-{d:02}-{yy:02}")),
        110 => only_date(format!("{m:02}-{d:02}-{y:04}")),
        11 => only_date(format!("{yy:02}/{m:02}/{d:02}")),
        111 => only_date(format!("{y:04}/{m:02}/{d:02}")),
        12 => only_date(format!("{yy:02}{m:02}{d:02}")),
        112 => only_date(format!("{y:04}{m:02}{d:02}")),
        23 => only_date(format!("{y:04}-{m:02}-{d:02}")),
        130 | 131 => Err(SqlError::unsupported(format!("CONVERT with the Hijri style {style}"))),
        other => Err(bad_style(other, ty)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(value: &Value, ty: SqlType, style: i32) -> String {
        to_text(value, ty, Some(style)).unwrap_or_default()
    }

    #[test]
    fn floats() {
        let f = |f: f64, style| show(&Value::Float(f), SqlType::Float, style);
        assert_eq!(f(1_234_567.0, 0), "1.23457e+006");
        assert_eq!(f(123_456.0, 0), "123456");
        assert_eq!(f(0.1, 0), "0.1");
        assert_eq!(f(0.00001, 0), "1e-005");
        assert_eq!(f(1.5, 1), "1.5000000e+000");
        assert_eq!(f(0.1, 2), "1.000000000000000e-001");
        assert_eq!(f(0.1, 3), "0.10000000000000001");
    }

    #[test]
    fn monies() {
        let m = |text: &str, style| {
            show(
                &Value::Decimal(Decimal::parse(text).unwrap_or(Decimal::ZERO)),
                SqlType::Money,
                style,
            )
        };
        assert_eq!(m("4235.9819", 0), "4235.98");
        assert_eq!(m("-3510.9200", 1), "-3,510.92");
        assert_eq!(m("4235.9819", 2), "4235.9819");
    }

    #[test]
    fn dates() {
        let v = Value::DateTime { days: 35_248, ticks300: (13 * 3600 + 5 * 60 + 7) * 300 + 1 };
        let s = |style| show(&v, SqlType::DateTime, style);
        assert_eq!(s(0), "Jul  4 1996  1:05PM");
        assert_eq!(s(121), "1996-07-04 13:05:07.003");
        assert_eq!(s(126), "1996-07-04T13:05:07.003");
        assert_eq!(s(101), "07/04/1996");
        assert_eq!(s(112), "19960704");
        assert_eq!(s(113), "04 Jul 1996 13:05:07:003");
        assert_eq!(s(120), "1996-07-04 13:05:07");
        let o = Value::DateTimeOffset { days: 730_000, ticks: 0, offset_minutes: -90 };
        assert_eq!(
            to_text(&o, SqlType::DateTimeOffset(0), None).ok().as_deref(),
            Some("1999-09-03 22:30:00 -01:30")
        );
        assert_eq!(
            to_text(&Value::Time(1_234_567), SqlType::Time(7), None).ok().as_deref(),
            Some("00:00:00.1234567")
        );
        assert!(to_text(&v, SqlType::DateTime, Some(130)).is_err());
    }

    #[test]
    fn guids() {
        let text = "6F9619FF-8B86-D011-B42D-00C04FC964FF";
        assert_eq!(parse_guid(text).map(|g| guid(&g)).as_deref(), Some(text));
        assert_eq!(parse_guid(&format!("{{{text}}}")).map(|g| guid(&g)).as_deref(), Some(text));
        assert_eq!(parse_guid("6F9619FF"), None);
    }
}
