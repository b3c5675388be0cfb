//! Source shape × destination shape → the columns to carry, or every reason why not.
//!
//! A sync that starts must end with equal rows, so everything that could make it end otherwise is refused here, before anything is
//! touched, by name and all at once: an operator mends a table once, not once per run.
//!
//! Names match as written first, then without case: which names are one name is the server's catalog collation's business
//! (<https://learn.microsoft.com/sql/relational-databases/databases/database-identifiers>), and Unicode's lower case is the nearest
//! that can be said without asking it. What types fit is in [`convert`](super::convert).

use std::fmt;

use super::convert;
use crate::{
    error::{Error, Kind},
    model::{
        carry::{Carried, Carry},
        name::{Ident, TableName},
        table::{Column, ColumnType, Table, UniqueKey},
    },
};

/// One reason why rows cannot be carried, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(pub String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All of them as one error.
pub fn refusal(source: &TableName, dest: &TableName, mismatches: &[Mismatch]) -> Error {
    let reasons: Vec<_> = mismatches.iter().map(|mismatch| mismatch.0.as_str()).collect();
    Error::new(Kind::Schema, format!("{source} cannot be carried to {dest}: {}", reasons.join("; ")))
}

/// Names are one name as the server's catalog sees them, nearly (see the module's first lines).
pub fn same_name(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}

/// The one of `columns` that `name` means: as written, else without case if that leaves one.
fn find<'a>(columns: &'a [Column], name: &Ident) -> Option<&'a Column> {
    columns.iter().find(|column| column.name == *name).or_else(|| {
        let mut alike = columns.iter().filter(|column| same_name(column.name.as_str(), name.as_str()));
        match (alike.next(), alike.next()) {
            (Some(column), None) => Some(column),
            _ => None,
        }
    })
}

/// Databases that no rows may be brought into.
const RESERVED: [&str; 6] = ["master", "model", "msdb", "tempdb", "resource", "dbaops_dataflow"];

/// May rows be brought to this place at all? `same_instance` is true when source and destination are one server.
pub fn place(source: &Table, dest: &Table, same_instance: bool) -> Vec<Mismatch> {
    let mut refused = Vec::new();
    let database = dest.name.database.as_str();
    if RESERVED.iter().any(|reserved| same_name(reserved, database)) {
        refused.push(Mismatch(format!("{database} is a system database or the control database: rows are never brought there")));
    }
    if same_instance && source.object_id == dest.object_id && same_name(source.name.database.as_str(), database) {
        refused.push(Mismatch("source and destination are the same table".into()));
    }
    refused
}

/// The columns to carry from `source` to `dest` and the key that matches their rows, or everything that is in the way.
pub fn project(source: &Table, dest: &Table, key: &[Ident]) -> Result<Carry, Vec<Mismatch>> {
    let mut refused = Vec::new();
    let mut warnings = Vec::new();
    whole_tables(source, dest, &mut refused, &mut warnings);

    let mut columns = Vec::new();
    for to in &dest.columns {
        let from = find(&source.columns, &to.name);
        match column(from, to, &mut warnings) {
            Ok(Some(carried)) => columns.push(carried),
            Ok(None) => {}
            Err(reason) => refused.push(Mismatch(reason)),
        }
    }
    for from in &source.columns {
        if find(&dest.columns, &from.name).is_none() {
            warnings.push(format!("source column {} is left out: the destination has none of that name", from.name));
        }
    }
    let key = key_of(source, dest, &columns, key, &mut refused);
    if !refused.is_empty() {
        return Err(refused);
    }
    let key_names: Vec<_> = key.iter().filter_map(|&i| columns.get(i)).map(|column: &Carried| column.dest.name.clone()).collect();
    let other_unique_keys = dest.unique_keys.iter().filter(|unique| !same_set(&unique.columns, &key_names)).cloned().collect();
    let identity = columns.iter().any(|column| column.dest.identity);
    Ok(Carry { columns, key, identity, warnings, other_unique_keys })
}

fn whole_tables(source: &Table, dest: &Table, refused: &mut Vec<Mismatch>, warnings: &mut Vec<String>) {
    let mut refuse = |yes: bool, reason: &str| {
        if yes {
            refused.push(Mismatch(reason.into()));
        }
    };
    refuse(source.row_filter, "row-level security filters the source: this login would copy a part of the rows and take it for the whole");
    refuse(dest.row_filter, "row-level security filters the destination: this login cannot see the rows it would have to change");
    refuse(dest.memory_optimized, "the destination is memory-optimized: its rows cannot join the checkpoint's transaction");
    refuse(dest.append_only, "the destination is an append-only ledger table: rows cannot be changed or deleted there");
    refuse(dest.history, "the destination is the history table of another: the server fills it");
    for trigger in &dest.instead_of_triggers {
        refuse(true, &format!("the destination's INSTEAD OF trigger {trigger} would take the rows"));
    }
    for trigger in &dest.after_triggers {
        warnings.push(format!("the destination's trigger {trigger} fires on every row that changes"));
    }
}

/// What becomes of destination column `to`: carried, left alone, or a reason to refuse.
fn column(from: Option<&Column>, to: &Column, warnings: &mut Vec<String>) -> Result<Option<Carried>, String> {
    let filled_by_server = to.computed || to.generated || to.ty == ColumnType::RowVersion;
    if filled_by_server {
        return Ok(None);
    }
    let supplied = to.nullable || to.has_default || to.identity;
    let Some(from) = from else {
        return if supplied {
            Ok(None)
        } else {
            Err(format!("destination column {} is NOT NULL without a default, and the source has none", to.name))
        };
    };
    if from.masked {
        return Err(format!("source column {} is masked for this login (GRANT UNMASK), its values would be copied wrong", from.name));
    }
    if from.encrypted || to.encrypted {
        return Err(format!("column {} is encrypted with Always Encrypted", from.name));
    }
    if from.column_set || to.column_set {
        return Err(format!("column {} is a column set", from.name));
    }
    if from.computed {
        // change tables have NULL for it always, so it cannot be kept right
        if !supplied {
            return Err(format!("source column {} is computed, and the destination's is NOT NULL without a default", from.name));
        }
        warnings.push(format!("source column {} is computed and not carried", from.name));
        return Ok(None);
    }
    if from.nullable && !to.nullable {
        return Err(format!("column {} may be NULL at the source and not at the destination", from.name));
    }
    let staged = convert::staged(from, to).map_err(|reason| format!("column {}: {reason}", from.name))?;
    let collation = to.collation.clone().or_else(|| from.collation.clone());
    Ok(Some(Carried { source: from.clone(), dest: to.clone(), staged, collation }))
}

/// The key's places among the carried columns.
fn key_of(source: &Table, dest: &Table, columns: &[Carried], key: &[Ident], refused: &mut Vec<Mismatch>) -> Vec<usize> {
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
        let Some(place) = columns.iter().position(|carried| carried.source.name == column.name) else {
            // a column that does not fit has been named already
            if find(&dest.columns, &column.name).is_none_or(|to| to.computed || to.generated || to.ty == ColumnType::RowVersion) {
                refused.push(Mismatch(format!("key column {name} is not a column the destination can be given")));
            }
            continue;
        };
        if places.contains(&place) {
            refused.push(Mismatch(format!("key column {name} is named twice")));
        } else if column.nullable {
            refused.push(Mismatch(format!("key column {name} may be NULL at the source")));
        } else {
            places.push(place);
        }
    }
    if refused.len() == before {
        let at = |pick: fn(&Carried) -> &Column| -> Vec<Ident> {
            places.iter().filter_map(|&i| columns.get(i)).map(|column| pick(column).name.clone()).collect()
        };
        for (side, table, names) in [("source", source, at(|c| &c.source)), ("destination", dest, at(|c| &c.dest))] {
            if !is_unique(&table.unique_keys, &names) {
                let listed: Vec<_> = names.iter().map(Ident::to_string).collect();
                refused.push(Mismatch(format!(
                    "the {side} has no primary key, unique constraint or unfiltered unique index on ({})",
                    listed.join(", ")
                )));
            }
        }
    }
    places
}

/// A unique key on these columns, or on some of them, makes them unique.
fn is_unique(unique_keys: &[UniqueKey], columns: &[Ident]) -> bool {
    unique_keys.iter().any(|unique| !unique.columns.is_empty() && unique.columns.iter().all(|column| columns.contains(column)))
}

fn same_set(a: &[Ident], b: &[Ident]) -> bool {
    a.len() == b.len() && a.iter().all(|column| b.contains(column))
}
