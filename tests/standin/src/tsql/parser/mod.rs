//! Tokens → statements.

use super::ast::Batch;
use crate::error::{SqlError, SqlResult};

/// Parses a batch. Nothing of a batch with a syntax error is run.
pub fn parse(text: &str, quoted_identifier: bool) -> SqlResult<Batch> {
    let _ = (text, quoted_identifier);
    Err(SqlError::unsupported("statements"))
}
