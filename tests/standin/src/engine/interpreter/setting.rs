//! SET options. Those with a meaning here change the session; the values of others that have none
//! here are refused by name.

use crate::{
    engine::{context::Session, expr},
    error::{SqlError, SqlResult},
    exchange::connection::Isolation,
    tsql::ast::OptionValue,
    value::{SqlType, Value, datetime::DateFormat},
};

/// What SET TEXTSIZE 0 stands for, in bytes.
const TEXT_SIZE_DEFAULT: i64 = 4096;

pub fn set_options(session: &mut Session, names: &[String], value: &OptionValue) -> SqlResult<()> {
    for name in names {
        crate::usage::used("set", name);
        set_option(session, name, value)?;
    }
    session.publish();
    Ok(())
}

fn set_option(session: &mut Session, name: &str, value: &OptionValue) -> SqlResult<()> {
    let on = matches!(value, OptionValue::On);
    match name {
        "ANSI_NULLS" => session.options.ansi_nulls = on,
        "ANSI_PADDING" if !on => return Err(SqlError::unsupported("SET ANSI_PADDING OFF")),
        "ANSI_PADDING" => {}
        "ANSI_WARNINGS" if !on => return Err(SqlError::unsupported("SET ANSI_WARNINGS OFF")),
        "ANSI_WARNINGS" => {}
        // While ANSI_WARNINGS is ON, as it always is here, this changes nothing.
        // <https://learn.microsoft.com/sql/t-sql/statements/set-arithabort-transact-sql>
        "ARITHABORT" => {}
        "CONCAT_NULL_YIELDS_NULL" => session.options.concat_null_yields_null = on,
        "QUOTED_IDENTIFIER" => session.options.quoted_identifier = on,
        "NUMERIC_ROUNDABORT" if on => {
            return Err(SqlError::unsupported("SET NUMERIC_ROUNDABORT ON"));
        }
        "NUMERIC_ROUNDABORT" => {}
        "XACT_ABORT" => session.options.xact_abort = on,
        "NOCOUNT" => session.options.nocount = on,
        "FMTONLY" => session.options.fmtonly = on,
        "IMPLICIT_TRANSACTIONS" => {
            if on {
                return Err(SqlError::unsupported("SET IMPLICIT_TRANSACTIONS ON"));
            }
        }
        // columns whose nullability is not said may be NULL
        "ANSI_NULL_DFLT_ON" if !on => {
            return Err(SqlError::unsupported("SET ANSI_NULL_DFLT_ON OFF"));
        }
        // there are no cursors
        "ANSI_NULL_DFLT_ON" | "CURSOR_CLOSE_ON_COMMIT" => {}
        "TRANSACTION ISOLATION LEVEL" => isolation(session, value)?,
        "LOCK_TIMEOUT" => session.options.lock_timeout_ms = integer(session, value)?.max(-1),
        "DEADLOCK_PRIORITY" => {
            session.options.deadlock_priority = match value {
                OptionValue::Word(word) => match word.to_ascii_uppercase().as_str() {
                    "LOW" => -5,
                    "NORMAL" => 0,
                    "HIGH" => 5,
                    _ => {
                        return Err(SqlError::new(
                            102,
                            15,
                            format!("Incorrect syntax near '{word}'."),
                        ));
                    }
                },
                _ => integer(session, value)?.clamp(-10, 10) as i32,
            }
        }
        "CONTEXT_INFO" => {
            let OptionValue::Expr(expr) = value else {
                return Err(SqlError::unsupported("this value of SET CONTEXT_INFO"));
            };
            let ty = SqlType::VarBinary(crate::value::Length::N(128));
            session.context_info = match session.statement(|s| expr::evaluate_as(&*s, expr, ty))? {
                Value::Bytes(bytes) => bytes.to_vec(),
                _ => Vec::new(),
            };
        }
        "DATEFIRST" => match integer(session, value)? {
            day @ 1..=7 => session.options.date_first = day as u8,
            _ => {
                return Err(SqlError::new(
                    2742,
                    16,
                    "SET DATEFIRST failed. The value is out of range.",
                ));
            }
        },
        "DATEFORMAT" => {
            let word = text(session, value)?;
            let Some(format) = DateFormat::parse(&word) else {
                return Err(SqlError::new(
                    2741,
                    16,
                    format!("SET DATEFORMAT date order '{word}' is invalid."),
                ));
            };
            session.options.date_format = format;
        }
        "LANGUAGE" => {
            let word = text(session, value)?;
            if !["us_english", "english"].iter().any(|l| word.eq_ignore_ascii_case(l)) {
                return Err(SqlError::unsupported(format!("SET LANGUAGE {word}")));
            }
            session.options.date_format = DateFormat::Mdy;
            session.options.date_first = 7;
        }
        "TEXTSIZE" => match integer(session, value)? {
            0 => session.options.text_size = TEXT_SIZE_DEFAULT,
            size => session.options.text_size = size.max(-1),
        },
        "ROWCOUNT" => {
            if integer(session, value)? != 0 {
                return Err(SqlError::unsupported("SET ROWCOUNT other than 0"));
            }
        }
        other => return Err(SqlError::unsupported(format!("SET {other}"))),
    }
    Ok(())
}

fn isolation(session: &mut Session, value: &OptionValue) -> SqlResult<()> {
    let OptionValue::Word(level) = value else {
        return Err(SqlError::unsupported("this isolation level"));
    };
    let level = match level.as_str() {
        "READ UNCOMMITTED" => Isolation::ReadUncommitted,
        "READ COMMITTED" => Isolation::ReadCommitted,
        "REPEATABLE READ" => Isolation::RepeatableRead,
        "SERIALIZABLE" => Isolation::Serializable,
        _ => Isolation::Snapshot,
    };
    if level == Isolation::Snapshot
        && session.options.isolation != Isolation::Snapshot
        && session.tran_count > 0
    {
        let text = "Transaction failed in database because the statement was run under snapshot isolation but the transaction did not start in \
                    snapshot isolation. You cannot change the isolation level of the transaction to snapshot after the transaction has started \
                    unless the transaction was originally started under snapshot isolation level.";
        return Err(SqlError::new(3951, 16, text));
    }
    session.options.isolation = level;
    Ok(())
}

fn integer(session: &mut Session, value: &OptionValue) -> SqlResult<i64> {
    match value {
        OptionValue::Expr(expr) => {
            match session.statement(|s| expr::evaluate_as(&*s, expr, SqlType::BigInt))? {
                Value::Int(n) => Ok(n),
                _ => Ok(0),
            }
        }
        OptionValue::Word(word) => {
            Err(SqlError::new(102, 15, format!("Incorrect syntax near '{word}'.")))
        }
        OptionValue::On | OptionValue::Off => {
            Err(SqlError::new(156, 15, "Incorrect syntax near the keyword 'ON'."))
        }
    }
}

fn text(session: &mut Session, value: &OptionValue) -> SqlResult<String> {
    match value {
        OptionValue::Word(word) => Ok(word.clone()),
        OptionValue::Expr(expr) => match session.statement(|s| expr::evaluate(&*s, expr))? {
            (_, Value::Str(s)) => Ok(s.to_string()),
            _ => Ok(String::new()),
        },
        OptionValue::On | OptionValue::Off => {
            Err(SqlError::new(156, 15, "Incorrect syntax near the keyword 'ON'."))
        }
    }
}
