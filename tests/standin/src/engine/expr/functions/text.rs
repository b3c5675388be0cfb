//! Functions of text and binaries.

use super::arguments::{any_nullable, arity, call};
use crate::{
    engine::expr::{
        arithmetic::truncate,
        bound::{Bound, Call, Node},
        conversions::implicit,
        operators::concatenate,
        types::{self, Coercibility, Family},
    },
    error::{SqlError, SqlResult},
    value::{Collation, Length, SqlType, Value, binary},
};

/// A text argument as it is; anything else as text.
fn text_arg(arg: Bound, collation: Collation) -> SqlResult<Bound> {
    if types::is_text(arg.ty) && !arg.is_null {
        return Ok(arg);
    }
    let length = if arg.is_null { Some(1) } else { types::length(arg.ty) };
    let ty = types::text(false, length, false, collation);
    implicit(arg, ty)
}

fn keep_collation(mut bound: Bound, of: Coercibility) -> Bound {
    bound.coercibility = of;
    bound
}

fn int_arg(arg: Bound) -> SqlResult<Bound> {
    if types::family(arg.ty) == Family::Integer && !arg.is_null {
        Ok(arg)
    } else {
        implicit(arg, SqlType::BigInt)
    }
}

/// The variable-length form of a text type.
fn varying(ty: SqlType) -> SqlType {
    match ty {
        SqlType::Char(n, c) => SqlType::VarChar(Length::N(n), c),
        SqlType::NChar(n, c) => SqlType::NVarChar(Length::N(n), c),
        other => other,
    }
}

pub fn bind(name: &str, args: &mut Vec<Bound>, collation: Collation) -> SqlResult<Option<Bound>> {
    let nullable = any_nullable(args);
    let take = |args: &mut Vec<Bound>| std::mem::take(args);
    Ok(Some(match name {
        "LEN" => {
            arity(name, args, 1..=1)?;
            let arg = args.remove(0);
            if types::family(arg.ty) == Family::Binary {
                let ty =
                    if types::length(arg.ty).is_none() { SqlType::BigInt } else { SqlType::Int };
                return Ok(Some(call(len_bytes, vec![arg], ty, nullable)));
            }
            let arg = text_arg(arg, collation)?;
            let ty = if types::length(arg.ty).is_none() { SqlType::BigInt } else { SqlType::Int };
            call(len, vec![arg], ty, nullable)
        }
        "DATALENGTH" => {
            arity(name, args, 1..=1)?;
            let arg = args.remove(0);
            let ty = if types::length(arg.ty).is_none() { SqlType::BigInt } else { SqlType::Int };
            call(datalength, vec![arg], ty, nullable)
        }
        "UPPER" | "LOWER" => {
            arity(name, args, 1..=1)?;
            let arg = text_arg(args.remove(0), collation)?;
            let (ty, how) = (varying(arg.ty), arg.coercibility);
            let function = if name == "UPPER" { upper } else { lower };
            keep_collation(call(function, vec![arg], ty, nullable), how)
        }
        "LEFT" | "RIGHT" => {
            arity(name, args, 2..=2)?;
            let count = int_arg(args.remove(1))?;
            let arg = text_arg(args.remove(0), collation)?;
            let (mut ty, how) = (varying(arg.ty), arg.coercibility);
            if let (Node::Const(Value::Int(n)), Some(length)) = (&count.node, types::length(ty)) {
                let n = u32::try_from((*n).max(1)).unwrap_or(length).min(length);
                ty = types::text(
                    types::is_unicode(ty),
                    Some(n),
                    false,
                    types::collation_of(ty).unwrap_or(collation),
                );
            }
            keep_collation(
                call(if name == "LEFT" { left } else { right }, vec![arg, count], ty, nullable),
                how,
            )
        }
        "SUBSTRING" => {
            arity(name, args, 3..=3)?;
            let length = int_arg(args.remove(2))?;
            let start = int_arg(args.remove(1))?;
            let arg = args.remove(0);
            if types::family(arg.ty) == Family::Binary {
                let bytes = match (&length.node, types::length(arg.ty)) {
                    (Node::Const(Value::Int(n)), Some(all)) => {
                        Some(u32::try_from((*n).max(1)).unwrap_or(all).min(all))
                    }
                    (_, all) => all,
                };
                return Ok(Some(call(
                    substring_bytes,
                    vec![arg, start, length],
                    types::binary(bytes),
                    nullable,
                )));
            }
            if types::is_number(arg.ty) {
                return Err(SqlError::new(
                    8116,
                    16,
                    format!(
                        "Argument data type {} is invalid for argument 1 of substring function.",
                        types::name(arg.ty)
                    ),
                ));
            }
            let arg = text_arg(arg, collation)?;
            let (mut ty, how) = (varying(arg.ty), arg.coercibility);
            if let (Node::Const(Value::Int(n)), Some(all)) = (&length.node, types::length(ty)) {
                let n = u32::try_from((*n).max(1)).unwrap_or(all).min(all);
                ty = types::text(
                    types::is_unicode(ty),
                    Some(n),
                    false,
                    types::collation_of(ty).unwrap_or(collation),
                );
            }
            keep_collation(call(substring, vec![arg, start, length], ty, nullable), how)
        }
        "CHARINDEX" => {
            arity(name, args, 2..=3)?;
            let mut list = take(args);
            let start = if list.len() == 3 { Some(int_arg(list.remove(2))?) } else { None };
            let hay = text_arg(list.remove(1), collation)?;
            let needle = text_arg(list.remove(0), collation)?;
            let ty = if types::length(hay.ty).is_none() { SqlType::BigInt } else { SqlType::Int };
            let side = |b: &Bound| (b.collation().unwrap_or(collation), b.coercibility);
            let (won, how) = types::coerce(side(&needle), side(&hay), "charindex")?;
            if let Coercibility::NoCollation(a, b) = how {
                return Err(types::conflict(a, b, "charindex"));
            }
            let hay = Bound { ty: types::with_collation(hay.ty, won), ..hay };
            let mut list = vec![needle, hay];
            list.extend(start);
            call(charindex, list, ty, nullable)
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
        "STUFF" => {
            arity(name, args, 4..=4)?;
            let mut list = take(args);
            let new = text_arg(list.remove(3), collation)?;
            let length = int_arg(list.remove(2))?;
            let start = int_arg(list.remove(1))?;
            let arg = text_arg(list.remove(0), collation)?;
            let unicode = types::is_unicode(arg.ty) || types::is_unicode(new.ty);
            let chars = types::length(arg.ty).zip(types::length(new.ty)).map(|(a, b)| a + b);
            let (ty, how) = (
                types::text(unicode, chars, false, arg.collation().unwrap_or(collation)),
                arg.coercibility,
            );
            keep_collation(call(stuff, vec![arg, start, length, new], ty, true), how)
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

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Str(s) => Some(s),
        _ => None,
    }
}

fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(i) => Some(*i),
        _ => None,
    }
}

/// How many units of length a character is: UTF-16 units, or code points under collations that
/// count those.
fn unit(c: char, collation: Option<Collation>) -> usize {
    if collation.is_some_and(Collation::counts_code_points) { 1 } else { c.len_utf16() }
}

fn length_of(s: &str, collation: Option<Collation>) -> usize {
    if s.is_ascii() { s.len() } else { s.chars().map(|c| unit(c, collation)).sum() }
}

/// The part of a text between two places counted in units. Half a surrogate pair is left out.
fn part(s: &str, start: i64, end: i64, collation: Option<Collation>) -> &str {
    let (start, end) =
        (usize::try_from(start.max(0)).unwrap_or(0), usize::try_from(end.max(0)).unwrap_or(0));
    if s.is_ascii() {
        let (start, end) = (start.min(s.len()), end.min(s.len()));
        return if start < end { &s[start..end] } else { "" };
    }
    let (mut at, mut from, mut to) = (0, None, s.len());
    for (byte, c) in s.char_indices() {
        if at >= start && from.is_none() {
            from = Some(byte);
        }
        if at + unit(c, collation) > end {
            to = byte;
            break;
        }
        at += unit(c, collation);
    }
    match from {
        Some(from) if from < to => &s[from..to],
        _ => "",
    }
}

fn str_value(s: impl Into<std::sync::Arc<str>>) -> SqlResult<Value> {
    Ok(Value::Str(s.into()))
}

fn integer(n: usize) -> SqlResult<Value> {
    Ok(Value::Int(i64::try_from(n).unwrap_or(i64::MAX)))
}

fn len(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    match text(&args[0]) {
        Some(s) => integer(length_of(s.trim_end_matches(' '), call.args[0].collation())),
        None => Ok(Value::Null),
    }
}

fn len_bytes(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    match &args[0] {
        Value::Bytes(b) => integer(b.len()),
        _ => Ok(Value::Null),
    }
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

fn invalid_length(function: &str) -> SqlError {
    SqlError::new(537, 16, format!("Invalid length parameter passed to the {function} function."))
}

fn left(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let (Some(s), Some(n)) = (text(&args[0]), int(&args[1])) else { return Ok(Value::Null) };
    if n < 0 {
        return Err(invalid_length("LEFT or SUBSTRING"));
    }
    str_value(part(s, 0, n, call.args[0].collation()))
}

fn right(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let (Some(s), Some(n)) = (text(&args[0]), int(&args[1])) else { return Ok(Value::Null) };
    if n < 0 {
        return Err(SqlError::new(
            536,
            16,
            "Invalid length parameter passed to the RIGHT function.",
        ));
    }
    let all = i64::try_from(length_of(s, call.args[0].collation())).unwrap_or(i64::MAX);
    str_value(part(s, all - n, all, call.args[0].collation()))
}

fn substring(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let (Some(s), Some(start), Some(n)) = (text(&args[0]), int(&args[1]), int(&args[2])) else {
        return Ok(Value::Null);
    };
    if n < 0 {
        return Err(invalid_length("LEFT or SUBSTRING"));
    }
    str_value(part(s, start - 1, (start - 1).saturating_add(n), call.args[0].collation()))
}

fn substring_bytes(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let (Value::Bytes(b), Some(start), Some(n)) = (&args[0], int(&args[1]), int(&args[2])) else {
        return Ok(Value::Null);
    };
    if n < 0 {
        return Err(invalid_length("LEFT or SUBSTRING"));
    }
    let clamp = |at: i64| usize::try_from(at.max(0)).unwrap_or(0).min(b.len());
    let (from, to) = (clamp(start - 1), clamp((start - 1).saturating_add(n)));
    Ok(Value::Bytes(b[from..to.max(from)].into()))
}

fn charindex(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let (Some(needle), Some(hay)) = (text(&args[0]), text(&args[1])) else {
        return Ok(Value::Null);
    };
    let start = match args.get(2) {
        None => 1,
        Some(value) => match int(value) {
            Some(n) => n,
            None => return Ok(Value::Null),
        },
    };
    if needle.is_empty() {
        return Ok(Value::Int(0));
    }
    let collation = call.args[1].ty.compared_by().unwrap_or(Collation::DEFAULT);
    let hay: Vec<char> = hay.chars().collect();
    let needle: Vec<char> = needle.chars().collect();
    let from = usize::try_from(start.max(1) - 1).unwrap_or(0).min(hay.len());
    match collation.find(&hay, &needle, from) {
        Some(start) => {
            integer(hay[..start].iter().map(|c| unit(*c, Some(collation))).sum::<usize>() + 1)
        }
        None => Ok(Value::Int(0)),
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

fn stuff(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let (Some(s), Some(start), Some(n)) = (text(&args[0]), int(&args[1]), int(&args[2])) else {
        return Ok(Value::Null);
    };
    let collation = call.args[0].collation();
    let all = i64::try_from(length_of(s, collation)).unwrap_or(i64::MAX);
    if start < 1 || start > all || n < 0 {
        return Ok(Value::Null);
    }
    let mut out = part(s, 0, start - 1, collation).to_owned();
    out.push_str(text(&args[3]).unwrap_or(""));
    out.push_str(part(s, (start - 1).saturating_add(n), all, collation));
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
