//! Names that cannot be misquoted.
//!
//! Every name that reaches a statement is an [`Ident`]: its text form is bracketed with `]`
//! doubled, as QUOTENAME does, so that a table called `x]; DROP TABLE y--` is just a table with an
//! odd name. Statement builders take `&Ident` and `&TableName`, never `&str`.
//! <https://learn.microsoft.com/sql/t-sql/functions/quotename-transact-sql>

use std::{fmt, sync::Arc};

/// The control database's name: a contract with operators.
pub const CONTROL_DATABASE: &str = "dbaops_dataflow";

/// The databases of SQL Server itself.
const SYSTEM_DATABASES: [&str; 5] = ["master", "model", "msdb", "tempdb", "resource"];

/// Whether no rows may be brought into this database: a system database, or the control database.
pub fn is_reserved_database(name: &str) -> bool {
    SYSTEM_DATABASES
        .iter()
        .chain([&CONTROL_DATABASE])
        .any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// One part of a name, as the catalog spells it (without brackets). Shared: thousands of mappings
/// are handed around at every tick.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ident(Arc<str>);

impl Ident {
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Ident(name.into())
    }

    /// The same as `last` where that says the same: of thousands of rows most name the same
    /// database and schema.
    pub fn like(last: Option<&Ident>, name: &str) -> Self {
        last.filter(|last| last.as_str() == name).cloned().unwrap_or_else(|| Ident::new(name))
    }

    /// The name itself, for messages and for parameters; never for statement text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.0.replace(']', "]]"))
    }
}

impl fmt::Debug for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A table with its database. Statements are sent on a connection whose current database is the
/// table's, so they use [`Self::local`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    pub database: Ident,
    pub schema: Ident,
    pub table: Ident,
}

impl TableName {
    pub fn new(
        database: impl Into<Arc<str>>,
        schema: impl Into<Arc<str>>,
        table: impl Into<Arc<str>>,
    ) -> Self {
        TableName {
            database: Ident::new(database),
            schema: Ident::new(schema),
            table: Ident::new(table),
        }
    }

    /// The same, sharing with `last` what is the same.
    pub fn like(last: Option<&TableName>, [database, schema, table]: [&str; 3]) -> Self {
        TableName {
            database: Ident::like(last.map(|last| &last.database), database),
            schema: Ident::like(last.map(|last| &last.schema), schema),
            table: Ident::new(table),
        }
    }

    /// `[schema].[table]`
    pub fn local(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// `database.schema.table` as people write it, for messages.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.database.as_str(), self.schema.as_str(), self.table.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_doubled() {
        assert_eq!(Ident::new("x]; DROP TABLE y--").to_string(), "[x]]; DROP TABLE y--]");
        let name = TableName::new("d", "dbo", "Order Details");
        assert_eq!(name.local(), "[dbo].[Order Details]");
        for like in [["d", "dbo", "t"], ["D", "dbo", "t"], ["d", "x", "Order Details"]] {
            assert_eq!(
                TableName::like(Some(&name), like),
                TableName::new(like[0], like[1], like[2])
            );
        }
    }
}
