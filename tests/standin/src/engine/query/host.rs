//! What the query layer asks of the session and the storage around it.
//!
//! Base tables, temporary tables, table variables, system views, capture tables, `inserted` and
//! `deleted` are all one thing here: a [`RowSource`] with columns, some ordered keys and page-wise
//! cursors. A cursor owns whatever it needs, so that no lock of the instance is held while
//! expressions are evaluated or rows go to the client.

use crate::{
    engine::catalog::TableMeta,
    error::SqlResult,
    tsql::ast::ObjectName,
    value::{Collation, SqlType, Value},
};
use sqlparser::ast::Query;
use std::sync::Arc;

pub use crate::value::datetime::DateFormat;

/// One stored row, in the order of [`RowSource::columns`].
pub type Row = Vec<Value>;

/// The memcmp-ordered encoding of the clustered key.
pub type RowKey = Arc<[u8]>;

/// Settings of the session that change what an expression means.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Collation of the current database: that of literals and variables.
    pub collation: Collation,
    pub ansi_nulls: bool,
    pub concat_null_yields_null: bool,
    pub date_format: DateFormat,
    /// SET TEXTSIZE: the most bytes of a large value that are sent. `None`: all.
    pub text_bytes_max: Option<usize>,
    /// SET DATEFIRST, 1 to 7; 7 (Sunday) for us_english.
    pub date_first: u8,
    /// The statement's instant, UTC: days since 0001-01-01 and 100 ns ticks. Every GETDATE() of a
    /// statement answers the same.
    pub now: (i32, u64),
}

/// A column of a row source.
#[derive(Clone, Debug)]
pub struct SourceColumn {
    pub name: Arc<str>,
    pub ty: SqlType,
    pub nullable: bool,
    /// Seed and increment.
    pub identity: Option<(i128, i128)>,
    pub computed: bool,
    pub rowguid: bool,
    /// Left out of `*` (HIDDEN period columns).
    pub hidden: bool,
    /// Found under its name as written only.
    pub exact_name: bool,
}

impl SourceColumn {
    pub fn plain(name: &str, ty: SqlType, nullable: bool) -> Self {
        Self {
            name: name.into(),
            ty,
            nullable,
            identity: None,
            computed: false,
            rowguid: false,
            hidden: false,
            exact_name: false,
        }
    }
}

/// An order rows can be read in: the clustered key or an index.
#[derive(Clone, Debug)]
pub struct SourceKey {
    /// Ordinals of the columns, and whether descending.
    pub columns: Vec<(usize, bool)>,
    pub unique: bool,
}

/// How to read: along key number `key` (None: in whatever order is cheapest), rows equal to
/// `prefix` on its first columns and, on the next column, between the bounds.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub key: Option<usize>,
    pub prefix: Vec<Value>,
    pub lower: Option<(Value, bool)>,
    pub upper: Option<(Value, bool)>,
    pub reverse: bool,
}

/// A row as read: validated again by its `Arc` when it is about to be written.
#[derive(Clone, Debug)]
pub struct SourceRow {
    pub key: RowKey,
    pub row: Arc<Row>,
}

pub trait RowCursor {
    /// Appends the next page of rows; false when there are none left.
    fn next_page(&mut self, page: &mut Vec<SourceRow>) -> SqlResult<bool>;
}

pub trait RowSource: Send + Sync {
    /// The name for messages and for `database.schema.table.column`.
    fn name(&self) -> ObjectName;
    fn columns(&self) -> &[SourceColumn];
    /// The clustered key first, when there is one.
    fn keys(&self) -> &[SourceKey];
    fn estimated_rows(&self) -> u64;
    /// Values in `access` have the types of the key's columns already.
    fn open(&self, access: &Access) -> SqlResult<Box<dyn RowCursor>>;
    /// The stored table behind it, with its database, when rows can be written to it.
    fn table(&self) -> Option<(i32, Arc<TableMeta>)> {
        None
    }
}

/// Table hints, in upper case with their arguments as written: `NOLOCK`, `UPDLOCK`, `INDEX(1)`, …
#[derive(Clone, Debug, Default)]
pub struct TableHints(pub Vec<String>);

impl TableHints {
    pub fn has(&self, hint: &str) -> bool {
        self.0.iter().any(|own| own == hint)
    }
}

/// What a name in FROM turned out to be.
#[derive(Clone)]
pub enum Relation {
    Rows(Arc<dyn RowSource>),
    /// A stored query, whose unqualified names belong to `database`.
    View {
        database: String,
        name: ObjectName,
        columns: Vec<String>,
        query: Arc<Query>,
    },
}

/// A table-valued function.
pub trait TableFunction: Send + Sync {
    fn columns(&self) -> &[SourceColumn];
    fn rows(&self, host: &dyn Host, args: &[Value]) -> SqlResult<Vec<Row>>;
}

/// The session, as expressions and queries see it.
pub trait Host {
    fn settings(&self) -> Settings;
    /// A variable or parameter, with its @.
    fn variable(&self, name: &str) -> Option<(SqlType, Value)>;
    /// `@@ROWCOUNT` and the like, in upper case with the @@.
    fn global(&self, name: &str) -> Option<(SqlType, Value)>;
    /// Fails when the client sent an attention.
    fn check_cancelled(&self) -> SqlResult<()>;
    /// A table, temporary table, view, or an extra row source (`inserted`, `deleted`).
    fn relation(&self, name: &ObjectName, hints: &TableHints) -> SqlResult<Option<Relation>>;
    fn table_variable(
        &self,
        name: &str,
        hints: &TableHints,
    ) -> SqlResult<Option<Arc<dyn RowSource>>>;
    fn table_function(&self, name: &ObjectName) -> SqlResult<Option<Arc<dyn TableFunction>>>;
    /// An alias type or sysname.
    fn named_type(&self, name: &ObjectName) -> SqlResult<Option<SqlType>>;
    fn collation(&self, name: &str) -> SqlResult<Option<Collation>>;
    /// The result type of a function of `sys` that is an extension's, by its upper-case name.
    fn function_type(&self, name: &str) -> Option<SqlType>;
    /// Functions that ask the catalog or the session (`OBJECT_ID`, `SCOPE_IDENTITY`, `NEWID`,
    /// `ERROR_NUMBER`, …), in upper case. None: not known.
    fn function(&self, name: &str, args: &[Value]) -> SqlResult<Option<Value>>;
}
