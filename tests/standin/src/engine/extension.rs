//! What a feature beside the engine adds to it: names, and what it is told of.
//!
//! The engine looks a name up here after its own, and knows no feature by name. An instance is made
//! with its extensions ([`crate::engine::instance::Instance::new`]).

use crate::{
    engine::{
        catalog::ObjectId,
        instance::{State, Work},
        procedures::SystemProcedure,
        query::host::TableFunction,
        storage::TxnId,
        views::Spec,
    },
    error::SqlResult,
    tsql::ast::ObjectName,
    value::{SqlType, Value},
};
use std::sync::Arc;

pub struct Extension {
    /// Lower-case names and functions of system procedures.
    pub procedures: &'static [(&'static str, SystemProcedure)],
    pub views: &'static [Spec],
    /// The result type of a scalar function of `sys`, by its upper-case name.
    pub scalar_type: fn(&str) -> Option<SqlType>,
    /// Its value for a login in a database. None: no such function.
    pub scalar: Scalar,
    /// A table-valued function. None: no such function.
    pub table_function: TableValued,
    /// Called by every commit that changed or altered a tracked table, under the instance's lock.
    pub committed: fn(&mut State, i32, crate::engine::clock::Moment),
    /// Called before a tracked table goes.
    pub table_dropped: fn(&mut State, TxnId, i32, ObjectId),
    /// Whether a column of a table may have another name: its id and its name now.
    pub check_rename_column: fn(&State, i32, ObjectId, i32, &str) -> SqlResult<()>,
}

/// A scalar function: login, database, upper-case name, arguments.
pub type Scalar = fn(&Work, &str, i32, &str, &[Value]) -> SqlResult<Option<Value>>;

/// A table-valued function: login, database, name.
pub type TableValued =
    fn(&Work, &str, i32, &ObjectName) -> SqlResult<Option<Arc<dyn TableFunction>>>;

/// The extensions of an instance.
pub type Extensions = &'static [&'static Extension];
