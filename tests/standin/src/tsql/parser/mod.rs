//! Tokens → statements.
//!
//! `sqlparser`'s parser reads expressions, queries and table expressions; everything a statement
//! puts around them is read here, word by word, because T-SQL needs no semicolons: a statement ends
//! where the next one starts. A batch is parsed whole before any of it is run, so a syntax error
//! means that nothing was done, as on the real server.

mod check;
mod control;
mod cursor;
mod ddl;
mod dml;
mod module;
mod permission;
pub mod setting;
mod table;

use super::{ast::Batch, lexer::lex};
use crate::error::SqlResult;
use cursor::Cursor;

/// Parses a batch. Nothing of a batch with a syntax error is run.
pub fn parse(text: &str, quoted_identifier: bool) -> SqlResult<Batch> {
    let mut cursor = Cursor::new(text, lex(text, quoted_identifier)?);
    cursor.batch()
}

/// Parses one expression, e.g. a stored DEFAULT or CHECK.
pub fn parse_expression(text: &str) -> SqlResult<sqlparser::ast::Expr> {
    let mut cursor = Cursor::new(text, lex(text, true)?);
    let expr = cursor.expr()?;
    if cursor.at_end() { Ok(expr) } else { Err(cursor.error()) }
}

/// Parses what sp_executesql declares: `@a int, @b nvarchar(10) OUTPUT`.
pub fn parse_parameters(text: &str) -> SqlResult<Vec<super::ast::ProcParam>> {
    let mut cursor = Cursor::new(text, lex(text, true)?);
    if cursor.at_end() {
        return Ok(vec![]);
    }
    let params = cursor.parameters()?;
    if cursor.at_end() { Ok(params) } else { Err(cursor.error()) }
}

/// Parses a name of one to three parts, as OBJECT_ID and the system procedures take them.
pub fn parse_name(text: &str) -> SqlResult<super::ast::ObjectName> {
    let mut cursor = Cursor::new(text, lex(text, true)?);
    let name = cursor.object_name()?;
    if cursor.at_end() { Ok(name) } else { Err(cursor.error()) }
}
