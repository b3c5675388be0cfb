//! What is carried from a source table to a destination table, column by column, and in which form.
//!
//! A column travels in a *staged* form: the type its cells have on the wire, in staging tables and
//! in `#` tables. Mostly that is the source column's own type, so that cells pass through untouched
//! and the server makes the last conversion. Some types are read through a CAST, because the driver
//! would not carry them exactly (money through f64), or because they cannot be compared or
//! bulk-loaded as they are (text, xml, hierarchyid).

use super::{
    name::Ident,
    table::{Column, ColumnType, UniqueKey},
};

/// The staged column of the carried column at `place`: `c0`, `c1`, ….
///
/// Never a name of the user's: a table may have columns called as ours are (`__$operation`), names
/// that differ in case only, which the destination's or tempdb's collation takes for one, or names
/// with control characters, which the driver refuses in a bulk load.
pub fn staged_name(place: usize) -> Ident {
    Ident::new(format!("c{place}"))
}

/// The collation of text in staged keys. Byte for byte (but for trailing blanks, which no collation
/// counts): what only the source, or only the destination, takes for one key stays two while it is
/// staged, as the change rows tell them apart. Where staged keys meet the destination's, they are
/// turned into its type and collation first.
pub const KEY_COLLATION: &str = "Latin1_General_BIN2";

/// One column that is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedColumn {
    pub source: Column,
    pub dest: Column,
    /// Its column in staging and `#` tables ([`staged_name`]).
    pub staged_name: Ident,
    /// The type in staging and `#` tables. Character types take `collation`.
    pub staged: ColumnType,
    /// The collation of the staged column: [`KEY_COLLATION`] for a key's text, else the destination
    /// column's where it has one.
    pub collation: Option<String>,
}

impl CarriedColumn {
    /// The column's name in the destination.
    pub fn name(&self) -> &Ident {
        &self.dest.name
    }

    /// A text that the destination compares by a collation's rules, and not byte by byte: two
    /// staged ones may be one to it.
    pub fn merges(&self) -> bool {
        self.dest.collation.as_ref().is_some_and(|name| !name.to_ascii_uppercase().contains("_BIN"))
    }

    /// `(max)` types, text, ntext, image and xml: their value may be missing from a change row that
    /// did not touch them.
    pub fn is_lob(&self) -> bool {
        use super::table::Length;
        matches!(
            self.source.ty,
            ColumnType::VarChar(Length::Max)
                | ColumnType::NVarChar(Length::Max)
                | ColumnType::VarBinary(Length::Max)
                | ColumnType::Text
                | ColumnType::NText
                | ColumnType::Image
                | ColumnType::Xml
                | ColumnType::HierarchyId
                | ColumnType::Geometry
                | ColumnType::Geography
        )
    }
}

/// All of them, in the destination's column order, and the key they are matched by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnMap {
    pub columns: Vec<CarriedColumn>,
    /// Indexes into `columns`, in key order.
    pub key: Vec<usize>,
    /// The destination may hold two of the source's keys for one: it compares text by other rules,
    /// and not byte by byte.
    pub merges_keys: bool,
    /// The destination has an identity column among `columns`: INSERT needs IDENTITY_INSERT.
    pub identity: bool,
    /// Things an operator should know before rows move (AFTER triggers that will fire, source
    /// columns left out, …).
    pub warnings: Vec<String>,
    /// The destination's other unique keys: a reason to try a whole window at once when a group
    /// meets 2601 or 2627.
    pub other_unique_keys: Vec<UniqueKey>,
}

impl ColumnMap {
    pub fn key_columns(&self) -> impl Iterator<Item = &CarriedColumn> {
        self.key.iter().filter_map(|&i| self.columns.get(i))
    }

    /// Indexes of the columns whose values have no limit that a row in memory could have. A key's
    /// are never among them: rows are matched by it.
    pub fn large_columns(&self) -> Vec<usize> {
        let is_large =
            |column: &CarriedColumn| column.is_lob() && column.source.ty != ColumnType::HierarchyId;
        (0..self.columns.len())
            .filter(|i| !self.key.contains(i) && is_large(&self.columns[*i]))
            .collect()
    }
}
