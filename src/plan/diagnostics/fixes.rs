//! Statements that fix tables which do not fit together.

use super::FixTarget;
use crate::{
    model::{
        name::{Ident, TableName},
        table::{Column, ColumnType, Table, collation_word},
    },
    plan::{convert, projection::find},
};

/// What an operator can do about tables whose shapes do not fit. `type_name` says a type as DDL
/// does.
pub struct FixContext<'a> {
    pub source: &'a Table,
    pub dest: &'a Table,
    pub key: &'a [Ident],
    /// The login's user at the source.
    pub source_user: Ident,
    pub type_name: fn(&ColumnType) -> String,
}

impl FixContext<'_> {
    /// Statements that fix what [`crate::plan::projection::project`] refuses, as far as statements can.
    pub fn fixes(&self, at_source: &FixTarget) -> Vec<(FixTarget, String)> {
        let mut fixes = Vec::new();
        for trigger in &self.dest.instead_of_triggers {
            fixes.push((
                FixTarget::Dest,
                self.at_dest(&format!(
                    "DISABLE TRIGGER {}.{trigger} ON {}",
                    self.dest.name.schema,
                    self.dest.name.local()
                )),
            ));
        }
        for to in &self.dest.columns {
            if !(to.computed || to.generated || to.ty == ColumnType::RowVersion) {
                self.column(to, at_source, &mut fixes);
            }
        }
        self.keys(at_source, &mut fixes);
        if self.dest.memory_optimized || self.dest.append_only || self.dest.history {
            fixes.push((
                FixTarget::Manual,
                "Map the source to an ordinary table (table_mappings.dest_table)".to_owned(),
            ));
        }
        fixes
    }

    fn at_dest(&self, statement: &str) -> String {
        format!("USE {}; {statement};", self.dest.name.database)
    }

    fn column(&self, to: &Column, at_source: &FixTarget, fixes: &mut Vec<(FixTarget, String)>) {
        let from = find(&self.source.columns, &to.name);
        let supplied = to.nullable || to.has_default || to.identity;
        let alter = |ty: &ColumnType, collation: Option<&str>, nullable: bool| {
            let collation = collate(collation);
            let null = if nullable { "NULL" } else { "NOT NULL" };
            let table = self.dest.name.local();
            (
                FixTarget::Dest,
                self.at_dest(&format!(
                    "ALTER TABLE {table} ALTER COLUMN {} {}{collation} {null}",
                    to.name,
                    (self.type_name)(ty)
                )),
            )
        };
        let Some(from) = from else {
            if !supplied {
                fixes.push(alter(&to.ty, to.collation.as_deref(), true));
            }
            return;
        };
        if from.masked {
            let grant =
                format!("USE {}; GRANT UNMASK TO {};", self.source.name.database, self.source_user);
            if !fixes.iter().any(|(_, fix)| *fix == grant) {
                fixes.push((at_source.clone(), grant));
            }
        } else if from.encrypted
            || to.encrypted
            || from.column_set
            || to.column_set
            || from.ty == ColumnType::SqlVariant
        {
            let drop = format!("ALTER TABLE {} DROP COLUMN {}", self.dest.name.local(), to.name);
            fixes.push((FixTarget::Dest, self.at_dest(&drop)));
        } else if from.computed {
            if !supplied {
                fixes.push(alter(&to.ty, to.collation.as_deref(), true));
            }
        } else if convert::staged(from, to).is_err() {
            // what holds text keeps its own collation, where the characters are the same
            let collation =
                if to.code_page == from.code_page { to.collation.as_deref() } else { None };
            fixes.push(alter(&from.ty, collation.or(from.collation.as_deref()), from.nullable));
        } else if from.nullable && !to.nullable {
            fixes.push(alter(&to.ty, to.collation.as_deref(), true));
        }
    }

    fn keys(&self, at_source: &FixTarget, fixes: &mut Vec<(FixTarget, String)>) {
        for (table, place) in [(self.source, at_source), (self.dest, &FixTarget::Dest)] {
            let columns: Vec<&Column> =
                self.key.iter().filter_map(|name| find(&table.columns, name)).collect();
            if columns.is_empty() || columns.len() != self.key.len() {
                continue;
            }
            let unique = table.unique_keys.iter().any(|unique| {
                !unique.columns.is_empty()
                    && unique
                        .columns
                        .iter()
                        .all(|name| columns.iter().any(|column| column.name == *name))
            });
            if !unique {
                let names: Vec<_> = columns.iter().map(|column| column.name.to_string()).collect();
                let index = Ident::new(
                    format!("UX_dataflow_{}", table.name.table.as_str())
                        .chars()
                        .take(128)
                        .collect::<String>(),
                );
                let create = format!(
                    "CREATE UNIQUE INDEX {index} ON {} ({})",
                    table.name.local(),
                    names.join(", ")
                );
                fixes.push((place.clone(), format!("USE {}; {create};", table.name.database)));
            }
        }
    }
}

/// ` COLLATE name`, where the name is known and is one: else the column takes the database's.
fn collate(collation: Option<&str>) -> String {
    collation_word(collation).map_or(String::new(), |collation| format!(" COLLATE {collation}"))
}

/// The table that a source's rows fit into, for a destination that has none.
pub fn create_table(
    source: &Table,
    dest: &TableName,
    key: &[Ident],
    type_name: fn(&ColumnType) -> String,
) -> String {
    let carried = source.columns.iter().filter(|from| {
        !(from.computed
            || from.generated
            || from.encrypted
            || from.column_set
            || matches!(from.ty, ColumnType::SqlVariant))
    });
    let mut lines: Vec<String> = carried
        .map(|from| {
            let ty = if from.ty == ColumnType::RowVersion {
                ColumnType::Binary(8)
            } else {
                from.ty.clone()
            };
            let collation = collate(from.collation.as_deref());
            format!(
                "{} {}{collation} {}",
                from.name,
                type_name(&ty),
                if from.nullable { "NULL" } else { "NOT NULL" }
            )
        })
        .collect();
    let names: Vec<_> = key.iter().map(Ident::to_string).collect();
    lines.push(format!("PRIMARY KEY ({})", names.join(", ")));
    format!("USE {}; CREATE TABLE {} ({});", dest.database, dest.local(), lines.join(", "))
}
