//! Writing a commit group: one DELETE, one UPDATE, one INSERT, and the checkpoint, in one
//! transaction and one round trip.
//!
//! DELETE, UPDATE, INSERT is the order in which other unique keys do not get in each other's way: a
//! value is freed before it is taken, and within one statement it may be swapped. A table that
//! references itself wants the opposite order (a new parent first, an old one last). MERGE is not
//! used.

use super::changes::{FETCHED, TypeForm, any_is_null};
use crate::{
    model::{
        column_map::{CarriedColumn, ColumnMap},
        name::TableName,
    },
    plan::mask::ColumnCoverage,
};
use std::fmt::Write;

/// In which order the three statements go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementOrder {
    /// DELETE, UPDATE, INSERT
    UniqueFirst,
    /// INSERT, UPDATE, DELETE
    ReferencesFirst,
}

/// The group's statements, without transaction or checkpoint. `@fetched` says whether the source
/// was asked for rows to complete others.
pub fn statements(
    map: &ColumnMap,
    coverage: &ColumnCoverage,
    target: &TableName,
    form: TypeForm,
    order: StatementOrder,
) -> String {
    let mut sql = completed(map, coverage);
    sql.extend(other_identity(map, target, form));
    let parts = [
        delete(map, target, form),
        update(map, coverage, target, form),
        insert(map, coverage, target, form),
    ];
    match order {
        StatementOrder::UniqueFirst => sql.extend(parts),
        StatementOrder::ReferencesFirst => sql.extend(parts.into_iter().rev()),
    }
    sql
}

/// Puts what was fetched into the places of what change rows do not have. A row that lacks a value
/// which it must have, and was not found at the source, is left as it is: the change that removed
/// it there comes later.
fn completed(map: &ColumnMap, coverage: &ColumnCoverage) -> String {
    // A literal of that size is a numeric, and a bigint compared with a numeric is converted: no
    // index would be used.
    let fetched = format!(
        "INNER JOIN #changes AS f ON f.[__$order] = n.[__$order] + CAST({FETCHED} AS bigint)"
    );
    let mut sql = String::new();
    if !coverage.partial.is_empty() {
        let sets: Vec<_> = (0..coverage.partial.len())
            .map(|i| format!("[__$p{i}] = ISNULL(n.[__$p{i}], f.[__$order])"))
            .collect();
        let _ = writeln!(
            sql,
            "IF @fetched = 1\n    UPDATE n SET {}\n    FROM #net AS n\n    {fetched};",
            sets.join(", ")
        );
    }
    if !coverage.required.is_empty() {
        let required = || coverage.required.iter().filter_map(|&i| map.columns.get(i));
        let nulls = any_is_null("c", required());
        let sets: Vec<_> = required()
            .map(|column| format!("{0} = ISNULL(c.{0}, f.{0})", column.staged_name))
            .collect();
        let _ = writeln!(
            sql,
            "IF @fetched = 1\n    UPDATE c SET {}\n    FROM #net AS n\n    INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]\n    {fetched}\n    WHERE {nulls};\nIF @fetched = 1\n    DELETE n\n    FROM #net AS n\n    INNER JOIN #changes AS c ON c.[__$order] = n.[__$order]\n    WHERE n.[__$operation] IN (2, 4) AND ({nulls});",
            sets.join(", ")
        );
    }
    sql
}

fn joined(map: &ColumnMap, target: &TableName, form: TypeForm) -> String {
    format!(
        "FROM {} AS d\nINNER JOIN #changes AS c ON {}\nINNER JOIN #net AS n ON n.[__$order] = c.[__$order]\n",
        target.local(),
        form.same_key(map, "d", "c")
    )
}

fn delete(map: &ColumnMap, target: &TableName, form: TypeForm) -> String {
    format!("DELETE d\n{}WHERE n.[__$operation] = 1;\n", joined(map, target, form))
}

/// An identity column cannot be updated: a row that came back under its key with another identity
/// is deleted first.
fn other_identity(map: &ColumnMap, target: &TableName, form: TypeForm) -> Option<String> {
    let column = map
        .columns
        .iter()
        .enumerate()
        .find(|(i, column)| column.dest.identity && !map.key.contains(i))?
        .1;
    (form == TypeForm::Dest).then(|| {
        format!(
            "DELETE d\n{}WHERE n.[__$operation] = 2 AND d.{} <> {};\n",
            joined(map, target, form),
            column.name(),
            form.write(column, "c")
        )
    })
}

/// The value of a column that change rows may lack, from the row that has it.
fn found(column: &CarriedColumn, partial: usize, form: TypeForm) -> String {
    format!(
        "WHEN n.[__$p{partial}] = n.[__$order] THEN {} ELSE (SELECT {} FROM #changes AS x WHERE x.[__$order] = n.[__$p{partial}])",
        form.write(column, "c"),
        form.write(column, "x")
    )
}

fn update(
    map: &ColumnMap,
    coverage: &ColumnCoverage,
    target: &TableName,
    form: TypeForm,
) -> String {
    let sets: Vec<_> = map
        .columns
        .iter()
        .enumerate()
        .filter(|(i, column)| form.updates(map, *i, column))
        .map(|(i, column)| match coverage.partial_of(i) {
            None => format!("{} = {}", form.name(column), form.write(column, "c")),
            Some(partial) => format!(
                "{} = CASE WHEN n.[__$p{partial}] IS NULL THEN {} {} END",
                form.name(column),
                form.keep(column, "d"),
                found(column, partial, form)
            ),
        })
        .collect();
    if sets.is_empty() {
        return String::new();
    }
    format!(
        "UPDATE d SET\n    {}\n{}WHERE n.[__$operation] IN (2, 4);\n",
        sets.join(",\n    "),
        joined(map, target, form)
    )
}

fn insert(
    map: &ColumnMap,
    coverage: &ColumnCoverage,
    target: &TableName,
    form: TypeForm,
) -> String {
    let name = target.local();
    let identity = map.identity && form == TypeForm::Dest;
    let mut sql = String::new();
    if identity {
        let _ = writeln!(sql, "SET IDENTITY_INSERT {name} ON;");
    }
    let names: Vec<_> = map.columns.iter().map(|column| form.name(column).to_string()).collect();
    let values: Vec<_> = map
        .columns
        .iter()
        .enumerate()
        .map(|(i, column)| match coverage.partial_of(i) {
            None => form.write(column, "c"),
            Some(partial) => format!("CASE {} END", found(column, partial, form)),
        })
        .collect();
    let complete: String =
        (0..coverage.partial.len()).map(|i| format!(" AND n.[__$p{i}] IS NOT NULL")).collect();
    let _ = writeln!(
        sql,
        "INSERT INTO {name} ({})\nSELECT {}\nFROM #net AS n\nINNER JOIN #changes AS c ON c.[__$order] = n.[__$order]\nWHERE n.[__$operation] IN (2, 4){complete}\n    AND NOT EXISTS (SELECT 1 FROM {name} AS d WHERE {});",
        names.join(", "),
        values.join(",\n    "),
        form.same_key(map, "d", "c")
    );
    if identity {
        let _ = writeln!(sql, "SET IDENTITY_INSERT {name} OFF;");
    }
    sql
}

/// The parameters of both scripts, `@P1` to `@P10`, under their names.
const DECLARE: &str = "DECLARE @fetched bit = @P1, @mapping_id int = @P2, @from binary(10) = @P3, @to binary(10) = @P4, @tran_id varbinary(10) = @P5, @tran_end_time nvarchar(30) = @P6, @resync bit = @P7, @tran_lsn binary(10) = @P8, @source_object nvarchar(50) = @P9, @capture_instance nvarchar(200) = @P10, @rebind bit = 0;\n";

/// The whole transaction for a destination: rows, then the checkpoint in both databases (`checkpoint`:
/// those statements).
pub fn dest_transaction(statements: &str, checkpoint: &str) -> String {
    format!(
        "{DECLARE}SET XACT_ABORT ON;\nBEGIN TRANSACTION;\n{statements}{checkpoint}COMMIT TRANSACTION;\nTRUNCATE TABLE #net;\nTRUNCATE TABLE #changes;"
    )
}

/// The whole transaction for a staging table, which has no checkpoint: nobody reads it before the
/// swap. Wants `@P1` alone.
pub fn staging_transaction(statements: &str) -> String {
    format!(
        "DECLARE @fetched bit = @P1;\nSET XACT_ABORT ON;\nBEGIN TRANSACTION;\n{statements}COMMIT TRANSACTION;\nTRUNCATE TABLE #net;\nTRUNCATE TABLE #changes;"
    )
}

/// A trial of a part of the group, rolled back: the rows of `#net` from `@P2` to `@P3`. Wants
/// `@fetched` as `@P1`.
pub fn trial(statements: &str) -> String {
    format!(
        "DECLARE @fetched bit = @P1;\nSET XACT_ABORT ON;\nBEGIN TRANSACTION;\nDELETE n FROM #net AS n WHERE n.[__$order] < @P2 OR n.[__$order] > @P3;\n{statements}ROLLBACK TRANSACTION;"
    )
}

/// How many rows `#net` has, and their first and last order.
pub const NET_RANGE: &str =
    "SELECT COUNT_BIG(*), MIN(n.[__$order]), MAX(n.[__$order]) FROM #net AS n";

/// The key of the change row whose order is `@P1`.
pub fn key_of(map: &ColumnMap) -> String {
    let names: Vec<_> =
        map.key_columns().map(|column| format!("c.{}", column.staged_name)).collect();
    format!("SELECT {} FROM #changes AS c WHERE c.[__$order] = @P1", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::mask,
        tsql::testing::{TABLE, capture, golden, keyed, stage_name},
    };

    #[test]
    fn a_group_of_the_destination() {
        let (map, capture) = (keyed(), capture());
        let coverage = mask::cover(&map, &capture).unwrap();
        let rows =
            statements(&map, &coverage, &TABLE(), TypeForm::Dest, StatementOrder::UniqueFirst);
        golden("apply_dest.sql", &dest_transaction(&rows, "-- checkpoint and twin\n"));
        let turned =
            statements(&map, &coverage, &TABLE(), TypeForm::Dest, StatementOrder::ReferencesFirst);
        let at = |text: &str, words: &str| text.find(words).unwrap();
        assert!(
            at(&rows, "DELETE d") < at(&rows, "UPDATE d")
                && at(&rows, "UPDATE d") < at(&rows, "INSERT INTO")
        );
        golden("apply_trial.sql", &trial("-- statements\n"));
        assert_eq!(
            key_of(&map),
            "SELECT c.[c0], c.[c1] FROM #changes AS c WHERE c.[__$order] = @P1"
        );
        assert!(
            at(&turned, "INSERT INTO") < at(&turned, "UPDATE d")
                && at(&turned, "UPDATE d") < at(&turned, "DELETE d")
        );
    }

    #[test]
    fn what_must_have_a_value_and_has_none_is_fetched() {
        let (mut map, capture) = (keyed(), capture());
        map.columns.truncate(3);
        map.columns[2].source.nullable = false;
        let coverage = mask::cover(&map, &capture).unwrap();
        golden(
            "apply_required.sql",
            &statements(&map, &coverage, &TABLE(), TypeForm::Dest, StatementOrder::UniqueFirst),
        );
    }

    #[test]
    fn a_group_of_a_staging_table() {
        let (map, capture) = (keyed(), capture());
        let coverage = mask::cover(&map, &capture).unwrap();
        let rows = statements(
            &map,
            &coverage,
            &stage_name(),
            TypeForm::Staged,
            StatementOrder::UniqueFirst,
        );
        golden("apply_staging.sql", &staging_transaction(&rows));
    }

    #[test]
    fn an_identity_key_is_inserted_and_never_updated() {
        let (mut map, capture) = (keyed(), capture());
        map.columns.truncate(1);
        map.key = vec![0];
        map.identity = true;
        map.columns[0].dest.identity = true;
        let coverage = mask::cover(&map, &capture).unwrap();
        let rows =
            statements(&map, &coverage, &TABLE(), TypeForm::Dest, StatementOrder::UniqueFirst);
        golden("apply_identity_key.sql", &rows);
        assert!(!rows.contains("UPDATE d"));
    }

    /// xml with a schema collection beside xml without one is Msg 527 in a CASE, and text, ntext
    /// and image have no place in one.
    #[test]
    fn both_branches_of_a_case_are_of_one_type() {
        let (map, capture) = (keyed(), capture());
        let coverage = mask::cover(&map, &capture).unwrap();
        let rows =
            statements(&map, &coverage, &TABLE(), TypeForm::Dest, StatementOrder::UniqueFirst);
        assert!(rows.contains("WHEN n.[__$p2] IS NULL THEN CAST(d.[doc] AS xml) WHEN"), "{rows}");
        assert!(
            rows.contains("WHEN n.[__$p0] IS NULL THEN CAST(d.[note] AS nvarchar(max)) WHEN"),
            "{rows}"
        );
        // rows of a repair are complete
        let complete = crate::tsql::repair::coverage(&map);
        assert!(
            !statements(&map, &complete, &TABLE(), TypeForm::Dest, StatementOrder::UniqueFirst)
                .contains("CASE")
        );
        let staged = statements(
            &map,
            &coverage,
            &stage_name(),
            TypeForm::Staged,
            StatementOrder::UniqueFirst,
        );
        assert!(!staged.contains("AS xml"), "staged xml is text");
    }

    #[test]
    fn another_identity_makes_another_row() {
        let (mut map, capture) = (keyed(), capture());
        map.columns.truncate(2);
        map.key = vec![1];
        map.identity = true;
        map.columns[0].dest.identity = true;
        let coverage = mask::cover(&map, &capture).unwrap();
        golden(
            "apply_other_identity.sql",
            &statements(&map, &coverage, &TABLE(), TypeForm::Dest, StatementOrder::UniqueFirst),
        );
    }
}
