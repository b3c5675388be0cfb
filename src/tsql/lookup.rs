//! Reading rows to compare: the newest by key, or those with given keys; at the source, at the
//! destination, or in a change table.
//!
//! Rows come with the carried columns in the order of the [`ColumnMap`], both sides in the same kinds
//! of cells, and with hashes of large values behind them. The alias is always `t`.

use super::{
    changes::equal,
    large,
    staging::{read_compared, read_dest_staged, type_name},
};
use crate::model::{
    column_map::{CarriedColumn, ColumnMap},
    name::{Ident, TableName},
    table::{Column, ColumnType, collation_word},
};

/// Which of a carried column's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableSide {
    Source,
    Dest,
}

impl TableSide {
    fn column(self, carried: &CarriedColumn) -> &Column {
        match self {
            TableSide::Source => &carried.source,
            TableSide::Dest => &carried.dest,
        }
    }

    fn read(self, carried: &CarriedColumn) -> String {
        match self {
            TableSide::Source => read_compared(carried, "t"),
            TableSide::Dest => read_dest_staged(carried, "t"),
        }
    }

    fn list<'a>(self, columns: impl Iterator<Item = &'a CarriedColumn>) -> String {
        columns
            .map(|carried| format!("{} AS {}", self.read(carried), carried.name()))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// All carried columns, empty where a value is large, and behind them the hashes of large
    /// values: one for each of [`ColumnMap::large_columns`].
    fn whole_rows(self, map: &ColumnMap) -> String {
        let large_columns = map.large_columns();
        let large_bytes = large::large_bytes(large_columns.len());
        let mut cells: Vec<_> = map
            .columns
            .iter()
            .enumerate()
            .map(|(i, carried)| match large_columns.contains(&i) {
                true => format!(
                    "{} AS {}",
                    large::compared(&self.read(carried), &carried.staged, large_bytes),
                    carried.name()
                ),
                false => format!("{} AS {}", self.read(carried), carried.name()),
            })
            .collect();
        let hashes = large_columns.iter().enumerate();
        cells.extend(hashes.map(|(n, &i)| {
            format!(
                "{} AS [__$hash{n}]",
                large::compared_hash(&self.read(&map.columns[i]), large_bytes)
            )
        }));
        cells.join(", ")
    }
}

/// Parameters that the keys of one statement may take: SQL Server takes 2,100 (Msg 8003), and a
/// statement has others, too.
const KEY_PARAMETERS_MAX: usize = 1_000;

/// Keys that one statement asks for.
pub fn keys_max(map: &ColumnMap) -> usize {
    (KEY_PARAMETERS_MAX / map.key.len().max(1)).max(1)
}

/// The newest rows by key.
pub fn newest(side: TableSide, table: &TableName, map: &ColumnMap, rows_max: usize) -> String {
    let order: Vec<_> =
        map.key_columns().map(|carried| format!("t.{} DESC", side.column(carried).name)).collect();
    format!(
        "SELECT TOP ({rows_max}) {} FROM {} AS t ORDER BY {}",
        side.whole_rows(map),
        table.local(),
        order.join(", ")
    )
}

/// The next rows in the order of the source's key: after the key in the first parameters (`after`),
/// up to and including the one in the parameters behind it (`upto`). The destination's rows are put
/// in the *source's* order, so that ranges that follow each other at the source leave nothing out
/// here.
pub fn range(
    side: TableSide,
    table: &TableName,
    map: &ColumnMap,
    (after, upto): (bool, bool),
    rows_max: usize,
) -> String {
    let keys: Vec<_> = map.key_columns().map(|carried| ordered(side, carried)).collect();
    let width = keys.len();
    let mut bounds = Vec::new();
    if after {
        bounds.push(beyond(&keys, map, 0, ">", false));
    }
    if upto {
        bounds.push(beyond(&keys, map, if after { width } else { 0 }, "<", true));
    }
    let filter =
        if bounds.is_empty() { String::new() } else { format!(" WHERE {}", bounds.join(" AND ")) };
    format!(
        "SELECT TOP ({rows_max}) {} FROM {} AS t{filter} ORDER BY {}",
        side.whole_rows(map),
        table.local(),
        keys.join(", ")
    )
}

/// A key column as it sorts at the source.
fn ordered(side: TableSide, carried: &CarriedColumn) -> String {
    let column = format!("t.{}", side.column(carried).name);
    let (source, dest) = (&carried.source, &carried.dest);
    match (side, collation(source)) {
        (TableSide::Dest, Some(collation))
            if source.ty != dest.ty || source.collation != dest.collation =>
        {
            // the code page of a CAST is that of what is cast
            format!("CAST({column} COLLATE {collation} AS {})", type_name(&source.ty))
        }
        _ => column,
    }
}

/// `(a >= @P1 AND (a > @P1 OR (a = @P1 AND (b > @P2))))`, with `or_equal` for the last column. A
/// NULL in a key comes before every value, as ORDER BY has it.
fn beyond(
    keys: &[String],
    map: &ColumnMap,
    params_before: usize,
    than: &str,
    or_equal: bool,
) -> String {
    let mut condition = String::new();
    let columns: Vec<_> = keys.iter().zip(map.key_columns()).enumerate().collect();
    for (i, (key, carried)) in columns.into_iter().rev() {
        let parameter = parameter(&carried.source, params_before + i + 1);
        let nullable = carried.source.nullable || carried.dest.nullable;
        let strictly = match (nullable, than) {
            (false, _) => format!("{key} {than} {parameter}"),
            (true, ">") => {
                format!("({key} > {parameter} OR ({parameter} IS NULL AND {key} IS NOT NULL))")
            }
            (true, _) => {
                format!("({key} {than} {parameter} OR ({key} IS NULL AND {parameter} IS NOT NULL))")
            }
        };
        let same = equal(key, &parameter, nullable);
        condition = match (condition.is_empty(), or_equal, nullable) {
            (true, false, _) => format!("({strictly})"),
            (true, true, false) => format!("({key} {than}= {parameter})"),
            (true, true, true) => format!("({strictly} OR {same})"),
            (false, _, _) => format!("({strictly} OR ({same} AND {condition}))"),
        };
    }
    // says nothing new, but is what an index is sought by: of the OR alone the server makes a scan
    // from the table's beginning
    match (keys, map.key_columns().next()) {
        ([first, _, ..], Some(carried)) if !carried.source.nullable && !carried.dest.nullable => {
            format!(
                "({first} {than}= {} AND {condition})",
                parameter(&carried.source, params_before + 1)
            )
        }
        _ => condition,
    }
}

/// How many rows there are.
pub fn count(table: &TableName) -> String {
    format!("SELECT COUNT_BIG(*) FROM {} AS t", table.local())
}

/// Whether anything changed after LSN `@P1` and up to `@P2`: a row, or none.
pub fn any_change(change_table: &Ident) -> String {
    format!(
        "SELECT TOP (1) 1 FROM [cdc].{change_table} AS t WHERE t.[__$start_lsn] > @P1 AND t.[__$start_lsn] <= @P2"
    )
}

/// The rows with `keys` given keys, whose values are the parameters in order: the first key's
/// columns, the second's, …
pub fn by_keys(side: TableSide, table: &TableName, map: &ColumnMap, keys: usize) -> String {
    format!(
        "SELECT {} FROM {} AS t {}",
        side.whole_rows(map),
        table.local(),
        join_keys(side, map, keys, 0)
    )
}

/// The keys among `keys` given ones that have a change after LSN `@P1` and up to `@P2`; the key
/// values follow as `@P3`….
pub fn changed_keys(change_table: &Ident, map: &ColumnMap, keys: usize) -> String {
    format!(
        "SELECT DISTINCT {} FROM [cdc].{change_table} AS t {} WHERE t.[__$start_lsn] > @P1 AND t.[__$start_lsn] <= @P2",
        TableSide::Source.list(map.key_columns()),
        join_keys(TableSide::Source, map, keys, 2)
    )
}

/// Joins `t` with `keys` keys, whose values are the parameters behind the first `params_before`: a
/// seek for each key where there is an index. A long list of keys with OR is read as a scan of the
/// whole table that tests every row against every key. A key that is given twice finds its row once.
pub(super) fn join_keys(
    side: TableSide,
    map: &ColumnMap,
    keys: usize,
    params_before: usize,
) -> String {
    let (columns, values, same) = given_keys(side, map, keys, params_before);
    format!(
        "INNER JOIN (SELECT DISTINCT {columns} FROM (VALUES {values}) AS v ({columns})) AS k ON {same}"
    )
}

/// Whether `t` has one of `keys` keys, whose values are the parameters behind the first
/// `params_before`; for where a join has no place.
pub(super) fn any_of(
    side: TableSide,
    map: &ColumnMap,
    keys: usize,
    params_before: usize,
) -> String {
    let (columns, values, same) = given_keys(side, map, keys, params_before);
    format!("EXISTS (SELECT 1 FROM (VALUES {values}) AS k ({columns}) WHERE {same})")
}

/// Whether `t` has the key whose values are the parameters behind the first `params_before`.
pub(super) fn is_key(side: TableSide, map: &ColumnMap, params_before: usize) -> String {
    let columns = map.key_columns().enumerate().map(|(i, carried)| {
        let column = side.column(carried);
        equal(
            &format!("t.{}", column.name),
            &parameter(column, params_before + i + 1),
            column.nullable,
        )
    });
    columns.collect::<Vec<_>>().join(" AND ")
}

/// Keys as rows of VALUES: the names of their columns, the rows, and when row `k` is the key of
/// `t`. Text has the column's collation, so that the column is compared as its index has it and two
/// spellings stay two keys where the column takes them for two.
fn given_keys(
    side: TableSide,
    map: &ColumnMap,
    keys: usize,
    params_before: usize,
) -> (String, String, String) {
    let width = map.key.len();
    let row = |key: usize| {
        let cells = map.key_columns().enumerate().map(|(i, carried)| {
            let column = side.column(carried);
            let value = parameter(column, params_before + key * width + i + 1);
            collation(column).map_or(value.clone(), |name| format!("{value} COLLATE {name}"))
        });
        format!("({})", cells.collect::<Vec<_>>().join(", "))
    };
    let names: Vec<_> = (0..width).map(|i| format!("[k{i}]")).collect();
    let same = map.key_columns().zip(&names).map(|(carried, name)| {
        let column = side.column(carried);
        equal(&format!("t.{}", column.name), &format!("k.{name}"), column.nullable)
    });
    let same = same.collect::<Vec<_>>().join(" AND ");
    (names.join(", "), (0..keys).map(row).collect::<Vec<_>>().join(", "), same)
}

/// A parameter as a value of the column's own type, so that an index on the column can be used.
/// Text is turned into the column's code page, not the database's: a CAST takes the collation of
/// what it casts.
fn parameter(column: &Column, number: usize) -> String {
    match (&column.ty, collation(column)) {
        (ColumnType::Char(_) | ColumnType::VarChar(_), Some(collation)) => {
            format!("CAST(@P{number} COLLATE {collation} AS {})", type_name(&column.ty))
        }
        (ColumnType::RowVersion, _) => format!("CAST(@P{number} AS binary(8))"),
        _ => format!("CAST(@P{number} AS {})", type_name(&column.ty)),
    }
}

/// A text column's collation, as SQL may say it.
fn collation(column: &Column) -> Option<&str> {
    collation_word(column.collation.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::Length;
    use crate::tsql::testing::{TABLE, carried, keyed, map};

    #[test]
    fn newest_rows_of_either_side() {
        let note = "CAST(t.[note] AS nvarchar(max))";
        let doc = "CAST(t.[doc] AS nvarchar(max))";
        let small = |text: &str| {
            format!(
                "CASE WHEN DATALENGTH({text}) > 1048576 THEN CAST(N'' AS nvarchar(max)) ELSE {text} END"
            )
        };
        let hash = |text: &str| {
            format!(
                "CASE WHEN DATALENGTH({text}) > 1048576 THEN HASHBYTES('MD5', CAST({text} AS varbinary(max))) END"
            )
        };
        let large = |sql: String| {
            sql.replace(&small(note), note).replace(&small(doc), doc).replace(
                &format!(", {} AS [__$hash0], {} AS [__$hash1]", hash(note), hash(doc)),
                "",
            )
        };
        assert_eq!(
            large(newest(TableSide::Source, &TABLE(), &map(), 10)),
            "SELECT TOP (10) t.[ID] AS [id], t.[code] AS [code], CAST(t.[price] AS decimal(19,4)) AS [price], \
             CAST(t.[note] AS nvarchar(max)) AS [note], CAST(t.[at] AS datetimeoffset(7)) AS [at], CAST(t.[doc] AS nvarchar(max)) AS [doc] \
             FROM [sales].[Order]] Details] AS t ORDER BY t.[ID] DESC, t.[code] DESC"
        );
        assert_eq!(
            large(newest(TableSide::Dest, &TABLE(), &map(), 10)),
            "SELECT TOP (10) t.[id] AS [id], t.[code] AS [code], CAST(t.[price] AS decimal(19,4)) AS [price], \
             CAST(t.[note] AS nvarchar(max)) AS [note], t.[at] AS [at], CAST(t.[doc] AS nvarchar(max)) AS [doc] \
             FROM [sales].[Order]] Details] AS t ORDER BY t.[id] DESC, t.[code] DESC"
        );
    }

    #[test]
    fn ranges_follow_the_sources_order() {
        let sql = range(TableSide::Source, &TABLE(), &keyed(), (true, false), 10);
        assert!(
            sql.ends_with(
                "AS t WHERE (t.[ID] >= CAST(@P1 AS int) AND (t.[ID] > CAST(@P1 AS int) OR (t.[ID] = CAST(@P1 AS int) AND \
                 (t.[code] > CAST(@P2 AS nvarchar(20)))))) \
                 ORDER BY t.[ID], t.[code]"
            ),
            "{sql}"
        );
        let sql = range(TableSide::Dest, &TABLE(), &keyed(), (true, true), 10);
        assert!(
            sql.contains(
                "AND (t.[id] <= CAST(@P3 AS int) AND (t.[id] < CAST(@P3 AS int) OR (t.[id] = CAST(@P3 AS int) AND \
                 (t.[code] <= CAST(@P4 AS nvarchar(20))))))"
            ),
            "{sql}"
        );
        let mut map = keyed();
        map.columns[1].dest.collation = Some("Latin1_General_BIN2".into());
        let sql = range(TableSide::Dest, &TABLE(), &map, (false, false), 10);
        assert!(
            sql.contains(
                "AS t ORDER BY t.[id], CAST(t.[code] COLLATE Latin1_General_CI_AS AS nvarchar(20))"
            ),
            "{sql}"
        );
    }

    #[test]
    fn rows_by_key() {
        let code =
            |number| format!("CAST(@P{number} AS nvarchar(20)) COLLATE Latin1_General_CI_AS");
        let sql = by_keys(TableSide::Dest, &TABLE(), &keyed(), 2);
        assert_eq!(
            sql.split(" AS t ").nth(1).unwrap(),
            format!(
                "INNER JOIN (SELECT DISTINCT [k0], [k1] FROM (VALUES (CAST(@P1 AS bigint), {}), (CAST(@P3 AS bigint), {})) AS v ([k0], [k1])) AS k \
                 ON t.[id] = k.[k0] AND t.[code] = k.[k1]",
                code(2),
                code(4)
            )
        );
        assert_eq!(
            changed_keys(&Ident::new("dbo_t_CT"), &keyed(), 1),
            format!(
                "SELECT DISTINCT t.[ID] AS [id], t.[code] AS [code] FROM [cdc].[dbo_t_CT] AS t \
                 INNER JOIN (SELECT DISTINCT [k0], [k1] FROM (VALUES (CAST(@P3 AS int), {})) AS v ([k0], [k1])) AS k \
                 ON t.[ID] = k.[k0] AND t.[code] = k.[k1] WHERE t.[__$start_lsn] > @P1 AND t.[__$start_lsn] <= @P2",
                code(4)
            )
        );
        let mut narrow = keyed();
        let code = ColumnType::VarChar(Length::N(9));
        narrow.columns = vec![carried(("code", code.clone()), ("code", code.clone()), code)];
        narrow.key = vec![0];
        narrow.columns[0].source.nullable = false;
        let code = "CAST(@P1 COLLATE Latin1_General_CI_AS AS varchar(9))";
        let sql = by_keys(TableSide::Source, &TABLE(), &narrow, 1);
        assert!(
            sql.ends_with(&format!(
                "(VALUES ({code} COLLATE Latin1_General_CI_AS)) AS v ([k0])) AS k ON t.[code] = k.[k0]"
            )),
            "{sql}"
        );
        assert_eq!(
            any_of(TableSide::Source, &narrow, 1, 0),
            format!(
                "EXISTS (SELECT 1 FROM (VALUES ({code} COLLATE Latin1_General_CI_AS)) AS k ([k0]) WHERE t.[code] = k.[k0])"
            )
        );
        assert_eq!(is_key(TableSide::Source, &narrow, 0), format!("t.[code] = {code}"));
    }

    #[test]
    fn parameters_stay_below_what_a_statement_takes() {
        assert_eq!(keys_max(&keyed()), 500);
    }

    /// `=` never finds a NULL, and nothing is beyond one.
    #[test]
    fn keys_that_may_be_null_are_found_and_passed() {
        let mut map = map();
        map.key = vec![1];
        let code = "CAST(@P1 AS nvarchar(20))";
        assert!(
            by_keys(TableSide::Source, &TABLE(), &map, 1)
                .ends_with(" AS k ON EXISTS (SELECT t.[code] INTERSECT SELECT k.[k0])")
        );
        let after = range(TableSide::Source, &TABLE(), &map, (true, false), 1);
        assert!(
            after.contains(&format!(
                "WHERE ((t.[code] > {code} OR ({code} IS NULL AND t.[code] IS NOT NULL)))"
            )),
            "{after}"
        );
        let upto = range(TableSide::Source, &TABLE(), &map, (false, true), 1);
        let same = format!("EXISTS (SELECT t.[code] INTERSECT SELECT {code})");
        assert!(
            upto.contains(&format!(
                "WHERE ((t.[code] < {code} OR (t.[code] IS NULL AND {code} IS NOT NULL)) OR {same})"
            )),
            "{upto}"
        );
    }
}
