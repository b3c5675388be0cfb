//! Questions about many tables at once: one statement per source database, whatever the number of
//! mappings.
//!
//! Every branch of a probe is an EXISTS that stops at its first row, numbered, and only the ones
//! that found something come back. The text depends on the list of tables alone, so it stays the
//! same from tick to tick.

use crate::model::{
    capture::Instance,
    name::{Ident, TableName},
};

/// Branches of one statement.
pub const BRANCHES_MAX: usize = 400;

/// Milliseconds that a statement about many tables waits for a lock: longer than capture usually
/// holds its own, and short beside the 10 s between two polls.
pub const LOCK_TIMEOUT_MS: u32 = 1_000;

/// Milliseconds that a statement about one table waits for a lock. It is asked alone because it
/// was locked a moment ago, and many may be.
pub const LOCK_TIMEOUT_ALONE_MS: u32 = 100;

/// One branch of [`probe`]: rows of `instance` above its own parameter.
#[derive(Clone, Debug)]
pub struct WatchedInstance<'a> {
    pub instance: &'a Instance,
    /// The trigger column, where the instance captures it.
    pub trigger: Option<TriggerColumn<'a>>,
}

/// A trigger column.
#[derive(Clone, Copy, Debug)]
pub struct TriggerColumn<'a> {
    pub column: &'a Ident,
    /// It holds text, which may be no number: compared as it is, one such row would be an error of
    /// the whole statement (245).
    pub text: bool,
}

impl TriggerColumn<'_> {
    /// That it is set, in the row `alias`. TRY_CAST is there at every compatibility level; a number
    /// is compared as it is, so that an index serves.
    pub fn is_set(self, alias: &str) -> String {
        let column = self.column;
        if self.text {
            format!("TRY_CAST({alias}.{column} AS int) = 1")
        } else {
            format!("{alias}.{column} = 1")
        }
    }
}

/// `@P1` is U, `@P2` the first instance's checkpoint, and so on. Rows: the instance's number, and 0
/// for any change or 1 for a change that leaves the trigger column at 1.
pub fn probe(watched: &[WatchedInstance<'_>]) -> String {
    let mut branches = Vec::new();
    for (i, WatchedInstance { instance, trigger }) in watched.iter().enumerate() {
        let window = format!(
            "FROM {} AS c WHERE c.[__$start_lsn] > @P{} AND c.[__$start_lsn] <= @P1",
            instance.change_table(),
            i + 2
        );
        branches.push(format!("SELECT {i} AS item, 0 AS what WHERE EXISTS (SELECT 1 {window})"));
        if let Some(trigger) = trigger {
            branches.push(format!(
                "SELECT {i} AS item, 1 AS what WHERE EXISTS (SELECT 1 {window} AND c.[__$operation] IN (2, 4) AND {})",
                trigger.is_set("c")
            ));
        }
    }
    with_lock_timeout(watched.len(), &branches)
}

/// When the oldest change above each instance's own parameter (`@P1`, `@P2`, …) was committed, by
/// the source's local time (style 121).
pub fn oldest(instances: &[&Instance]) -> String {
    let branches: Vec<_> = instances
        .iter()
        .enumerate()
        .map(|(i, instance)| {
            format!(
                "SELECT {i} AS item, CONVERT(nvarchar(30), t.tran_end_time, 121) AS committed FROM cdc.lsn_time_mapping AS t WHERE t.start_lsn = (SELECT MIN(c.[__$start_lsn]) FROM {} AS c WHERE c.[__$start_lsn] > @P{})",
                instance.change_table(),
                i + 1
            )
        })
        .collect();
    with_lock_timeout(instances.len(), &branches)
}

/// A statement that waits briefly for locks. What SET says ends with the statement, because the
/// driver runs it by `sp_executesql`.
/// <https://learn.microsoft.com/sql/t-sql/statements/set-statements-transact-sql#considerations-when-you-use-the-set-statements>
fn with_lock_timeout(tables: usize, branches: &[String]) -> String {
    let timeout = if tables > 1 { LOCK_TIMEOUT_MS } else { LOCK_TIMEOUT_ALONE_MS };
    format!("SET LOCK_TIMEOUT {timeout};\n{}", branches.join("\nUNION ALL\n"))
}

/// One table of [`triggers`].
#[derive(Clone, Copy, Debug)]
pub struct AskedTable<'a> {
    pub table: &'a TableName,
    pub trigger: TriggerColumn<'a>,
    /// Rows that another session has locked are passed over; the next poll sees them. Not for
    /// memory-optimized tables, which refuse the hint.
    /// <https://learn.microsoft.com/sql/t-sql/queries/hints-transact-sql-table#readpast>
    pub skips_locked: bool,
}

/// Which of these tables have a row whose trigger column is 1, by number.
pub fn triggers(tables: &[AskedTable<'_>]) -> String {
    let branches: Vec<_> = tables
        .iter()
        .enumerate()
        .map(|(i, AskedTable { table, trigger, skips_locked })| {
            // READPAST is refused where READ_COMMITTED_SNAPSHOT is on, but for this
            let hint = if *skips_locked { " WITH (READPAST, READCOMMITTEDLOCK)" } else { "" };
            format!(
                "SELECT {i} AS item WHERE EXISTS (SELECT 1 FROM {} AS t{hint} WHERE {})",
                table.local(),
                trigger.is_set("t")
            )
        })
        .collect();
    with_lock_timeout(tables.len(), &branches)
}

/// What asking costs: for each table its number, its rows, whether an index leads with the trigger
/// column, whether the change table (if one is given) has that column, and whether the column holds
/// text. Names are parameters: table, trigger, change table, per table in this order from `@P1`.
pub fn trigger_costs(count: usize) -> String {
    let branches: Vec<_> = (0..count)
        .map(|i| {
            let (table, column, change) = (3 * i + 1, 3 * i + 2, 3 * i + 3);
            format!(
                "SELECT {i} AS item,\n    ISNULL((SELECT SUM(p.rows) FROM sys.partitions AS p WHERE p.object_id = OBJECT_ID(@P{table}) AND p.index_id IN (0, 1)), 0) AS table_rows,\n    (SELECT COUNT(*) FROM sys.index_columns AS x INNER JOIN sys.columns AS k ON k.object_id = x.object_id AND k.column_id = x.column_id WHERE x.object_id = OBJECT_ID(@P{table}) AND x.key_ordinal = 1 AND k.name = @P{column}) AS leading,\n    CASE WHEN COL_LENGTH(@P{change}, @P{column}) IS NULL THEN 0 ELSE 1 END AS captured,\n    (SELECT COUNT(*) FROM sys.columns AS f WHERE f.object_id = OBJECT_ID(@P{table}) AND f.name = @P{column} AND {IS_TEXT}) AS is_text,\n    (SELECT COUNT(*) FROM sys.tables AS m WHERE m.object_id = OBJECT_ID(@P{table}) AND m.is_memory_optimized = 1) AS memory_optimized"
            )
        })
        .collect();
    branches.join("\nUNION ALL\n")
}

/// That column `f` of `sys.columns` holds text that can be converted to a number.
const IS_TEXT: &str = "TYPE_NAME(f.system_type_id) IN (N'char', N'varchar', N'nchar', N'nvarchar')";

/// One cell: 1 where column @P2 of table @P1 holds text.
pub fn is_text() -> String {
    format!(
        "SELECT COUNT(*) FROM sys.columns AS f WHERE f.object_id = OBJECT_ID(@P1) AND f.name = @P2 AND {IS_TEXT}"
    )
}

/// One cell: 1 where some row's trigger column, which holds text, is no number.
pub fn has_non_numeric(table: &TableName, trigger: &Ident) -> String {
    format!(
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM {} AS t WHERE {}) THEN 1 ELSE 0 END",
        table.local(),
        no_number(trigger)
    )
}

fn no_number(trigger: &Ident) -> String {
    format!("t.{trigger} IS NOT NULL AND TRY_CAST(t.{trigger} AS int) IS NULL")
}

/// Sets the trigger column to 0 where it is no number.
pub fn clear_non_numeric(table: &TableName, trigger: &Ident) -> String {
    format!(
        "UPDATE t SET t.{trigger} = '0' FROM {} AS t WHERE {}",
        table.local(),
        no_number(trigger)
    )
}

/// One cell about a table whose name is @P1 as well: NULL where it is not there (or this login may
/// not see it), 0 where it is empty, 1 where it has rows. A statement that is not reached is not
/// bound to its tables, so a missing one is no error.
pub fn has_rows(table: &TableName) -> String {
    format!(
        "SET LOCK_TIMEOUT {LOCK_TIMEOUT_ALONE_MS};\nIF OBJECT_ID(@P1, N'U') IS NULL\n    SELECT CAST(NULL AS int) AS has_rows;\nELSE\n    SELECT CASE WHEN EXISTS (SELECT 1 FROM {} AS t) THEN 1 ELSE 0 END AS has_rows;",
        table.local()
    )
}

/// The index that would serve the trigger's question.
pub fn trigger_index(table: &TableName, trigger: &Ident) -> String {
    format!("CREATE INDEX IX_dataflow_trigger ON {} ({trigger}) WHERE {trigger} = 1", table.local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsql::testing::{TABLE, capture, golden};

    #[test]
    fn one_statement_for_many_tables() {
        let (first, column) = (capture().instance, Ident::new("resync"));
        let [trigger, text] = [false, true].map(|text| TriggerColumn { column: &column, text });
        let second = Instance { change_table: Ident::new("other]_CT"), ..first.clone() };
        let watched = [
            WatchedInstance { instance: &first, trigger: Some(trigger) },
            WatchedInstance { instance: &second, trigger: None },
            WatchedInstance { instance: &second, trigger: Some(text) },
        ];
        golden("poll_probe.sql", &probe(&watched));
        let table = TABLE();
        let asked = [(trigger, true), (text, false)].map(|(trigger, skips_locked)| AskedTable {
            table: &table,
            trigger,
            skips_locked,
        });
        golden("poll_triggers.sql", &triggers(&asked));
        golden("poll_trigger_costs.sql", &trigger_costs(2));
        golden(
            "poll_trigger_text.sql",
            &[is_text(), has_non_numeric(&TABLE(), &column), clear_non_numeric(&TABLE(), &column)]
                .join(";\n"),
        );
        golden("poll_has_rows.sql", &has_rows(&TABLE()));
        assert_eq!(
            trigger_index(&TABLE(), &column),
            "CREATE INDEX IX_dataflow_trigger ON [sales].[Order]] Details] ([resync]) WHERE [resync] = 1"
        );
    }
}
