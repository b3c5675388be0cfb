//! Views, procedures, triggers, alias types and schemas.

use super::{already_there, column, place};
use crate::{
    engine::{
        catalog::{
            AliasType, ColumnMeta, Object, ProcedureMeta, SchemaMeta, Securable, TriggerMeta,
            ViewMeta,
        },
        context::Session,
        instance::{Target, Work},
        query,
        scope::{display, find_object, find_table},
    },
    error::{SqlError, SqlResult},
    tsql::ast::{Batch, CreateTrigger, DataType, ObjectName, ProcParam},
};
use sqlparser::ast::Query;
use std::sync::Arc;

/// Where a CREATE, ALTER or CREATE OR ALTER puts its object: (database, schema, the one it
/// replaces). 2714, 208.
fn slot(
    session: &Session,
    work: &Work,
    name: &ObjectName,
    create: bool,
    alter: bool,
    permission: &str,
) -> SqlResult<(i32, i32, Option<Object>)> {
    let state = work.lock();
    let (database, schema) = place(session, &state, name, permission)?;
    let catalog = &state.database(database)?.catalog;
    let old = catalog.find(schema, &name.name).cloned();
    if old.is_none() && catalog.id_of(schema, &name.name).is_some() || (old.is_some() && !alter) {
        return Err(already_there(&name.name));
    }
    if old.is_none() && !create {
        return Err(crate::engine::scope::invalid_object(name));
    }
    Ok((database, schema, old))
}

#[expect(clippy::too_many_arguments, reason = "the parts of the statement")]
pub fn create_view(
    session: &mut Session,
    name: &ObjectName,
    columns: &[String],
    query: &Query,
    alter: bool,
    create: bool,
    schemabinding: bool,
    text: &str,
) -> SqlResult<()> {
    let work = session.work();
    let (database, schema_id, old) = slot(session, &work, name, create, alter, "CREATE VIEW")?;
    let id = match old {
        Some(Object::View(view)) => Some(view.object_id),
        Some(_) => return Err(already_there(&name.name)),
        None => None,
    };
    let described = query::describe(session.as_host(), query)?;
    if !columns.is_empty() && columns.len() != described.len() {
        let text = format!(
            "View or function '{}' has more columns specified than column definitions.",
            display(name)
        );
        return Err(SqlError::new(
            if columns.len() > described.len() { 4502 } else { 4506 },
            16,
            text,
        ));
    }
    let metas: Vec<ColumnMeta> = described
        .iter()
        .enumerate()
        .map(|(at, c)| {
            ColumnMeta::new(
                at as i32 + 1,
                columns.get(at).unwrap_or(&c.column.name),
                c.column.ty,
                c.column.nullable,
            )
        })
        .collect();
    if let Some(at) = metas.iter().position(|c| c.name.is_empty()) {
        let text = format!(
            "Create View or Function failed because no column name was specified for column {}.",
            at + 1
        );
        return Err(SqlError::new(4511, 16, text));
    }
    let now = work.instance.now();
    let mut state = work.lock();
    let object_id = match id {
        Some(id) => id,
        None => state.database_mut(database)?.new_object_id(),
    };
    let view = ViewMeta {
        object_id,
        schema_id,
        name: name.name.clone(),
        column_names: columns.to_vec(),
        columns: metas,
        query: Arc::new(query.clone()),
        text: text.into(),
        schemabinding,
        indexed: false,
        create_date: now,
        modify_date: now,
    };
    state.put_object(work.txn, database, object_id, Some(Object::View(Arc::new(view))));
    Ok(())
}

pub fn create_procedure(
    session: &mut Session,
    name: &ObjectName,
    params: &[ProcParam],
    body: &Batch,
    alter: bool,
    text: &str,
) -> SqlResult<()> {
    let work = session.work();
    let (database, schema_id, old) = slot(session, &work, name, true, alter, "CREATE PROCEDURE")?;
    let now = work.instance.now();
    let mut state = work.lock();
    let object_id = match old {
        Some(Object::Procedure(old)) => old.object_id,
        Some(_) => return Err(already_there(&name.name)),
        None => state.database_mut(database)?.new_object_id(),
    };
    let procedure = ProcedureMeta {
        object_id,
        schema_id,
        name: name.name.clone(),
        params: params.to_vec(),
        body: Arc::new(body.clone()),
        text: text.into(),
        create_date: now,
        modify_date: now,
    };
    state.put_object(work.txn, database, object_id, Some(Object::Procedure(Arc::new(procedure))));
    Ok(())
}

/// A trigger lives in its table's schema. 8197 when there is no such table.
pub fn create_trigger(session: &mut Session, create: &CreateTrigger) -> SqlResult<()> {
    let work = session.work();
    let found = {
        let state = work.lock();
        find_table(session, &state, &create.table).map_err(|e| {
            let text = format!(
                "The object '{}' does not exist or is invalid for this operation.",
                display(&create.table)
            );
            if e.number == 208 { SqlError::new(8197, 16, text) } else { e }
        })?
    };
    let now = work.instance.now();
    let mut state = work.lock();
    state.check_permission(
        &session.login,
        Target::object(found.database, found.table.object_id),
        "ALTER",
    )?;
    let catalog = &state.database(found.database)?.catalog;
    let object_id = match catalog.find(found.table.schema_id, &create.name.name) {
        Some(Object::Trigger(old)) if create.alter => old.object_id,
        Some(_) => return Err(already_there(&create.name.name)),
        None if !create.create => return Err(crate::engine::scope::invalid_object(&create.name)),
        None => state.database_mut(found.database)?.new_object_id(),
    };
    let trigger = TriggerMeta {
        object_id,
        schema_id: found.table.schema_id,
        name: create.name.name.clone(),
        parent: found.table.object_id,
        instead_of: create.instead_of,
        insert: create.insert,
        update: create.update,
        delete: create.delete,
        disabled: false,
        body: Arc::new(create.body.clone()),
        text: create.text.clone(),
        create_date: now,
        modify_date: now,
    };
    state.put_object(work.txn, found.database, object_id, Some(Object::Trigger(Arc::new(trigger))));
    Ok(())
}

pub fn disable_trigger(
    session: &mut Session,
    names: &[String],
    all: bool,
    table: &ObjectName,
) -> SqlResult<()> {
    let work = session.work();
    let found = super::open(session, &work, table)?;
    let mut state = work.lock();
    let triggers = state.database(found.database)?.catalog.triggers_of(found.table.object_id);
    for name in names {
        if !triggers.iter().any(|t| t.name.eq_ignore_ascii_case(name)) {
            return Err(SqlError::new(
                4920,
                16,
                format!(
                    "ALTER TABLE failed because trigger '{name}' on table '{}' does not exist.",
                    found.table.name
                ),
            ));
        }
    }
    for trigger in triggers
        .into_iter()
        .filter(|t| all || names.iter().any(|n| n.eq_ignore_ascii_case(&t.name)))
    {
        let new = TriggerMeta { disabled: true, ..(*trigger).clone() };
        state.put_object(
            work.txn,
            found.database,
            new.object_id,
            Some(Object::Trigger(Arc::new(new))),
        );
    }
    Ok(())
}

/// DROP VIEW, PROCEDURE or TRIGGER; `kind` is the word in the message. 3701.
pub fn drop_objects(
    session: &mut Session,
    names: &[ObjectName],
    if_exists: bool,
    kind: &str,
) -> SqlResult<()> {
    let work = session.work();
    for name in names {
        let mut state = work.lock();
        let object = find_object(session, &state, name)?.filter(|(_, o)| {
            matches!(
                (o, kind),
                (Object::View(_), "view")
                    | (Object::Procedure(_), "procedure")
                    | (Object::Trigger(_), "trigger")
            )
        });
        let Some((database, object)) = object else {
            if if_exists {
                continue;
            }
            let text = format!(
                "Cannot drop the {kind} '{}', because it does not exist or you do not have permission.",
                display(name)
            );
            return Err(SqlError { state: 5, ..SqlError::new(3701, 11, text) });
        };
        state.check_permission(
            &session.login,
            Target::object(database, object.object_id()),
            "ALTER",
        )?;
        state.put_object(work.txn, database, object.object_id(), None);
    }
    Ok(())
}

pub fn create_schema(session: &mut Session, name: &str) -> SqlResult<()> {
    let work = session.work();
    let mut state = work.lock();
    let database = session.database;
    state.check_permission(
        &session.login,
        Target { database, securable: Securable::Database },
        "CREATE SCHEMA",
    )?;
    if state.database(database)?.catalog.schema_named(name).is_some() {
        return Err(already_there(name));
    }
    state.keep_parts(work.txn, database);
    let db = state.database_mut(database)?;
    let id = db.new_schema_id();
    db.catalog.schemas.insert(id, Arc::new(SchemaMeta { id, name: name.into(), owner: 1 }));
    Ok(())
}

/// 15151, 3729.
pub fn drop_schema(session: &mut Session, name: &str, if_exists: bool) -> SqlResult<()> {
    let work = session.work();
    let mut state = work.lock();
    let database = session.database;
    let catalog = &state.database(database)?.catalog;
    let Some(schema) = catalog.schema_named(name).cloned() else {
        if if_exists {
            return Ok(());
        }
        return Err(SqlError::new(
            15151,
            16,
            format!(
                "Cannot drop the schema '{name}', because it does not exist or you do not have permission."
            ),
        ));
    };
    if let Some(object) = catalog.objects.values().find(|o| o.schema_id() == schema.id) {
        return Err(SqlError::new(
            3729,
            16,
            format!(
                "Cannot drop schema '{name}' because it is being referenced by object '{}'.",
                object.name()
            ),
        ));
    }
    state.check_permission(
        &session.login,
        Target { database, securable: Securable::Schema(schema.id) },
        "CONTROL",
    )?;
    state.keep_parts(work.txn, database);
    state.database_mut(database)?.catalog.schemas.remove(&schema.id);
    Ok(())
}

/// CREATE TYPE n FROM base [NULL|NOT NULL]
pub fn create_type(
    session: &mut Session,
    name: &ObjectName,
    base: &DataType,
    nullable: bool,
) -> SqlResult<()> {
    let work = session.work();
    let (ty, _) = column::resolve(session, base, session.collation())?;
    let mut state = work.lock();
    let (database, schema_id) = place(session, &state, name, "CREATE TYPE")?;
    if state.database(database)?.catalog.type_named(schema_id, &name.name).is_some() {
        return Err(SqlError::new(
            219,
            16,
            format!(
                "The type '{}' already exists, or you do not have permission to create it.",
                display(name)
            ),
        ));
    }
    state.keep_parts(work.txn, database);
    let db = state.database_mut(database)?;
    let user_type_id = db.new_type_id();
    db.catalog.types.insert(
        user_type_id,
        Arc::new(AliasType { user_type_id, schema_id, name: name.name.clone(), ty, nullable }),
    );
    Ok(())
}
