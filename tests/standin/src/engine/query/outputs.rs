//! The columns a query gives: by number, and of several queries brought to common types.

use super::plan::{Body, Plan, PlanColumn};
use crate::{
    engine::expr::{
        bound::{Bound, Node},
        conversions::{implicit, unify},
        types::{self, Coercibility},
    },
    error::{SqlError, SqlResult},
    value::{SqlType, Value},
};
use sqlparser::ast::{self, Expr};

/// The output that ORDER BY means with a number.
pub fn ordinal(expr: &Expr, count: usize) -> SqlResult<Option<usize>> {
    let Expr::Value(value) = expr else { return Ok(None) };
    let ast::Value::Number(text, _) = &value.value else { return Ok(None) };
    match text.parse::<usize>() {
        Ok(n) if (1..=count).contains(&n) => Ok(Some(n - 1)),
        Ok(n) => Err(SqlError::new(
            108,
            16,
            format!(
                "The ORDER BY position number {n} is out of range of the number of items in the select list."
            ),
        )),
        Err(_) => Ok(None),
    }
}

/// Brings the columns of two queries to common types.
pub fn reconcile(
    left: &mut Plan,
    right: &mut Plan,
    operation: &str,
    distinct: bool,
) -> SqlResult<Vec<PlanColumn>> {
    if left.columns.len() != right.columns.len() {
        return Err(SqlError::new(
            205,
            16,
            "All queries combined using a UNION, INTERSECT or EXCEPT operator must have an equal number of expressions in their target lists.",
        ));
    }
    let mut columns = Vec::with_capacity(left.columns.len());
    for (l, r) in left.columns.iter().zip(&right.columns) {
        let stand_in = |c: &PlanColumn| Bound {
            node: Node::Const(Value::Null),
            ty: c.ty,
            nullable: c.nullable,
            coercibility: c.coercibility,
            is_null: c.is_null,
        };
        let (_, ty, coercibility) = unify(vec![stand_in(l), stand_in(r)], operation)?;
        if let Coercibility::NoCollation(a, b) = coercibility
            && distinct
        {
            return Err(types::conflict(a, b, operation));
        }
        if distinct
            && matches!(ty, SqlType::Text(_) | SqlType::NText(_) | SqlType::Image | SqlType::Xml)
        {
            return Err(SqlError::new(
                421,
                16,
                format!(
                    "The {} data type cannot be selected as DISTINCT because it is not comparable.",
                    types::name(ty)
                ),
            ));
        }
        columns.push(PlanColumn {
            name: l.name.clone(),
            ty,
            nullable: l.nullable || r.nullable,
            coercibility,
            identity: None,
            computed: false,
            is_null: l.is_null && r.is_null,
        });
    }
    let wanted: Vec<SqlType> = columns.iter().map(|c| c.ty).collect();
    cast_outputs(left, &wanted)?;
    cast_outputs(right, &wanted)?;
    Ok(columns)
}

/// Makes a plan give values of these types.
pub fn cast_outputs(plan: &mut Plan, wanted: &[SqlType]) -> SqlResult<()> {
    fn cast(list: &mut [Bound], wanted: &[SqlType]) -> SqlResult<()> {
        for (bound, ty) in list.iter_mut().zip(wanted) {
            if bound.ty != *ty || bound.is_null {
                let taken = std::mem::replace(bound, Bound::null());
                *bound = implicit(taken, *ty)?;
            }
        }
        Ok(())
    }
    match &mut plan.body {
        Body::Select(select) => cast(&mut select.projection, wanted)?,
        Body::Values(rows) => {
            for row in rows {
                cast(row, wanted)?;
            }
        }
        Body::Set(set) => {
            cast_outputs(&mut set.left, wanted)?;
            cast_outputs(&mut set.right, wanted)?;
        }
        Body::Recursive { anchor, step, .. } => {
            cast_outputs(anchor, wanted)?;
            cast_outputs(step, wanted)?;
        }
    }
    for (column, ty) in plan.columns.iter_mut().zip(wanted) {
        column.ty = *ty;
        column.is_null = false;
    }
    Ok(())
}
