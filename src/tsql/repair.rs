//! Repairing rows of a destination that differ from the source: the source's rows of given keys,
//! staged and written.
//!
//! The rows travel as change rows do ([`super::changes`]): into `#changes`, each an insert that has
//! every column, and are written by the statements of a commit group ([`super::apply`]). Keys that
//! the source does not have are deleted by their values as the destination has them, because such a
//! value need not fit the source's type.

use super::{
    apply::{self, StatementOrder},
    changes::{TypeForm, whole_row},
    large::{self, LENGTHS, LargeValues},
    lookup::{self, TableSide},
    netting,
};
use crate::{
    model::{column_map::ColumnMap, name::TableName},
    plan::mask::ColumnCoverage,
};
use std::fmt::Write;

/// Every row of `#changes` is there.
const ALL_THERE: &str = "TRUNCATE TABLE #net;\nINSERT INTO #net ([__$order], [__$operation]) SELECT c.[__$order], 2 FROM #changes AS c;\n";

/// Rows read from the source are complete.
pub fn coverage(map: &ColumnMap) -> ColumnCoverage {
    ColumnCoverage { captured: vec![true; map.columns.len()], ..ColumnCoverage::default() }
}

/// The source's rows with `keys` given keys, whose values are the parameters, in the form of
/// [`super::changes::read`].
pub fn fetch(map: &ColumnMap, source: &TableName, keys: usize) -> String {
    let mut sql = String::from(
        "SELECT CAST(NULL AS binary(10)) AS [__$start_lsn], CAST(NULL AS binary(10)) AS [__$seqval], CAST(2 AS int) AS [__$operation], CAST(NULL AS varbinary(128)) AS [__$update_mask], CAST(NULL AS int) AS [__$command_id]",
    );
    sql.push_str(&whole_row(map, "t"));
    let _ = write!(
        sql,
        "\nFROM {} AS t\n{}",
        source.local(),
        lookup::join_keys(TableSide::Source, map, keys, 0)
    );
    sql
}

/// The statements for the large values of rows in `#changes`, which are found by their keys; `None`
/// where no column can have one.
pub fn large_values(map: &ColumnMap, source: &TableName) -> Option<LargeValues> {
    let columns = map.large_columns();
    if columns.is_empty() {
        return None;
    }
    let from = format!(
        "FROM {} AS t\nWHERE {}",
        source.local(),
        lookup::is_key(TableSide::Source, map, 1)
    );
    let keys: String =
        map.key_columns().map(|column| format!(", c.{}", column.staged_name)).collect();
    Some(LargeValues {
        wanted: format!(
            "SELECT TOP (@P1) c.[__$order], c.{LENGTHS}{keys}\nFROM #changes AS c\nWHERE c.{LENGTHS} IS NOT NULL AND c.[__$order] > @P2\nORDER BY c.[__$order]"
        ),
        columns: columns.into_iter().map(|i| large::pieces(&map.columns[i], "t", &from)).collect(),
        can_change: true,
    })
}

/// Two keys that are one to the destination and would both be there ([`netting::merged`]); the
/// parameters are the values of `gone` keys.
pub fn merged(map: &ColumnMap, dest: &TableName, gone: usize) -> String {
    let gone = (gone > 0).then(|| lookup::any_of(TableSide::Dest, map, gone, 0));
    format!("{ALL_THERE}{}", netting::merged(map, dest, gone.as_deref()))
}

/// The transaction: `@P1` mapping, `@P2` its checkpoint, then the values of `gone` keys to be
/// deleted. `guard` wants `@mapping_id` and `@from`, and undoes it all unless the checkpoint still
/// stands there. Rows come before the guard, as in a commit group: so the two wait for each other's
/// locks in one order.
pub fn transaction(
    map: &ColumnMap,
    dest: &TableName,
    order: StatementOrder,
    gone: usize,
    guard: &str,
) -> String {
    let delete = match gone {
        0 => String::new(),
        // a key that the destination takes for a staged one is not gone: its text is put right
        _ => format!(
            "DELETE t FROM {} AS t\n{}\nWHERE NOT EXISTS (SELECT 1 FROM #changes AS c WHERE {});\n",
            dest.local(),
            lookup::join_keys(TableSide::Dest, map, gone, 2),
            TypeForm::Dest.same_key(map, "t", "c")
        ),
    };
    let rows = apply::statements(map, &coverage(map), dest, TypeForm::Dest, order);
    let rows = match order {
        StatementOrder::UniqueFirst => format!("{delete}{rows}"),
        StatementOrder::ReferencesFirst => format!("{rows}{delete}"),
    };
    format!(
        "DECLARE @mapping_id int = @P1, @from binary(10) = @P2;\nSET XACT_ABORT ON;\n{ALL_THERE}BEGIN TRANSACTION;\n{rows}{guard}COMMIT TRANSACTION;"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsql::testing::{TABLE, golden, keyed};

    #[test]
    fn rows_are_fetched_and_written() {
        golden("mend_fetch.sql", &fetch(&keyed(), &TABLE(), 2));
        golden(
            "repair.sql",
            &transaction(&keyed(), &TABLE(), StatementOrder::UniqueFirst, 2, "-- guard\n"),
        );
        golden("mend_merged.sql", &merged(&keyed(), &TABLE(), 1));
        let turned = transaction(&keyed(), &TABLE(), StatementOrder::ReferencesFirst, 1, "");
        assert!(turned.find("INSERT INTO [sales]").unwrap() < turned.find("DELETE t").unwrap());
        assert!(
            !transaction(&keyed(), &TABLE(), StatementOrder::UniqueFirst, 0, "")
                .contains("DELETE t")
        );
    }
}
