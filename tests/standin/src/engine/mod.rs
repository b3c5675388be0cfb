//! AST in, results out. Synchronous, and knows no bytes.

pub mod connection;
pub mod sink;
