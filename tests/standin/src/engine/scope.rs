//! The session as DML and DDL see it, and how they find the objects a statement names.

use crate::{
    engine::{
        catalog::{Object, ObjectId, TableMeta, TriggerMeta},
        context::{Session, TriggerRows},
        database::TEMPDB,
        instance::{State, Work},
        interpreter::trigger,
        lock::TableId,
        query::host::{Host, Row, SourceColumn},
        source::{RowsSource, source_columns},
    },
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    tsql::ast::ObjectName,
};
use std::sync::Arc;

/// A trigger about to run.
pub struct Firing {
    pub trigger: Arc<TriggerMeta>,
    pub database: i32,
    pub table: Arc<TableMeta>,
    pub inserted: Arc<Vec<Arc<Row>>>,
    pub deleted: Arc<Vec<Arc<Row>>>,
    /// what the statement counted: the trigger body's first @@ROWCOUNT
    pub rows: u64,
}

impl Session {
    pub fn as_host(&self) -> &dyn Host {
        self
    }

    /// The running statement's work. DML and DDL run inside [`Session::statement`], so it is there;
    /// without one nothing can be written (there is no transaction 0).
    pub fn work(&self) -> Work {
        self.work.clone().unwrap_or_else(|| Work {
            instance: self.instance.clone(),
            spid: self.spid,
            txn: 0,
            isolation: self.options.isolation,
            lock_timeout_ms: self.options.lock_timeout_ms,
            deadlock_priority: self.options.deadlock_priority,
            cancel: self.info.cancel.clone(),
            statement_snapshot: Arc::default(),
            read_only_intent: self.info.read_only_intent,
            target: None,
        })
    }

    pub fn set_last_identity(&mut self, value: i128) {
        self.frame_mut().identity = Some(value);
    }

    /// Is this trigger running now? Triggers do not fire themselves: RECURSIVE_TRIGGERS is off.
    pub fn is_firing(&self, trigger: ObjectId) -> bool {
        self.frames.iter().any(|f| f.object == Some(trigger))
    }

    /// Runs a trigger's body with `inserted` and `deleted`.
    pub fn fire(&mut self, firing: &Firing, sink: &mut dyn Sink) -> SqlResult<()> {
        let source = |name: &str, rows: &Arc<Vec<Arc<Row>>>| {
            Arc::new(RowsSource {
                name: ObjectName { database: None, schema: None, name: name.into() },
                columns: source_columns(&firing.table)
                    .into_iter()
                    .map(|c| SourceColumn { nullable: true, ..c })
                    .collect(),
                rows: rows.clone(),
            })
        };
        let rows = TriggerRows {
            inserted: source("inserted", &firing.inserted),
            deleted: source("deleted", &firing.deleted),
        };
        let (trigger, database) = (&firing.trigger, firing.database);
        let outer = std::mem::replace(&mut self.database, database);
        let result = trigger::fire(
            self,
            (&trigger.name, trigger.object_id),
            &trigger.body,
            rows,
            firing.rows,
            sink,
        );
        self.database = outer;
        result
    }
}

/// A table found by name.
#[derive(Clone)]
pub struct Found {
    pub database: i32,
    pub table: Arc<TableMeta>,
}

impl Found {
    pub fn id(&self) -> TableId {
        (self.database, self.table.object_id)
    }
}

pub fn display(name: &ObjectName) -> String {
    let parts = [name.database.as_deref(), name.schema.as_deref(), Some(name.name.as_str())];
    let first = parts.iter().position(Option::is_some).unwrap_or(2);
    parts[first..].iter().map(|p| p.unwrap_or("")).collect::<Vec<_>>().join(".")
}

pub fn invalid_object(name: &ObjectName) -> SqlError {
    SqlError::new(208, 16, format!("Invalid object name '{}'.", display(name)))
}

/// Finds any object a statement may name: temp tables first for `#` names, then the catalog.
pub fn find_object(
    session: &Session,
    state: &State,
    name: &ObjectName,
) -> SqlResult<Option<(i32, Object)>> {
    if name.name.starts_with('#') && !name.name.starts_with("##") {
        let Some(id) = session.temp_table_in(state, &name.name) else { return Ok(None) };
        return Ok(state.database(TEMPDB)?.catalog.object(id).map(|o| (TEMPDB, o.clone())));
    }
    let login = session.login.clone();
    let current = if name.name.starts_with("##") { TEMPDB } else { session.database };
    let database = match &name.database {
        Some(database) => state.open_database(&login, database)?,
        None => current,
    };
    let schema = state.default_schema(&login, database);
    let local = ObjectName { database: None, schema: name.schema.clone(), name: name.name.clone() };
    Ok(state
        .resolve(database, &schema, &local)
        .map(|(database, object)| (database, object.clone())))
}

/// 208 when there is no such table.
pub fn find_table(session: &Session, state: &State, name: &ObjectName) -> SqlResult<Found> {
    match find_object(session, state, name)? {
        Some((database, Object::Table(table))) => Ok(Found { database, table }),
        Some((_, Object::View(_))) => Err(SqlError::unsupported(format!(
            "changing rows or structure through the view {}",
            display(name)
        ))),
        Some((_, Object::Procedure(_) | Object::Trigger(_))) | None => Err(invalid_object(name)),
    }
}

/// `database.schema.table`, as error texts have it.
pub fn full_name(state: &State, database: i32, table: &TableMeta) -> String {
    let db = state.databases.get(&database);
    let schema = db.map_or("dbo", |d| d.catalog.schema_name(table.schema_id));
    format!("{}.{schema}.{}", db.map_or("", |d| d.name.as_str()), table.name)
}

/// `schema.table`
pub fn local_name(state: &State, database: i32, table: &TableMeta) -> String {
    let schema =
        state.databases.get(&database).map_or("dbo", |d| d.catalog.schema_name(table.schema_id));
    format!("{schema}.{}", table.name)
}
