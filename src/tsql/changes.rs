//! Reading change rows, and the temp tables they travel into.
//!
//! Rows are read from the `_CT` table itself: the table-valued functions neither return
//! `__$command_id`, which orders the changes of one transaction, nor may they be trusted to
//! complain about a window they cannot serve. The window is always bounded by the maximum LSN that
//! was read before, because capture commits change rows and their `cdc.lsn_time_mapping` row
//! together.
//!
//! `#changes` holds the raw rows of one commit group: CDC's own columns under their own names, the
//! carried columns in staged form, and `__$order`, our running number. `#net` is narrow: one row
//! per key with the effect, and for every column that may be missing from change rows the
//! `__$order` of the row that has its value.

use super::{
    large::{self, LargeValues},
    staging,
};
use crate::{
    model::{
        capture::Capture,
        column_map::{CarriedColumn, ColumnMap},
        name::{Ident, TableName},
        table::ColumnType,
    },
    plan::mask::{ColumnCoverage, MaskBit},
};
use std::fmt::Write;

/// What is added to a row's `__$order` to number the row that was fetched from the source to
/// complete it.
pub const FETCHED: i64 = 1 << 62;

/// Change rows completed by one request to the source.
pub const FETCH_MAX: usize = 100;

/// `@P1` rows, `@P2` from (exclusive), `@P3` to (inclusive): how many rows there are (at most
/// `@P1`), the last one's LSN, and which transaction stands there (id, and end time in style 121).
pub fn boundary(capture: &Capture) -> String {
    format!(
        "SELECT e.rows_seen, e.last_lsn, t.tran_id, CONVERT(nvarchar(30), t.tran_end_time, 121) AS tran_end_time\nFROM (\n    SELECT COUNT_BIG(*) AS rows_seen, MAX(x.[__$start_lsn]) AS last_lsn\n    FROM (\n        SELECT TOP (@P1) c.[__$start_lsn]\n        FROM {} AS c\n        WHERE c.[__$start_lsn] > @P2 AND c.[__$start_lsn] <= @P3\n        ORDER BY c.[__$start_lsn]\n    ) AS x\n) AS e\nLEFT JOIN cdc.lsn_time_mapping AS t ON t.start_lsn = e.last_lsn",
        capture.instance.change_table()
    )
}

/// `mask` has the bit set.
pub fn bit_is_set(alias: &str, bit: MaskBit) -> String {
    let mask = format!("{alias}.[__$update_mask]");
    let at = match bit.byte_from_end {
        0 => format!("DATALENGTH({mask})"),
        n => format!("DATALENGTH({mask}) - {n}"),
    };
    format!("CAST(SUBSTRING({mask}, {at}, 1) AS tinyint) & {} <> 0", bit.value)
}

/// An update that set a key column: the row moved (or was set to what it was, which is treated
/// alike).
pub fn key_is_set(alias: &str, coverage: &ColumnCoverage) -> String {
    let bits: Vec<_> = coverage.key.iter().map(|&bit| bit_is_set(alias, bit)).collect();
    match bits.as_slice() {
        [one] => one.clone(),
        many => format!("({})", many.join(" OR ")),
    }
}

/// `@P1` from (exclusive), `@P2` to (inclusive). Before-images are left out unless a key changed.
pub fn read(map: &ColumnMap, capture: &Capture, coverage: &ColumnCoverage) -> String {
    let command =
        if capture.instance.has_command_id { "c.[__$command_id]" } else { "CAST(NULL AS int)" };
    let mut sql = format!(
        "SELECT c.[__$start_lsn], c.[__$seqval], c.[__$operation], c.[__$update_mask], {command} AS [__$command_id]"
    );
    let large_columns = map.large_columns();
    let large_bytes = large::large_bytes(large_columns.len());
    for (i, (column, &captured)) in map.columns.iter().zip(&coverage.captured).enumerate() {
        let staged = staging::type_name(&column.staged);
        let cell = match captured {
            true if coverage.retyped.contains(&i) && column.staged == column.source.ty => {
                format!("CAST(c.{} AS {staged})", column.source.name)
            }
            true if large_columns.contains(&i) => large::read(column, "c", large_bytes),
            true => staging::read(column, "c"),
            false => format!("CAST(NULL AS {staged})"),
        };
        let _ = write!(sql, ",\n    {cell} AS {}", column.staged_name);
    }
    if !large_columns.is_empty() {
        let columns =
            large_columns.iter().map(|&i| coverage.captured[i].then_some(&map.columns[i]));
        let _ = write!(
            sql,
            ",\n    {} AS {}",
            large::lengths(columns, "c", large_bytes),
            large::LENGTHS
        );
    }
    let order = if capture.instance.has_command_id { "c.[__$command_id], " } else { "" };
    let _ = write!(
        sql,
        "\nFROM {} AS c\nWHERE c.[__$start_lsn] > @P1 AND c.[__$start_lsn] <= @P2\n    AND (c.[__$operation] <> 3 OR {})\nORDER BY c.[__$start_lsn], {order}c.[__$seqval], c.[__$operation]",
        capture.instance.change_table(),
        key_is_set("c", coverage)
    );
    sql
}

/// `#changes` and `#net`, made anew. A plain batch: a temp table made inside sp_executesql dies
/// with it.
pub fn create_tables(map: &ColumnMap, coverage: &ColumnCoverage) -> String {
    let mut sql = String::from(
        "IF OBJECT_ID(N'tempdb..#changes') IS NOT NULL DROP TABLE #changes;\nIF OBJECT_ID(N'tempdb..#net') IS NOT NULL DROP TABLE #net;\nCREATE TABLE #changes (\n    [__$start_lsn] binary(10) NULL,\n    [__$seqval] binary(10) NULL,\n    [__$operation] int NULL,\n    [__$update_mask] varbinary(128) NULL,\n    [__$command_id] int NULL,\n",
    );
    for column in &map.columns {
        let _ = writeln!(sql, "    {},", staging::column_ddl(column));
    }
    if !map.large_columns().is_empty() {
        let _ = writeln!(sql, "    {} {} NULL,", large::LENGTHS, large::LENGTHS_TYPE);
    }
    sql.push_str(
        "    [__$order] bigint NOT NULL PRIMARY KEY\n);\nCREATE TABLE #net (\n    [__$order] bigint NOT NULL PRIMARY KEY,\n    [__$operation] int NOT NULL",
    );
    for i in 0..coverage.partial.len() {
        let _ = write!(sql, ",\n    [__$p{i}] bigint NULL");
    }
    sql.push_str("\n);");
    sql
}

/// The columns of `#changes`, in the order of [`read`]'s rows with `__$order` behind them; each
/// with the name that messages have. [`large::LENGTHS`] is there where a column can have large
/// values.
pub fn columns(map: &ColumnMap) -> Vec<(Ident, Ident)> {
    let own = |name: &'static str| (Ident::new(name), Ident::new(name));
    let cdc = ["__$start_lsn", "__$seqval", "__$operation", "__$update_mask", "__$command_id"]
        .into_iter()
        .map(own);
    let carried =
        map.columns.iter().map(|column| (column.staged_name.clone(), column.name().clone()));
    let lengths = (!map.large_columns().is_empty()).then(|| own(large::LENGTHS_NAME));
    cdc.chain(carried).chain(lengths).chain([own("__$order")]).collect()
}

/// The carried columns of `alias` in staged form, and the lengths of large values where there can
/// be some: `,\n    cell AS [name]…`.
pub(super) fn whole_row(map: &ColumnMap, alias: &str) -> String {
    let large_columns = map.large_columns();
    let large_bytes = large::large_bytes(large_columns.len());
    let mut sql = String::new();
    for (i, column) in map.columns.iter().enumerate() {
        let cell = if large_columns.contains(&i) {
            large::read(column, alias, large_bytes)
        } else {
            staging::read(column, alias)
        };
        let _ = write!(sql, ",\n    {cell} AS {}", column.staged_name);
    }
    if !large_columns.is_empty() {
        let columns = large_columns.iter().map(|&i| map.columns.get(i));
        let _ = write!(
            sql,
            ",\n    {} AS {}",
            large::lengths(columns, alias, large_bytes),
            large::LENGTHS
        );
    }
    sql
}

/// Rows of the source as they are now, for [`FETCH_MAX`] change rows named by LSN, sequence value
/// and command (`@P1`, `@P2`, `@P3` for the first, and so on; a slot not needed has NULLs). The
/// change table gives the key, so no key value ever leaves the source's types and collations. The
/// slot comes back in `__$command_id`.
pub fn fetch(map: &ColumnMap, source: &TableName, capture: &Capture) -> String {
    let mut sql = String::from(
        "SELECT c.[__$start_lsn], c.[__$seqval], CAST(9 AS int) AS [__$operation], CAST(NULL AS varbinary(128)) AS [__$update_mask], v.slot AS [__$command_id]",
    );
    sql.push_str(&whole_row(map, "s"));
    sql.push_str("\nFROM (VALUES ");
    for slot in 0..FETCH_MAX {
        let p = 3 * slot;
        // the driver declares a slot that is not needed as varbinary(max), which would be the type
        // of all of them, and no index is of that
        let comma = if slot == 0 { "" } else { ", " };
        let _ = write!(
            sql,
            "{comma}({slot}, CAST(@P{} AS binary(10)), CAST(@P{} AS binary(10)), CAST(@P{} AS int))",
            p + 1,
            p + 2,
            p + 3
        );
    }
    let command = same_command(capture, "v.command_id");
    let _ = write!(
        sql,
        ") AS v (slot, start_lsn, seqval, command_id)\nINNER JOIN {} AS c ON c.[__$start_lsn] = v.start_lsn AND c.[__$seqval] = v.seqval AND c.[__$operation] IN (2, 4){command}\n{}",
        capture.instance.change_table(),
        join_source(map, source)
    );
    sql
}

/// The condition that change row `c` is of the command `wanted`, where the change table has
/// commands. NULL is equal to NULL: rows from before the server was updated have none. `INTERSECT`
/// says so in a form that seeks in the clustered index of change tables (`__$start_lsn`,
/// `__$command_id`, `__$seqval`, `__$operation`), where an `OR` reads every row of a transaction
/// for each wanted row.
/// <https://learn.microsoft.com/sql/relational-databases/system-tables/cdc-capture-instance-ct-transact-sql>
fn same_command(capture: &Capture, wanted: &str) -> String {
    if capture.instance.has_command_id {
        format!(" AND EXISTS (SELECT c.[__$command_id] INTERSECT SELECT {wanted})")
    } else {
        String::new()
    }
}

/// The source's rows as `s`, by the key that a change row `c` has.
fn join_source(map: &ColumnMap, source: &TableName) -> String {
    let keys: Vec<_> = map
        .key_columns()
        .map(|column| {
            let (s, c) = (format!("s.{}", column.source.name), format!("c.{}", column.source.name));
            equal(&s, &c, column.source.nullable)
        })
        .collect();
    format!("INNER JOIN {} AS s ON {}", source.local(), keys.join(" AND "))
}

/// The statements for large values of change rows, or (`fetched`) the rows that completed
/// them.
pub fn large_values(
    map: &ColumnMap,
    coverage: &ColumnCoverage,
    source: &TableName,
    capture: &Capture,
    fetched: bool,
) -> LargeValues {
    let command = same_command(capture, "CAST(@P4 AS int)");
    let one = format!(
        "WHERE c.[__$start_lsn] = @P2 AND c.[__$seqval] = @P3 AND c.[__$operation] IN (2, 4){command}"
    );
    let change_table = capture.instance.change_table();
    let (alias, from, wanted) = if fetched {
        let wanted = format!(
            "FROM #changes AS c\nINNER JOIN #changes AS o ON o.[__$order] = c.[__$order] - CAST({FETCHED} AS bigint)\nWHERE c.{} IS NOT NULL AND c.[__$order] > @P2 AND c.[__$operation] = 9",
            large::LENGTHS
        );
        ("s", format!("FROM {change_table} AS c\n{}\n{one}", join_source(map, source)), wanted)
    } else {
        let values: String = (0..coverage.partial.len())
            .map(|i| format!(" UNION ALL SELECT n.[__$p{i}] FROM #net AS n"))
            .collect();
        let wanted = format!(
            "FROM #changes AS c\nINNER JOIN #changes AS o ON o.[__$order] = c.[__$order]\nWHERE c.{} IS NOT NULL AND c.[__$order] > @P2 AND c.[__$operation] IN (2, 4, 5)\n    AND c.[__$order] IN (SELECT n.[__$order] FROM #net AS n{values})",
            large::LENGTHS
        );
        ("c", format!("FROM {change_table} AS c\n{one}"), wanted)
    };
    LargeValues {
        wanted: format!(
            "SELECT TOP (@P1) c.[__$order], c.{}, o.[__$start_lsn], o.[__$seqval], o.[__$command_id]\n{wanted}\nORDER BY c.[__$order]",
            large::LENGTHS
        ),
        columns: map
            .large_columns()
            .into_iter()
            .map(|i| large::pieces(&map.columns[i], alias, &from))
            .collect(),
        can_change: fetched,
    }
}

/// One of these columns of a row is NULL.
pub fn any_is_null<'a>(alias: &str, columns: impl Iterator<Item = &'a CarriedColumn>) -> String {
    columns
        .map(|column| format!("{alias}.{} IS NULL", column.staged_name))
        .collect::<Vec<_>>()
        .join(" OR ")
}

/// Equality that an index can serve, NULL-safe where both can be NULL.
pub fn equal(a: &str, b: &str, nullable: bool) -> String {
    if nullable {
        format!("EXISTS (SELECT {a} INTERSECT SELECT {b})")
    } else {
        format!("{a} = {b}")
    }
}

/// Whose types and names the statements speak: the destination's own, or the staged ones of a full
/// sync's staging table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeForm {
    Dest,
    Staged,
}

impl TypeForm {
    /// The column's name in the target.
    pub fn name(self, column: &CarriedColumn) -> &Ident {
        match self {
            TypeForm::Dest => column.name(),
            TypeForm::Staged => &column.staged_name,
        }
    }

    /// A staged value as the target takes it.
    pub fn write(self, column: &CarriedColumn, alias: &str) -> String {
        match self {
            TypeForm::Dest => staging::write(column, alias),
            TypeForm::Staged => format!("{alias}.{}", column.staged_name),
        }
    }

    /// The target's own value, to be written back by a CASE whose other branches are
    /// [`fn@Self::write`]'s.
    pub fn keep(self, column: &CarriedColumn, alias: &str) -> String {
        let legacy =
            matches!(column.dest.ty, ColumnType::Text | ColumnType::NText | ColumnType::Image);
        match self {
            // a CASE over these types needs the modern ones
            TypeForm::Dest if legacy => staging::read_dest(column, alias),
            // The column may have a schema collection, and the staged value has none: xml of two
            // collections in one CASE is Msg 527.
            TypeForm::Dest if column.dest.ty == ColumnType::Xml => {
                format!("CAST({alias}.{} AS xml)", column.name())
            }
            TypeForm::Dest | TypeForm::Staged => format!("{alias}.{}", self.name(column)),
        }
    }

    fn ty(self, column: &CarriedColumn) -> &ColumnType {
        match self {
            TypeForm::Dest => &column.dest.ty,
            TypeForm::Staged => &column.staged,
        }
    }

    /// Whether an UPDATE may set this column: never identity, and of the key only what may differ
    /// between equal keys.
    pub fn updates(self, map: &ColumnMap, index: usize, column: &CarriedColumn) -> bool {
        !(self == TypeForm::Dest && column.dest.identity)
            && (!map.key.contains(&index) || staging::equal_may_differ(self.ty(column)))
    }

    /// `target` and `staged` have the same key, as the target's collations see it.
    pub fn same_key(self, map: &ColumnMap, target: &str, staged: &str) -> String {
        let pairs: Vec<_> = map
            .key_columns()
            .map(|column| {
                let nullable = column.source.nullable && column.dest.nullable;
                equal(
                    &format!("{target}.{}", self.name(column)),
                    &self.write(column, staged),
                    nullable,
                )
            })
            .collect();
        pairs.join(" AND ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::mask,
        tsql::testing::{TABLE, capture, golden, keyed},
    };

    fn shown(values: &LargeValues) -> String {
        let pieces = values
            .columns
            .iter()
            .map(|pieces| format!("{}\n\n{}\n\n{}\n\n", pieces.read, pieces.hash, pieces.append));
        format!("{}\n\n{}", values.wanted, pieces.collect::<String>())
    }

    #[test]
    fn change_rows_and_their_tables() {
        let (map, capture) = (keyed(), capture());
        let coverage = mask::cover(&map, &capture).unwrap();
        golden("changes_boundary.sql", &boundary(&capture));
        golden("changes_read.sql", &read(&map, &capture, &coverage));
        golden("changes_tables.sql", &create_tables(&map, &coverage));
        assert_eq!(columns(&map).len(), 5 + map.columns.len() + 2);
        let values = large_values(&map, &coverage, &TABLE(), &capture, false);
        golden("changes_large.sql", &shown(&values));
        golden(
            "changes_large_fetched.sql",
            &shown(&large_values(&map, &coverage, &TABLE(), &capture, true)),
        );
        let fetched = fetch(&map, &TABLE(), &capture);
        let slots = fetched.find("(1, CAST(@P4").unwrap()..fetched.find(") AS v").unwrap();
        golden("changes_fetch.sql", &fetched.replacen(&fetched[slots], "...", 1));
        assert!(fetched.contains(
            "(99, CAST(@P298 AS binary(10)), CAST(@P299 AS binary(10)), CAST(@P300 AS int))) AS v"
        ));
    }

    #[test]
    fn a_server_without_command_ids() {
        let (map, mut capture) = (keyed(), capture());
        capture.instance.has_command_id = false;
        let coverage = mask::cover(&map, &capture).unwrap();
        let read = read(&map, &capture, &coverage);
        assert!(read.contains("CAST(NULL AS int) AS [__$command_id]"));
        assert!(read.ends_with("ORDER BY c.[__$start_lsn], c.[__$seqval], c.[__$operation]"));
        assert!(!fetch(&map, &TABLE(), &capture).contains("c.[__$command_id]"));
    }

    #[test]
    fn a_key_that_is_not_captured_is_refused_by_name() {
        let (map, mut capture) = (keyed(), capture());
        capture.columns.retain(|column| column.name.as_str() != "code");
        let error = mask::cover(&map, &capture).unwrap_err();
        assert!(error.to_string().contains("does not capture key column [code]"), "{error}");
        // a column dropped and added again under its name is not the captured one
        let mut capture = crate::tsql::testing::capture();
        capture.columns[1].column_id = 9;
        assert!(mask::cover(&map, &capture).is_err());
    }
}
