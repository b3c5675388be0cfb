//! Large values: cells that do not travel with their row but in pieces, so that no row in memory
//! depends on the size of a value.
//!
//! A row is read with an empty value in place of each large one, and with a list of their lengths
//! ([`lengths`]). The pieces are read one after the other ([`PieceStatements::read`]) and appended to the
//! row's cell in `#changes` with `.WRITE` ([`PieceStatements::append`]), which does not rewrite what is
//! there. A row of the source table can change between two pieces, so the whole value's hash is
//! asked for at the end ([`PieceStatements::hash`]); rows of a change table cannot. A verification compares
//! hashes that the servers compute ([`compared`]).
//!
//! Pieces of text travel as the bytes of nvarchar, so that a surrogate pair that is cut in two
//! stays what it is. <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql#arguments>
//! (`.WRITE`)

use super::staging;
use crate::model::{column_map::CarriedColumn, table::ColumnType};

/// The column of `#changes` that has the lengths of a row's large values.
pub const LENGTHS: &str = "[__$large]";
pub const LENGTHS_NAME: &str = "__$large";

/// Its type: 980 columns can have large values at most ([`crate::plan::mask`]).
pub const LENGTHS_TYPE: &str = "varbinary(8000)";

/// A value is large above so many bytes, where few columns of a table can have one.
const LARGE_BYTES_MAX: usize = 1 << 20;

/// The least that is called large: a round trip for each smaller value would cost more than its
/// memory.
const LARGE_BYTES_MIN: usize = 64 << 10;

/// What the values of one row that are not large may come to.
const ROW_BYTES: usize = 8 << 20;

/// One piece of a large value: the most that is in memory of it at a time.
const PIECE_BYTES: i64 = 4 << 20;

/// Characters in a piece of text.
pub const CHARACTERS: i64 = PIECE_BYTES / 2;

/// Bytes of one length in [`LENGTHS`].
pub const LENGTH_BYTES: usize = 8;

fn is_text(column: &CarriedColumn) -> bool {
    staging::is_text(&column.source.ty) || column.source.ty == ColumnType::Xml
}

/// Bytes above which a value is large in a table with `count` such columns.
pub fn large_bytes(count: usize) -> usize {
    (ROW_BYTES / count.max(1)).clamp(LARGE_BYTES_MIN, LARGE_BYTES_MAX)
}

/// The bytes of the source's value, as the server counts them. XML's own form is not what travels.
fn length(column: &CarriedColumn, alias: &str) -> String {
    match column.source.ty {
        ColumnType::Xml => format!("DATALENGTH({})", staging::read(column, alias)),
        _ => format!("DATALENGTH({alias}.{})", column.source.name),
    }
}

/// The source's column in staged form, empty where the value is large.
pub fn read(column: &CarriedColumn, alias: &str, large_bytes: usize) -> String {
    let empty = if is_text(column) { "N''" } else { "0x" };
    format!(
        "CASE WHEN {} > {large_bytes} THEN CAST({empty} AS {}) ELSE {} END",
        length(column, alias),
        staging::type_name(&column.staged),
        staging::read(column, alias)
    )
}

/// A row's lengths of large values, [`LENGTH_BYTES`] big-endian bytes for each of `columns`, 0 for
/// one that is not large; NULL where none is. `None` stands for a column that the rows do not have.
pub fn lengths<'a>(
    columns: impl IntoIterator<Item = Option<&'a CarriedColumn>>,
    alias: &str,
    large_bytes: usize,
) -> String {
    let (mut any, mut all) = (Vec::new(), Vec::new());
    for column in columns {
        let value = match column {
            Some(column) => {
                let length = length(column, alias);
                any.push(format!("{length} > {large_bytes}"));
                format!("CASE WHEN {length} > {large_bytes} THEN {length} ELSE 0 END")
            }
            None => "0".to_owned(),
        };
        all.push(format!("CAST(CAST({value} AS bigint) AS binary({LENGTH_BYTES}))"));
    }
    if any.is_empty() {
        return format!("CAST(NULL AS {LENGTHS_TYPE})");
    }
    format!("CASE WHEN {} THEN {} END", any.join(" OR "), all.join(" + "))
}

/// The statements that bring the large values of rows in `#changes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeValues {
    /// The rows whose values are wanted, at most `@P1`, after order `@P2`: order, lengths, and what
    /// finds the row at the source.
    pub wanted: String,
    /// Of each column that can have a large value, in the order of the lengths.
    pub columns: Vec<PieceStatements>,
    /// The rows can change while they are read: a whole value's hash must be that of its pieces.
    pub can_change: bool,
}

/// The statements that move one column's large values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceStatements {
    /// A piece of the value, as bytes, from character or byte `@P1` on (counted from 1); empty
    /// behind the end. The parameters behind `@P1` find the row.
    pub read: String,
    /// The MD5 of the whole value's bytes; parameters as for `read`.
    pub hash: String,
    /// Appends the bytes `@P1` to the cell of the row of `#changes` with order `@P2`.
    pub append: String,
    /// What `@P1` counts, in bytes of a piece; `None` where a character can have any number of
    /// them: then a piece has [`CHARACTERS`].
    pub unit_bytes: Option<i64>,
    /// The lengths that come with rows are those of the bytes that are read.
    pub has_exact_length: bool,
}

/// `from`: the source's rows as `alias`, with the one that `@P2` and those behind it find.
pub fn pieces(column: &CarriedColumn, alias: &str, from: &str) -> PieceStatements {
    let own = format!("{alias}.{}", column.source.name);
    let whole = staging::read(column, alias);
    // under a binary collation a surrogate pair counts as the two units it is, and a place is found
    // without counting from the beginning
    let units = |text: &str| {
        format!(
            "CAST(SUBSTRING({text} COLLATE Latin1_General_BIN2, @P1, {CHARACTERS}) AS varbinary(max))"
        )
    };
    let decoded = |text: &str| {
        format!(
            "CAST(CAST(SUBSTRING({text}, @P1, {CHARACTERS}) AS nvarchar(max)) AS varbinary(max))"
        )
    };
    let read = match column.source.ty {
        ColumnType::VarChar(_) => decoded(&own),
        ColumnType::Text => decoded(&format!("CAST({own} AS varchar(max))")),
        ColumnType::NVarChar(_) => units(&own),
        ColumnType::NText | ColumnType::Xml => units(&format!("CAST({own} AS nvarchar(max))")),
        _ => format!("SUBSTRING({whole}, @P1, {PIECE_BYTES})"),
    };
    let text = is_text(column);
    let bytes =
        if text { format!("CAST(CAST({own} AS nvarchar(max)) AS varbinary(max))") } else { whole };
    let given = if text {
        "CAST(CAST(@P1 AS varbinary(max)) AS nvarchar(max))"
    } else {
        "CAST(@P1 AS varbinary(max))"
    };
    PieceStatements {
        read: format!("SELECT {read}\n{from}"),
        hash: format!("SELECT HASHBYTES('MD5', {bytes})\n{from}"),
        append: format!(
            "UPDATE #changes SET {}.WRITE({given}, NULL, 0) WHERE [__$order] = @P2",
            column.staged_name
        ),
        unit_bytes: match column.source.ty {
            ColumnType::VarChar(_) | ColumnType::Text => None,
            _ if text => Some(2),
            _ => Some(1),
        },
        has_exact_length: !matches!(
            column.source.ty,
            ColumnType::VarChar(_)
                | ColumnType::Text
                | ColumnType::Geometry
                | ColumnType::Geography
        ),
    }
}

/// A staged value to be compared: empty where it is large. `value` is of type `staged`, the same on
/// both sides.
pub fn compared(value: &str, staged: &ColumnType, large_bytes: usize) -> String {
    let empty = if staging::is_text(staged) { "N''" } else { "0x" };
    format!(
        "CASE WHEN DATALENGTH({value}) > {large_bytes} THEN CAST({empty} AS {}) ELSE {value} END",
        staging::type_name(staged)
    )
}

/// The MD5 of a staged value that is large; NULL of any other.
pub fn compared_hash(value: &str, large_bytes: usize) -> String {
    format!(
        "CASE WHEN DATALENGTH({value}) > {large_bytes} THEN HASHBYTES('MD5', CAST({value} AS varbinary(max))) END"
    )
}
