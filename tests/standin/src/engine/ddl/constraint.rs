//! Constraints: keys, foreign keys and checks, with the rules that forbid some of them.

use super::names::auto_name;
use crate::{
    engine::{
        catalog::{CheckMeta, ForeignKeyMeta, IndexMeta, KeyColumn, KeyKind, ObjectId, TableMeta},
        context::Session,
        database::Database,
        dml,
        expr::RowCondition,
        instance::{State, Work},
        scope::{Found, find_table, local_name},
        source::source_columns,
    },
    error::{SqlError, SqlResult},
    tsql::ast::{IndexColumn, ReferentialAction, TableConstraint},
};
use std::{collections::HashMap, sync::Arc};

/// The columns of a key; 1911, and 1919 for those of which no index is (columnstores have no key).
pub fn key_columns(
    meta: &TableMeta,
    columns: &[IndexColumn],
    columnstore: bool,
) -> SqlResult<Vec<KeyColumn>> {
    columns
        .iter()
        .map(|c| {
            let ordinal = meta
                .ordinal_named(&c.name)
                .ok_or_else(|| SqlError::new(1911, 16, format!("Column name '{}' does not exist in the target table or view.", c.name)))?;
            let column = &meta.columns[ordinal];
            if column.ty.is_lob() && !columnstore {
                let text = format!(
                    "Column '{}' in table '{}' is of a type that is invalid for use as a key column in an index.",
                    column.name, meta.name
                );
                return Err(SqlError::new(1919, 16, text));
            }
            Ok(KeyColumn { column_id: column.column_id, ordinal, descending: c.descending })
        })
        .collect()
}

/// The id a new index gets: 1 for the clustered one.
pub fn new_index_id(meta: &TableMeta, clustered: bool) -> i32 {
    if clustered {
        1
    } else {
        meta.indexes.iter().map(|i| i.index_id).max().unwrap_or(1).max(1) + 1
    }
}

/// Adds a PRIMARY KEY or UNIQUE constraint to a description. 1779, 1902, 8111.
fn add_key(
    db: &mut Database,
    meta: &mut TableMeta,
    kind: KeyKind,
    name: Option<&String>,
    clustered: Option<bool>,
    columns: &[IndexColumn],
    new: bool,
) -> SqlResult<()> {
    let primary = kind == KeyKind::PrimaryKey;
    if primary && meta.primary_key().is_some() {
        return Err(SqlError::new(
            1779,
            16,
            format!("Table '{}' already has a primary key defined on it.", meta.name),
        ));
    }
    let clustered = clustered.unwrap_or(primary && meta.clustered().is_none());
    if clustered && let Some(other) = meta.clustered() {
        let text = format!(
            "Cannot create more than one clustered index on table '{}'. Drop the existing clustered index '{}' before creating another.",
            meta.name, other.name
        );
        return Err(SqlError::new(1902, 16, text));
    }
    let key = key_columns(meta, columns, false)?;
    if primary {
        for part in &key {
            let column = &mut meta.columns[part.ordinal];
            if column.nullable && !new {
                return Err(SqlError::new(
                    8111,
                    16,
                    format!(
                        "Cannot define PRIMARY KEY constraint on nullable column in table '{}'.",
                        meta.name
                    ),
                ));
            }
            column.nullable = false;
        }
    }
    let id = db.new_object_id();
    meta.indexes.push(Arc::new(IndexMeta {
        index_id: new_index_id(meta, clustered),
        name: name
            .cloned()
            .unwrap_or_else(|| auto_name(if primary { "PK" } else { "UQ" }, &meta.name, None, id)),
        unique: true,
        clustered,
        kind,
        constraint_id: Some(id),
        system_named: name.is_none(),
        key,
        include: Vec::new(),
        filter: None,
        ignore_dup_key: false,
        disabled: false,
        columnstore: false,
    }));
    Ok(())
}

/// Adds a constraint to a description; answers whether the rows must be rebuilt (a key). `column`:
/// the one it is written on.
#[expect(clippy::too_many_arguments, reason = "where the constraint goes, and how it is written")]
pub fn add(
    session: &Session,
    state: &mut State,
    database: i32,
    meta: &mut TableMeta,
    constraint: &TableConstraint,
    column: Option<i32>,
    not_trusted: bool,
    new: bool,
) -> SqlResult<bool> {
    if let Some(name) = name_of(constraint) {
        let taken = state.database(database)?.catalog.id_of(meta.schema_id, name).is_some();
        let own = meta.constraint_ids().iter().any(|(_, n)| n.eq_ignore_ascii_case(name));
        if (taken || own) && !meta.is_temp() {
            return Err(super::already_there(name));
        }
    }
    match constraint {
        TableConstraint::PrimaryKey { name, clustered, columns } => {
            add_key(
                state.database_mut(database)?,
                meta,
                KeyKind::PrimaryKey,
                name.as_ref(),
                *clustered,
                columns,
                new,
            )?;
            Ok(true)
        }
        TableConstraint::Unique { name, clustered, columns } => {
            add_key(
                state.database_mut(database)?,
                meta,
                KeyKind::Unique,
                name.as_ref(),
                *clustered,
                columns,
                new,
            )?;
            Ok(true)
        }
        TableConstraint::Check { name, expr, text } => {
            let object_id = state.database_mut(database)?.new_object_id();
            let on = column.and_then(|id| meta.column(id)).map(|c| c.name.clone());
            meta.checks.push(Arc::new(CheckMeta {
                object_id,
                name: name.clone().unwrap_or_else(|| {
                    auto_name("CK", &meta.name, on.as_deref().or(Some("")), object_id)
                }),
                system_named: name.is_none(),
                expr: expr.clone(),
                text: super::column::definition(text),
                column_id: column,
                disabled: false,
                not_trusted,
            }));
            Ok(false)
        }
        TableConstraint::ForeignKey { .. } => {
            let fk = foreign_key(session, state, database, meta, constraint, not_trusted)?;
            meta.foreign_keys.push(Arc::new(fk));
            Ok(false)
        }
        TableConstraint::Default { name, expr, text, column, .. } => {
            let at = meta.ordinal_named(column).ok_or_else(|| {
                SqlError::new(1752, 16, format!("Column '{column}' in table '{}' is invalid for creating a default constraint.", meta.name))
            })?;
            if meta.columns[at].default.is_some() {
                return Err(SqlError::new(1781, 16, "Column already has a DEFAULT bound to it."));
            }
            let default = super::column::default(
                state.database_mut(database)?,
                &meta.name,
                column,
                name.as_ref(),
                expr,
                text,
            );
            meta.columns[at].default = Some(default);
            Ok(false)
        }
    }
}

fn name_of(constraint: &TableConstraint) -> Option<&String> {
    match constraint {
        TableConstraint::PrimaryKey { name, .. }
        | TableConstraint::Unique { name, .. }
        | TableConstraint::ForeignKey { name, .. }
        | TableConstraint::Check { name, .. }
        | TableConstraint::Default { name, .. } => name.as_ref(),
    }
}

fn foreign_key(
    session: &Session,
    state: &mut State,
    database: i32,
    meta: &TableMeta,
    constraint: &TableConstraint,
    not_trusted: bool,
) -> SqlResult<ForeignKeyMeta> {
    let TableConstraint::ForeignKey {
        name,
        columns,
        references,
        referenced_columns,
        on_delete,
        on_update,
    } = constraint
    else {
        return Err(SqlError::unsupported("this as a foreign key"));
    };
    let object_id = state.database_mut(database)?.new_object_id();
    let system_named = name.is_none();
    let name = name.clone().unwrap_or_else(|| {
        auto_name("FK", &meta.name, columns.first().map(String::as_str), object_id)
    });
    let parent = if references.name.eq_ignore_ascii_case(&meta.name)
        && meta.object_id != 0
        && find_table(session, state, references).is_err()
    {
        Arc::new(meta.clone())
    } else {
        match find_table(session, state, references) {
            Ok(found) if found.database == database => found.table,
            Ok(_) => {
                return Err(SqlError::new(
                    1763,
                    16,
                    format!(
                        "Cross-database foreign key references are not supported. Foreign key '{}'.",
                        references.name
                    ),
                ));
            }
            Err(_) => {
                let text = format!(
                    "Foreign key '{name}' references invalid table '{}'.",
                    crate::engine::scope::display(references)
                );
                return Err(SqlError::new(1767, 16, text));
            }
        }
    };
    let parent = if parent.object_id == meta.object_id { Arc::new(meta.clone()) } else { parent };
    let mut own = Vec::new();
    for column in columns {
        let found = meta.column_named(column).ok_or_else(|| {
            SqlError::new(
                1769,
                16,
                format!("Foreign key '{name}' references invalid column '{column}' in referencing table '{}'.", meta.name),
            )
        })?;
        own.push(found.column_id);
    }
    let mut theirs = Vec::new();
    if referenced_columns.is_empty() {
        let Some(key) = parent.primary_key() else {
            return Err(SqlError::new(
                1773,
                16,
                format!(
                    "Foreign key '{name}' has implicit reference to object '{}' which does not have a primary key defined on it.",
                    parent.name
                ),
            ));
        };
        theirs.extend(key.key.iter().map(|k| k.column_id));
    }
    for column in referenced_columns {
        let found = parent.column_named(column).ok_or_else(|| {
            SqlError::new(
                1770,
                16,
                format!("Foreign key '{name}' references invalid column '{column}' in referenced table '{}'.", parent.name),
            )
        })?;
        theirs.push(found.column_id);
    }
    if own.len() != theirs.len() {
        return Err(SqlError::new(
            8139,
            16,
            format!(
                "Number of referencing columns in foreign key differs from number of referenced columns, table '{}'.",
                meta.name
            ),
        ));
    }
    let unique = parent.indexes.iter().find(|i| {
        i.unique
            && !i.disabled
            && i.filter.is_none()
            && i.key.len() == theirs.len()
            && i.key.iter().all(|k| theirs.contains(&k.column_id))
    });
    let Some(unique) = unique else {
        let text = format!(
            "There are no primary or candidate keys in the referenced table '{}' that match the referencing column list in the foreign key '{name}'.",
            local_name(state, database, &parent)
        );
        return Err(SqlError::new(1776, 16, text));
    };
    for (a, b) in own.iter().zip(&theirs) {
        let (Some(a), Some(b)) = (meta.column(*a), parent.column(*b)) else { continue };
        if a.ty != b.ty && std::mem::discriminant(&a.ty) != std::mem::discriminant(&b.ty) {
            let text = format!(
                "Column '{}.{}' is not the same data type as referencing column '{}.{}' in foreign key '{name}'.",
                parent.name, b.name, meta.name, a.name
            );
            return Err(SqlError::new(1778, 16, text));
        }
    }
    let fk = ForeignKeyMeta {
        object_id,
        name,
        system_named,
        columns: own,
        referenced_table: parent.object_id,
        referenced_columns: theirs,
        key_index_id: unique.index_id,
        on_delete: *on_delete,
        on_update: *on_update,
        disabled: false,
        not_trusted,
    };
    check_paths(state, database, meta, &fk)?;
    Ok(fk)
}

/// 1785: deleting (or updating) a row may reach every table by one path only, and never come back.
fn check_paths(
    state: &State,
    database: i32,
    meta: &TableMeta,
    new: &ForeignKeyMeta,
) -> SqlResult<()> {
    let actions: [fn(&ForeignKeyMeta) -> ReferentialAction; 2] = [|f| f.on_delete, |f| f.on_update];
    for action in actions {
        if action(new) == ReferentialAction::NoAction {
            continue;
        }
        let mut edges: HashMap<ObjectId, Vec<ObjectId>> = HashMap::new();
        for table in
            state.database(database)?.catalog.tables().filter(|t| t.object_id != meta.object_id)
        {
            for fk in table.foreign_keys.iter().filter(|f| action(f) != ReferentialAction::NoAction)
            {
                edges.entry(fk.referenced_table).or_default().push(table.object_id);
            }
        }
        for fk in meta
            .foreign_keys
            .iter()
            .map(AsRef::as_ref)
            .chain([new])
            .filter(|f| action(f) != ReferentialAction::NoAction)
        {
            edges.entry(fk.referenced_table).or_default().push(meta.object_id);
        }
        let ambiguous = edges.keys().any(|start| {
            let mut seen = vec![*start];
            let mut open = vec![*start];
            while let Some(at) = open.pop() {
                for next in edges.get(&at).into_iter().flatten() {
                    if seen.contains(next) {
                        return true;
                    }
                    seen.push(*next);
                    open.push(*next);
                }
            }
            false
        });
        if ambiguous {
            let text = format!(
                "Introducing FOREIGN KEY constraint '{}' on table '{}' may cause cycles or multiple cascade paths. Specify ON DELETE NO ACTION or ON \
                 UPDATE NO ACTION, or modify other FOREIGN KEY constraints.",
                new.name, meta.name
            );
            return Err(SqlError::new(1785, 16, text));
        }
    }
    Ok(())
}

/// Looks at the rows that are there: 547 for one a new (or re-enabled) constraint does not allow.
pub fn validate(
    session: &Session,
    work: &Work,
    found: &Found,
    checks: &[Arc<CheckMeta>],
    keys: &[Arc<ForeignKeyMeta>],
) -> SqlResult<()> {
    let columns = source_columns(&found.table);
    let rows = super::visible_rows(work, found);
    for check in checks {
        let condition =
            RowCondition::bind(session.as_host(), &check.expr, &[(&found.table.name, &columns)])?;
        for row in &rows {
            if condition.evaluate(session.as_host(), &[row])? == Some(false) {
                let state = work.lock();
                let column = check
                    .column_id
                    .and_then(|id| found.table.column(id))
                    .map_or(String::new(), |c| format!(", column '{}'", c.name));
                return Err(SqlError::new(
                    547,
                    16,
                    format!(
                        "The ALTER TABLE statement conflicted with the CHECK constraint \"{}\". The conflict occurred in database \"{}\", table \"{}\"{column}.",
                        check.name,
                        state.database(found.database)?.name,
                        local_name(&state, found.database, &found.table)
                    ),
                ));
            }
        }
    }
    if !keys.is_empty() && !rows.is_empty() {
        dml::check_foreign_keys(session, work, found, keys, &rows)?;
    }
    Ok(())
}
