//! Arguments: how many, which, and the call that takes them.

use crate::{
    engine::expr::bound::{Bound, Builtin, Node},
    error::{SqlError, SqlResult},
    value::SqlType,
};
use sqlparser::ast::{self, Expr, FunctionArg};

/// Error 174.
pub fn arity(name: &str, args: &[Bound], range: std::ops::RangeInclusive<usize>) -> SqlResult<()> {
    if range.contains(&args.len()) {
        return Ok(());
    }
    let name = name.to_lowercase();
    Err(if range.start() == range.end() {
        SqlError::new(
            174,
            15,
            format!("The {name} function requires {} argument(s).", range.start()),
        )
    } else {
        SqlError::new(
            189,
            15,
            format!("The {name} function requires {} to {} arguments.", range.start(), range.end()),
        )
    })
}

pub fn call(function: Builtin, args: Vec<Bound>, ty: SqlType, nullable: bool) -> Bound {
    Bound::new(Node::Call { function, args }, ty, nullable)
}

pub fn any_nullable(args: &[Bound]) -> bool {
    args.iter().any(|a| a.nullable)
}

/// The arguments, if all are plain expressions.
pub fn expressions(list: &[FunctionArg]) -> Option<Vec<&Expr>> {
    list.iter().map(argument).collect()
}

pub fn argument(arg: &ast::FunctionArg) -> Option<&Expr> {
    match arg {
        ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}
