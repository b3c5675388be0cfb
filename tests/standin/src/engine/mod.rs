//! AST in, results out. Synchronous, and knows no bytes.

pub mod catalog;
pub mod clock;
pub mod connection;
pub mod context;
pub mod database;
pub mod ddl;
pub mod dml;
pub mod expr;
pub mod functions;
pub mod host;
pub mod instance;
pub mod interpreter;
pub mod key;
pub mod lock;
pub mod log;
mod metadata;
pub mod procedures;
pub mod query;
pub mod scope;
pub mod security;
pub mod session;
pub mod sink;
pub mod source;
pub mod storage;
pub mod table_collations;
pub mod txn;
pub mod views;
