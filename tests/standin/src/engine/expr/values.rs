//! Value expressions: literals, operators, CASE, CAST, and what stands behind a name.

use super::{
    binder::{Binder, Phase, ScopeColumn, object_name, source_matches},
    bound::{BitOp, Bound, Comparison, Node},
    conditions::compare,
    conversions::{explicit, implicit, unify},
    operators::{arithmetic, bits},
    types::{self, Coercibility, Family},
};
use crate::{
    error::{SqlError, SqlResult},
    tsql::datatype,
    value::{Decimal, Length, SqlType, Value, decimal::Operation},
};
use sqlparser::ast::{self, BinaryOperator, CastKind, Expr, UnaryOperator};

impl Binder<'_> {
    pub fn expr(&mut self, expr: &Expr) -> SqlResult<Bound> {
        // what is grouped by may be used as a whole
        if let Some(scope) = self.scopes.last()
            && scope.phase == Phase::Groups
            && !scope.group_texts.is_empty()
            && !matches!(expr, Expr::Value(_))
            && scope.group_texts.contains(&self.canonical(expr))
        {
            let kept = self.scopes.last().map_or(0, |s| s.free.len());
            let bound = self.expr_inner(expr)?;
            if let Some(scope) = self.scopes.last_mut() {
                scope.free.truncate(kept);
            }
            return Ok(bound);
        }
        self.expr_inner(expr)
    }

    fn expr_inner(&mut self, expr: &Expr) -> SqlResult<Bound> {
        match expr {
            Expr::Nested(inner) => self.expr(inner),
            Expr::Value(value) => self.literal(&value.value),
            Expr::Identifier(ident)
                if ident.quote_style.is_none() && ident.value.starts_with("@@") =>
            {
                self.global(&ident.value)
            }
            Expr::Identifier(ident)
                if ident.quote_style.is_none() && ident.value.starts_with('@') =>
            {
                let (number, ty) = self.variable(&ident.value)?;
                Ok(Bound::new(Node::Variable(number), ty, true))
            }
            Expr::Identifier(ident)
                if ident.quote_style.is_none() && ident.value.starts_with('$') =>
            {
                self.dollar(&[], &ident.value)
            }
            Expr::Identifier(ident)
                if ident.quote_style.is_none() && ident.value.starts_with("%%") =>
            {
                Err(SqlError::unsupported(&ident.value))
            }
            Expr::Identifier(ident) => self.column(&[&ident.value]),
            Expr::CompoundIdentifier(idents) => {
                let parts: Vec<&str> = idents.iter().map(|i| i.value.as_str()).collect();
                match parts.split_last() {
                    Some((last, rest)) if last.starts_with('$') => self.dollar(rest, last),
                    _ => self.column(&parts),
                }
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::UnaryOp { op, expr } => self.unary(*op, expr),
            Expr::Cast { kind, expr, data_type, format: None } => {
                let ty = self.data_type(data_type)?;
                let attempt = match kind {
                    CastKind::Cast => false,
                    CastKind::TryCast => true,
                    _ => return Err(SqlError::unsupported("this form of CAST")),
                };
                let inner = self.expr(expr)?;
                explicit(inner, ty, None, attempt)
            }
            Expr::Convert {
                is_try,
                expr,
                data_type: Some(data_type),
                charset: None,
                styles,
                ..
            } => {
                let ty = self.data_type(data_type)?;
                let inner = self.expr(expr)?;
                let style = match styles.as_slice() {
                    [] => None,
                    [style] => Some(implicit(self.expr(style)?, SqlType::Int)?),
                    _ => {
                        return Err(SqlError::new(
                            174,
                            15,
                            "The convert function requires 2 to 3 arguments.",
                        ));
                    }
                };
                explicit(inner, ty, style, *is_try)
            }
            Expr::Collate { expr, collation } => {
                let name = collation.to_string();
                let name = name.trim_matches(|c| c == '[' || c == ']');
                let collation = if name.eq_ignore_ascii_case("database_default") {
                    self.settings.collation
                } else {
                    match self.host.collation(name)? {
                        Some(collation) => collation,
                        None => {
                            return Err(SqlError::new(
                                448,
                                16,
                                format!("Invalid collation '{name}'."),
                            ));
                        }
                    }
                };
                let inner = self.expr(expr)?;
                if inner.is_null {
                    return Ok(implicit(inner, SqlType::VarChar(Length::N(1), collation))?
                        .coerced(collation, Coercibility::Explicit));
                }
                if !types::is_text(inner.ty) {
                    return Err(SqlError::new(
                        447,
                        16,
                        format!(
                            "Expression type {} is invalid for COLLATE clause.",
                            types::name(inner.ty)
                        ),
                    ));
                }
                Ok(inner.coerced(collation, Coercibility::Explicit))
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Function(function) => self.function(function),
            Expr::Subquery(query) => {
                let subquery = self.subquery(query)?;
                let [column] = subquery.plan.columns.as_slice() else {
                    return Err(SqlError::new(
                        116,
                        16,
                        "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
                    ));
                };
                let (ty, coercibility, is_null) = (column.ty, column.coercibility, column.is_null);
                let mut bound = Bound::new(Node::Subquery(subquery), ty, true);
                bound.coercibility = coercibility;
                bound.is_null = is_null;
                Ok(bound)
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                let inner = self.expr(timestamp)?;
                let zone = self.expr(time_zone)?;
                super::functions::at_time_zone(inner, zone)
            }
            Expr::Substring {
                expr,
                substring_from: Some(from),
                substring_for: Some(length),
                ..
            } => {
                let args = vec![self.expr(expr)?, self.expr(from)?, self.expr(length)?];
                self.named("SUBSTRING", args)
            }
            Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::Exists { .. } => Err(SqlError::new(
                4145,
                15,
                "An expression of boolean type was found where a value is expected.",
            )),
            other => Err(SqlError::unsupported(format!("the expression {other}"))),
        }
    }

    pub fn data_type(&self, data_type: &ast::DataType) -> SqlResult<SqlType> {
        if let ast::DataType::Custom(name, _) = data_type
            && let Some(ty) = self.host.named_type(&object_name(name)?)?
        {
            return Ok(ty);
        }
        datatype::sql_type(data_type, self.settings.collation)
    }

    fn literal(&self, value: &ast::Value) -> SqlResult<Bound> {
        let collation = self.settings.collation;
        Ok(match value {
            ast::Value::Null => Bound::null(),
            ast::Value::Number(text, _) => number_literal(text)?,
            ast::Value::SingleQuotedString(text) | ast::Value::DoubleQuotedString(text) => {
                let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
                Bound::constant(
                    Value::Str(collation.squeeze(&text.as_str().into())),
                    types::text(false, Some(length), true, collation),
                )
            }
            ast::Value::NationalStringLiteral(text) => {
                let length = u32::try_from(text.encode_utf16().count()).unwrap_or(u32::MAX);
                Bound::constant(
                    Value::Str(text.as_str().into()),
                    types::text(true, Some(length), true, collation),
                )
            }
            ast::Value::HexStringLiteral(text) => {
                let padded = if text.len() % 2 == 1 { format!("0{text}") } else { text.clone() };
                let bytes: Vec<u8> = padded
                    .as_bytes()
                    .chunks(2)
                    .filter_map(|pair| {
                        std::str::from_utf8(pair)
                            .ok()
                            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                    })
                    .collect();
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let ty = if length > 8000 {
                    SqlType::VarBinary(Length::Max)
                } else {
                    types::binary(Some(length))
                };
                Bound::constant(Value::Bytes(bytes.into()), ty)
            }
            ast::Value::Placeholder(text) if text.starts_with('$') => {
                match Decimal::parse(&text[1..]).and_then(|d| d.rescale(4)) {
                    Some(d) => Bound::constant(Value::Decimal(d), SqlType::Money),
                    None => {
                        return Err(SqlError::new(
                            293,
                            16,
                            "Cannot convert char value to money. The char value has incorrect syntax.",
                        ));
                    }
                }
            }
            other => return Err(SqlError::unsupported(format!("the literal {other}"))),
        })
    }

    fn global(&mut self, name: &str) -> SqlResult<Bound> {
        let name = name.to_ascii_uppercase();
        match self.host.global(&name) {
            Some((ty, value)) => {
                let mut bound = Bound::constant(value, ty);
                bound.nullable = true;
                Ok(bound)
            }
            None => {
                Err(SqlError::new(137, 15, format!("Must declare the scalar variable \"{name}\".")))
            }
        }
    }

    /// `$IDENTITY` and `$ROWGUID`.
    fn dollar(&mut self, qualifier: &[&str], name: &str) -> SqlResult<Bound> {
        let wanted: fn(&ScopeColumn) -> bool = match name.to_ascii_uppercase().as_str() {
            "$IDENTITY" => |c| c.identity.is_some(),
            "$ROWGUID" => |c| c.rowguid,
            _ => return Err(SqlError::unsupported(name)),
        };
        let Some(scope) = self.scopes.last() else {
            return Err(SqlError::new(207, 16, format!("Invalid column name '{name}'.")));
        };
        let found =
            scope.sources.iter().enumerate().find_map(|(at, source)| {
                if !qualifier.is_empty() && !source_matches(source, qualifier) {
                    return None;
                }
                source.columns.iter().position(wanted).map(|ordinal| {
                    (at + scope.first_slot, ordinal, source.columns[ordinal].clone())
                })
            });
        match found {
            Some((slot, ordinal, column)) => Ok(self.column_at(0, slot, ordinal, &column)),
            None => Err(SqlError::new(207, 16, format!("Invalid column name '{name}'."))),
        }
    }

    fn unary(&mut self, op: UnaryOperator, expr: &Expr) -> SqlResult<Bound> {
        match op {
            UnaryOperator::Plus => self.expr(expr),
            UnaryOperator::Minus => {
                if let Expr::Value(value) = expr
                    && let ast::Value::Number(text, _) = &value.value
                {
                    // -9223372036854775808 is a numeric in T-SQL as well: the sign is no part of
                    // the literal
                    let inner = number_literal(text)?;
                    if let Node::Const(value) = &inner.node {
                        return Ok(Bound::constant(
                            super::arithmetic::negate(value.clone(), inner.ty)?,
                            inner.ty,
                        ));
                    }
                }
                let mut inner = self.expr(expr)?;
                if types::is_text(inner.ty) {
                    return Err(SqlError::new(
                        8117,
                        16,
                        format!(
                            "Operand data type {} is invalid for minus operator.",
                            types::name(inner.ty)
                        ),
                    ));
                }
                if inner.ty == SqlType::Bit {
                    return Err(SqlError::new(
                        8117,
                        16,
                        "Operand data type bit is invalid for minus operator.",
                    ));
                }
                if inner.ty == SqlType::TinyInt {
                    inner = implicit(inner, SqlType::SmallInt)?;
                }
                if !types::is_number(inner.ty) {
                    return Err(SqlError::new(
                        8117,
                        16,
                        format!(
                            "Operand data type {} is invalid for minus operator.",
                            types::name(inner.ty)
                        ),
                    ));
                }
                let (ty, nullable) = (inner.ty, inner.nullable);
                Ok(Bound::new(Node::Negate(Box::new(inner)), ty, nullable))
            }
            UnaryOperator::BitwiseNot => {
                let inner = self.expr(expr)?;
                if !matches!(types::family(inner.ty), Family::Integer | Family::Bit) {
                    return Err(SqlError::new(
                        8117,
                        16,
                        format!(
                            "Operand data type {} is invalid for '~' operator.",
                            types::name(inner.ty)
                        ),
                    ));
                }
                let (ty, nullable) = (inner.ty, inner.nullable);
                Ok(Bound::new(Node::BitNot(Box::new(inner)), ty, nullable))
            }
            UnaryOperator::Not => Err(SqlError::new(
                4145,
                15,
                "An expression of boolean type was found where a value is expected.",
            )),
            other => Err(SqlError::unsupported(format!("the operator {other}"))),
        }
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> SqlResult<Bound> {
        let operation = match op {
            BinaryOperator::Plus => Operation::Add,
            BinaryOperator::Minus => Operation::Subtract,
            BinaryOperator::Multiply => Operation::Multiply,
            BinaryOperator::Divide => Operation::Divide,
            BinaryOperator::Modulo => Operation::Modulo,
            BinaryOperator::BitwiseAnd => {
                return bits(BitOp::And, self.expr(left)?, self.expr(right)?);
            }
            BinaryOperator::BitwiseOr => {
                return bits(BitOp::Or, self.expr(left)?, self.expr(right)?);
            }
            BinaryOperator::BitwiseXor => {
                return bits(BitOp::Xor, self.expr(left)?, self.expr(right)?);
            }
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::And
            | BinaryOperator::Or => {
                return Err(SqlError::new(
                    4145,
                    15,
                    "An expression of boolean type was found where a value is expected.",
                ));
            }
            other => return Err(SqlError::unsupported(format!("the operator {other}"))),
        };
        let left = self.expr(left)?;
        let right = self.expr(right)?;
        arithmetic(operation, left, right)
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&Expr>,
    ) -> SqlResult<Bound> {
        let mut tests = Vec::with_capacity(conditions.len());
        let mut results = Vec::with_capacity(conditions.len() + 1);
        for when in conditions {
            tests.push(match operand {
                None => self.predicate(&when.condition)?,
                Some(operand) => {
                    let (left, right) = (self.expr(operand)?, self.expr(&when.condition)?);
                    compare(Comparison::Eq, left, right)?
                }
            });
            results.push(self.expr(&when.result)?);
        }
        let without_else = otherwise.is_none();
        results.push(match otherwise {
            Some(expr) => self.expr(expr)?,
            None => Bound::null(),
        });
        let nullable = without_else || results.iter().any(|r| r.nullable);
        if results.iter().all(|r| r.is_null) {
            return Err(SqlError::new(
                8133,
                16,
                "At least one of the result expressions in a CASE specification must be an expression other than the NULL constant.",
            ));
        }
        let (mut results, ty, coercibility) = unify(results, "CASE")?;
        let otherwise = results.pop().unwrap_or_else(Bound::null);
        let whens = tests.into_iter().zip(results).collect();
        let mut bound =
            Bound::new(Node::Case { whens, otherwise: Box::new(otherwise) }, ty, nullable);
        bound.coercibility = coercibility;
        Ok(bound)
    }
}

/// A number as written: int, numeric or float.
fn number_literal(text: &str) -> SqlResult<Bound> {
    if text.contains(['e', 'E']) {
        return match text.parse::<f64>() {
            Ok(f) if f.is_finite() => Ok(Bound::constant(Value::Float(f), SqlType::Float)),
            _ => Err(SqlError::new(
                168,
                15,
                format!(
                    "The floating point value '{text}' is out of the range of computer representation (8 bytes)."
                ),
            )),
        };
    }
    if let Ok(int) = text.parse::<i32>() {
        return Ok(Bound::constant(Value::Int(i64::from(int)), SqlType::Int));
    }
    let Some(decimal) = Decimal::parse(text).filter(|d| d.precision() <= 38) else {
        return Err(SqlError::new(
            1007,
            15,
            format!(
                "The number '{text}' is out of the range for numeric representation (maximum precision 38)."
            ),
        ));
    };
    let ty = SqlType::Decimal { precision: decimal.precision(), scale: decimal.scale };
    Ok(Bound::constant(Value::Decimal(decimal), ty))
}
