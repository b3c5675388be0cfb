//! Functions of dates and times.

use super::arguments::{any_nullable, arity, call};
use crate::{
    engine::expr::{
        bound::{Bound, Call},
        conversions::implicit,
        types::{self, Family},
    },
    error::{SqlError, SqlResult},
    value::{
        SqlType, Value,
        datetime::{self, DatePart, Moment},
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

pub fn bind(name: &str, args: &mut [Bound]) -> SqlResult<Option<Bound>> {
    Ok(Some(match name {
        "GETDATE" | "GETUTCDATE" => {
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
pub fn bind_part(name: &str, part: DatePart, mut args: Vec<Bound>) -> SqlResult<Bound> {
    let nullable = any_nullable(&args);
    let wanted = match name {
        "DATEADD" | "DATEDIFF" => 2,
        _ => 1,
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
        "DATEDIFF" => {
            let end = date_arg(args.remove(1), SqlType::DateTime2(7))?;
            let start = date_arg(args.remove(0), SqlType::DateTime2(7))?;
            part_call(part, vec![start, end], date_diff, SqlType::Int, nullable)
        }
        _ => {
            let value = date_arg(args.remove(0), SqlType::DateTime2(7))?;
            part_call(part, vec![value], date_part, SqlType::Int, nullable)
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

fn date_diff(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    if args[0] == Value::Null || args[1] == Value::Null {
        return Ok(Value::Null);
    }
    match datetime::date_diff(part_of(&args[2]), &args[0], &args[1]) {
        Some(n) if i32::try_from(n).is_ok() => Ok(Value::Int(n)),
        _ => Err(datetime::date_diff_overflow()),
    }
}
