//! Tables as the catalog describes them.

use super::name::{Ident, TableName};

/// A column's declared type; alias types are already resolved to their base type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnType {
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Money,
    SmallMoney,
    Real,
    Float,
    Date,
    Time(u8),
    DateTime,
    SmallDateTime,
    DateTime2(u8),
    DateTimeOffset(u8),
    /// length in bytes
    Char(u16),
    VarChar(Length),
    /// length in UTF-16 units
    NChar(u16),
    NVarChar(Length),
    Text,
    NText,
    Image,
    Binary(u16),
    VarBinary(Length),
    UniqueIdentifier,
    Xml,
    SqlVariant,
    RowVersion,
    HierarchyId,
    Geometry,
    Geography,
    /// A type this version does not know, by its name.
    Other(String),
}

/// A declared maximum length: bytes for char/varchar/binary/varbinary, UTF-16 units for
/// nchar/nvarchar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Length {
    N(u16),
    Max,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Ident,
    /// `sys.columns.column_id`
    pub column_id: i32,
    pub ty: ColumnType,
    /// Only character columns have one.
    pub collation: Option<String>,
    /// The code page of `collation` (`COLLATIONPROPERTY(…, 'CodePage')`); 0 for Unicode-only
    /// collations.
    pub code_page: Option<i32>,
    pub nullable: bool,
    pub identity: bool,
    pub computed: bool,
    /// GENERATED ALWAYS (period or ledger columns): the server fills them.
    pub generated: bool,
    pub has_default: bool,
    /// A dynamic data mask is defined and this login does not see through it.
    pub masked: bool,
    /// Always Encrypted.
    pub encrypted: bool,
    /// A column set of sparse columns.
    pub column_set: bool,
}

/// A primary key, unique constraint or unique index without a filter, by column names in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey {
    pub name: Ident,
    pub primary: bool,
    pub columns: Vec<Ident>,
}

/// An enabled foreign key: `child` refers to `parent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    pub name: Ident,
    pub child_id: i32,
    pub child: TableName,
    pub parent_id: i32,
    pub parent: TableName,
    /// (child's column, parent's column)
    pub columns: Vec<(Ident, Ident)>,
    /// ON DELETE CASCADE, SET NULL or SET DEFAULT: the server changes the child's rows with the
    /// parent's.
    pub acts_on_delete: bool,
}

impl ForeignKey {
    /// Why a key that acts is a danger to rows that nobody deletes at the source.
    pub fn cascade_warning(&self) -> String {
        format!(
            "foreign key {} deletes or changes rows of {} with the rows they refer to: a key that moves is a row that goes and one that comes, \
             and rows of tables further down may be lost with it",
            self.name,
            self.child.local()
        )
    }

    /// The statements that make it act no more.
    pub fn without_cascade(&self) -> String {
        let list = |pick: fn(&(Ident, Ident)) -> &Ident| {
            self.columns.iter().map(|pair| pick(pair).to_string()).collect::<Vec<_>>().join(", ")
        };
        let child = self.child.local();
        format!(
            "ALTER TABLE {child} DROP CONSTRAINT {0}; ALTER TABLE {child} WITH CHECK ADD CONSTRAINT {0} FOREIGN KEY ({1}) REFERENCES {2} ({3})",
            self.name,
            list(|pair| &pair.0),
            self.parent.local(),
            list(|pair| &pair.1)
        )
    }
}

/// A collation's name as a statement may say it. Collation names are plain words and cannot be
/// quoted; one that is none never reaches a statement, neither one that is sent nor one that is
/// printed. <https://learn.microsoft.com/sql/t-sql/statements/collations>
pub fn collation_word(name: Option<&str>) -> Option<&str> {
    name.filter(|name| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// What the catalog says of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: TableName,
    pub object_id: i32,
    /// in `column_id` order
    pub columns: Vec<Column>,
    pub unique_keys: Vec<UniqueKey>,
    pub memory_optimized: bool,
    /// `sys.tables.temporal_type = 2`
    pub system_versioned: bool,
    /// `sys.tables.ledger_type <> 0`, where the server has ledgers
    pub ledger: bool,
    /// `sys.tables.ledger_type = 3`: rows can only be added.
    pub append_only: bool,
    /// The history table of a temporal or ledger table: the server fills it.
    pub history: bool,
    /// Enabled INSTEAD OF triggers, by name.
    pub instead_of_triggers: Vec<Ident>,
    /// Enabled AFTER triggers, by name.
    pub after_triggers: Vec<Ident>,
    /// This login may see whether there are security policies.
    pub sees_policies: bool,
    /// Row-level security filters this login's reads.
    pub row_filter: bool,
    /// The code page of the collation of the database that the table is in.
    pub database_code_page: Option<i32>,
}

impl Table {
    pub fn column(&self, name: &Ident) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == *name)
    }
}

/// A database, as far as a copy needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// `@@SERVERNAME`
    pub server: String,
    pub name: Ident,
    /// When it was made or renamed.
    pub created: String,
    /// The database's id within its availability group, the same on every replica.
    pub group_id: Option<String>,
    /// ALLOW_SNAPSHOT_ISOLATION is ON.
    pub snapshot: bool,
    pub read_only: bool,
}
