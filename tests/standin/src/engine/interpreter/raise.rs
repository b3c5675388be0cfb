//! PRINT, RAISERROR and THROW.

use super::{Failure, Origin, raise};
use crate::{
    engine::{context::Session, expr},
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    value::{Length, SqlType, Value},
};
use sqlparser::ast::Expr;

pub fn print(
    session: &mut Session,
    text: &Expr,
    line: u32,
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    let ty = SqlType::NVarChar(Length::N(4000), session.collation());
    let text = match session.statement(|s| expr::evaluate_as(&*s, text, ty))? {
        Value::Str(s) => s.to_string(),
        // PRINT of NULL prints nothing: an empty line
        _ => String::new(),
    };
    Ok(sink.message(&SqlError::new(0, 0, text).at(line))?)
}

/// RAISERROR: see
/// <https://learn.microsoft.com/en-us/sql/t-sql/language-elements/raiserror-transact-sql>.
pub fn raiserror(
    session: &mut Session,
    (message, severity, state, args): (&Expr, &Expr, &Expr, &[Expr]),
    (with_log, with_nowait): (bool, bool),
    line: u32,
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    let (message, severity, state, values) = session.statement(|s| {
        let (ty, message) = expr::evaluate(&*s, message)?;
        if ty.is_integer() {
            return Err(SqlError::unsupported("RAISERROR with a message number"));
        }
        let number = |e: &Expr| match expr::evaluate_as(&*s, e, SqlType::Int)? {
            Value::Int(n) => Ok(n),
            _ => Ok(0),
        };
        let values = args.iter().map(|a| expr::evaluate(&*s, a)).collect::<SqlResult<Vec<_>>>()?;
        Ok((message, number(severity)?, number(state)?, values))
    })?;
    let message = match message {
        Value::Str(s) => s.to_string(),
        _ => String::new(),
    };
    if severity > 18 && !with_log {
        let text = "Error severity levels greater than 18 can only be specified by members of the sysadmin role, using the WITH LOG option.";
        return Err(SqlError::new(2754, 16, text).into());
    }
    let mut error =
        SqlError::new(50_000, severity.clamp(0, 25) as u8, format_message(&message, &values)?);
    error.state = if state < 0 { 1 } else { state.min(255) as u8 };
    let result = if error.class <= 10 {
        // Severity 10 goes over the wire as 0.
        error.class = if error.class == 10 { 0 } else { error.class };
        sink.message(&error.at(line)).map_err(Failure::from)
    } else {
        raise(session, error, line, Origin::Raiserror, sink).map_err(Failure::Stop)
    };
    if with_nowait {
        sink.flush()?;
    }
    result
}

/// THROW n, message, state; or THROW alone, in a CATCH.
pub fn throw(
    session: &mut Session,
    what: Option<&(Expr, Expr, Expr)>,
    line: u32,
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    let Some((number, message, state)) = what else {
        let Some(error) = session.caught.last().cloned() else {
            let text = "To rethrow an error, a THROW statement must be used inside a CATCH block. Insert the THROW statement inside a CATCH \
                        block, or add error parameters to the THROW statement.";
            return Err(SqlError::new(10704, 15, text).into());
        };
        return Ok(raise(session, error, line, Origin::Throw, sink)?);
    };
    let text_type = SqlType::NVarChar(Length::N(2048), session.collation());
    let (number, message, state) = session.statement(|s| {
        let integer = |e: &Expr| match expr::evaluate_as(&*s, e, SqlType::Int)? {
            Value::Int(n) => Ok(n),
            _ => Ok(0),
        };
        Ok((integer(number)?, expr::evaluate_as(&*s, message, text_type)?, integer(state)?))
    })?;
    if number < 50_000 {
        let text = format!(
            "Error number {number} in the THROW statement is outside the valid range. Specify an error number in the valid range of 50000 to 2147483647."
        );
        return Err(SqlError::new(35_100, 16, text).into());
    }
    let text = match message {
        Value::Str(s) => s.to_string(),
        _ => String::new(),
    };
    let mut error = SqlError::new(number as i32, 16, text);
    error.state = state.clamp(0, 255) as u8;
    Ok(raise(session, error, line, Origin::Throw, sink)?)
}

/// C's printf, as far as RAISERROR takes it: `%[flag][width][.precision]{d|i|o|s|u|x|X}`, `%I64d`,
/// `%%`.
pub fn format_message(format: &str, args: &[(SqlType, Value)]) -> SqlResult<String> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let (mut left, mut zero, mut plus) = (false, false, false);
        while let Some(flag) =
            chars.peek().copied().filter(|c| matches!(c, '-' | '0' | '+' | '#' | ' '))
        {
            chars.next();
            left |= flag == '-';
            zero |= flag == '0';
            plus |= flag == '+';
        }
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
                      args: &mut std::slice::Iter<'_, (SqlType, Value)>| {
            if chars.peek() == Some(&'*') {
                chars.next();
                return match args.next() {
                    Some((_, Value::Int(n))) => usize::try_from(*n).ok(),
                    _ => None,
                };
            }
            let mut digits = String::new();
            while let Some(d) = chars.peek().copied().filter(char::is_ascii_digit) {
                chars.next();
                digits.push(d);
            }
            digits.parse().ok()
        };
        let width = number(&mut chars, &mut args).unwrap_or(0);
        let precision = if chars.peek() == Some(&'.') {
            chars.next();
            number(&mut chars, &mut args)
        } else {
            None
        };
        for skipped in ["I64", "h", "l"] {
            if skipped.chars().all(|s| chars.next_if_eq(&s).is_some()) {
                break;
            }
        }
        let conversion = chars.next().unwrap_or(' ');
        let value = args.next();
        let text = match (conversion, value) {
            ('s', Some((_, Value::Str(s)))) => {
                s.chars().take(precision.unwrap_or(usize::MAX)).collect()
            }
            ('s' | 'd' | 'i' | 'u' | 'o' | 'x' | 'X', None | Some((_, Value::Null))) => {
                "(null)".to_owned()
            }
            ('d' | 'i', Some((_, Value::Int(n)))) if plus && *n >= 0 => format!("+{n}"),
            ('d' | 'i', Some((_, Value::Int(n)))) => n.to_string(),
            ('u', Some((_, Value::Int(n)))) => (*n as u32).to_string(),
            ('o', Some((_, Value::Int(n)))) => format!("{n:o}"),
            ('x', Some((_, Value::Int(n)))) => format!("{n:x}"),
            ('X', Some((_, Value::Int(n)))) => format!("{n:X}"),
            ('s' | 'd' | 'i' | 'u' | 'o' | 'x' | 'X', Some(_)) => {
                let text = format!(
                    "The data type of substitution parameter does not match the expected type of the format specification '%{conversion}'."
                );
                return Err(SqlError::new(2786, 16, text));
            }
            _ => {
                return Err(SqlError::new(
                    2787,
                    16,
                    format!("Invalid format specification: '%{conversion}'."),
                ));
            }
        };
        let missing = width.saturating_sub(text.chars().count());
        if left {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', missing));
        } else {
            out.extend(std::iter::repeat_n(
                if zero && conversion != 's' { '0' } else { ' ' },
                missing,
            ));
            out.push_str(&text);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Collation;

    #[test]
    fn printf() {
        let text = (SqlType::NVarChar(Length::N(10), Collation::DEFAULT), Value::Str("ab".into()));
        let int = (SqlType::Int, Value::Int(7));
        let said = |format: &str| {
            format_message(format, &[text.clone(), int.clone()]).unwrap_or_else(|e| e.message)
        };
        assert_eq!(said("<%s> <%d> 100%%"), "<ab> <7> 100%");
        assert_eq!(said("<%5s> <%03i>"), "<   ab> <007>");
        assert_eq!(said("<%-5s> <%I64d>"), "<ab   > <7>");
        assert_eq!(said("<%.1s> <%x> <%s>"), "<a> <7> <(null)>");
        assert_eq!(
            said("%d"),
            "The data type of substitution parameter does not match the expected type of the format specification '%d'."
        );
    }
}
