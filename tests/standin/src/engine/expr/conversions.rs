//! Conversions: CAST and CONVERT, implicit ones, and several expressions brought to one type.

use super::{
    bound::{Bound, Node},
    cast,
    types::{self, Coercibility},
};
use crate::{
    error::SqlResult,
    value::{Collation, SqlType, Value},
};

/// Brings expressions to one type: CASE, COALESCE, UNION.
pub fn unify(list: Vec<Bound>, operation: &str) -> SqlResult<(Vec<Bound>, SqlType, Coercibility)> {
    let mut typed = list.iter().filter(|b| !b.is_null);
    let first = typed.next();
    let mut ty = first.map_or(SqlType::Int, |b| b.ty);
    for other in typed {
        ty = types::common(ty, other.ty);
    }
    let mut coercibility = Coercibility::Default;
    if types::is_text(ty) {
        let fallback = types::collation_of(ty).unwrap_or(Collation::DEFAULT);
        let mut side: Option<(Collation, Coercibility)> = None;
        for item in list.iter().filter(|b| !b.is_null) {
            let own = (item.collation().unwrap_or(fallback), item.coercibility);
            side = Some(match side {
                None => own,
                Some(side) => types::coerce(side, own, operation)?,
            });
        }
        if let Some((collation, how)) = side {
            ty = types::with_collation(ty, collation);
            coercibility = how;
        }
    }
    let list = list.into_iter().map(|item| implicit(item, ty)).collect::<SqlResult<_>>()?;
    Ok((list, ty, coercibility))
}

/// An implicit conversion.
pub fn implicit(expr: Bound, ty: SqlType) -> SqlResult<Bound> {
    if expr.is_null {
        return Ok(Bound {
            node: Node::Const(Value::Null),
            ty,
            nullable: true,
            coercibility: Coercibility::Default,
            is_null: false,
        });
    }
    if expr.ty == ty {
        return Ok(expr);
    }
    cast::check_implicit(expr.ty, ty)?;
    Ok(cast_node(expr, ty, None, false, false))
}

/// CAST and CONVERT.
pub fn explicit(expr: Bound, ty: SqlType, style: Option<Bound>, attempt: bool) -> SqlResult<Bound> {
    if expr.is_null {
        return Ok(Bound {
            node: Node::Const(Value::Null),
            ty,
            nullable: true,
            coercibility: Coercibility::Default,
            is_null: false,
        });
    }
    cast::check_explicit(expr.ty, ty)?;
    let (ty, coercibility) = match (types::is_text(ty), expr.collation()) {
        // a character type stays in its own collation
        (true, Some(collation)) => (types::with_collation(ty, collation), expr.coercibility),
        _ => (ty, Coercibility::Default),
    };
    let mut bound = cast_node(expr, ty, style, attempt, true);
    bound.coercibility = coercibility;
    Ok(bound)
}

fn cast_node(
    expr: Bound,
    ty: SqlType,
    style: Option<Bound>,
    attempt: bool,
    explicit: bool,
) -> Bound {
    let nullable = expr.nullable || attempt || style.as_ref().is_some_and(|s| s.nullable);
    let coercibility = expr.coercibility;
    let node = Node::Cast { expr: Box::new(expr), style: style.map(Box::new), attempt, explicit };
    Bound { node, ty, nullable, coercibility, is_null: false }
}
