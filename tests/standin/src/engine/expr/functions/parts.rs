//! Functions of places in a text: lengths, positions and parts.

use super::{
    arguments::{any_nullable, arity, call},
    characters::{
        int, int_arg, integer, keep_collation, length_of, str_value, text, text_arg, unit, varying,
    },
};
use crate::{
    engine::expr::{
        arithmetic::truncate,
        bound::{Bound, Call, Node},
        types::{self, Coercibility, Family},
    },
    error::{SqlError, SqlResult},
    value::{Collation, SqlType, Value},
};

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
        _ => return Ok(None),
    }))
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
