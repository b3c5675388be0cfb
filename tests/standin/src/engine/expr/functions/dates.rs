//! Functions of dates and times.

use super::{any_nullable, arity, call};
use crate::{
    engine::expr::{
        binder::implicit,
        bound::{Bound, Call},
        types::{self, Family},
    },
    error::{SqlError, SqlResult},
    value::{
        Collation, SqlType, Value,
        datetime::{self, DatePart, Moment, TICKS_PER_SECOND},
    },
};

fn dated(ty: SqlType) -> bool {
    matches!(
        types::family(ty),
        Family::Date
            | Family::Time
            | Family::DateTime
            | Family::SmallDateTime
            | Family::DateTime2
            | Family::DateTimeOffset
    )
}

/// A date/time argument: text is read as `text_as`, numbers as datetime.
fn date_arg(arg: Bound, text_as: SqlType) -> SqlResult<Bound> {
    if dated(arg.ty) && !arg.is_null {
        return Ok(arg);
    }
    let ty = if types::is_text(arg.ty) { text_as } else { SqlType::DateTime };
    implicit(arg, ty)
}

pub fn bind(name: &str, args: &mut Vec<Bound>) -> SqlResult<Option<Bound>> {
    let nullable = any_nullable(args);
    Ok(Some(match name {
        "GETDATE" | "CURRENT_TIMESTAMP" | "GETUTCDATE" => {
            arity(name, args, 0..=0)?;
            call(now, Vec::new(), SqlType::DateTime, false)
        }
        "SYSDATETIME" | "SYSUTCDATETIME" => {
            arity(name, args, 0..=0)?;
            call(now, Vec::new(), SqlType::DateTime2(7), false)
        }
        "SYSDATETIMEOFFSET" => {
            arity(name, args, 0..=0)?;
            call(now, Vec::new(), SqlType::DateTimeOffset(7), false)
        }
        "YEAR" | "MONTH" | "DAY" => {
            arity(name, args, 1..=1)?;
            let arg = date_arg(args.remove(0), SqlType::DateTime2(7))?;
            let part = match name {
                "YEAR" => DatePart::Year,
                "MONTH" => DatePart::Month,
                _ => DatePart::Day,
            };
            part_call(part, vec![arg], date_part, SqlType::Int, nullable)
        }
        "EOMONTH" => {
            arity(name, args, 1..=2)?;
            let mut list = vec![date_arg(args.remove(0), SqlType::Date)?];
            for arg in args.drain(..) {
                list.push(implicit(arg, SqlType::Int)?);
            }
            call(eomonth, list, SqlType::Date, true)
        }
        "DATEFROMPARTS" | "DATETIMEFROMPARTS" | "DATETIME2FROMPARTS" | "TIMEFROMPARTS" => {
            let count = match name {
                "DATEFROMPARTS" => 3,
                "DATETIMEFROMPARTS" => 7,
                "DATETIME2FROMPARTS" => 8,
                _ => 5,
            };
            arity(name, args, count..=count)?;
            let list =
                args.drain(..).map(|a| implicit(a, SqlType::Int)).collect::<SqlResult<Vec<_>>>()?;
            let scale = || match list.last().map(|b| &b.node) {
                Some(crate::engine::expr::bound::Node::Const(Value::Int(n)))
                    if (0..=7).contains(n) =>
                {
                    Ok(u8::try_from(*n).unwrap_or(7))
                }
                _ => Err(SqlError::new(
                    10760,
                    16,
                    "Scale argument is not valid. Valid expressions for data type scale argument are integer constants and integer constant expressions.",
                )),
            };
            let ty = match name {
                "DATEFROMPARTS" => SqlType::Date,
                "DATETIMEFROMPARTS" => SqlType::DateTime,
                "DATETIME2FROMPARTS" => SqlType::DateTime2(scale()?),
                _ => SqlType::Time(scale()?),
            };
            call(from_parts, list, ty, nullable)
        }
        "SWITCHOFFSET" | "TODATETIMEOFFSET" => {
            arity(name, args, 2..=2)?;
            let scale = match args[0].ty {
                SqlType::DateTimeOffset(s) | SqlType::DateTime2(s) => s,
                SqlType::DateTime => 3,
                _ => 7,
            };
            let first = if name == "SWITCHOFFSET" {
                SqlType::DateTimeOffset(scale)
            } else {
                SqlType::DateTime2(scale)
            };
            let zone = args.remove(1);
            let value = implicit(args.remove(0), first)?;
            let function = if name == "SWITCHOFFSET" { switch_offset } else { to_offset };
            call(function, vec![value, zone], SqlType::DateTimeOffset(scale), nullable)
        }
        _ => return Ok(None),
    }))
}

/// The part travels as a constant last argument.
fn part_call(
    part: DatePart,
    mut args: Vec<Bound>,
    function: crate::engine::expr::bound::Builtin,
    ty: SqlType,
    nullable: bool,
) -> Bound {
    args.push(Bound::constant(Value::Int(code(part)), SqlType::Int));
    call(function, args, ty, nullable)
}

const PARTS: [DatePart; 15] = [
    DatePart::Year,
    DatePart::Quarter,
    DatePart::Month,
    DatePart::DayOfYear,
    DatePart::Day,
    DatePart::Week,
    DatePart::IsoWeek,
    DatePart::Weekday,
    DatePart::Hour,
    DatePart::Minute,
    DatePart::Second,
    DatePart::Millisecond,
    DatePart::Microsecond,
    DatePart::Nanosecond,
    DatePart::TzOffset,
];

fn code(part: DatePart) -> i64 {
    PARTS.iter().position(|p| *p == part).and_then(|at| i64::try_from(at).ok()).unwrap_or(0)
}

fn part_of(value: &Value) -> DatePart {
    match value {
        Value::Int(n) => {
            usize::try_from(*n).ok().and_then(|at| PARTS.get(at)).copied().unwrap_or(DatePart::Day)
        }
        _ => DatePart::Day,
    }
}

/// Functions whose first argument is a datepart.
pub fn bind_part(
    name: &str,
    part: DatePart,
    mut args: Vec<Bound>,
    collation: Collation,
) -> SqlResult<Bound> {
    let nullable = any_nullable(&args);
    let wanted = match name {
        "DATEADD" | "DATEDIFF" | "DATEDIFF_BIG" => 2,
        "DATEPART" | "DATENAME" | "DATETRUNC" => 1,
        _ => return Err(SqlError::unsupported(format!("the function {name}"))),
    };
    if args.len() != wanted {
        return Err(SqlError::new(
            174,
            15,
            format!("The {} function requires {} argument(s).", name.to_lowercase(), wanted + 1),
        ));
    }
    Ok(match name {
        "DATEADD" => {
            let value = date_arg(args.remove(1), SqlType::DateTime)?;
            let mut number = args.remove(0);
            if types::family(number.ty) != Family::Integer || number.is_null {
                // a fraction is cut, not rounded
                number = implicit(number, SqlType::BigInt)?;
            }
            let ty = value.ty;
            part_call(part, vec![number, value], date_add, ty, nullable)
        }
        "DATEDIFF" | "DATEDIFF_BIG" => {
            let end = date_arg(args.remove(1), SqlType::DateTime2(7))?;
            let start = date_arg(args.remove(0), SqlType::DateTime2(7))?;
            let ty = if name == "DATEDIFF" { SqlType::Int } else { SqlType::BigInt };
            part_call(part, vec![start, end], date_diff, ty, nullable)
        }
        "DATEPART" => {
            let value = date_arg(args.remove(0), SqlType::DateTime2(7))?;
            part_call(part, vec![value], date_part, SqlType::Int, nullable)
        }
        "DATENAME" => {
            let value = date_arg(args.remove(0), SqlType::DateTime2(7))?;
            part_call(
                part,
                vec![value],
                date_name,
                types::text(true, Some(30), false, collation),
                nullable,
            )
        }
        _ => {
            let value = date_arg(args.remove(0), SqlType::DateTime2(7))?;
            let ty = value.ty;
            part_call(part, vec![value], date_trunc, ty, nullable)
        }
    })
}

fn now(call: &Call<'_>, _: &[Value]) -> SqlResult<Value> {
    let (days, ticks) = call.context.settings.now;
    Moment { days, ticks, offset_minutes: Some(0) }.into_value(call.ty, "datetime2")
}

pub fn at_utc(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    match Moment::of(&args[0]) {
        Some(moment) => {
            Moment { offset_minutes: Some(0), ..moment.to_utc() }.into_value(call.ty, "datetime2")
        }
        None => Ok(Value::Null),
    }
}

fn date_part(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    Ok(datetime::date_part(part_of(&args[1]), &args[0], call.context.settings.date_first)
        .map_or(Value::Null, Value::Int))
}

fn date_add(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let Value::Int(number) = args[0] else { return Ok(Value::Null) };
    datetime::date_add(part_of(&args[2]), number, &args[1], call.ty, call.ty.name())
}

fn date_diff(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    if args[0] == Value::Null || args[1] == Value::Null {
        return Ok(Value::Null);
    }
    match datetime::date_diff(part_of(&args[2]), &args[0], &args[1]) {
        Some(n) if call.ty == SqlType::BigInt || i32::try_from(n).is_ok() => Ok(Value::Int(n)),
        _ => Err(datetime::date_diff_overflow()),
    }
}

fn date_name(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    const MONTHS: [&str; 12] = [
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
    const DAYS: [&str; 7] =
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let part = part_of(&args[1]);
    // days of the week are named, so they are counted from Monday whatever DATEFIRST says
    let first = if part == DatePart::Weekday { 1 } else { call.context.settings.date_first };
    let Some(n) = datetime::date_part(part, &args[0], first) else { return Ok(Value::Null) };
    let at = usize::try_from(n - 1).unwrap_or(0);
    let text = match part {
        DatePart::Month => MONTHS.get(at).copied().unwrap_or_default().to_owned(),
        DatePart::Weekday => DAYS.get(at).copied().unwrap_or_default().to_owned(),
        _ => n.to_string(),
    };
    Ok(Value::Str(text.into()))
}

fn date_trunc(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let Some(moment) = Moment::of(&args[0]) else { return Ok(Value::Null) };
    let (year, month, _) = datetime::civil_from_days(moment.days);
    let day = |y, m, d| datetime::days_from_civil(y, m, d).unwrap_or(moment.days);
    let cut = |ticks: u64| (moment.days, moment.ticks / ticks * ticks);
    let (days, ticks) = match part_of(&args[1]) {
        DatePart::Year => (day(year, 1, 1), 0),
        DatePart::Quarter => (day(year, (month - 1) / 3 * 3 + 1, 1), 0),
        DatePart::Month => (day(year, month, 1), 0),
        DatePart::Day | DatePart::DayOfYear => (moment.days, 0),
        DatePart::IsoWeek => (moment.days - moment.days.rem_euclid(7), 0),
        DatePart::Week => {
            let first = i32::from(call.context.settings.date_first) - 1;
            (moment.days - (moment.days - first).rem_euclid(7), 0)
        }
        DatePart::Hour => cut(3600 * TICKS_PER_SECOND),
        DatePart::Minute => cut(60 * TICKS_PER_SECOND),
        DatePart::Second => cut(TICKS_PER_SECOND),
        DatePart::Millisecond => cut(TICKS_PER_SECOND / 1000),
        DatePart::Microsecond => cut(10),
        _ => {
            return Err(SqlError::new(
                9810,
                16,
                "The datepart is not supported by date function datetrunc for data type datetime2.",
            ));
        }
    };
    Moment { days, ticks, offset_minutes: moment.offset_minutes }.into_value(call.ty, "datetime2")
}

fn eomonth(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let Some(moment) = Moment::of(&args[0]) else { return Ok(Value::Null) };
    let add = match args.get(1) {
        Some(Value::Int(n)) => *n,
        _ => 0,
    };
    let (year, month, _) = datetime::civil_from_days(moment.days);
    let total = i64::from(year) * 12 + i64::from(month) - 1 + add;
    let year = i32::try_from(total.div_euclid(12)).unwrap_or(0);
    let month = u32::try_from(total.rem_euclid(12) + 1).unwrap_or(1);
    match datetime::days_from_civil(year, month, datetime::days_in_month(year, month)) {
        Some(days) => Ok(Value::Date(days)),
        None => {
            Err(SqlError::new(517, 16, "Adding a value to a 'date' column caused an overflow."))
        }
    }
}

fn from_parts(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let mut numbers = Vec::with_capacity(args.len());
    for arg in args {
        match arg {
            Value::Int(n) => numbers.push(*n),
            _ => return Ok(Value::Null),
        }
    }
    let invalid = || {
        SqlError::new(
            289,
            16,
            format!(
                "Cannot construct data type {}, some of the arguments have values which are not valid.",
                types::name(call.ty)
            ),
        )
    };
    let unsigned = |n: i64| u32::try_from(n).map_err(|_| invalid());
    let (date, time): (&[i64], &[i64]) = match call.ty {
        SqlType::Time(_) => (&[], &numbers),
        _ => numbers.split_at(3),
    };
    let days = match date {
        [y, m, d] => datetime::days_from_civil(
            i32::try_from(*y).map_err(|_| invalid())?,
            unsigned(*m)?,
            unsigned(*d)?,
        )
        .ok_or_else(invalid)?,
        _ => datetime::DAYS_TO_1900,
    };
    let ticks = match time {
        [h, m, s, fraction, rest @ ..] => {
            let digits = match (rest, call.ty) {
                ([], _) => 3,
                ([digits, ..], _) => unsigned(*digits)?,
            };
            let unit = 10u64
                .checked_pow(7u32.checked_sub(digits).ok_or_else(invalid)?)
                .ok_or_else(invalid)?;
            let (h, m, s) = (unsigned(*h)?, unsigned(*m)?, unsigned(*s)?);
            let fraction = u64::try_from(*fraction).map_err(|_| invalid())? * unit;
            if h > 23 || m > 59 || s > 59 || fraction >= TICKS_PER_SECOND {
                return Err(invalid());
            }
            u64::from(h * 3600 + m * 60 + s) * TICKS_PER_SECOND + fraction
        }
        _ => 0,
    };
    Moment::new(days, ticks).into_value(call.ty, "int")
}

fn offset(value: &Value) -> SqlResult<Option<i16>> {
    match value {
        Value::Null => Ok(None),
        Value::Int(n) if (-840..=840).contains(n) => Ok(i16::try_from(*n).ok()),
        Value::Str(s) => match datetime::parse_offset(s) {
            Some(offset) => Ok(Some(offset)),
            None => Err(SqlError::new(
                9812,
                16,
                "The timezone provided to builtin function is invalid.",
            )),
        },
        _ => Err(SqlError::new(9812, 16, "The timezone provided to builtin function is invalid.")),
    }
}

fn switch_offset(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    match (&args[0], offset(&args[1])?) {
        (Value::DateTimeOffset { days, ticks, .. }, Some(offset_minutes)) => {
            Ok(Value::DateTimeOffset { days: *days, ticks: *ticks, offset_minutes })
        }
        _ => Ok(Value::Null),
    }
}

fn to_offset(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    match (Moment::of(&args[0]), offset(&args[1])?) {
        (Some(moment), Some(minutes)) => {
            Moment { offset_minutes: Some(minutes), ..moment }.into_value(call.ty, "datetime2")
        }
        _ => Ok(Value::Null),
    }
}
