//! Netting: the changes of a key within a group of transactions become one effect.
//!
//! This is done in T-SQL, because only the target's types and collations decide which keys are equal
//! ('A', 'a' and 'a ' often are). Per key the last event counts: a delete, or a row that exists. A
//! change of key arrives as a before-image with the old key and an after-image with the new one (or
//! as a delete and an insert): the first deletes, the second inserts.
//!
//! **Resets.** The values of a key's row before a delete, an insert or a change of key are not those
//! of its row afterwards. A column that change rows may lack ([`crate::plan::mask`]) takes its value
//! from the last event that has one *since the key's last reset*; the `__$order` of that event is
//! kept per column. When no event has one, an update leaves the target's value, and an inserted row
//! is completed from the source.
//!
//! **A key that one row gives up and another takes in one transaction.** `UPDATE t SET id = id + 1`
//! may log the new row of key 2 before the old row of key 2: a heap's rows are changed in place, and
//! `__$command_id` is documented only as the order of operations. Read in that order, the last event
//! would delete key 2. So when a key's last event removes a row and the same transaction also added
//! one, rows are counted: the row that existed before (the target knows), plus rows added, minus
//! rows removed. With more added than removed, the key exists.
//!
//! **A key that is set to an equal one** ('a' to 'A', an instant in another time zone) also arrives
//! as a change of key, but it is the same row, which keeps the columns that the change rows lack.
//! Such a pair becomes one update before rows are counted ([`in_place`]).
//!
//! **NULLs that are not values.** A changed key may arrive as a delete and an insert, and Microsoft
//! does not document what the insert has in a large column that was not changed. So a NULL there is
//! not taken as the value when the insert's transaction also deleted a row ([`clear_moved_masks`]).
//! Where rows are read from the source as well, neither is a NULL in a column that is NOT NULL at
//! the source now ([`incomplete`]).
//!
//! **Keys that are equal at the destination and different at the source**
//! ([`ColumnMap::merges_keys`]: 'œ' and 'oe', 'A' and 'a'). Within a group, the row of one text may
//! be added and that of the other removed, in any order, and the last event per destination key is
//! wrong: removing one text does not remove the other. So the changes of such a table are first
//! netted per text ([`per_text`]). It is an error ([`merged`]) when two texts of one destination key
//! exist at the end, or when one exists while the destination has a row of another text that no
//! change removed. Otherwise at most one text per key exists, and only its changes are left to net
//! ([`keep_present`]), or the removal of the text that the destination has. A staging table needs
//! none of this: it compares keys as the source's texts ([`crate::model::column_map::KEY_COLLATION`]).
//!
//! Effects in `#net.__$operation`: 1 the row does not exist, 2 it exists and no earlier value of it
//! is kept, 4 it exists and is updated.

use super::{
    changes::{TypeForm, any_is_null, bit_is_set, equal, key_is_set},
    staging::{other_text, read_dest_key, same_key, same_key_exactly},
};
use crate::{
    model::{column_map::ColumnMap, name::TableName},
    plan::mask::ColumnCoverage,
};
use std::fmt::Write;

/// `__$operation` of an update that set the key to an equal one.
const IN_PLACE: i32 = 5;

/// Turns the before- and after-image of a key that is equal at the target into one update,
/// [`IN_PLACE`].
pub fn in_place(map: &ColumnMap, form: TypeForm) -> String {
    let keys: Vec<_> = map
        .key_columns()
        .map(|column| {
            equal(
                &form.write(column, "b"),
                &form.write(column, "c"),
                column.source.nullable && column.dest.nullable,
            )
        })
        .collect();
    format!(
        "UPDATE c SET [__$operation] = {IN_PLACE}\nFROM #changes AS c\nINNER JOIN #changes AS b ON b.[__$order] = c.[__$order] - 1\nWHERE c.[__$operation] = 4 AND b.[__$operation] = 3 AND b.[__$start_lsn] = c.[__$start_lsn] AND b.[__$seqval] = c.[__$seqval]\n    AND {};\nDELETE b\nFROM #changes AS b\nINNER JOIN #changes AS c ON c.[__$order] = b.[__$order] + 1\nWHERE b.[__$operation] = 3 AND c.[__$operation] = {IN_PLACE};",
        keys.join("\n    AND ")
    )
}

/// Takes away the mask of inserts that may be one half of a moved row and have NULL for a large
/// value: without it the NULL is not believed. `None` where there are no large values.
pub fn clear_moved_masks(map: &ColumnMap, coverage: &ColumnCoverage) -> Option<String> {
    let nulls = any_is_null(
        "c",
        nullable_partial_columns(map, coverage).filter_map(|i| map.columns.get(i)),
    );
    (!nulls.is_empty()).then(|| {
        format!(
            "UPDATE c SET [__$update_mask] = NULL\nFROM #changes AS c\nWHERE c.[__$operation] = 2 AND ({nulls})\n    AND EXISTS (SELECT 1 FROM #changes AS x WHERE x.[__$start_lsn] = c.[__$start_lsn] AND x.[__$operation] = 1);"
        )
    })
}

/// The captured columns whose NULL in an insert is taken for one because of its mask alone.
/// Indexes into [`ColumnMap::columns`].
pub fn nullable_partial_columns<'a>(
    map: &'a ColumnMap,
    coverage: &'a ColumnCoverage,
) -> impl Iterator<Item = usize> + 'a {
    let captured = coverage
        .partial
        .iter()
        .filter(|partial| partial.bit.is_some())
        .map(|partial| partial.column);
    captured.filter(|&i| map.columns.get(i).is_some_and(|column| column.source.nullable))
}

/// Fills `#net` from `#changes`.
pub fn net(
    map: &ColumnMap,
    coverage: &ColumnCoverage,
    target: &TableName,
    form: TypeForm,
) -> String {
    let key: Vec<_> = map.key_columns().map(|column| form.write(column, "c")).collect();
    let over = format!("OVER (PARTITION BY {}", key.join(", "));
    let moved = key_is_set("c", coverage);
    let mut sql = String::from("INSERT INTO #net ([__$order], [__$operation]");
    for i in 0..coverage.partial.len() {
        let _ = write!(sql, ", [__$p{i}]");
    }
    sql.push_str(
        ")\nSELECT CASE w.effect WHEN 2 THEN w.last_put ELSE w.[__$order] END,\n    CASE WHEN w.effect = 4 AND w.last_reset > 0 THEN 2 ELSE w.effect END",
    );
    for i in 0..coverage.partial.len() {
        let _ = write!(sql, ",\n    CASE WHEN w.p{i} >= w.last_reset THEN w.p{i} END");
    }
    let _ = write!(
        sql,
        "\nFROM (\n    SELECT e.*, CASE WHEN e.[__$operation] IN (2, 4, {IN_PLACE}) THEN 4\n        WHEN e.balance >= 0\n            AND e.[__$start_lsn] = (SELECT a.[__$start_lsn] FROM #changes AS a WHERE a.[__$order] = e.last_arrival)\n            AND (e.balance > 0 OR EXISTS (SELECT 1 FROM {} AS d INNER JOIN #changes AS c ON {} WHERE c.[__$order] = e.[__$order]))\n        THEN 2 ELSE 1 END AS effect\n    FROM (\n        SELECT c.[__$order], c.[__$operation], c.[__$start_lsn],\n            ROW_NUMBER() {over} ORDER BY c.[__$order] DESC) AS place,\n            MAX(CASE WHEN c.[__$operation] IN (2, 4, {IN_PLACE}) THEN c.[__$order] END) {over}) AS last_put,\n            MAX(CASE WHEN c.[__$operation] = 2 OR (c.[__$operation] = 4 AND {moved}) THEN c.[__$order] END) {over}) AS last_arrival,\n            MAX(CASE WHEN c.[__$operation] < 4 OR (c.[__$operation] = 4 AND {moved}) THEN c.[__$order] ELSE 0 END) {over}) AS last_reset,\n            SUM(CASE WHEN c.[__$operation] IN (1, 3) THEN -1 WHEN c.[__$operation] = 2 OR (c.[__$operation] = 4 AND {moved}) THEN 1 ELSE 0 END) {over}) AS balance",
        target.local(),
        form.same_key(map, "d", "c"),
    );
    for (i, partial) in coverage.partial.iter().enumerate() {
        match partial.bit {
            Some(bit) => {
                let column = map.columns.get(partial.column);
                let name =
                    column.map(|column| format!("c.{}", column.staged_name)).unwrap_or_default();
                let (set, put) = (bit_is_set("c", bit), "c.[__$operation] = 2");
                let is_known = match column.is_some_and(|column| column.source.nullable) {
                    true => {
                        format!(
                            "({put} AND (c.[__$update_mask] IS NOT NULL OR {name} IS NOT NULL)) OR (c.[__$operation] IN (4, {IN_PLACE}) AND {set})"
                        )
                    }
                    false => format!(
                        "({put} OR (c.[__$operation] IN (4, {IN_PLACE}) AND {set})) AND {name} IS NOT NULL"
                    ),
                };
                let _ = write!(
                    sql,
                    ",\n            MAX(CASE WHEN {is_known} THEN c.[__$order] END) {over}) AS p{i}"
                );
            }
            None => {
                let _ = write!(sql, ",\n            CAST(NULL AS bigint) AS p{i}");
            }
        }
    }
    sql.push_str("\n        FROM #changes AS c\n    ) AS e\n    WHERE e.place = 1\n) AS w;");
    sql
}

/// Fills `#net` with one row per text of a key: there at the end of the group (2) or not (1). Wants
/// a destination.
pub fn per_text(map: &ColumnMap, coverage: &ColumnCoverage, dest: &TableName) -> String {
    let key: Vec<_> = map.key_columns().map(|column| format!("c.{}", column.staged_name)).collect();
    let over = format!("OVER (PARTITION BY {}", key.join(", "));
    let moved = key_is_set("c", coverage);
    format!(
        "INSERT INTO #net ([__$order], [__$operation])\nSELECT e.[__$order], CASE WHEN e.[__$operation] IN (2, 4) THEN 2\n    WHEN e.balance >= 0\n        AND e.[__$start_lsn] = (SELECT a.[__$start_lsn] FROM #changes AS a WHERE a.[__$order] = e.last_arrival)\n        AND (e.balance > 0 OR EXISTS (SELECT 1 FROM {} AS d INNER JOIN #changes AS c ON {} WHERE c.[__$order] = e.[__$order]))\n    THEN 2 ELSE 1 END\nFROM (\n    SELECT c.[__$order], c.[__$operation], c.[__$start_lsn],\n        ROW_NUMBER() {over} ORDER BY c.[__$order] DESC) AS place,\n        MAX(CASE WHEN c.[__$operation] = 2 OR (c.[__$operation] = 4 AND {moved}) THEN c.[__$order] END) {over}) AS last_arrival,\n        SUM(CASE WHEN c.[__$operation] IN (1, 3) THEN -1 WHEN c.[__$operation] = 2 OR (c.[__$operation] = 4 AND {moved}) THEN 1 ELSE 0 END) {over}) AS balance\n    FROM #changes AS c\n) AS e\nWHERE e.place = 1;",
        dest.local(),
        same_key_exactly(map, "c", "d")
    )
}

/// Two keys that are one to the destination and would both be there: the cells of the one and of
/// the other, or no row. Wants [`per_text`]'s `#net`, or one in which all rows of `#changes` are
/// there; `gone`, a condition on the destination's row `t`, says which others go too.
pub fn merged(map: &ColumnMap, dest: &TableName, gone: Option<&str>) -> String {
    let staged = |alias: &str| {
        map.key_columns()
            .map(|column| format!("{alias}.{}", column.staged_name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let there: Vec<_> = map.key_columns().map(|column| read_dest_key(column, "t")).collect();
    let same: Vec<_> = map
        .key_columns()
        .map(|column| {
            format!("{} = {}", TypeForm::Dest.write(column, "a"), TypeForm::Dest.write(column, "b"))
        })
        .collect();
    format!(
        "SELECT TOP (1) {}, {}\nFROM #net AS n\nINNER JOIN #changes AS a ON a.[__$order] = n.[__$order]\nINNER JOIN #changes AS b ON {}\nINNER JOIN #net AS m ON m.[__$order] = b.[__$order]\nWHERE n.[__$operation] = 2 AND m.[__$operation] = 2 AND n.[__$order] < m.[__$order]\nUNION ALL\nSELECT TOP (1) {}, {}\nFROM #net AS n\nINNER JOIN #changes AS a ON a.[__$order] = n.[__$order]\nINNER JOIN {} AS t ON {}\nWHERE n.[__$operation] = 2 AND {}\n    AND NOT EXISTS (SELECT 1 FROM #net AS m INNER JOIN #changes AS b ON b.[__$order] = m.[__$order] WHERE m.[__$operation] = 1 AND {}){};",
        staged("a"),
        staged("b"),
        same.join(" AND "),
        there.join(", "),
        staged("a"),
        dest.local(),
        same_key(map, "a", "t"),
        other_text(map, "a", "t"),
        same_key_exactly(map, "b", "t"),
        gone.map_or(String::new(), |gone| format!("\n    AND NOT ({gone})"))
    )
}

/// Leaves of `#changes` what [`merged`]'s answer, none, makes right to net by the destination's
/// keys: of each, the changes of the text that is there, or of the one that the destination has and
/// that goes.
pub fn keep_present(map: &ColumnMap, dest: &TableName) -> String {
    let text: Vec<_> =
        map.key_columns().map(|column| format!("c.{0} = g.{0}", column.staged_name)).collect();
    let same: Vec<_> = map
        .key_columns()
        .map(|column| {
            format!("{} = {}", TypeForm::Dest.write(column, "p"), TypeForm::Dest.write(column, "g"))
        })
        .collect();
    format!(
        "DELETE c\nFROM #changes AS c\nINNER JOIN #changes AS g ON {}\nINNER JOIN #net AS n ON n.[__$order] = g.[__$order]\nWHERE n.[__$operation] = 1\n    AND (EXISTS (SELECT 1 FROM #net AS m INNER JOIN #changes AS p ON p.[__$order] = m.[__$order] WHERE m.[__$operation] = 2 AND {})\n        OR NOT EXISTS (SELECT 1 FROM {} AS d WHERE {}));\nTRUNCATE TABLE #net;",
        text.join(" AND "),
        same.join(" AND "),
        dest.local(),
        same_key_exactly(map, "g", "d")
    )
}

/// Which rows cannot be written from change rows alone: `@P1` at most so many, after the order
/// `@P2`. Every row where a column is never in change rows, because it may have changed with the
/// others.
pub fn incomplete(
    map: &ColumnMap,
    coverage: &ColumnCoverage,
    target: &TableName,
    form: TypeForm,
) -> Option<String> {
    let required = any_is_null("c", coverage.required.iter().filter_map(|&i| map.columns.get(i)));
    let missing: Vec<_> =
        (0..coverage.partial.len()).map(|i| format!("n.[__$p{i}] IS NULL")).collect();
    let lacks = (!missing.is_empty()).then(|| {
        format!(
            "(({})\n        AND (n.[__$operation] = 2 OR NOT EXISTS (SELECT 1 FROM {} AS d WHERE {})))",
            missing.join(" OR "),
            target.local(),
            form.same_key(map, "d", "c")
        )
    });
    let which = match (lacks, required.is_empty()) {
        _ if coverage.fetches_all() => String::new(),
        (Some(lacks), true) => format!("\n    AND {lacks}"),
        (Some(lacks), false) => format!("\n    AND ({lacks}\n        OR {required})"),
        (None, false) => format!("\n    AND ({required})"),
        (None, true) => return None,
    };
    Some(format!(
        "SELECT TOP (@P1) n.[__$order], c.[__$start_lsn], c.[__$seqval], c.[__$command_id]\nFROM #net AS n\nINNER JOIN #changes AS c ON c.[__$order] = n.[__$order]\nWHERE n.[__$order] > @P2 AND n.[__$operation] IN (2, 4){which}\nORDER BY n.[__$order]"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::mask,
        tsql::testing::{TABLE, capture, golden, keyed, stage_name},
    };

    #[test]
    fn one_effect_per_key() {
        let (map, capture) = (keyed(), capture());
        let coverage = mask::cover(&map, &capture).unwrap();
        golden("net_in_place.sql", &in_place(&map, TypeForm::Dest));
        golden("net_dest.sql", &net(&map, &coverage, &TABLE(), TypeForm::Dest));
        golden("net_staging.sql", &net(&map, &coverage, &stage_name(), TypeForm::Staged));
        golden("net_per_text.sql", &per_text(&map, &coverage, &TABLE()));
        golden("net_merged.sql", &merged(&map, &TABLE(), None));
        golden("net_keep_present.sql", &keep_present(&map, &TABLE()));
        golden(
            "net_incomplete.sql",
            &incomplete(&map, &coverage, &TABLE(), TypeForm::Dest).unwrap(),
        );
        golden("net_halves.sql", &clear_moved_masks(&map, &coverage).unwrap());
    }

    #[test]
    fn rows_that_change_rows_do_not_tell_whole_are_looked_for() {
        let (mut map, mut capture) = (keyed(), capture());
        capture.columns.push(crate::model::capture::CapturedColumn {
            name: crate::model::name::Ident::new("at"),
            ordinal: 4,
            ty: None,
            ..capture.columns[0].clone()
        });
        // one that must have a value: a large one and a small one
        for i in [2, 3] {
            map.columns[i].source.nullable = false;
        }
        let coverage = mask::cover(&map, &capture).unwrap();
        golden("net_required.sql", &net(&map, &coverage, &TABLE(), TypeForm::Dest));
        golden(
            "net_incomplete_required.sql",
            &incomplete(&map, &coverage, &TABLE(), TypeForm::Dest).unwrap(),
        );
        assert!(!clear_moved_masks(&map, &coverage).unwrap().contains("[c3]"));
        map.columns.truncate(3);
        let coverage = mask::cover(&map, &capture).unwrap();
        assert!(
            incomplete(&map, &coverage, &TABLE(), TypeForm::Dest)
                .unwrap()
                .contains("AND (c.[c2] IS NULL)\n")
        );
        assert_eq!(clear_moved_masks(&map, &coverage), None);
    }

    #[test]
    fn a_table_without_partial_columns_needs_no_completing() {
        let (mut map, capture) = (keyed(), capture());
        map.columns.truncate(3);
        let coverage = mask::cover(&map, &capture).unwrap();
        assert_eq!(incomplete(&map, &coverage, &TABLE(), TypeForm::Dest), None);
        assert!(!net(&map, &coverage, &TABLE(), TypeForm::Dest).contains("p0"));
    }

    #[test]
    fn keys_that_may_be_null_are_compared_as_distinct_or_not() {
        let mut map = keyed();
        map.columns[1].source.nullable = true;
        map.columns[1].dest.nullable = true;
        assert_eq!(
            TypeForm::Dest.same_key(&map, "d", "c"),
            "d.[id] = CAST(c.[c0] AS bigint) AND EXISTS (SELECT d.[code] INTERSECT SELECT c.[c1] COLLATE Latin1_General_CI_AS)"
        );
    }
}
