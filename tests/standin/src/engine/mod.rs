//! AST in, results out. Synchronous, and knows no bytes.

pub mod connection;
pub mod expr;
pub mod query;
pub mod sink;
