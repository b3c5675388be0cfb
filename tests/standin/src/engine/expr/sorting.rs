//! What ORDER BY asks of an expression.

use super::{bound::Bound, types::Coercibility};
use crate::{
    error::{SqlError, SqlResult},
    value::SqlType,
};
use sqlparser::ast;

/// Error 306 and friends: types that have no order.
pub fn sortable(bound: &Bound) -> SqlResult<()> {
    match bound.ty {
        SqlType::Text(_) | SqlType::NText(_) | SqlType::Image => Err(SqlError::new(
            306,
            16,
            "The text, ntext, and image data types cannot be compared or sorted, except when using IS NULL or LIKE operator.",
        )),
        SqlType::Xml => Err(SqlError::new(
            305,
            16,
            "The xml data type cannot be compared or sorted, except when using the IS NULL operator.",
        )),
        _ => match bound.coercibility {
            Coercibility::NoCollation(a, b) => Err(SqlError::new(
                451,
                16,
                format!(
                    "Cannot resolve collation conflict between \"{}\" and \"{}\" in SELECT statement column.",
                    a.name(),
                    b.name()
                ),
            )),
            _ => Ok(()),
        },
    }
}

/// The direction of an ORDER BY item.
pub fn is_descending(item: &ast::OrderByExpr) -> bool {
    matches!(item.options.sort, Some(ast::OrderBySort::Desc))
}
