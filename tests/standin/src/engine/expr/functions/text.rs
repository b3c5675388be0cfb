//! Functions that make a text of others.

use super::{
    arguments::{any_nullable, arity, call},
    characters::{int, int_arg, keep_collation, str_value, text, text_arg, varying},
};
use crate::{
    engine::expr::{
        arithmetic::truncate,
        bound::{Bound, Call, Node},
        operators::concatenate,
        types,
    },
    error::{SqlError, SqlResult},
    value::{Collation, Value},
};

pub fn bind(name: &str, args: &mut Vec<Bound>, collation: Collation) -> SqlResult<Option<Bound>> {
    let nullable = any_nullable(args);
    let take = |args: &mut Vec<Bound>| std::mem::take(args);
    Ok(Some(match name {
        "UPPER" | "LOWER" => {
            arity(name, args, 1..=1)?;
            let arg = text_arg(args.remove(0), collation)?;
            let (ty, how) = (varying(arg.ty), arg.coercibility);
            let function = if name == "UPPER" { upper } else { lower };
            keep_collation(call(function, vec![arg], ty, nullable), how)
        }
        "REPLACE" => {
            arity(name, args, 3..=3)?;
            let list = take(args)
                .into_iter()
                .map(|a| text_arg(a, collation))
                .collect::<SqlResult<Vec<_>>>()?;
            let unicode = list.iter().any(|a| types::is_unicode(a.ty));
            let max = types::length(list[0].ty).is_none();
            let limit = if unicode { 4000 } else { 8000 };
            let own = list[0].collation().unwrap_or(collation);
            let how = list[0].coercibility;
            let ty = types::text(unicode, if max { None } else { Some(limit) }, false, own);
            keep_collation(call(replace, list, ty, nullable), how)
        }
        "REPLICATE" => {
            arity(name, args, 2..=2)?;
            let count = int_arg(args.remove(1))?;
            let arg = text_arg(args.remove(0), collation)?;
            let unicode = types::is_unicode(arg.ty);
            let limit = if unicode { 4000 } else { 8000 };
            let chars = match (&count.node, types::length(arg.ty)) {
                (_, None) => None,
                (Node::Const(Value::Int(n)), Some(length)) => Some(
                    length.saturating_mul(u32::try_from((*n).max(1)).unwrap_or(limit)).min(limit),
                ),
                _ => Some(limit),
            };
            let (ty, how) = (
                types::text(unicode, chars, false, arg.collation().unwrap_or(collation)),
                arg.coercibility,
            );
            keep_collation(call(replicate, vec![arg, count], ty, true), how)
        }
        "CONCAT" => {
            if args.len() < 2 {
                return Err(SqlError::new(
                    189,
                    15,
                    "The concat function requires 2 to 254 arguments.",
                ));
            }
            let list = take(args)
                .into_iter()
                .map(|a| text_arg(a, collation))
                .collect::<SqlResult<Vec<_>>>()?;
            // the type is that of the concatenation, one after the other
            let mut sum = list[0].clone();
            for next in &list[1..] {
                sum = concatenate(sum, next.clone())?;
            }
            let (ty, how) = (varying(sum.ty), sum.coercibility);
            keep_collation(call(concat, list, ty, false), how)
        }
        "QUOTENAME" => {
            arity(name, args, 1..=2)?;
            let nvarchar = types::text(true, Some(128), false, collation);
            let mut list = take(args)
                .into_iter()
                .map(|a| text_arg(a, collation))
                .collect::<SqlResult<Vec<_>>>()?;
            if list.len() == 1 {
                list.push(Bound::constant(Value::Str("[".into()), nvarchar));
            }
            call(quotename, list, types::text(true, Some(258), false, collation), true)
        }
        _ => return Ok(None),
    }))
}

fn upper(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    text(&args[0]).map_or(Ok(Value::Null), |s| {
        str_value(s.chars().map(|c| one_to_one(c, c.to_uppercase())).collect::<String>())
    })
}

fn lower(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    text(&args[0]).map_or(Ok(Value::Null), |s| {
        str_value(s.chars().map(|c| one_to_one(c, c.to_lowercase())).collect::<String>())
    })
}

/// The server never makes two characters of one.
fn one_to_one(c: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(m), None) => m,
        _ => c,
    }
}

fn replace(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let (Some(s), Some(old), Some(new)) = (text(&args[0]), text(&args[1]), text(&args[2])) else {
        return Ok(Value::Null);
    };
    if old.is_empty() {
        return Ok(args[0].clone());
    }
    let collation = call.args[0].ty.compared_by().unwrap_or(Collation::DEFAULT);
    let (chars, needle): (Vec<char>, Vec<char>) = (s.chars().collect(), old.chars().collect());
    let mut out = String::with_capacity(s.len());
    let mut at = 0;
    while let Some(start) = collation.find(&chars, &needle, at) {
        out.extend(&chars[at..start]);
        out.push_str(new);
        at = start + needle.len();
    }
    out.extend(&chars[at.min(chars.len())..]);
    str_value(truncate(out, call.ty))
}

fn replicate(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let (Some(s), Some(n)) = (text(&args[0]), int(&args[1])) else { return Ok(Value::Null) };
    let Ok(n) = usize::try_from(n) else { return Ok(Value::Null) };
    // more than the result's type holds is cut off anyhow
    let limit = types::length(call.ty).map_or(1 << 31, |n| n as usize);
    let n = if s.is_empty() { 0 } else { n.min(limit / s.chars().count() + 1) };
    str_value(truncate(s.repeat(n), call.ty))
}

fn concat(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let out: String = args.iter().filter_map(text).collect();
    str_value(truncate(out, call.ty))
}

fn quotename(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let (Some(s), Some(quote)) = (text(&args[0]), text(&args[1])) else { return Ok(Value::Null) };
    let (open, close) = match quote.chars().next() {
        Some('[' | ']') => ('[', ']'),
        Some('(' | ')') => ('(', ')'),
        Some('{' | '}') => ('{', '}'),
        Some('<' | '>') => ('<', '>'),
        Some(c @ ('\'' | '"' | '`')) => (c, c),
        _ => return Ok(Value::Null),
    };
    if s.encode_utf16().count() > 128 {
        return Ok(Value::Null);
    }
    let mut out = String::with_capacity(s.len() + 2);
    out.push(open);
    for c in s.chars() {
        out.push(c);
        if c == close {
            out.push(c);
        }
    }
    out.push(close);
    str_value(out)
}
