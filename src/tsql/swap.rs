//! A full sync's statements: the staging table, and the transaction that makes the destination
//! equal to it.
//!
//! The aliases are always `s` for the staging (or source) table and `d` for the destination. No
//! MERGE: its races, its triggers' row counts and its 8672 are the well-known reasons
//! (`sqlserver-cdc-facts`, 2d).

use super::{
    poll::TriggerColumn,
    staging::{
        bulk_column, columns_ddl, differs, names, other_text, read_dest_staged, read_list,
        same_key, same_key_exactly, staged_names, updatable, write, write_cell, write_list,
    },
};
use crate::model::{
    column_map::{CarriedColumn, ColumnMap},
    id::MappingId,
    name::{Ident, TableName},
    table::ForeignKey,
};

const STAGE: &str = "dbaops_dataflow_stage_";

/// Where a mapping's rows are staged: in the destination database, so that the swap is one
/// transaction of one database. A mapping that was taken from a daemon that is gone has the
/// generation of its lock in the name: the daemon may still hold the table of the one before.
pub fn stage(mapping: MappingId, generation: i32, database: &Ident) -> TableName {
    let generation = if generation > 0 { format!("_{generation}") } else { String::new() };
    TableName {
        database: database.clone(),
        schema: Ident::new("dbo"),
        table: Ident::new(format!("{STAGE}{mapping}{generation}")),
    }
}

/// Whether a table has the name of a staging table, of whatever mapping.
pub fn is_stage(table: &TableName) -> bool {
    table.table.as_str().strip_prefix(STAGE).is_some_and(|numbers| {
        let mut numbers = numbers.splitn(2, '_');
        numbers.all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// What the sessions that may write to a staging table lock: the mapping's number, and the
/// generation where there is one.
pub fn stage_resource(stage: &TableName) -> String {
    format!("dbaops-dataflow/stage/{}", stage.table.as_str().trim_start_matches(STAGE))
}

/// A heap: bulk loads into it are minimally logged, and its index is made when the rows are in.
pub fn create_stage(stage: &TableName, map: &ColumnMap) -> String {
    format!("CREATE TABLE {} ({})", stage.local(), columns_ddl(map))
}

pub fn drop_stage(stage: &TableName) -> String {
    format!("DROP TABLE IF EXISTS {}", stage.local())
}

/// All rows at once, the identity's next value back to its seed.
pub fn truncate(table: &TableName) -> String {
    format!("TRUNCATE TABLE {}", table.local())
}

/// Where TRUNCATE is refused: any `rows_max` rows.
pub fn delete_some(table: &TableName, rows_max: usize) -> String {
    format!("DELETE TOP ({rows_max}) FROM {}", table.local())
}

pub fn delete_all(table: &TableName) -> String {
    format!("DELETE FROM {}", table.local())
}

/// Whose comparison says which staged keys are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRules {
    /// The staged columns' own: byte for byte, while rows come and go as they did at the source.
    Staged,
    /// The destination columns' types and collations: as its rows are found.
    Dest,
}

/// A key column's text is compared by the destination as a value computed from the staged one: a
/// column of its own can be indexed.
fn dest_key_column(place: usize) -> Ident {
    Ident::new(format!("k{place}"))
}

/// The columns by which the swap finds rows where they are not the staged ones: text, unless the
/// destination compares it byte by byte, too.
fn dest_key_columns(map: &ColumnMap) -> impl Iterator<Item = (usize, &CarriedColumn)> {
    map.key_columns().enumerate().filter(|(_, column)| column.merges())
}

/// Adds the key's texts as the destination compares them; `None` where the staged key is compared
/// alike. An expression of fixed type and collation is deterministic, so that an index may be on
/// it. <https://learn.microsoft.com/sql/relational-databases/indexes/indexes-on-computed-columns>
pub fn add_dest_key(stage: &TableName, map: &ColumnMap) -> Option<String> {
    let columns: Vec<_> = dest_key_columns(map)
        .map(|(place, column)| {
            format!(
                "{} AS ({})",
                dest_key_column(place),
                write_cell(column, &column.staged_name.to_string())
            )
        })
        .collect();
    (!columns.is_empty())
        .then(|| format!("ALTER TABLE {} ADD {}", stage.local(), columns.join(", ")))
}

/// The server's error 1505 says that two staged keys are one by `rules`.
pub fn index_stage(stage: &TableName, map: &ColumnMap, rules: KeyRules) -> String {
    let (name, columns): (_, Vec<_>) = match rules {
        KeyRules::Staged => (
            "dbaops_dataflow_key",
            map.key_columns().map(|column| column.staged_name.to_string()).collect(),
        ),
        KeyRules::Dest => {
            let of = |(place, column): (usize, &CarriedColumn)| {
                if column.merges() {
                    dest_key_column(place).to_string()
                } else {
                    column.staged_name.to_string()
                }
            };
            ("dbaops_dataflow_dest_key", map.key_columns().enumerate().map(of).collect())
        }
    };
    format!("CREATE UNIQUE INDEX [{name}] ON {} ({})", stage.local(), columns.join(", "))
}

/// One cell: 1 when two staged keys are one by `rules`.
pub fn has_repeated(stage: &TableName, map: &ColumnMap, rules: KeyRules) -> String {
    let key: Vec<_> = map
        .key_columns()
        .map(|column| match rules {
            KeyRules::Staged => format!("s.{}", column.staged_name),
            KeyRules::Dest => write(column, "s"),
        })
        .collect();
    format!(
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM {} AS s GROUP BY {} HAVING COUNT_BIG(*) > 1) THEN 1 ELSE 0 END",
        stage.local(),
        key.join(", ")
    )
}

/// Two keys that are staged as two and that the destination takes for one: the cells of the one and
/// of the other, or no row.
pub fn merged_in_stage(stage: &TableName, map: &ColumnMap) -> String {
    let stage = stage.local();
    let same: Vec<_> = map
        .key_columns()
        .map(|column| format!("{} = {}", write(column, "s"), write(column, "o")))
        .collect();
    let other: Vec<_> =
        map.key_columns().map(|column| format!("s.{0} <> o.{0}", column.staged_name)).collect();
    format!(
        "SELECT TOP (1) {}, {} FROM {stage} AS s JOIN {stage} AS o ON {} WHERE {}",
        staged_key(map, "s"),
        staged_key(map, "o"),
        same.join(" AND "),
        other.join(" OR ")
    )
}

/// A destination's key and a staged one that the destination takes for the same and that have other
/// texts, as [`merged_in_stage`].
pub fn merged_at_dest(stage: &TableName, dest: &TableName, map: &ColumnMap) -> String {
    format!(
        "SELECT TOP (1) {}, {} FROM {} AS s JOIN {} AS d ON {} WHERE {}",
        dest_key(map, "d"),
        staged_key(map, "s"),
        stage.local(),
        dest.local(),
        same_key(map, "s", "d"),
        other_text(map, "s", "d")
    )
}

fn staged_key(map: &ColumnMap, alias: &str) -> String {
    map.key_columns()
        .map(|column| format!("{alias}.{}", column.staged_name))
        .collect::<Vec<_>>()
        .join(", ")
}

fn dest_key(map: &ColumnMap, alias: &str) -> String {
    map.key_columns().map(|column| read_dest_staged(column, alias)).collect::<Vec<_>>().join(", ")
}

/// Leaves one of the rows that have one staged key: a scan that goes page by page meets a row twice
/// when it moves ahead of it.
pub fn delete_repeated(stage: &TableName, map: &ColumnMap) -> String {
    format!(
        "WITH [repeated] AS (SELECT ROW_NUMBER() OVER (PARTITION BY {} ORDER BY (SELECT NULL)) AS [n] FROM {} AS s) \
         DELETE FROM [repeated] WHERE [n] > 1",
        staged_key(map, "s"),
        stage.local()
    )
}

/// The source's rows in staged form.
pub fn read_source(source: &TableName, map: &ColumnMap) -> String {
    format!("SELECT {} FROM {} AS s", read_list(map, "s"), source.local())
}

/// One SELECT, all of whose rows are those of one moment.
pub fn in_snapshot(select: &str) -> String {
    format!(
        "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION; {select}; COMMIT TRANSACTION"
    )
}

/// No rows: what a load of the staging table's columns is described with.
pub fn staged_columns(stage: &TableName, map: &ColumnMap) -> String {
    format!("SELECT TOP (0) {} FROM {}", staged_names(map), stage.local())
}

/// What goes before the rows of a bulk load. The collation says how the bytes of its text are read.
/// <https://learn.microsoft.com/sql/t-sql/statements/bulk-insert-transact-sql>
pub fn load_stage(stage: &TableName, map: &ColumnMap) -> String {
    let columns: Vec<_> = map.columns.iter().map(bulk_column).collect();
    format!("INSERT BULK {} ({}) WITH (KEEP_NULLS, TABLOCK)", stage.local(), columns.join(", "))
}

/// Rows that ask for a full sync, `rows_max` at a time, only those.
pub fn reset_trigger(source: &TableName, trigger: TriggerColumn<'_>, rows_max: usize) -> String {
    format!(
        "UPDATE TOP ({rows_max}) s SET s.{} = 0 FROM {} AS s WHERE {}",
        trigger.column,
        source.local(),
        trigger.is_set("s")
    )
}

/// One cell: 1 when there is no row.
pub fn is_empty(dest: &TableName) -> String {
    format!("SELECT CASE WHEN EXISTS (SELECT 1 FROM {} AS d) THEN 0 ELSE 1 END", dest.local())
}

/// Two cells: the rows staged, and the rows at the destination.
pub fn counts(stage: &TableName, dest: &TableName) -> String {
    format!(
        "SELECT (SELECT COUNT_BIG(*) FROM {} AS s), (SELECT COUNT_BIG(*) FROM {} AS d)",
        stage.local(),
        dest.local()
    )
}

/// A batch of rows into a destination that had none of them: a row that is there with the same key
/// was read twice. One whose key has another text is another row, which the destination's own key
/// refuses.
pub fn insert_more(stage: &TableName, dest: &TableName, map: &ColumnMap) -> String {
    let there =
        if map.merges_keys { same_key_exactly(map, "s", "d") } else { same_key(map, "s", "d") };
    insert_missing(stage, dest, map, &there)
}

/// Into an empty destination: under a table lock, which nobody who reads rows can be waiting
/// behind.
pub fn insert_all(stage: &TableName, dest: &TableName, map: &ColumnMap) -> String {
    format!(
        "INSERT INTO {} WITH (TABLOCK) ({}) SELECT {} FROM {} AS s",
        dest.local(),
        names(map),
        write_list(map, "s"),
        stage.local()
    )
}

/// An identity cannot be updated: a row that has another one at the source is gone, too, and is
/// inserted anew.
pub fn delete_gone(stage: &TableName, dest: &TableName, map: &ColumnMap) -> String {
    let same_identity: String = map
        .columns
        .iter()
        .enumerate()
        .filter(|(i, column)| column.dest.identity && !map.key.contains(i))
        .map(|(_, column)| format!(" AND {} = d.{}", write(column, "s"), column.name()))
        .collect();
    format!(
        "DELETE d FROM {} AS d WHERE NOT EXISTS (SELECT 1 FROM {} AS s WHERE {}{same_identity})",
        dest.local(),
        stage.local(),
        same_key(map, "s", "d")
    )
}

/// `None` when the key is all there is to a row.
pub fn update_changed(stage: &TableName, dest: &TableName, map: &ColumnMap) -> Option<String> {
    let columns: Vec<_> = updatable(map).collect();
    if columns.is_empty() {
        return None;
    }
    let set: Vec<_> = columns
        .iter()
        .map(|column| format!("d.{} = {}", column.name(), write(column, "s")))
        .collect();
    let differ: Vec<_> =
        columns.iter().map(|column| format!("({})", differs(column, "s", "d"))).collect();
    Some(format!(
        "UPDATE d SET {} FROM {} AS d JOIN {} AS s ON {} WHERE {}",
        set.join(", "),
        dest.local(),
        stage.local(),
        same_key(map, "s", "d"),
        differ.join(" OR ")
    ))
}

pub fn insert_new(stage: &TableName, dest: &TableName, map: &ColumnMap) -> String {
    insert_missing(stage, dest, map, &same_key(map, "s", "d"))
}

fn insert_missing(stage: &TableName, dest: &TableName, map: &ColumnMap, there: &str) -> String {
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM {} AS s WHERE NOT EXISTS (SELECT 1 FROM {} AS d WHERE {})",
        dest.local(),
        names(map),
        write_list(map, "s"),
        stage.local(),
        dest.local(),
        there
    )
}

/// Keys of at most `keys_max` destination rows that are gone at the source, but that rows of
/// `key`'s child table refer to.
pub fn referred_and_gone(
    stage: &TableName,
    dest: &TableName,
    map: &ColumnMap,
    key: &ForeignKey,
    keys_max: usize,
) -> String {
    let staged = stage.local();
    let stays = if key.child_id == key.parent_id {
        // a row that is to go itself refers to nothing any more
        format!(" AND EXISTS (SELECT 1 FROM {staged} AS k WHERE {})", same_key(map, "k", "c"))
    } else {
        String::new()
    };
    format!(
        "{} WHERE NOT EXISTS (SELECT 1 FROM {staged} AS s WHERE {}) AND EXISTS ({}{stays})",
        keys_of(dest, map, keys_max),
        same_key(map, "s", "d"),
        referring(key)
    )
}

/// Keys of at most `keys_max` destination rows that rows of `key`'s child table refer to.
pub fn referred(dest: &TableName, map: &ColumnMap, key: &ForeignKey, keys_max: usize) -> String {
    format!("{} WHERE EXISTS ({})", keys_of(dest, map, keys_max), referring(key))
}

fn keys_of(dest: &TableName, map: &ColumnMap, keys_max: usize) -> String {
    format!("SELECT TOP ({keys_max}) {} FROM {} AS d", dest_key(map, "d"), dest.local())
}

/// The child rows, `c`, that refer to `d`.
fn referring(key: &ForeignKey) -> String {
    let pairs: Vec<_> =
        key.columns.iter().map(|(child, parent)| format!("c.{child} = d.{parent}")).collect();
    format!("SELECT 1 FROM {} AS c WHERE {}", key.child.local(), pairs.join(" AND "))
}

/// Keys of at most `keys_max` staged rows that refer to a row which `key`'s parent table does not
/// have; `None` where a column of the foreign key is not carried, or the table refers to itself
/// (its rows may be staged).
pub fn orphans(
    stage: &TableName,
    map: &ColumnMap,
    key: &ForeignKey,
    keys_max: usize,
) -> Option<String> {
    if key.child_id == key.parent_id {
        return None;
    }
    let mut given = Vec::new();
    let mut same = Vec::new();
    for (child, parent) in &key.columns {
        let column = map.columns.iter().find(|column| column.name() == child)?;
        given.push(format!("s.{} IS NOT NULL", column.staged_name));
        same.push(format!("p.{parent} = {}", write(column, "s")));
    }
    Some(format!(
        "SELECT TOP ({keys_max}) {} FROM {} AS s WHERE {} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {})",
        staged_key(map, "s"),
        stage.local(),
        given.join(" AND "),
        key.parent.local(),
        same.join(" AND ")
    ))
}

/// A plain batch, not sp_executesql: what is set inside that ends with it.
pub fn identity_insert(dest: &TableName, on: bool) -> String {
    format!("SET IDENTITY_INSERT {} {}", dest.local(), if on { "ON" } else { "OFF" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::{ColumnType, Length};
    use crate::tsql::testing::{TABLE, map, stage_name};

    #[test]
    fn the_staging_table() {
        let (map, stage) = (map(), stage_name());
        assert_eq!(
            create_stage(&stage, &map),
            "CREATE TABLE [dbo].[dbaops_dataflow_stage_7] ([c0] int NULL, [c1] nvarchar(20) COLLATE Latin1_General_BIN2 NULL, \
             [c2] decimal(19,4) NULL, [c3] nvarchar(max) COLLATE Latin1_General_CI_AS NULL, [c4] datetimeoffset(7) NULL, \
             [c5] nvarchar(max) COLLATE DATABASE_DEFAULT NULL)"
        );
        assert_eq!(
            index_stage(&stage, &map, KeyRules::Staged),
            "CREATE UNIQUE INDEX [dbaops_dataflow_key] ON [dbo].[dbaops_dataflow_stage_7] ([c0], [c1])"
        );
        assert_eq!(
            has_repeated(&stage, &map, KeyRules::Staged),
            "SELECT CASE WHEN EXISTS (SELECT 1 FROM [dbo].[dbaops_dataflow_stage_7] AS s GROUP BY s.[c0], s.[c1] HAVING COUNT_BIG(*) > 1) \
             THEN 1 ELSE 0 END"
        );
        assert_eq!(
            delete_repeated(&stage, &map),
            "WITH [repeated] AS (SELECT ROW_NUMBER() OVER (PARTITION BY s.[c0], s.[c1] ORDER BY (SELECT NULL)) \
             AS [n] FROM [dbo].[dbaops_dataflow_stage_7] AS s) DELETE FROM [repeated] WHERE [n] > 1"
        );
        assert_eq!(drop_stage(&stage), "DROP TABLE IF EXISTS [dbo].[dbaops_dataflow_stage_7]");
        assert_eq!(truncate(&stage), "TRUNCATE TABLE [dbo].[dbaops_dataflow_stage_7]");
        assert_eq!(delete_all(&stage), "DELETE FROM [dbo].[dbaops_dataflow_stage_7]");
        assert_eq!(delete_some(&stage, 10), "DELETE TOP (10) FROM [dbo].[dbaops_dataflow_stage_7]");
    }

    /// Under the SQL_ collations a code page has other rules than Unicode: what the destination
    /// compares is of its own type.
    #[test]
    fn keys_are_compared_in_the_destinations_type_and_collation() {
        let (stage, dest) = (stage_name(), TABLE());
        let code = ColumnType::VarChar(Length::N(20));
        let mut map = map();
        map.columns[1].dest.ty = code;
        map.columns[1].dest.collation = Some("SQL_Latin1_General_CP1_CI_AS".into());
        let key = "CAST({}[c1] COLLATE SQL_Latin1_General_CP1_CI_AS AS varchar(20))";
        let of = |alias: &str| key.replace("{}", alias);
        assert_eq!(
            add_dest_key(&stage, &map).unwrap(),
            format!("ALTER TABLE [dbo].[dbaops_dataflow_stage_7] ADD [k1] AS ({})", of(""))
        );
        assert_eq!(
            index_stage(&stage, &map, KeyRules::Dest),
            "CREATE UNIQUE INDEX [dbaops_dataflow_dest_key] ON [dbo].[dbaops_dataflow_stage_7] ([c0], [k1])"
        );
        assert!(
            has_repeated(&stage, &map, KeyRules::Dest)
                .contains(&format!("GROUP BY CAST(s.[c0] AS bigint), {} HAVING", of("s.")))
        );
        assert!(
            delete_gone(&stage, &dest, &map).ends_with(&format!(
                "d.[id] = CAST(s.[c0] AS bigint) AND d.[code] = {})",
                of("s.")
            ))
        );
        assert_eq!(
            merged_in_stage(&stage, &map),
            format!(
                "SELECT TOP (1) s.[c0], s.[c1], o.[c0], o.[c1] FROM [dbo].[dbaops_dataflow_stage_7] AS s JOIN [dbo].[dbaops_dataflow_stage_7] AS o \
                 ON CAST(s.[c0] AS bigint) = CAST(o.[c0] AS bigint) AND {} = {} WHERE s.[c0] <> o.[c0] OR s.[c1] <> o.[c1]",
                of("s."),
                of("o.")
            )
        );
        assert_eq!(
            merged_at_dest(&stage, &dest, &map),
            format!(
                "SELECT TOP (1) d.[id], CAST(d.[code] AS nvarchar(20)), s.[c0], s.[c1] FROM [dbo].[dbaops_dataflow_stage_7] AS s \
                 JOIN [sales].[Order]] Details] AS d ON d.[id] = CAST(s.[c0] AS bigint) AND d.[code] = {} \
                 WHERE NOT (CAST(d.[code] AS nvarchar(20)) COLLATE Latin1_General_BIN2 = s.[c1])",
                of("s.")
            )
        );
        map.merges_keys = true;
        assert!(
            insert_more(&stage, &dest, &map).ends_with(&format!(
                "AND d.[code] = {} AND CAST(d.[code] AS nvarchar(20)) COLLATE Latin1_General_BIN2 = s.[c1])",
                of("s.")
            ))
        );
        map.columns[1].dest.collation = Some("Latin1_General_BIN".into());
        assert_eq!(add_dest_key(&stage, &map), None, "compared byte by byte on both sides");
    }

    #[test]
    fn the_source_is_read_in_staged_form() {
        assert_eq!(
            read_source(&TABLE(), &map()),
            "SELECT s.[ID] AS [c0], s.[code] AS [c1], CAST(s.[price] AS decimal(19,4)) AS [c2], CAST(s.[note] AS nvarchar(max)) AS [c3], \
             CAST(s.[at] AS datetimeoffset(7)) AS [c4], CAST(s.[doc] AS nvarchar(max)) AS [c5] FROM [sales].[Order]] Details] AS s"
        );
        assert_eq!(
            [false, true].map(|text| reset_trigger(
                &TABLE(),
                TriggerColumn { column: &Ident::new("resync"), text },
                1000
            )),
            [
                "UPDATE TOP (1000) s SET s.[resync] = 0 FROM [sales].[Order]] Details] AS s WHERE s.[resync] = 1",
                "UPDATE TOP (1000) s SET s.[resync] = 0 FROM [sales].[Order]] Details] AS s WHERE TRY_CAST(s.[resync] AS int) = 1",
            ]
        );
    }

    #[test]
    fn the_swap() {
        let (map, stage, dest) = (map(), stage_name(), TABLE());
        assert_eq!(
            delete_gone(&stage, &dest, &map),
            "DELETE d FROM [sales].[Order]] Details] AS d WHERE NOT EXISTS (SELECT 1 FROM [dbo].[dbaops_dataflow_stage_7] AS s \
             WHERE d.[id] = CAST(s.[c0] AS bigint) AND d.[code] = s.[c1] COLLATE Latin1_General_CI_AS)"
        );
        let mut numbered = map.clone();
        numbered.columns[2].dest.identity = true;
        assert!(
            delete_gone(&stage, &dest, &numbered)
                .ends_with("AND d.[code] = s.[c1] COLLATE Latin1_General_CI_AS AND CAST(s.[c2] AS money) = d.[price])")
        );
        assert_eq!(
            insert_new(&stage, &dest, &map),
            "INSERT INTO [sales].[Order]] Details] ([id], [code], [price], [note], [at], [doc]) SELECT CAST(s.[c0] AS bigint), s.[c1] COLLATE Latin1_General_CI_AS, \
             CAST(s.[c2] AS money), CAST(s.[c3] AS nvarchar(max)), CAST(s.[c4] AS datetimeoffset(3)), CONVERT(xml, s.[c5], 1) \
             FROM [dbo].[dbaops_dataflow_stage_7] AS s WHERE NOT EXISTS (SELECT 1 FROM [sales].[Order]] Details] AS d \
             WHERE d.[id] = CAST(s.[c0] AS bigint) AND d.[code] = s.[c1] COLLATE Latin1_General_CI_AS)"
        );
        assert_eq!(
            insert_all(&stage, &dest, &map).split(" SELECT ").next().unwrap(),
            "INSERT INTO [sales].[Order]] Details] WITH (TABLOCK) ([id], [code], [price], [note], [at], [doc])"
        );
        let update = update_changed(&stage, &dest, &map).unwrap();
        assert_eq!(
            update,
            "UPDATE d SET d.[code] = s.[c1] COLLATE Latin1_General_CI_AS, d.[price] = CAST(s.[c2] AS money), d.[note] = CAST(s.[c3] AS nvarchar(max)), \
             d.[at] = CAST(s.[c4] AS datetimeoffset(3)), d.[doc] = CONVERT(xml, s.[c5], 1) \
             FROM [sales].[Order]] Details] AS d JOIN [dbo].[dbaops_dataflow_stage_7] AS s ON d.[id] = CAST(s.[c0] AS bigint) AND d.[code] = s.[c1] COLLATE Latin1_General_CI_AS \
             WHERE (DATALENGTH(d.[code]) <> DATALENGTH(s.[c1] COLLATE Latin1_General_CI_AS) OR CAST(d.[code] AS varbinary(max)) <> CAST(s.[c1] COLLATE Latin1_General_CI_AS AS varbinary(max)) \
             OR (d.[code] IS NULL AND s.[c1] IS NOT NULL) OR (d.[code] IS NOT NULL AND s.[c1] IS NULL)) \
             OR (d.[price] <> CAST(s.[c2] AS money) OR (d.[price] IS NULL AND s.[c2] IS NOT NULL) OR (d.[price] IS NOT NULL AND s.[c2] IS NULL)) \
             OR (DATALENGTH(CAST(d.[note] AS nvarchar(max))) <> DATALENGTH(CAST(s.[c3] AS nvarchar(max))) \
             OR CAST(CAST(d.[note] AS nvarchar(max)) AS varbinary(max)) <> CAST(CAST(s.[c3] AS nvarchar(max)) AS varbinary(max)) \
             OR (d.[note] IS NULL AND s.[c3] IS NOT NULL) OR (d.[note] IS NOT NULL AND s.[c3] IS NULL)) \
             OR (d.[at] <> CAST(s.[c4] AS datetimeoffset(3)) OR DATEPART(tzoffset, d.[at]) <> DATEPART(tzoffset, CAST(s.[c4] AS datetimeoffset(3))) \
             OR (d.[at] IS NULL AND s.[c4] IS NOT NULL) OR (d.[at] IS NOT NULL AND s.[c4] IS NULL)) \
             OR (DATALENGTH(CAST(d.[doc] AS nvarchar(max))) <> DATALENGTH(CAST(CONVERT(xml, s.[c5], 1) AS nvarchar(max))) \
             OR CAST(CAST(d.[doc] AS nvarchar(max)) AS varbinary(max)) <> CAST(CAST(CONVERT(xml, s.[c5], 1) AS nvarchar(max)) AS varbinary(max)) \
             OR (d.[doc] IS NULL AND s.[c5] IS NOT NULL) OR (d.[doc] IS NOT NULL AND s.[c5] IS NULL))"
        );
        assert_eq!(counts(&stage, &dest).matches("COUNT_BIG(*)").count(), 2);
        assert_eq!(
            identity_insert(&dest, true),
            "SET IDENTITY_INSERT [sales].[Order]] Details] ON"
        );
    }

    #[test]
    fn who_refers_to_whom() {
        let (map, stage, dest) = (map(), stage_name(), TABLE());
        let key = |child: &TableName, parent: &TableName| ForeignKey {
            name: Ident::new("FK"),
            child_id: if *child == dest { 1 } else { 2 },
            child: child.clone(),
            parent_id: if *parent == dest { 1 } else { 2 },
            parent: parent.clone(),
            columns: vec![(Ident::new("id"), Ident::new("id"))],
            acts_on_delete: false,
        };
        let other = TableName::new("shop", "dbo", "Other");
        let referred_to = "FROM [sales].[Order]] Details] AS d WHERE ";
        let referring = "EXISTS (SELECT 1 FROM [dbo].[Other] AS c WHERE c.[id] = d.[id])";
        assert_eq!(
            referred(&dest, &map, &key(&other, &dest), 5),
            format!("SELECT TOP (5) d.[id], d.[code] {referred_to}{referring}")
        );
        assert_eq!(
            referred_and_gone(&stage, &dest, &map, &key(&other, &dest), 5),
            format!(
                "SELECT TOP (5) d.[id], d.[code] {referred_to}NOT EXISTS (SELECT 1 FROM [dbo].[dbaops_dataflow_stage_7] AS s \
                 WHERE d.[id] = CAST(s.[c0] AS bigint) AND d.[code] = s.[c1] COLLATE Latin1_General_CI_AS) AND {referring}"
            )
        );
        assert!(referred_and_gone(&stage, &dest, &map, &key(&dest, &dest), 5).ends_with(
            "c.[id] = d.[id] AND EXISTS (SELECT 1 FROM [dbo].[dbaops_dataflow_stage_7] AS k \
             WHERE c.[id] = CAST(k.[c0] AS bigint) AND c.[code] = k.[c1] COLLATE Latin1_General_CI_AS))"
        ));
        assert_eq!(
            orphans(&stage, &map, &key(&dest, &other), 5).unwrap(),
            "SELECT TOP (5) s.[c0], s.[c1] FROM [dbo].[dbaops_dataflow_stage_7] AS s WHERE s.[c0] IS NOT NULL \
             AND NOT EXISTS (SELECT 1 FROM [dbo].[Other] AS p WHERE p.[id] = CAST(s.[c0] AS bigint))"
        );
        assert_eq!(orphans(&stage, &map, &key(&dest, &dest), 5), None);
    }

    #[test]
    fn a_table_that_is_all_key_has_nothing_to_update() {
        let mut map = map();
        map.columns.truncate(1);
        map.key = vec![0];
        assert_eq!(update_changed(&stage_name(), &TABLE(), &map), None);
    }
}
