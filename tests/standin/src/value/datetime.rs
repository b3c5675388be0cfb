//! Dates and times: the calendar, reading literals, DATEADD/DATEDIFF/DATEPART.
//!
//! Everything is worked out on a [`Moment`]: days since 0001-01-01 and 100 ns ticks since midnight.
//! Ranges and rounding are those of the Transact-SQL reference: datetime from 1753 in steps of
//! 1/300 s, smalldatetime 1900 to 2079-06-06 in minutes, the others 0001 to 9999.

use super::{SqlType, Value};
use crate::error::{SqlError, SqlResult};

pub const TICKS_PER_SECOND: u64 = 10_000_000;
pub const TICKS_PER_DAY: u64 = 86_400 * TICKS_PER_SECOND;
/// 1900-01-01 counted from 0001-01-01.
pub const DAYS_TO_1900: i32 = 693_595;
/// 9999-12-31 counted from 0001-01-01.
pub const MAX_DAYS: i32 = 3_652_058;
const MIN_DATETIME_DAYS: i32 = 639_905;

/// SET DATEFORMAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DateFormat {
    #[default]
    Mdy,
    Dmy,
    Ymd,
    Ydm,
    Myd,
    Dym,
}

impl DateFormat {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "mdy" => Self::Mdy,
            "dmy" => Self::Dmy,
            "ymd" => Self::Ymd,
            "ydm" => Self::Ydm,
            "myd" => Self::Myd,
            "dym" => Self::Dym,
            _ => return None,
        })
    }
}

/// A point in time as shown (local), with the offset if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub days: i32,
    pub ticks: u64,
    pub offset_minutes: Option<i16>,
}

/// Days since 0001-01-01 of a proleptic Gregorian date; None when there is no such day.
pub fn days_from_civil(year: i32, month: u32, day: u32) -> Option<i32> {
    if !(1..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || day == 0
        || day > days_in_month(year, month)
    {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let m = i32::try_from(month).ok()?;
    let doy = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + i32::try_from(day).ok()? - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    Some(era * 146_097 + doe - 306)
}

/// Year, month and day of days since 0001-01-01.
pub fn civil_from_days(days: i32) -> (i32, u32, u32) {
    let z = days + 306;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1).unsigned_abs();
    let month = (if mp < 10 { mp + 3 } else { mp - 9 }).unsigned_abs();
    (yoe + era * 400 + i32::from(month <= 2), month, day)
}

pub fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        _ => 31,
    }
}

/// Error 241.
pub fn conversion_failed() -> SqlError {
    SqlError::new(
        241,
        16,
        "Conversion failed when converting date and/or time from character string.",
    )
}

/// Error 242.
pub fn out_of_range(from: &str, to: &str) -> SqlError {
    SqlError::new(
        242,
        16,
        format!(
            "The conversion of a {from} data type to a {to} data type resulted in an out-of-range value."
        ),
    )
}

impl Moment {
    pub fn new(days: i32, ticks: u64) -> Self {
        Self { days, ticks, offset_minutes: None }
    }

    /// The moment a date/time cell shows; None for other values. A time is on 1900-01-01.
    pub fn of(value: &Value) -> Option<Self> {
        Some(match *value {
            Value::Date(days) => Self::new(days, 0),
            Value::Time(ticks) => Self::new(DAYS_TO_1900, ticks),
            // Rounded, as at compatibility level 130 and later: .857 is .8566667.
            // <https://learn.microsoft.com/sql/t-sql/data-types/datetime2-transact-sql>
            Value::DateTime { days, ticks300 } => {
                Self::new(days + DAYS_TO_1900, (u64::from(ticks300) * 100_000 + 1) / 3)
            }
            Value::SmallDateTime { days, minutes } => Self::new(
                i32::from(days) + DAYS_TO_1900,
                u64::from(minutes) * 60 * TICKS_PER_SECOND,
            ),
            Value::DateTime2 { days, ticks } => Self::new(days, ticks),
            Value::DateTimeOffset { days, ticks, offset_minutes } => Self {
                offset_minutes: Some(offset_minutes),
                ..Self::new(days, ticks).plus_minutes(offset_minutes.into())
            },
            _ => return None,
        })
    }

    fn plus_minutes(self, minutes: i64) -> Self {
        let total =
            i128::from(self.ticks) + i128::from(minutes) * 60 * i128::from(TICKS_PER_SECOND);
        self.at_total(i128::from(self.days) * i128::from(TICKS_PER_DAY) + total)
    }

    fn total(self) -> i128 {
        i128::from(self.days) * i128::from(TICKS_PER_DAY) + i128::from(self.ticks)
    }

    fn at_total(self, total: i128) -> Self {
        let day = i128::from(TICKS_PER_DAY);
        let days = i32::try_from(total.div_euclid(day)).unwrap_or(i32::MAX);
        Self {
            days,
            ticks: u64::try_from(total.rem_euclid(day)).unwrap_or(0),
            offset_minutes: self.offset_minutes,
        }
    }

    /// The moment in UTC (its own offset, or zero).
    pub fn to_utc(self) -> Self {
        self.plus_minutes(-i64::from(self.offset_minutes.unwrap_or(0)))
    }

    /// As a cell of a date/time type, rounded as that type rounds. `from` is the type's name in the
    /// out-of-range error.
    pub fn into_value(self, ty: SqlType, from: &str) -> SqlResult<Value> {
        let in_range = |m: Self| (0..=MAX_DAYS).contains(&m.days);
        match ty {
            SqlType::Date if in_range(self) => Ok(Value::Date(self.days)),
            SqlType::Time(scale) => Ok(Value::Time(round_ticks(self.ticks, scale) % TICKS_PER_DAY)),
            SqlType::DateTime => {
                let ticks300 = (self.ticks * 3 + 50_000) / 100_000;
                let carry = ticks300 >= 300 * 86_400;
                let days = self.days + i32::from(carry);
                if !(MIN_DATETIME_DAYS..=MAX_DAYS).contains(&days) {
                    return Err(out_of_range(from, "datetime"));
                }
                let ticks300 = if carry { 0 } else { u32::try_from(ticks300).unwrap_or(0) };
                Ok(Value::DateTime { days: days - DAYS_TO_1900, ticks300 })
            }
            SqlType::SmallDateTime => {
                // 29.998 s goes down, 29.999 s goes up: the value is first a datetime
                let ticks300 = (self.ticks * 3 + 50_000) / 100_000;
                let minutes = (ticks300 + 9000) / 18_000;
                let carry = minutes >= 1440;
                let days = u16::try_from(self.days + i32::from(carry) - DAYS_TO_1900)
                    .map_err(|_| out_of_range(from, "smalldatetime"))?;
                Ok(Value::SmallDateTime {
                    days,
                    minutes: if carry { 0 } else { u16::try_from(minutes).unwrap_or(0) },
                })
            }
            SqlType::DateTime2(scale) => {
                let rounded = self.rounded(scale);
                if !in_range(rounded) {
                    return Err(out_of_range(from, "datetime2"));
                }
                Ok(Value::DateTime2 { days: rounded.days, ticks: rounded.ticks })
            }
            SqlType::DateTimeOffset(scale) => {
                let rounded = self.rounded(scale);
                let utc = rounded.to_utc();
                if !in_range(rounded) || !in_range(utc) {
                    return Err(out_of_range(from, "datetimeoffset"));
                }
                Ok(Value::DateTimeOffset {
                    days: utc.days,
                    ticks: utc.ticks,
                    offset_minutes: self.offset_minutes.unwrap_or(0),
                })
            }
            _ => Err(out_of_range(from, "date")),
        }
    }

    /// Rounded to a number of decimals; datetime2 never rounds past its last instant but stops
    /// there.
    fn rounded(self, scale: u8) -> Self {
        let ticks = round_ticks(self.ticks, scale);
        if ticks < TICKS_PER_DAY {
            Self { ticks, ..self }
        } else if self.days >= MAX_DAYS {
            let unit = tick_unit(scale);
            Self { ticks: TICKS_PER_DAY - unit, ..self }
        } else {
            Self { days: self.days + 1, ticks: 0, ..self }
        }
    }
}

fn tick_unit(scale: u8) -> u64 {
    10u64.pow(7u32.saturating_sub(scale.into()))
}

fn round_ticks(ticks: u64, scale: u8) -> u64 {
    let unit = tick_unit(scale);
    (ticks + unit / 2) / unit * unit
}

/// A literal taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub moment: Moment,
    pub has_date: bool,
    pub has_time: bool,
    /// digits of the fraction of a second
    pub fraction_digits: u8,
    /// `Z` was written
    pub zulu: bool,
}

/// What stopped a reading: not a date at all (241), or a day or hour that does not exist (242 for
/// the old types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseFailure {
    Syntax,
    Range,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number { value: u32, digits: usize },
    Month(u32),
    Word(String),
    Sign(char),
}

/// Reads a date/time literal. `year_first_is_ymd`: date, datetime2 and datetimeoffset read
/// `yyyy-mm-dd` the same under every DATEFORMAT; datetime and smalldatetime follow DATEFORMAT even
/// there.
pub fn parse(
    text: &str,
    format: DateFormat,
    year_first_is_ymd: bool,
) -> Result<Parsed, ParseFailure> {
    let text = text.trim();
    let mut out = Parsed {
        moment: Moment::new(DAYS_TO_1900, 0),
        has_date: false,
        has_time: false,
        fraction_digits: 0,
        zulu: false,
    };
    if text.is_empty() {
        return Ok(out);
    }
    let mut rest = text;
    if let Some(time_at) = time_start(text) {
        rest = text[..time_at].trim_end();
        let mut time = text[time_at..].trim();
        if let Some(stripped) = time.strip_prefix('T') {
            // ISO 8601 wants the whole date before the T
            if !rest.contains('-') && rest.len() != 8 {
                return Err(ParseFailure::Syntax);
            }
            time = stripped;
        }
        parse_time(time, &mut out)?;
        out.has_time = true;
    }
    if !rest.is_empty() {
        out.moment.days = parse_date(rest, format, year_first_is_ymd)?;
        out.has_date = true;
    }
    Ok(out)
}

/// Where the time part begins: at the hour before the first colon or before AM/PM, or at the T of
/// ISO 8601.
fn time_start(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if let Some(t) = text.find('T')
        && t > 0
        && bytes[t - 1].is_ascii_digit()
        && bytes.get(t + 1).is_some_and(u8::is_ascii_digit)
    {
        return Some(t);
    }
    let back_to_number = |mut at: usize| {
        while at > 0 && bytes[at - 1] == b' ' {
            at -= 1;
        }
        while at > 0 && bytes[at - 1].is_ascii_digit() {
            at -= 1;
        }
        at
    };
    if let Some(colon) = text.find(':') {
        return Some(back_to_number(colon));
    }
    let upper = text.to_ascii_uppercase();
    if upper.ends_with("AM") || upper.ends_with("PM") {
        let at = back_to_number(text.len() - 2);
        return (at < text.len() - 2).then_some(at);
    }
    None
}

fn parse_time(text: &str, out: &mut Parsed) -> Result<(), ParseFailure> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let number = |at: &mut usize| -> Option<(u64, usize)> {
        let start = *at;
        while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
            *at += 1;
        }
        text[start..*at].parse().ok().map(|v| (v, *at - start))
    };
    let (mut hour, digits) = number(&mut at).ok_or(ParseFailure::Syntax)?;
    let (mut minute, mut second, mut fraction) = (0, 0, 0);
    if digits > 2 {
        return Err(ParseFailure::Syntax);
    }
    if bytes.get(at) == Some(&b':') {
        at += 1;
        minute = number(&mut at).filter(|(_, d)| *d <= 2).ok_or(ParseFailure::Syntax)?.0;
        if bytes.get(at) == Some(&b':') {
            at += 1;
            second = number(&mut at).filter(|(_, d)| *d <= 2).ok_or(ParseFailure::Syntax)?.0;
            if matches!(bytes.get(at), Some(b'.' | b':')) {
                // hh:mm:ss:fff counts milliseconds, hh:mm:ss.fff is a decimal fraction
                let colon = bytes[at] == b':';
                at += 1;
                let (value, digits) =
                    number(&mut at).filter(|(_, d)| *d <= 9).ok_or(ParseFailure::Syntax)?;
                out.fraction_digits = u8::try_from(digits).unwrap_or(9);
                fraction = if colon {
                    value * 10_000
                } else if digits <= 7 {
                    value * 10u64.pow(u32::try_from(7 - digits).unwrap_or(0))
                } else {
                    let unit = 10u64.pow(u32::try_from(digits - 7).unwrap_or(0));
                    (value + unit / 2) / unit
                };
            }
        }
    }
    let mut rest = text[at..].trim();
    let upper = rest.to_ascii_uppercase();
    if let Some(pm) =
        if upper.starts_with("PM") { Some(true) } else { upper.starts_with("AM").then_some(false) }
    {
        if hour > 12 && !pm || hour > 23 {
            return Err(ParseFailure::Range);
        }
        hour = match (pm, hour) {
            (false, 12) => 0,
            (true, h) if h < 12 => h + 12,
            (_, h) => h,
        };
        rest = rest[2..].trim();
    }
    if rest.eq_ignore_ascii_case("z") {
        out.zulu = true;
        out.moment.offset_minutes = Some(0);
    } else if !rest.is_empty() {
        out.moment.offset_minutes = Some(parse_offset(rest).ok_or(ParseFailure::Syntax)?);
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(ParseFailure::Range);
    }
    out.moment.ticks = (hour * 3600 + minute * 60 + second) * TICKS_PER_SECOND + fraction;
    Ok(())
}

/// `+hh:mm`, at most 14 hours.
pub fn parse_offset(text: &str) -> Option<i16> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i16, i16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours.checked_mul(60)?.checked_add(minutes)?;
    ((0..60).contains(&minutes) && (0..=840).contains(&total)).then_some(sign * total)
}

fn tokens(text: &str) -> Result<Vec<Token>, ParseFailure> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        if c.is_ascii_digit() {
            let mut digits = String::new();
            while let Some(d) = chars.next_if(char::is_ascii_digit) {
                digits.push(d);
            }
            let value = digits.parse().map_err(|_| ParseFailure::Syntax)?;
            out.push(Token::Number { value, digits: digits.len() });
        } else if c.is_alphabetic() {
            let mut word = String::new();
            while let Some(l) = chars.next_if(|c| c.is_alphabetic()) {
                word.push(l);
            }
            out.push(month(&word).map_or(Token::Word(word), Token::Month));
        } else {
            chars.next();
            if !matches!(c, ' ' | ',') {
                out.push(Token::Sign(c));
            }
        }
    }
    Ok(out)
}

pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn month(word: &str) -> Option<u32> {
    MONTHS
        .iter()
        .zip(1u32..)
        .find(|(name, _)| {
            name.eq_ignore_ascii_case(word)
                || (word.len() == 3 && name[..3].eq_ignore_ascii_case(word))
        })
        .map(|(_, number)| number)
}

/// `two digit year cutoff` 2049.
fn full_year(value: u32, digits: usize) -> Option<i32> {
    let value = i32::try_from(value).ok()?;
    match digits {
        1 | 2 => Some(if value < 50 { 2000 + value } else { 1900 + value }),
        4 => Some(value),
        _ => None,
    }
}

fn parse_date(
    text: &str,
    format: DateFormat,
    year_first_is_ymd: bool,
) -> Result<i32, ParseFailure> {
    let tokens = tokens(text)?;
    let build = |year: Option<i32>, month: u32, day: u32| {
        days_from_civil(year.ok_or(ParseFailure::Syntax)?, month, day).ok_or(ParseFailure::Range)
    };
    match tokens.as_slice() {
        [Token::Number { value, digits: 8 }] => {
            build(i32::try_from(value / 10_000).ok(), value / 100 % 100, value % 100)
        }
        [Token::Number { value, digits: 6 }] => {
            build(full_year(value / 10_000, 2), value / 100 % 100, value % 100)
        }
        [Token::Number { value, digits: 4 }] => build(i32::try_from(*value).ok(), 1, 1),
        [
            Token::Number { value: a, digits: da },
            Token::Sign(s1),
            Token::Number { value: b, digits: db },
            Token::Sign(s2),
            Token::Number { value: c, digits: dc },
        ] if s1 == s2 && matches!(s1, '/' | '-' | '.') => {
            if *da == 4 {
                let day_first = !year_first_is_ymd
                    && matches!(format, DateFormat::Dmy | DateFormat::Ydm | DateFormat::Dym);
                let (m, d) = if day_first { (*c, *b) } else { (*b, *c) };
                return build(full_year(*a, *da), m, d);
            }
            if *dc == 4 {
                let day_first =
                    matches!(format, DateFormat::Dmy | DateFormat::Ydm | DateFormat::Dym);
                let (m, d) = if day_first { (*b, *a) } else { (*a, *b) };
                return build(full_year(*c, *dc), m, d);
            }
            let (year, m, d) = match format {
                DateFormat::Mdy => ((c, dc), a, b),
                DateFormat::Dmy => ((c, dc), b, a),
                DateFormat::Ymd => ((a, da), b, c),
                DateFormat::Ydm => ((a, da), c, b),
                DateFormat::Myd => ((b, db), a, c),
                DateFormat::Dym => ((b, db), c, a),
            };
            build(full_year(*year.0, *year.1), *m, *d)
        }
        // Jan 2 2020, 2 Jan 2020, 2-Jan-2020, Jan 2020, 2020 Jan 2
        _ => {
            let plain: Vec<&Token> =
                tokens.iter().filter(|t| !matches!(t, Token::Sign('-' | '/' | '.'))).collect();
            match plain.as_slice() {
                [
                    Token::Month(m),
                    Token::Number { value: d, digits: 1 | 2 },
                    Token::Number { value: y, digits },
                ]
                | [
                    Token::Number { value: d, digits: 1 | 2 },
                    Token::Month(m),
                    Token::Number { value: y, digits },
                ]
                | [
                    Token::Number { value: y, digits: digits @ 4 },
                    Token::Month(m),
                    Token::Number { value: d, digits: 1 | 2 },
                ]
                | [
                    Token::Month(m),
                    Token::Number { value: y, digits: digits @ 4 },
                    Token::Number { value: d, digits: 1 | 2 },
                ] => build(full_year(*y, *digits), *m, *d),
                [Token::Month(m), Token::Number { value: y, digits: digits @ 4 }]
                | [Token::Number { value: y, digits: digits @ 4 }, Token::Month(m)] => {
                    build(full_year(*y, *digits), *m, 1)
                }
                _ => Err(ParseFailure::Syntax),
            }
        }
    }
}

/// The dateparts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatePart {
    Year,
    Quarter,
    Month,
    DayOfYear,
    Day,
    Week,
    IsoWeek,
    Weekday,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
    TzOffset,
}

impl DatePart {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "year" | "yy" | "yyyy" => Self::Year,
            "quarter" | "qq" | "q" => Self::Quarter,
            "month" | "mm" | "m" => Self::Month,
            "dayofyear" | "dy" | "y" => Self::DayOfYear,
            "day" | "dd" | "d" => Self::Day,
            "week" | "wk" | "ww" => Self::Week,
            "iso_week" | "isowk" | "isoww" => Self::IsoWeek,
            "weekday" | "dw" | "w" => Self::Weekday,
            "hour" | "hh" => Self::Hour,
            "minute" | "mi" | "n" => Self::Minute,
            "second" | "ss" | "s" => Self::Second,
            "millisecond" | "ms" => Self::Millisecond,
            "microsecond" | "mcs" => Self::Microsecond,
            "nanosecond" | "ns" => Self::Nanosecond,
            "tzoffset" | "tz" => Self::TzOffset,
            _ => return None,
        })
    }

    /// Ticks of one unit, for the parts below a day.
    fn ticks(self) -> Option<i128> {
        Some(match self {
            Self::Hour => 36_000_000_000,
            Self::Minute => 600_000_000,
            Self::Second => 10_000_000,
            Self::Millisecond => 10_000,
            Self::Microsecond => 10,
            _ => return None,
        })
    }
}

/// DATEADD; `type_name` is for the overflow error 517.
pub fn date_add(
    part: DatePart,
    number: i64,
    value: &Value,
    ty: SqlType,
    type_name: &str,
) -> SqlResult<Value> {
    let overflow = || {
        SqlError::new(
            517,
            16,
            format!("Adding a value to a '{type_name}' column caused an overflow."),
        )
    };
    let Some(moment) = Moment::of(value) else { return Ok(Value::Null) };
    let months = |n: Option<i64>| -> SqlResult<Moment> {
        let (y, m, d) = civil_from_days(moment.days);
        let total = n
            .and_then(|n| n.checked_add(i64::from(y) * 12 + i64::from(m) - 1))
            .ok_or_else(overflow)?;
        let year = i32::try_from(total.div_euclid(12)).map_err(|_| overflow())?;
        let month = u32::try_from(total.rem_euclid(12) + 1).unwrap_or(1);
        let day = d.min(days_in_month(year, month));
        Ok(Moment { days: days_from_civil(year, month, day).ok_or_else(overflow)?, ..moment })
    };
    let shifted = match part {
        DatePart::Year => months(number.checked_mul(12))?,
        DatePart::Quarter => months(number.checked_mul(3))?,
        DatePart::Month => months(Some(number))?,
        DatePart::Nanosecond => {
            // datetime2(7) keeps 100 ns; the rest rounds half up
            moment.at_total(moment.total() + (i128::from(number) + 50).div_euclid(100))
        }
        DatePart::TzOffset | DatePart::IsoWeek => {
            return Err(SqlError::new(
                9810,
                16,
                "The datepart is not supported by date function dateadd for data type datetime.",
            ));
        }
        _ => {
            let unit = match part {
                DatePart::Week => i128::from(TICKS_PER_DAY) * 7,
                _ => part.ticks().unwrap_or(i128::from(TICKS_PER_DAY)),
            };
            moment.at_total(moment.total() + i128::from(number) * unit)
        }
    };
    if !(0..=MAX_DAYS).contains(&shifted.days) && !matches!(ty, SqlType::Time(_)) {
        return Err(overflow());
    }
    shifted.into_value(ty, type_name).map_err(|_| overflow())
}

/// DATEDIFF_BIG: how many boundaries of the part lie between the two.
pub fn date_diff(part: DatePart, start: &Value, end: &Value) -> Option<i64> {
    let (a, b) = (Moment::of(start)?.to_utc(), Moment::of(end)?.to_utc());
    let months = |m: Moment| {
        let (y, month, _) = civil_from_days(m.days);
        i64::from(y) * 12 + i64::from(month) - 1
    };
    Some(match part {
        DatePart::Year => months(b).div_euclid(12) - months(a).div_euclid(12),
        DatePart::Quarter => months(b).div_euclid(3) - months(a).div_euclid(3),
        DatePart::Month => months(b) - months(a),
        // weeks begin on Sunday whatever DATEFIRST says; day 0 was a Monday
        DatePart::Week | DatePart::IsoWeek => {
            i64::from((b.days + 1).div_euclid(7) - (a.days + 1).div_euclid(7))
        }
        DatePart::Nanosecond => i64::try_from((b.total() - a.total()) * 100).ok()?,
        _ => {
            let unit = part.ticks().unwrap_or(i128::from(TICKS_PER_DAY));
            i64::try_from(b.total().div_euclid(unit) - a.total().div_euclid(unit)).ok()?
        }
    })
}

/// Error 535.
pub fn date_diff_overflow() -> SqlError {
    SqlError::new(
        535,
        16,
        "The datediff function resulted in an overflow. The number of dateparts separating two date/time instances is too large. Try to use datediff with a less precise datepart.",
    )
}

/// DATEPART. `date_first` is SET DATEFIRST (7 by default).
pub fn date_part(part: DatePart, value: &Value, date_first: u8) -> Option<i64> {
    let moment = Moment::of(value)?;
    let (year, month, day) = civil_from_days(moment.days);
    let january_1 = days_from_civil(year, 1, 1)?;
    let ticks = i64::try_from(moment.ticks).ok()?;
    let fraction = ticks % 10_000_000;
    let weekday = |days: i32| (days - (i32::from(date_first) - 1)).rem_euclid(7) + 1;
    Some(match part {
        DatePart::Year => year.into(),
        DatePart::Quarter => i64::from((month - 1) / 3 + 1),
        DatePart::Month => month.into(),
        DatePart::Day => day.into(),
        DatePart::DayOfYear => i64::from(moment.days - january_1 + 1),
        DatePart::Weekday => weekday(moment.days).into(),
        DatePart::Week => i64::from((moment.days - january_1 + weekday(january_1) - 1) / 7 + 1),
        DatePart::IsoWeek => {
            let thursday = moment.days - moment.days.rem_euclid(7) + 3;
            let (y, _, _) = civil_from_days(thursday);
            i64::from((thursday - days_from_civil(y, 1, 1)?) / 7 + 1)
        }
        DatePart::Hour => ticks / 36_000_000_000,
        DatePart::Minute => ticks / 600_000_000 % 60,
        DatePart::Second => ticks / 10_000_000 % 60,
        DatePart::Millisecond => match value {
            Value::DateTime { ticks300, .. } => (i64::from(ticks300 % 300) * 10 + 1) / 3,
            _ => fraction / 10_000,
        },
        DatePart::Microsecond => fraction / 10,
        DatePart::Nanosecond => fraction * 100,
        DatePart::TzOffset => moment.offset_minutes.unwrap_or(0).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<(i32, u32, u32, u64, Option<i16>), ParseFailure> {
        parse(text, DateFormat::Mdy, true).map(|p| {
            let (y, m, d) = civil_from_days(p.moment.days);
            (y, m, d, p.moment.ticks, p.moment.offset_minutes)
        })
    }

    #[test]
    fn calendar() {
        assert_eq!(days_from_civil(1, 1, 1), Some(0));
        assert_eq!(days_from_civil(1900, 1, 1), Some(DAYS_TO_1900));
        assert_eq!(days_from_civil(1753, 1, 1), Some(MIN_DATETIME_DAYS));
        assert_eq!(days_from_civil(9999, 12, 31), Some(MAX_DAYS));
        assert_eq!(days_from_civil(2023, 2, 29), None);
        for days in (0..MAX_DAYS).step_by(97) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), Some(days));
        }
    }

    #[test]
    fn literals() {
        let s = TICKS_PER_SECOND;
        assert_eq!(at("19960704"), Ok((1996, 7, 4, 0, None)));
        assert_eq!(at("1996-07-04 00:00:00.000"), Ok((1996, 7, 4, 0, None)));
        assert_eq!(at("7/4/1996"), Ok((1996, 7, 4, 0, None)));
        assert_eq!(
            at("2020-01-02T03:04:05.1234567Z"),
            Ok((2020, 1, 2, 11045 * s + 1_234_567, Some(0)))
        );
        assert_eq!(at("2020-01-02 03:04:05 +02:00"), Ok((2020, 1, 2, 11045 * s, Some(120))));
        assert_eq!(at("Jan  2 2020  1:05PM"), Ok((2020, 1, 2, (13 * 3600 + 300) * s, None)));
        assert_eq!(at("2 January, 2020"), Ok((2020, 1, 2, 0, None)));
        assert_eq!(at("12:30"), Ok((1900, 1, 1, 45_000 * s, None)));
        assert_eq!(at(""), Ok((1900, 1, 1, 0, None)));
        assert_eq!(at("1/2/49"), Ok((2049, 1, 2, 0, None)));
        assert_eq!(at("1/2/50"), Ok((1950, 1, 2, 0, None)));
        assert_eq!(at("2020-13-01"), Err(ParseFailure::Range));
        assert_eq!(at("hello"), Err(ParseFailure::Syntax));
        let dmy =
            parse("2020-01-02", DateFormat::Dmy, false).map(|p| civil_from_days(p.moment.days));
        assert_eq!(dmy, Ok((2020, 2, 1)));
    }

    #[test]
    fn rounding() {
        let parsed = |text| {
            parse(text, DateFormat::Mdy, true).map(|p| p.moment).unwrap_or(Moment::new(0, 0))
        };
        let ms = |text| match parsed(text).into_value(SqlType::DateTime, "varchar") {
            Ok(Value::DateTime { days, ticks300 }) => (days, ticks300),
            _ => (0, 0),
        };
        assert_eq!(ms("1900-01-02 00:00:00.001"), (1, 0));
        assert_eq!(ms("1900-01-02 00:00:00.002"), (1, 1));
        assert_eq!(ms("1900-01-02 00:00:00.005"), (1, 2));
        assert_eq!(ms("1900-01-02 23:59:59.999"), (2, 0));
        let small = parsed("2000-05-08 12:35:29.998").into_value(SqlType::SmallDateTime, "varchar");
        assert_eq!(small.ok(), Some(Value::SmallDateTime { days: 36_652, minutes: 755 }));
        let small = parsed("2000-05-08 12:35:29.999").into_value(SqlType::SmallDateTime, "varchar");
        assert_eq!(small.ok(), Some(Value::SmallDateTime { days: 36_652, minutes: 756 }));
        assert_eq!(
            parsed("1752-12-31").into_value(SqlType::DateTime, "varchar").map_err(|e| e.number),
            Err(242)
        );
        assert_eq!(
            parsed("23:59:59.9999999").into_value(SqlType::Time(0), "varchar"),
            Ok(Value::Time(0))
        );
    }

    #[test]
    fn arithmetic() {
        let date = |y, m, d| Value::Date(days_from_civil(y, m, d).unwrap_or(0));
        assert_eq!(
            date_add(DatePart::Month, 1, &date(2020, 1, 31), SqlType::Date, "date").ok(),
            Some(date(2020, 2, 29))
        );
        assert_eq!(
            date_add(DatePart::Year, 8000, &date(2020, 1, 31), SqlType::Date, "date")
                .map_err(|e| e.number),
            Err(517)
        );
        assert_eq!(date_diff(DatePart::Year, &date(2019, 12, 31), &date(2020, 1, 1)), Some(1));
        assert_eq!(date_diff(DatePart::Week, &date(2020, 1, 4), &date(2020, 1, 5)), Some(1));
        assert_eq!(date_part(DatePart::Weekday, &date(2026, 11, 22), 7), Some(1));
        assert_eq!(date_part(DatePart::IsoWeek, &date(2021, 1, 3), 7), Some(53));
        assert_eq!(date_part(DatePart::Week, &date(2021, 1, 3), 7), Some(2));
        let t = Value::DateTime { days: 0, ticks300: 1 };
        assert_eq!(date_part(DatePart::Millisecond, &t, 7), Some(3));
        assert_eq!(
            date_part(DatePart::Millisecond, &Value::DateTime { days: 0, ticks300: 2 }, 7),
            Some(7)
        );
        assert_eq!(
            date_add(DatePart::Millisecond, 4, &t, SqlType::DateTime, "datetime").ok(),
            Some(Value::DateTime { days: 0, ticks300: 2 })
        );
    }
}
