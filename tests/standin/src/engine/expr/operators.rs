//! `+ - * / %`, concatenation and the operators on bits.

use super::{
    bound::{BitOp, Bound, Node},
    conversions::implicit,
    types::{self, Family},
};
use crate::{
    error::{SqlError, SqlResult},
    value::{
        Collation, Decimal, SqlType, Value,
        decimal::{Operation, result_type},
    },
};

fn operator_name(op: Operation) -> &'static str {
    match op {
        Operation::Add => "add",
        Operation::Subtract => "subtract",
        Operation::Multiply => "multiply",
        Operation::Divide => "divide",
        Operation::Modulo => "modulo",
    }
}

/// `+ - * / %`
pub fn arithmetic(op: Operation, left: Bound, right: Bound) -> SqlResult<Bound> {
    let incompatible = |a: SqlType, b: SqlType| {
        SqlError::new(
            402,
            16,
            format!(
                "The data types {} and {} are incompatible in the {} operator.",
                types::name(a),
                types::name(b),
                operator_name(op)
            ),
        )
    };
    let nullable = left.nullable || right.nullable;
    let (left, right) = match (left.is_null, right.is_null) {
        (true, true) => (implicit(left, SqlType::Int)?, implicit(right, SqlType::Int)?),
        (true, false) => (implicit(left, right.ty)?, right),
        (false, true) => {
            let ty = left.ty;
            (left, implicit(right, ty)?)
        }
        (false, false) => (left, right),
    };
    let (fl, fr) = (types::family(left.ty), types::family(right.ty));
    if fl == Family::Text && fr == Family::Text {
        return if op == Operation::Add {
            concatenate(left, right)
        } else {
            Err(incompatible(left.ty, right.ty))
        };
    }
    if fl == Family::Binary && fr == Family::Binary {
        if op != Operation::Add {
            return Err(incompatible(left.ty, right.ty));
        }
        let ty =
            types::binary(types::length(left.ty).zip(types::length(right.ty)).map(|(a, b)| a + b));
        return Ok(Bound::new(
            Node::Concat { left: Box::new(left), right: Box::new(right) },
            ty,
            nullable,
        ));
    }
    let dated = |f: Family| matches!(f, Family::DateTime | Family::SmallDateTime);
    if dated(fl) || dated(fr) {
        if !matches!(op, Operation::Add | Operation::Subtract) {
            return Err(SqlError::new(
                8117,
                16,
                format!(
                    "Operand data type datetime is invalid for {} operator.",
                    operator_name(op)
                ),
            ));
        }
        let foreign = |f: Family| !(dated(f) || types_number(f) || f == Family::Text);
        if foreign(fl) || foreign(fr) {
            return Err(incompatible(left.ty, right.ty));
        }
        let ty = if fl == Family::DateTime || fr == Family::DateTime || (dated(fl) && dated(fr)) {
            SqlType::DateTime
        } else {
            SqlType::SmallDateTime
        };
        let (left, right) =
            (implicit(left, SqlType::DateTime)?, implicit(right, SqlType::DateTime)?);
        let node = Node::DateArithmetic {
            subtract: op == Operation::Subtract,
            left: Box::new(left),
            right: Box::new(right),
        };
        let bound = Bound::new(node, SqlType::DateTime, nullable);
        return implicit(bound, ty);
    }
    let ty = types::common(left.ty, right.ty);
    match types::family(ty) {
        Family::Integer => {
            let (left, right) = (implicit(left, ty)?, implicit(right, ty)?);
            Ok(Bound::new(
                Node::Arithmetic { op, left: Box::new(left), right: Box::new(right) },
                ty,
                nullable,
            ))
        }
        Family::Bit => Err(SqlError::new(
            8117,
            16,
            format!("Operand data type bit is invalid for {} operator.", operator_name(op)),
        )),
        Family::Float => {
            if op == Operation::Modulo {
                return Err(incompatible(left.ty, right.ty));
            }
            let (left, right) = (implicit(left, ty)?, implicit(right, ty)?);
            Ok(Bound::new(
                Node::Arithmetic { op, left: Box::new(left), right: Box::new(right) },
                ty,
                nullable,
            ))
        }
        Family::Money => {
            let (left, right) = (implicit(left, ty)?, implicit(right, ty)?);
            Ok(Bound::new(
                Node::Arithmetic { op, left: Box::new(left), right: Box::new(right) },
                ty,
                nullable,
            ))
        }
        Family::Decimal => {
            let side = |b: Bound| {
                // a literal counts for the digits it has
                let written = match &b.node {
                    Node::Const(Value::Int(i)) if types::family(b.ty) == Family::Integer => {
                        Some((Decimal { mantissa: i128::from(*i), scale: 0 }.precision(), 0))
                    }
                    _ => types::as_decimal(b.ty),
                };
                match written {
                    Some(written) => Ok((b, written)),
                    None => {
                        let SqlType::Decimal { precision, scale } = ty else {
                            return Err(incompatible(b.ty, ty));
                        };
                        Ok((implicit(b, ty)?, (precision, scale)))
                    }
                }
            };
            let ((left, left_type), (right, right_type)) = (side(left)?, side(right)?);
            let (precision, scale) = result_type(op, left_type, right_type);
            let node = Node::Decimal {
                op,
                left: Box::new(left),
                right: Box::new(right),
                left_type,
                right_type,
            };
            Ok(Bound::new(node, SqlType::Decimal { precision, scale }, nullable))
        }
        _ => {
            if types::is_number(left.ty) || types::is_number(right.ty) {
                return Err(types::clash(left.ty, right.ty));
            }
            if left.ty == right.ty {
                return Err(SqlError::new(
                    8117,
                    16,
                    format!(
                        "Operand data type {} is invalid for {} operator.",
                        types::name(left.ty),
                        operator_name(op)
                    ),
                ));
            }
            Err(incompatible(left.ty, right.ty))
        }
    }
}

fn types_number(f: Family) -> bool {
    matches!(f, Family::Bit | Family::Integer | Family::Decimal | Family::Money | Family::Float)
}

/// Text + text.
pub fn concatenate(left: Bound, right: Bound) -> SqlResult<Bound> {
    let fallback = left.collation().or(right.collation()).unwrap_or(Collation::DEFAULT);
    let side = |b: &Bound| (b.collation().unwrap_or(fallback), b.coercibility);
    let (collation, coercibility) = types::coerce(side(&left), side(&right), "add")?;
    let unicode = types::is_unicode(left.ty) || types::is_unicode(right.ty);
    let length = types::length(left.ty).zip(types::length(right.ty)).map(|(a, b)| a + b);
    let ty = types::text(unicode, length, false, collation);
    let nullable = left.nullable || right.nullable;
    let mut bound =
        Bound::new(Node::Concat { left: Box::new(left), right: Box::new(right) }, ty, nullable);
    bound.coercibility = coercibility;
    Ok(bound)
}

/// `& | ^`
pub fn bits(op: BitOp, mut left: Bound, mut right: Bound) -> SqlResult<Bound> {
    // binary meets integer: the integer decides
    for (one, other) in [(&mut left, right.ty), (&mut right, SqlType::Int)] {
        if types::family(one.ty) == Family::Binary || types::is_text(one.ty) {
            let to = if types::family(other) == Family::Integer { other } else { SqlType::Int };
            *one = implicit(one.clone(), to)?;
        }
    }
    let ty = types::common(left.ty, right.ty);
    if !matches!(types::family(ty), Family::Integer | Family::Bit) {
        let sign = match op {
            BitOp::And => "'&'",
            BitOp::Or => "'|'",
            BitOp::Xor => "'^'",
        };
        return Err(SqlError::new(
            402,
            16,
            format!(
                "The data types {} and {} are incompatible in the {sign} operator.",
                types::name(left.ty),
                types::name(right.ty)
            ),
        ));
    }
    let nullable = left.nullable || right.nullable;
    let (left, right) = (implicit(left, ty)?, implicit(right, ty)?);
    Ok(Bound::new(Node::Bits { op, left: Box::new(left), right: Box::new(right) }, ty, nullable))
}
