//! Functions of numbers.

use super::arguments::{any_nullable, arity, call};
use crate::{
    engine::expr::{
        arithmetic,
        bound::{Bound, Call},
        conversions::implicit,
        types,
    },
    error::{SqlError, SqlResult},
    value::{Decimal, SqlType, Value},
};

/// Small integers and texts as the type the function works in.
fn number(arg: Bound, name: &str) -> SqlResult<Bound> {
    match arg.ty {
        SqlType::TinyInt | SqlType::SmallInt => implicit(arg, SqlType::Int),
        SqlType::Real => implicit(arg, SqlType::Float),
        SqlType::SmallMoney => implicit(arg, SqlType::Money),
        SqlType::Bit => implicit(arg, SqlType::Float),
        ty if types::is_text(ty) => implicit(arg, SqlType::Float),
        ty if types::is_number(ty) => Ok(arg),
        ty => Err(SqlError::new(
            8116,
            16,
            format!(
                "Argument data type {} is invalid for argument 1 of {} function.",
                types::name(ty),
                name.to_lowercase()
            ),
        )),
    }
}

pub fn bind(name: &str, args: &mut Vec<Bound>) -> SqlResult<Option<Bound>> {
    let nullable = any_nullable(args);
    Ok(Some(match name {
        "ABS" => {
            arity(name, args, 1..=1)?;
            let arg = number(args.remove(0), name)?;
            let ty = arg.ty;
            call(abs, vec![arg], ty, nullable)
        }
        _ => return Ok(None),
    }))
}

fn abs(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    Ok(match &args[0] {
        Value::Int(i) if *i < 0 => arithmetic::negate(Value::Int(*i), call.ty)?,
        Value::Float(f) => Value::Float(f.abs()),
        Value::Decimal(d) => Value::Decimal(Decimal { mantissa: d.mantissa.abs(), scale: d.scale }),
        other => other.clone(),
    })
}
