//! The key that matches the rows of the two tables.

use super::{Mismatch, find, same_name};
use crate::{
    model::{
        column_map::CarriedColumn,
        name::Ident,
        table::{Column, ColumnType, Table, UniqueKey},
    },
    plan::convert,
};

/// The key's places among the carried columns.
pub(super) fn map_key(
    source: &Table,
    dest: &Table,
    columns: &[CarriedColumn],
    key: &[Ident],
    refused: &mut Vec<Mismatch>,
    warnings: &mut Vec<String>,
) -> Vec<usize> {
    let before = refused.len();
    let mut places = Vec::new();
    if key.is_empty() {
        refused.push(Mismatch("no key column is named".into()));
    }
    for name in key {
        let Some(column) = find(&source.columns, name) else {
            refused.push(Mismatch(format!("key column {name} is not in the source")));
            continue;
        };
        let Some(place) = columns.iter().position(|carried| carried.source.name == column.name)
        else {
            // a column that does not fit has been named already
            if find(&dest.columns, &column.name)
                .is_none_or(|to| to.computed || to.generated || to.ty == ColumnType::RowVersion)
            {
                refused.push(Mismatch(format!(
                    "key column {name} is not a column the destination can be given"
                )));
            }
            continue;
        };
        if places.contains(&place) {
            refused.push(Mismatch(format!("key column {name} is named twice")));
        } else if column.nullable {
            refused.push(Mismatch(format!("key column {name} may be NULL at the source")));
        } else {
            places.push(place);
            if let Some(words) = columns.get(place).and_then(merged_key_warning) {
                warnings.push(words);
            }
        }
    }
    for (i, column) in columns.iter().enumerate() {
        if column.dest.identity && !column.source.identity && !places.contains(&i) {
            refused.push(Mismatch(format!(
                "column {} is an identity at the destination and not at the source: there it may change, and here the server lets nobody change it",
                column.source.name
            )));
        }
    }
    if refused.len() == before {
        check_unique(source, dest, columns, &places, refused);
    }
    places
}

/// Both tables must have a unique key on these columns, or on some of them.
fn check_unique(
    source: &Table,
    dest: &Table,
    columns: &[CarriedColumn],
    places: &[usize],
    refused: &mut Vec<Mismatch>,
) {
    let at = |pick: fn(&CarriedColumn) -> &Column| -> Vec<Ident> {
        places
            .iter()
            .filter_map(|&i| columns.get(i))
            .map(|column| pick(column).name.clone())
            .collect()
    };
    for (side, table, names) in
        [("source", source, at(|c| &c.source)), ("destination", dest, at(|c| &c.dest))]
    {
        if !is_unique(&table.unique_keys, &names) {
            let listed: Vec<_> = names.iter().map(Ident::to_string).collect();
            refused.push(Mismatch(format!(
                "the {side} has no primary key, unique constraint or unfiltered unique index on ({})",
                listed.join(", ")
            )));
        }
    }
}

/// Does the destination compare this column's text by other rules than the source, unless byte by
/// byte? The SQL_ collations have two sets of rules, one for a code page and one for Unicode; the
/// others compare both alike.
/// <https://learn.microsoft.com/sql/relational-databases/collations/collation-and-unicode-support#SQL-collations>
pub(super) fn merges_source_keys(column: &CarriedColumn) -> bool {
    let (Some(from), Some(to)) = (&column.source.collation, &column.dest.collation) else {
        return column.merges();
    };
    let unicode = |column: &Column| {
        matches!(column.ty, ColumnType::NChar(_) | ColumnType::NVarChar(_) | ColumnType::NText)
    };
    let other_rules = to.to_ascii_uppercase().starts_with("SQL_")
        && unicode(&column.source) != unicode(&column.dest);
    column.merges() && (!same_name(from, to) || other_rules)
}

/// What to know about a key of which that is so.
fn merged_key_warning(column: &CarriedColumn) -> Option<String> {
    let type_and_collation = |column: &Column| {
        format!(
            "{} {}",
            convert::type_text(&column.ty),
            column.collation.as_deref().unwrap_or_default()
        )
    };
    merges_source_keys(column).then(|| {
        format!(
            "key column {} is compared as {} at the source and as {} at the destination: two keys that only the source tells apart cannot both \
             be there (give the destination's column the source's type and collation)",
            column.source.name,
            type_and_collation(&column.source),
            type_and_collation(&column.dest)
        )
    })
}

/// A unique key on these columns, or on some of them, makes them unique.
fn is_unique(unique_keys: &[UniqueKey], columns: &[Ident]) -> bool {
    unique_keys.iter().any(|unique| {
        !unique.columns.is_empty() && unique.columns.iter().all(|column| columns.contains(column))
    })
}

pub(super) fn same_set(a: &[Ident], b: &[Ident]) -> bool {
    a.len() == b.len() && a.iter().all(|column| b.contains(column))
}
