//! Capture instances: what CDC keeps of a table, as `cdc.change_tables` and `cdc.captured_columns`
//! say it.
//!
//! A table has none, one or two of them. Their names cannot be derived from the table's (they may
//! be given freely), and what an instance captured when it was made is all it ever captures.
//! <https://learn.microsoft.com/sql/relational-databases/system-tables/cdc-change-tables-transact-sql>

use super::{
    lsn::Lsn,
    name::{Ident, TableName},
    table::ColumnType,
};

/// A row of `cdc.change_tables`, with its low watermark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// `capture_instance`
    pub name: Ident,
    /// The `_CT` table, by its own name in schema `cdc`.
    pub change_table: Ident,
    pub change_table_id: i32,
    /// When the instance was made, by the source's clock (style 121). Unlike `start` it never
    /// moves.
    pub created: String,
    /// `source_object_id`
    pub source_id: i32,
    /// When the captured table was made, by the source's clock (style 121).
    pub source_created: String,
    /// The captured table, as the catalog spells it now.
    pub source: TableName,
    /// `start_lsn`: changes with this LSN or a later one are in the change table. Cleanup moves it
    /// up, as it moves `min`, so it does not tell which of two instances is the newer one.
    /// <https://learn.microsoft.com/sql/relational-databases/system-stored-procedures/sys-sp-cdc-cleanup-change-table-transact-sql>
    pub start: Lsn,
    /// `sys.fn_cdc_get_min_lsn`: zero when this login may not read the instance.
    pub min: Lsn,
    /// The gating role, if there is one.
    pub role: Option<Ident>,
    /// `__$command_id` is there (servers before the updates of KB 3030352 lack it).
    pub has_command_id: bool,
}

impl Instance {
    /// `[cdc].[name_CT]`
    pub fn change_table(&self) -> String {
        format!("[cdc].{}", self.change_table)
    }

    /// Orders a table's instances, the older one first.
    pub fn age(&self) -> (&str, i32) {
        (&self.created, self.change_table_id)
    }

    /// What is remembered of the captured table in a checkpoint: another table under the same name
    /// has another one. Object ids alone come again in a database that is made anew by the same
    /// script.
    pub fn source_mark(&self) -> String {
        format!("{} {}", self.source_id, self.source_created)
    }

    /// What is remembered of the instance in a checkpoint, with its name for people.
    pub fn mark(&self) -> String {
        format!("{} {} {}", self.change_table_id, self.created, self.name.as_str())
    }

    /// This login may read the instance's changes.
    pub fn is_readable(&self) -> bool {
        !self.min.is_zero()
    }
}

/// A row of `cdc.captured_columns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedColumn {
    pub name: Ident,
    /// The column's id in the source table when the instance was made; a column dropped and added
    /// again has another one.
    pub column_id: i32,
    /// 1-based: the column's bit in `__$update_mask`.
    pub ordinal: i32,
    pub computed: bool,
    /// The type of the change table's column; `None` where this login may not see it.
    pub ty: Option<ColumnType>,
}

impl CapturedColumn {
    /// Whether the change table holds this column in the type that the source has now. After an
    /// ALTER COLUMN it has the old one until capture gets to that statement in the log. (A
    /// rowversion is binary(8) there.)
    pub fn has_type(&self, source: &ColumnType) -> bool {
        self.ty.as_ref().is_none_or(|ty| {
            ty == source || (*source == ColumnType::RowVersion && *ty == ColumnType::Binary(8))
        })
    }
}

/// An instance with its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    pub instance: Instance,
    /// in ordinal order
    pub columns: Vec<CapturedColumn>,
}

impl Capture {
    /// The captured column that is this source column: by name *and* by id, so that a column which
    /// was dropped and added again under its old name is not taken for the one that was captured
    /// (whose change rows say NULL).
    pub fn column(&self, name: &Ident, column_id: i32) -> Option<&CapturedColumn> {
        self.columns.iter().find(|column| column.name == *name && column.column_id == column_id)
    }
}

/// The newest row of `cdc.lsn_time_mapping`: how far capture has come, and which transaction that
/// was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxLsn {
    pub lsn: Lsn,
    pub identity: Option<TranIdentity>,
    /// The newest transaction up to `lsn`: `lsn` itself may be an entry that capture made because
    /// nothing happened.
    pub transaction: Option<Transaction>,
    /// How long ago that was by the source's own clock, where it is known.
    pub age_s: Option<i64>,
    /// The source's local time less UTC.
    pub utc_offset_minutes: i32,
    /// The session that read it is on a readable secondary (or the database is read-only): it may
    /// be behind what other sessions have seen.
    pub read_only: bool,
}

/// What tells one history of a database from another at the same LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranIdentity {
    pub tran_id: Vec<u8>,
    /// `tran_end_time` as ODBC text with milliseconds (style 121), in the source's local time: only
    /// ever compared for equality.
    pub end_time: String,
}

/// A source transaction at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub lsn: Lsn,
    pub identity: TranIdentity,
}

impl TranIdentity {
    /// A transaction, and not an entry that capture makes about every five minutes where nothing
    /// happens (`tran_id` is 0x00). Such entries are made by each server for itself, so after a
    /// failover the same history may have others.
    pub fn is_transaction(&self) -> bool {
        self.tran_id.iter().any(|&byte| byte != 0)
    }
}
