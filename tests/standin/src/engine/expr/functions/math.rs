//! Functions of numbers.

use super::{any_nullable, arity, call};
use crate::{
    engine::expr::{
        arithmetic::{self, overflow},
        binder::implicit,
        bound::{Bound, Call},
        types::{self, Family},
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
        "ABS" | "SIGN" | "FLOOR" | "CEILING" => {
            arity(name, args, 1..=1)?;
            let arg = number(args.remove(0), name)?;
            let ty = match (name, arg.ty) {
                ("FLOOR" | "CEILING", SqlType::Decimal { precision, .. }) => {
                    SqlType::Decimal { precision, scale: 0 }
                }
                (_, ty) => ty,
            };
            let function = match name {
                "ABS" => abs,
                "SIGN" => sign,
                "FLOOR" => floor,
                _ => ceiling,
            };
            call(function, vec![arg], ty, nullable)
        }
        "ROUND" => {
            arity(name, args, 2..=3)?;
            let mut list = vec![number(args.remove(0), name)?];
            for arg in args.drain(..) {
                list.push(implicit(arg, SqlType::Int)?);
            }
            let ty = list[0].ty;
            call(round, list, ty, nullable)
        }
        "POWER" => {
            arity(name, args, 2..=2)?;
            let exponent = implicit(args.remove(1), SqlType::Float)?;
            let base = number(args.remove(0), name)?;
            let ty = match base.ty {
                SqlType::Decimal { scale, .. } => SqlType::Decimal { precision: 38, scale },
                ty => ty,
            };
            let float = implicit(base, SqlType::Float)?;
            let result = call(power, vec![float, exponent], SqlType::Float, nullable);
            return implicit(result, ty).map(Some);
        }
        "SQRT" | "SQUARE" | "EXP" | "LOG10" | "SIN" | "COS" | "TAN" | "COT" | "ASIN" | "ACOS"
        | "ATAN" => {
            arity(name, args, 1..=1)?;
            let arg = implicit(args.remove(0), SqlType::Float)?;
            let function = match name {
                "SQRT" => sqrt,
                "SQUARE" => square,
                "EXP" => exp,
                "LOG10" => log10,
                "SIN" => sin,
                "COS" => cos,
                "TAN" => tan,
                "COT" => cot,
                "ASIN" => asin,
                "ACOS" => acos,
                _ => atan,
            };
            call(function, vec![arg], SqlType::Float, nullable)
        }
        "LOG" => {
            arity(name, args, 1..=2)?;
            let list = args
                .drain(..)
                .map(|a| implicit(a, SqlType::Float))
                .collect::<SqlResult<Vec<_>>>()?;
            call(log, list, SqlType::Float, nullable)
        }
        "ATN2" => {
            arity(name, args, 2..=2)?;
            let list = args
                .drain(..)
                .map(|a| implicit(a, SqlType::Float))
                .collect::<SqlResult<Vec<_>>>()?;
            call(atn2, list, SqlType::Float, nullable)
        }
        "PI" => {
            arity(name, args, 0..=0)?;
            Bound::constant(Value::Float(std::f64::consts::PI), SqlType::Float)
        }
        "DEGREES" | "RADIANS" => {
            arity(name, args, 1..=1)?;
            let arg = implicit(args.remove(0), SqlType::Float)?;
            call(
                if name == "DEGREES" { degrees } else { radians },
                vec![arg],
                SqlType::Float,
                nullable,
            )
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

fn sign(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    Ok(match &args[0] {
        Value::Int(i) => Value::Int(i.signum()),
        Value::Float(f) => Value::Float(if *f == 0.0 { 0.0 } else { f.signum() }),
        Value::Decimal(d) => Decimal { mantissa: d.mantissa.signum(), scale: 0 }
            .rescale(d.scale)
            .map_or(Value::Null, Value::Decimal),
        other => other.clone(),
    })
}

fn step(value: &Value, ty: SqlType, up: bool) -> SqlResult<Value> {
    Ok(match value {
        Value::Float(f) => Value::Float(if up { f.ceil() } else { f.floor() }),
        Value::Decimal(d) => {
            let whole = d.truncate(0);
            let exact = whole.compare(*d).is_eq();
            let mantissa = match (exact, up, d.mantissa < 0) {
                (true, ..) | (_, true, true) | (_, false, false) => whole.mantissa,
                (_, true, false) => whole.mantissa + 1,
                (_, false, true) => whole.mantissa - 1,
            };
            let scale = if types::family(ty) == Family::Money { 4 } else { 0 };
            Decimal { mantissa, scale: 0 }
                .rescale(scale)
                .map(Value::Decimal)
                .ok_or_else(|| overflow(ty))?
        }
        other => other.clone(),
    })
}

fn floor(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    step(&args[0], call.ty, false)
}

fn ceiling(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    step(&args[0], call.ty, true)
}

fn round(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    let Value::Int(places) = args[1] else { return Ok(Value::Null) };
    let cut = match args.get(2) {
        None => false,
        Some(Value::Int(n)) => *n != 0,
        Some(_) => return Ok(Value::Null),
    };
    Ok(match &args[0] {
        Value::Int(i) if places >= 0 => Value::Int(*i),
        Value::Int(i) => {
            let Some(unit) = u32::try_from(-places).ok().and_then(|p| 10i128.checked_pow(p)) else {
                return Ok(Value::Int(0));
            };
            let i = i128::from(*i);
            let n = if cut { i / unit * unit } else { (i + i.signum() * unit / 2) / unit * unit };
            match i64::try_from(n) {
                Ok(n) if arithmetic::fits(n, call.ty) => Value::Int(n),
                _ => return Err(overflow(call.ty)),
            }
        }
        Value::Decimal(d) => {
            if places >= i64::from(d.scale) {
                return Ok(args[0].clone());
            }
            let drop = u32::try_from(i64::from(d.scale) - places).unwrap_or(u32::MAX);
            let Some(unit) = 10i128.checked_pow(drop) else {
                return Ok(Value::Decimal(Decimal { mantissa: 0, scale: d.scale }));
            };
            let m = d.mantissa;
            let mantissa =
                if cut { m / unit * unit } else { (m + m.signum() * (unit / 2)) / unit * unit };
            let rounded = Decimal { mantissa, scale: d.scale };
            if let SqlType::Decimal { precision, scale } = call.ty
                && rounded.fit(precision, scale).is_none()
            {
                return Err(overflow(call.ty));
            }
            Value::Decimal(rounded)
        }
        Value::Float(f) => {
            let unit = 10f64.powi(i32::try_from(places.clamp(-300, 300)).unwrap_or(0));
            let scaled = f * unit;
            let whole = if cut { scaled.trunc() } else { scaled.round() };
            let out = whole / unit;
            Value::Float(if out.is_finite() { out } else { *f })
        }
        other => other.clone(),
    })
}

fn invalid() -> SqlError {
    SqlError::new(3623, 16, "An invalid floating point operation occurred.")
}

fn of(args: &[Value], f: impl Fn(f64) -> f64) -> SqlResult<Value> {
    match args[0] {
        Value::Float(x) => {
            let result = f(x);
            if result.is_nan() {
                return Err(invalid());
            }
            arithmetic::float(result, SqlType::Float)
        }
        _ => Ok(Value::Null),
    }
}

fn power(call: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    match (&args[0], &args[1]) {
        (Value::Float(a), Value::Float(b)) => {
            let result = a.powf(*b);
            if result.is_nan() {
                return Err(invalid());
            }
            arithmetic::float(result, call.ty)
        }
        _ => Ok(Value::Null),
    }
}

fn log(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    match args.get(1) {
        None => of(args, |x| if x > 0.0 { x.ln() } else { f64::NAN }),
        Some(Value::Float(base)) => of(args, |x| if x > 0.0 { x.log(*base) } else { f64::NAN }),
        Some(_) => Ok(Value::Null),
    }
}

fn atn2(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
    match (&args[0], &args[1]) {
        (Value::Float(a), Value::Float(b)) => Ok(Value::Float(a.atan2(*b))),
        _ => Ok(Value::Null),
    }
}

macro_rules! floats {
    ($($name:ident => $f:expr;)*) => {$(
        fn $name(_: &Call<'_>, args: &[Value]) -> SqlResult<Value> {
            of(args, $f)
        }
    )*};
}

floats! {
    sqrt => f64::sqrt;
    square => |x| x * x;
    exp => f64::exp;
    log10 => |x| if x > 0.0 { x.log10() } else { f64::NAN };
    sin => f64::sin;
    cos => f64::cos;
    tan => f64::tan;
    cot => |x| 1.0 / x.tan();
    asin => f64::asin;
    acos => f64::acos;
    atan => f64::atan;
    degrees => f64::to_degrees;
    radians => f64::to_radians;
}
