//! Conditions. T-SQL has no boolean values, so they are not expressions.

use super::{
    binder::Binder,
    bound::{Bound, Comparison, Node, Predicate},
    conversions::implicit,
    types::{self, Coercibility, Family},
};
use crate::{
    error::{SqlError, SqlResult},
    value::{Collation, SqlType, Value},
};
use sqlparser::ast::{self, BinaryOperator, Expr, UnaryOperator};

impl Binder<'_> {
    pub fn predicate(&mut self, expr: &Expr) -> SqlResult<Predicate> {
        Ok(match expr {
            Expr::Nested(inner) => self.predicate(inner)?,
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                let mut list = Vec::new();
                flatten(left, &BinaryOperator::And, &mut list);
                flatten(right, &BinaryOperator::And, &mut list);
                Predicate::And(
                    list.into_iter().map(|e| self.predicate(e)).collect::<SqlResult<_>>()?,
                )
            }
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                let mut list = Vec::new();
                flatten(left, &BinaryOperator::Or, &mut list);
                flatten(right, &BinaryOperator::Or, &mut list);
                Predicate::Or(
                    list.into_iter().map(|e| self.predicate(e)).collect::<SqlResult<_>>()?,
                )
            }
            Expr::BinaryOp { left, op, right } => {
                let Some(op) = comparison(op) else { return Err(not_a_condition(expr)) };
                let (left, right) = (self.expr(left)?, self.expr(right)?);
                if !self.settings.ansi_nulls && (left.is_null || right.is_null) {
                    let other = if left.is_null { right } else { left };
                    return match op {
                        Comparison::Eq => Ok(Predicate::IsNull(other)),
                        Comparison::Ne => Ok(Predicate::Not(Box::new(Predicate::IsNull(other)))),
                        _ => Ok(Predicate::Constant(None)),
                    };
                }
                compare(op, left, right)?
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                Predicate::Not(Box::new(self.predicate(expr)?))
            }
            Expr::IsNull(inner) => Predicate::IsNull(self.expr(inner)?),
            Expr::IsNotNull(inner) => {
                Predicate::Not(Box::new(Predicate::IsNull(self.expr(inner)?)))
            }
            Expr::IsDistinctFrom(left, right) => {
                let (left, right) = (self.expr(left)?, self.expr(right)?);
                distinct(false, left, right)?
            }
            Expr::IsNotDistinctFrom(left, right) => {
                let (left, right) = (self.expr(left)?, self.expr(right)?);
                distinct(true, left, right)?
            }
            Expr::Between { expr, negated, low, high } => {
                let (value, low, high) = (self.expr(expr)?, self.expr(low)?, self.expr(high)?);
                let both = Predicate::And(vec![
                    compare(Comparison::Ge, value.clone(), low)?,
                    compare(Comparison::Le, value, high)?,
                ]);
                negate(both, *negated)
            }
            Expr::InList { expr, list, negated } => {
                let value = self.expr(expr)?;
                let items = list.iter().map(|e| self.expr(e)).collect::<SqlResult<Vec<_>>>()?;
                negate(in_list(value, items)?, *negated)
            }
            Expr::InSubquery { expr, subquery, negated } => {
                let left = self.expr(expr)?;
                negate(self.quantified(Comparison::Eq, false, left, subquery)?, *negated)
            }
            Expr::AnyOp { left, compare_op, right, .. } => {
                self.any_all(left, compare_op, right, false)?
            }
            Expr::AllOp { left, compare_op, right } => {
                self.any_all(left, compare_op, right, true)?
            }
            Expr::Exists { subquery, negated } => negate(self.exists(subquery)?, *negated),
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                let (text, pattern) = (self.expr(expr)?, self.expr(pattern)?);
                let escape = escape_char.as_ref().map(|e| self.expr(e)).transpose()?;
                negate(like(text, pattern, escape, self.settings.collation)?, *negated)
            }
            Expr::Function(function) => {
                return Err(SqlError::unsupported(format!("the condition {function}")));
            }
            other => return Err(not_a_condition(other)),
        })
    }

    fn any_all(
        &mut self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        all: bool,
    ) -> SqlResult<Predicate> {
        let Some(op) = comparison(op) else {
            return Err(SqlError::unsupported(format!("{op} ANY")));
        };
        let mut right = right;
        while let Expr::Nested(inner) = right {
            right = inner;
        }
        let Expr::Subquery(query) = right else {
            return Err(SqlError::unsupported("ANY or ALL of anything but a subquery"));
        };
        let left = self.expr(left)?;
        self.quantified(op, all, left, query)
    }

    fn quantified(
        &mut self,
        op: Comparison,
        all: bool,
        left: Bound,
        query: &ast::Query,
    ) -> SqlResult<Predicate> {
        let subquery = self.subquery(query)?;
        let [column] = subquery.plan.columns.as_slice() else {
            return Err(SqlError::new(
                116,
                16,
                "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
            ));
        };
        let mut right = Bound::new(Node::Const(Value::Null), column.ty, true);
        right.coercibility = column.coercibility;
        right.is_null = column.is_null;
        let (left, right, collation) = meet(left, right, comparison_name(op))?;
        Ok(Predicate::Quantified {
            op,
            all,
            left,
            subquery: subquery.clone(),
            ty: right.ty,
            collation,
        })
    }

    fn exists(&mut self, query: &ast::Query) -> SqlResult<Predicate> {
        if let Some(predicate) = self.null_safe_equality(query)? {
            return Ok(predicate);
        }
        Ok(Predicate::Exists(self.subquery(query)?))
    }

    /// `EXISTS (SELECT a, b INTERSECT SELECT c, d)` is the customary way to say "equal, NULLs
    /// included", and EXCEPT to say "different".
    fn null_safe_equality(&mut self, query: &ast::Query) -> SqlResult<Option<Predicate>> {
        let ast::SetExpr::SetOperation {
            left,
            op,
            set_quantifier: ast::SetQuantifier::None,
            right,
        } = &*query.body
        else {
            return Ok(None);
        };
        let equal = match op {
            ast::SetOperator::Intersect => true,
            ast::SetOperator::Except => false,
            _ => return Ok(None),
        };
        let (Some(left), Some(right)) = (plain_row(left), plain_row(right)) else {
            return Ok(None);
        };
        if query.with.is_some() || left.len() != right.len() {
            return Ok(None);
        }
        let mut list = Vec::with_capacity(left.len());
        for (l, r) in left.into_iter().zip(right) {
            let (l, r) = (self.expr(l)?, self.expr(r)?);
            list.push(distinct(true, l, r)?);
        }
        let all = if list.len() == 1 { list.swap_remove(0) } else { Predicate::And(list) };
        Ok(Some(negate(all, !equal)))
    }
}

fn plain_row(body: &ast::SetExpr) -> Option<Vec<&Expr>> {
    let ast::SetExpr::Select(select) = body else { return None };
    let grouped =
        !matches!(&select.group_by, ast::GroupByExpr::Expressions(list, _) if list.is_empty());
    if !select.from.is_empty()
        || select.selection.is_some()
        || select.top.is_some()
        || grouped
        || select.having.is_some()
    {
        return None;
    }
    select
        .projection
        .iter()
        .map(|item| match item {
            ast::SelectItem::UnnamedExpr(e) | ast::SelectItem::ExprWithAlias { expr: e, .. } => {
                match e {
                    Expr::Function(f) if f.over.is_some() => None,
                    e => Some(e),
                }
            }
            _ => None,
        })
        .collect()
}

fn flatten<'e>(expr: &'e Expr, wanted: &BinaryOperator, out: &mut Vec<&'e Expr>) {
    match expr {
        Expr::BinaryOp { left, op, right } if op == wanted => {
            flatten(left, wanted, out);
            flatten(right, wanted, out);
        }
        Expr::Nested(inner) if matches!(&**inner, Expr::BinaryOp { op, .. } if op == wanted) => {
            flatten(inner, wanted, out)
        }
        other => out.push(other),
    }
}

/// The conjuncts of a condition.
pub fn conjuncts(expr: &Expr) -> Vec<&Expr> {
    let mut list = Vec::new();
    flatten(expr, &BinaryOperator::And, &mut list);
    list
}

fn not_a_condition(expr: &Expr) -> SqlError {
    match expr {
        Expr::Value(_)
        | Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Function(_)
        | Expr::Subquery(_)
        | Expr::BinaryOp { .. } => SqlError::new(
            4145,
            15,
            format!(
                "An expression of non-boolean type specified in a context where a condition is expected, near '{expr}'."
            ),
        ),
        other => SqlError::unsupported(format!("the condition {other}")),
    }
}

pub fn negate(predicate: Predicate, negated: bool) -> Predicate {
    if negated { Predicate::Not(Box::new(predicate)) } else { predicate }
}

fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Eq,
        BinaryOperator::NotEq => Comparison::Ne,
        BinaryOperator::Lt => Comparison::Lt,
        BinaryOperator::LtEq => Comparison::Le,
        BinaryOperator::Gt => Comparison::Gt,
        BinaryOperator::GtEq => Comparison::Ge,
        _ => return None,
    })
}

fn comparison_name(op: Comparison) -> &'static str {
    match op {
        Comparison::Eq => "equal to",
        Comparison::Ne => "not equal to",
        Comparison::Lt => "less than",
        Comparison::Le => "less than or equal to",
        Comparison::Gt => "greater than",
        Comparison::Ge => "greater than or equal to",
    }
}

/// Brings two expressions to one type and finds the collation to compare them with.
pub fn meet(left: Bound, right: Bound, operation: &str) -> SqlResult<(Bound, Bound, Collation)> {
    let incomparable = |ty: SqlType| {
        matches!(ty, SqlType::Text(_) | SqlType::NText(_) | SqlType::Image | SqlType::Xml)
    };
    if incomparable(left.ty) || incomparable(right.ty) {
        return Err(SqlError::new(
            402,
            16,
            format!(
                "The data types {} and {} are incompatible in the {operation} operator.",
                types::name(left.ty),
                types::name(right.ty)
            ),
        ));
    }
    let ty = match (left.is_null, right.is_null) {
        (true, false) => right.ty,
        (false, true) => left.ty,
        _ => types::common(left.ty, right.ty),
    };
    let mut collation = Collation::DEFAULT;
    if types::is_text(ty) {
        let side = |b: &Bound| {
            (
                b.collation()
                    .unwrap_or_else(|| types::collation_of(ty).unwrap_or(Collation::DEFAULT)),
                b.coercibility,
            )
        };
        let (won, how) = types::coerce(side(&left), side(&right), operation)?;
        if let Coercibility::NoCollation(a, b) = how {
            return Err(types::conflict(a, b, operation));
        }
        collation = ty.with_collation(won).compared_by().unwrap_or(won);
    }
    let (left, right) = (cast_for_comparison(left, ty)?, cast_for_comparison(right, ty)?);
    Ok((left, right, collation))
}

/// Texts are compared as they are: only their collation matters, not their declared lengths.
fn cast_for_comparison(expr: Bound, ty: SqlType) -> SqlResult<Bound> {
    let same_family = types::family(expr.ty) == types::family(ty);
    let keep = match types::family(ty) {
        Family::Text
        | Family::Binary
        | Family::Integer
        | Family::Money
        | Family::Time
        | Family::DateTime2
        | Family::DateTimeOffset => same_family,
        // values of equal scale compare by their digits
        Family::Decimal => {
            matches!((expr.ty, ty), (SqlType::Decimal { scale: a, .. }, SqlType::Decimal { scale: b, .. }) if a == b)
        }
        // a real is compared as the float it is
        Family::Float => same_family,
        _ => expr.ty == ty,
    };
    if keep && !expr.is_null {
        return Ok(expr);
    }
    implicit(expr, ty)
}

pub fn compare(op: Comparison, left: Bound, right: Bound) -> SqlResult<Predicate> {
    let (left, right, collation) = meet(left, right, comparison_name(op))?;
    Ok(Predicate::Compare { op, left, right, collation })
}

pub fn distinct(equal: bool, left: Bound, right: Bound) -> SqlResult<Predicate> {
    let (left, right, collation) = meet(left, right, "equal to")?;
    Ok(Predicate::Distinct { equal, left, right, collation })
}

fn in_list(value: Bound, items: Vec<Bound>) -> SqlResult<Predicate> {
    let mut all = Vec::with_capacity(items.len() + 1);
    all.push(value.clone());
    all.extend(items.iter().cloned());
    let mut ty = value.ty;
    for item in items.iter().filter(|i| !i.is_null) {
        ty = types::common(ty, item.ty);
    }
    let mut collation = Collation::DEFAULT;
    if types::is_text(ty) {
        let mut side = (value.collation().unwrap_or(Collation::DEFAULT), value.coercibility);
        for item in &items {
            side = types::coerce(
                side,
                (item.collation().unwrap_or(side.0), item.coercibility),
                "equal to",
            )?;
        }
        if let Coercibility::NoCollation(a, b) = side.1 {
            return Err(types::conflict(a, b, "equal to"));
        }
        collation = ty.with_collation(side.0).compared_by().unwrap_or(side.0);
    }
    let expr = cast_for_comparison(value, ty)?;
    let list =
        items.into_iter().map(|item| cast_for_comparison(item, ty)).collect::<SqlResult<_>>()?;
    Ok(Predicate::In { expr, list, collation })
}

fn like(
    text: Bound,
    pattern: Bound,
    escape: Option<Bound>,
    default: Collation,
) -> SqlResult<Predicate> {
    let as_text = |b: Bound| {
        if types::is_text(b.ty) && !b.is_null {
            Ok(b)
        } else {
            let ty = types::text(true, types::length(b.ty), false, default);
            implicit(b, ty)
        }
    };
    let (text, pattern) = (as_text(text)?, as_text(pattern)?);
    let escape = escape.map(as_text).transpose()?;
    let side = |b: &Bound| (b.collation().unwrap_or(default), b.coercibility);
    let (collation, how) = types::coerce(side(&text), side(&pattern), "like")?;
    if let Coercibility::NoCollation(a, b) = how {
        return Err(types::conflict(a, b, "like"));
    }
    let collation = types::common(text.ty, pattern.ty)
        .with_collation(collation)
        .compared_by()
        .unwrap_or(collation);
    Ok(Predicate::Like { text, pattern, escape, collation })
}
