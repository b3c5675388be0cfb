//! INSERT, UPDATE, DELETE, TRUNCATE and bulk loads.
//!
//! # The life of a data-changing statement
//!
//! Its query runs first and to the end (so a statement never reads what it has itself written),
//! then rows are written one by one: the values converted and completed ([`prepare`]), the row
//! locked and checked to be still the one the query saw ([`mod@write`]), unique keys looked up, the
//! image put in place. Foreign keys are checked when all rows are written, cascades follow, then
//! AFTER triggers fire. Whatever fails takes back everything the statement has done.

mod append;
pub mod bulk;
mod change;
mod foreign_keys;
pub mod identity;
mod insert;
mod output;
mod prepare;
mod triggers;
mod truncate;
mod write;

pub use change::{delete, update};
pub use foreign_keys::check_foreign_keys;
pub use insert::{insert, insert_rows};
pub use prepare::{end_of_time, identity_value, new_rowversion, period_value};
pub use truncate::truncate;
pub use write::key_text;

use crate::{engine::query::host::Row, exchange::sink::Column, value::Value};

/// What a statement did.
#[derive(Debug, Default)]
pub struct Changed {
    pub rows: u64,
    /// OUTPUT without INTO: to be sent once the statement has succeeded
    pub output: Option<(Vec<Column>, Vec<Row>)>,
    /// UPDATE … SET @v = …: values to assign, of the variables' types
    pub assigned: Vec<(String, Value)>,
}
