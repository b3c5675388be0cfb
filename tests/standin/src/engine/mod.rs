//! AST in, results out. Synchronous, and knows no bytes.

pub mod catalog;
pub mod clock;
pub mod connection;
pub mod expr;
pub mod query;
pub mod sink;
