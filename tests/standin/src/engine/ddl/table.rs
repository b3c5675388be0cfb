//! CREATE TABLE, table variables, DROP TABLE.

use super::{already_there, column, constraint, index, place};
use crate::{
    engine::{
        catalog::{DBO, Object, ObjectId, TableKind, TableMeta, TemporalMeta},
        context::Session,
        database::TEMPDB,
        instance::Target,
        lock::TableMode,
        row_size,
        scope::{display, find_object},
        storage::TableData,
    },
    error::{SqlError, SqlResult},
    tsql::ast::{CreateTable, ObjectName, TableConstraint},
};
use std::sync::Arc;

/// CREATE TABLE, also for `#temp` tables.
pub fn create_table(session: &mut Session, create: &CreateTable) -> SqlResult<()> {
    let name = &create.name.name;
    let temp = name.starts_with('#') && !name.starts_with("##");
    if temp && session.has_own_temp_table(name) {
        return Err(already_there(name));
    }
    let kind = if temp { TableKind::Temp } else { TableKind::User };
    let id = build(session, create, kind)?;
    if temp {
        session.add_temp_table(name, id);
    }
    Ok(())
}

/// DECLARE @t TABLE (…)
pub fn declare_table(session: &mut Session, name: &str, create: &CreateTable) -> SqlResult<()> {
    let named = CreateTable {
        name: ObjectName { database: None, schema: None, name: name.into() },
        ..create.clone()
    };
    let id = build(session, &named, TableKind::Variable)?;
    session.add_table_variable(name, id);
    Ok(())
}

fn build(session: &Session, create: &CreateTable, kind: TableKind) -> SqlResult<ObjectId> {
    let work = session.work();
    if let Some((option, _)) = create.options.iter().find(|(o, v)| {
        (o.starts_with("LEDGER") || o.starts_with("REMOTE_DATA_ARCHIVE"))
            && !v.eq_ignore_ascii_case("OFF")
    }) {
        return Err(SqlError::unsupported(format!("CREATE TABLE … WITH ({option})")));
    }
    let (database, schema_id, collation) = {
        let state = work.lock();
        if kind == TableKind::User && !create.name.name.starts_with("##") {
            let (database, schema) = place(session, &state, &create.name, "CREATE TABLE")?;
            if state.database(database)?.catalog.id_of(schema, &create.name.name).is_some() {
                return Err(already_there(&create.name.name));
            }
            (database, schema, state.database(database)?.collation)
        } else {
            let of = if kind == TableKind::Variable { session.database } else { TEMPDB };
            (TEMPDB, DBO, state.database(of)?.collation)
        }
    };
    let now = work.instance.now();
    let mut meta = TableMeta {
        object_id: work.lock().database_mut(database)?.new_object_id(),
        schema_id,
        name: create.name.name.clone(),
        kind,
        create_date: now,
        modify_date: now,
        columns: Vec::new(),
        last_column_id: 0,
        indexes: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        temporal: None,
        history_of: None,
        is_tracked_by_cdc: false,
        exact_names: collation.is_case_sensitive(),
        memory_optimized: create
            .options
            .iter()
            .any(|(o, v)| o == "MEMORY_OPTIMIZED" && v.eq_ignore_ascii_case("ON")),
        partitions: 1,
        version: 1,
    };
    for def in &create.columns {
        if meta.ordinal_named(&def.name).is_some() {
            let text = format!(
                "Column names in each table must be unique. Column name '{}' in table '{}' is specified more than once.",
                def.name, meta.name
            );
            return Err(SqlError::new(2705, 16, text));
        }
        meta.last_column_id += 1;
        meta.columns.push(column::column(session, def, meta.last_column_id, collation)?);
    }
    if meta.columns.iter().filter(|c| c.identity.is_some()).count() > 1 {
        return Err(SqlError::new(
            2744,
            16,
            format!(
                "Multiple identity columns specified for table '{}'. Only one identity column per table is allowed.",
                meta.name
            ),
        ));
    }
    column::bind_computed(session, &mut meta, &create.columns)?;
    row_size::check_table(&meta)?;
    let filters: Vec<_> = create
        .indexes
        .iter()
        .map(|i| index::filter(session, &meta, i))
        .collect::<SqlResult<_>>()?;
    let mut state = work.lock();
    for (at, def) in create.columns.iter().enumerate() {
        if let Some((name, expr, text)) = &def.default {
            let default = column::default(
                state.database_mut(database)?,
                &meta.name,
                &def.name,
                name.as_ref(),
                expr,
                text,
            );
            meta.columns[at].default = Some(default);
        }
    }
    let of_columns = create
        .columns
        .iter()
        .enumerate()
        .flat_map(|(at, def)| def.constraints.iter().map(move |c| (Some(at), c)));
    let of_table = create.constraints.iter().map(|c| (None, c));
    // keys before foreign keys, which may reference them in the same table
    let (references, others): (Vec<_>, Vec<_>) = of_columns
        .chain(of_table)
        .partition(|(_, c)| matches!(c, TableConstraint::ForeignKey { .. }));
    for (at, c) in others.into_iter().chain(references) {
        let on = at.map(|at| meta.columns[at].column_id);
        constraint::add(session, &mut state, database, &mut meta, c, on, false, true)?;
    }
    for (create, filter) in create.indexes.iter().zip(filters) {
        index::add(&mut meta, create, filter)?;
    }
    if let Some((start, end)) = &create.period {
        let id = |name: &String| {
            meta.column_named(name)
                .map(|c| c.column_id)
                .ok_or_else(|| SqlError::new(207, 16, format!("Invalid column name '{name}'.")))
        };
        meta.temporal = Some(TemporalMeta { start: id(start)?, end: id(end)?, history: None });
    }
    let versioned = create
        .options
        .iter()
        .find(|(o, v)| o == "SYSTEM_VERSIONING" && v.trim_start().to_uppercase().starts_with("ON"));
    let history = match (versioned, &mut meta.temporal) {
        (Some((_, value)), Some(temporal)) => {
            let object_id = state.database_mut(database)?.new_object_id();
            temporal.history = Some(object_id);
            Some(history_table(&meta, object_id, value))
        }
        (Some(_), None) => {
            return Err(SqlError::new(
                13510,
                16,
                "Cannot set SYSTEM_VERSIONING to ON when SYSTEM_TIME period is not defined.",
            ));
        }
        (None, _) => None,
    };
    for table in [Some(meta.clone()), history].into_iter().flatten() {
        let id = (database, table.object_id);
        let data = TableData::new(&table);
        if table.kind == TableKind::User && database != TEMPDB {
            state.locks.grant_table(id, work.txn, work.spid, TableMode::Schema);
        }
        // A table variable is there before and after any rollback.
        if kind == TableKind::Variable {
            state.database_mut(database)?.catalog.put(id.1, Some(Object::Table(Arc::new(table))));
            state.tables.insert(id, data);
        } else {
            state.put_object(work.txn, database, id.1, Some(Object::Table(Arc::new(table))));
            state.put_data(work.txn, id, Some(data));
        }
    }
    Ok(meta.object_id)
}

/// The history table of a system-versioned one: its columns without keys, constraints and identity.
fn history_table(meta: &TableMeta, object_id: ObjectId, option: &str) -> TableMeta {
    let name = option
        .to_uppercase()
        .find("HISTORY_TABLE")
        .and_then(|at| option[at..].split_once('='))
        .map(|(_, rest)| {
            let name: String =
                rest.trim().chars().take_while(|c| !matches!(c, ',' | ')' | ' ')).collect();
            name.rsplit('.').next().unwrap_or("").trim_matches(['[', ']', '"']).to_string()
        });
    let mut history = meta.clone();
    history.object_id = object_id;
    history.name = name.unwrap_or_else(|| format!("MSSQL_TemporalHistoryFor_{}", meta.object_id));
    history.temporal = None;
    history.history_of = Some(meta.object_id);
    history.indexes.clear();
    history.checks.clear();
    history.foreign_keys.clear();
    for column in &mut history.columns {
        column.identity = None;
        column.default = None;
        column.computed = None;
        column.generated = None;
    }
    history
}

/// DROP TABLE: 3701, 3726 while foreign keys reference it.
pub fn drop_table(session: &mut Session, tables: &[ObjectName], if_exists: bool) -> SqlResult<()> {
    let work = session.work();
    for name in tables {
        let missing = || SqlError {
            state: 5,
            ..SqlError::new(
                3701,
                11,
                format!(
                    "Cannot drop the table '{}', because it does not exist or you do not have permission.",
                    display(name)
                ),
            )
        };
        let mut state = work.lock();
        let (database, table) = match find_object(session, &state, name)? {
            Some((database, Object::Table(table))) => (database, table),
            Some(_) | None if if_exists => continue,
            Some(_) | None => return Err(missing()),
        };
        let id = (database, table.object_id);
        if !table.is_temp() {
            if !state.has_permission(&session.login, Target::object(id.0, id.1), "ALTER") {
                return Err(missing());
            }
            state = work.lock_table(state, id, TableMode::Schema)?;
        }
        let catalog = &state.database(database)?.catalog;
        if catalog.references_to(id.1).iter().any(|(t, _)| t.object_id != id.1) {
            return Err(SqlError::new(
                3726,
                16,
                format!(
                    "Could not drop object '{}' because it is referenced by a FOREIGN KEY constraint.",
                    display(name)
                ),
            ));
        }
        if table.temporal.as_ref().is_some_and(|t| t.history.is_some())
            || table.history_of.is_some()
        {
            let text = format!(
                "Drop table operation failed on table '{}' because it is not a supported operation on system-versioned temporal tables.",
                display(name)
            );
            return Err(SqlError::new(13552, 16, text));
        }
        for trigger in catalog.triggers_of(id.1) {
            state.put_object(work.txn, database, trigger.object_id, None);
        }
        if table.is_tracked_by_cdc {
            for extension in state.extensions {
                (extension.table_dropped)(&mut state, work.txn, database, id.1);
            }
        }
        state.put_object(work.txn, database, id.1, None);
        state.put_data(work.txn, id, None);
        state.put_identity(work.txn, id, None);
    }
    Ok(())
}
