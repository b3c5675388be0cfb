//! Functions of bytes and codes: DATALENGTH, CHAR, NCHAR, HASHBYTES.

use super::{
    arguments::{any_nullable, arity, call},
    characters::{int, integer, str_value, text, text_arg},
};
use crate::{
    engine::expr::{
        bound::{Bound, Call},
        conversions::implicit,
        types,
    },
    error::SqlResult,
    value::{Collation, Length, SqlType, Value, binary},
};

pub fn bind(name: &str, args: &mut Vec<Bound>, collation: Collation) -> SqlResult<Option<Bound>> {
    let nullable = any_nullable(args);
    Ok(Some(match name {
        "DATALENGTH" => {
            arity(name, args, 1..=1)?;
            let arg = args.remove(0);
            let ty = if types::length(arg.ty).is_none() { SqlType::BigInt } else { SqlType::Int };
            call(datalength, vec![arg], ty, nullable)
        }
        "CHAR" | "NCHAR" => {
            arity(name, args, 1..=1)?;
            let arg = implicit(args.remove(0), SqlType::Int)?;
            if name == "CHAR" {
                call(char_of, vec![arg], SqlType::Char(1, collation), true)
            } else {
                call(nchar_of, vec![arg], SqlType::NChar(1, collation), true)
            }
        }
        "HASHBYTES" => {
            arity(name, args, 2..=2)?;
            let algorithm = text_arg(args.remove(0), collation)?;
            call(
                hashbytes,
                vec![algorithm, args.remove(0)],
                SqlType::VarBinary(Length::N(8000)),
                true,
            )
        }
        _ => return Ok(None),
    }))
}

fn datalength(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let (ty, value) = match &args[0] {
        Value::Variant(v) => (v.0, &v.1),
        value => (call.args[0].ty, value),
    };
    match value {
        Value::Null => Ok(Value::Null),
        Value::Str(s) if types::is_unicode(ty) || ty == SqlType::Xml => {
            integer(s.encode_utf16().count() * 2)
        }
        Value::Str(s) => integer(ty.collation().map_or(s.len(), |c| c.encoded_len(s))),
        Value::Bytes(b) => integer(b.len()),
        _ => Ok(Value::Int(i64::from(ty.max_length()))),
    }
}

fn char_of(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    match int(&args[0]).map(u8::try_from) {
        Some(Ok(byte)) => {
            str_value(call.ty.collation().unwrap_or(Collation::DEFAULT).decode(&[byte]))
        }
        _ => Ok(Value::Null),
    }
}

fn nchar_of(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    match int(&args[0]).and_then(|n| u32::try_from(n).ok()).and_then(char::from_u32) {
        Some(c) => str_value(c.to_string()),
        None => Ok(Value::Null),
    }
}

fn hashbytes(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let Some(algorithm) = text(&args[0]) else { return Ok(Value::Null) };
    if args[1] == Value::Null {
        return Ok(Value::Null);
    }
    let bytes = match &args[1] {
        Value::Bytes(b) => b.to_vec(),
        value => binary::to_bytes(value, call.args[1].ty, None)?,
    };
    crate::engine::expr::hash::digest(algorithm, &bytes).map(|digest| Value::Bytes(digest.into()))
}
