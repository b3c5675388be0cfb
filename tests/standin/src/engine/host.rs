//! The session as queries and expressions see it.

use crate::{
    engine::{
        catalog::Object,
        context::Session,
        database::TEMPDB,
        query::host::{Host, Relation, RowSource, Settings, TableFunction, TableHints},
        source::TableSource,
        views::{self, Viewer},
    },
    error::{SqlError, SqlResult},
    tsql::ast::ObjectName,
    value::{Collation, Length, SqlType, Value},
};
use std::sync::Arc;

/// Every `@@` function.
pub const GLOBALS: &[&str] =
    &["@@ROWCOUNT", "@@TRANCOUNT", "@@SPID", "@@SERVERNAME", "@@LOCK_TIMEOUT"];

impl Session {
    fn rows_of(
        &self,
        database: i32,
        id: i32,
        hints: &TableHints,
    ) -> SqlResult<Option<Arc<dyn RowSource>>> {
        let Some(work) = &self.work else {
            return Err(SqlError::unsupported("reading a table outside of a statement"));
        };
        let state = self.instance.lock();
        let Some(table) = state.table((database, id)).cloned() else { return Ok(None) };
        Ok(Some(Arc::new(TableSource::new(work, &state, database, &table, hints)?)))
    }
}

impl Host for Session {
    fn settings(&self) -> Settings {
        Settings {
            collation: self.collation(),
            ansi_nulls: self.options.ansi_nulls,
            text_bytes_max: usize::try_from(self.options.text_size).ok(),
            concat_null_yields_null: self.options.concat_null_yields_null,
            date_format: self.options.date_format,
            date_first: self.options.date_first,
            now: match self.now.datetime2() {
                Value::DateTime2 { days, ticks } => (days, ticks),
                _ => (0, 0),
            },
        }
    }

    fn variable(&self, name: &str) -> Option<(SqlType, Value)> {
        Session::variable(self, name).map(|v| (v.ty, v.value.clone()))
    }

    fn global(&self, name: &str) -> Option<(SqlType, Value)> {
        crate::usage::used("global", name);
        let int = |n: i64| (SqlType::Int, Value::Int(n));
        let text =
            |s: &str| (SqlType::NVarChar(Length::N(300), self.collation()), Value::Str(s.into()));
        Some(match name {
            "@@ROWCOUNT" => int(self.row_count),
            "@@TRANCOUNT" => int(i64::from(self.reported_tran_count())),
            "@@SPID" => (SqlType::SmallInt, Value::Int(i64::from(self.spid))),
            "@@SERVERNAME" => text(&self.instance.config.server_name),
            "@@LOCK_TIMEOUT" => int(self.options.lock_timeout_ms),
            _ => return None,
        })
    }

    fn check_cancelled(&self) -> SqlResult<()> {
        if self.cancel().is_cancelled() { Err(SqlError::cancelled()) } else { Ok(()) }
    }

    fn relation(&self, name: &ObjectName, hints: &TableHints) -> SqlResult<Option<Relation>> {
        let bare = name.database.is_none() && name.schema.is_none();
        if bare && let Some(rows) = &self.frame().trigger {
            if name.name.eq_ignore_ascii_case("inserted") {
                return Ok(Some(Relation::Rows(rows.inserted.clone())));
            }
            if name.name.eq_ignore_ascii_case("deleted") {
                return Ok(Some(Relation::Rows(rows.deleted.clone())));
            }
        }
        if name.name.starts_with('#') && !name.name.starts_with("##") {
            let Some(id) = self.temp_table(&name.name) else { return Ok(None) };
            return Ok(self.rows_of(TEMPDB, id, hints)?.map(Relation::Rows));
        }
        if let Some(database) = &name.database {
            self.instance.lock().open_database(&self.login, database)?;
        }
        match self.resolve(name) {
            Some((database, Object::Table(table))) => {
                self.check_select(database, table.object_id)?;
                Ok(self.rows_of(database, table.object_id, hints)?.map(Relation::Rows))
            }
            Some((database, Object::View(view))) => {
                self.check_select(database, view.object_id)?;
                let state = self.instance.lock();
                let db = state.database(database)?;
                let own = ObjectName {
                    database: Some(db.name.clone()),
                    schema: Some(db.catalog.schema_name(view.schema_id).to_owned()),
                    name: view.name.clone(),
                };
                let (database, columns, query) =
                    (db.name.clone(), view.column_names.clone(), view.query.clone());
                Ok(Some(Relation::View { database, name: own, columns, query }))
            }
            Some((_, Object::Procedure(_) | Object::Trigger(_))) | None => {
                let viewer = Viewer { login: self.login.clone(), spid: self.spid };
                let database = self.database_of(name);
                Ok(database
                    .and_then(|id| views::find(&self.instance, &viewer, id, name))
                    .map(Relation::Rows))
            }
        }
    }

    fn table_variable(
        &self,
        name: &str,
        hints: &TableHints,
    ) -> SqlResult<Option<Arc<dyn RowSource>>> {
        match Session::table_variable(self, name) {
            Some(id) => self.rows_of(TEMPDB, id, hints),
            None => Ok(None),
        }
    }

    fn table_function(&self, name: &ObjectName) -> SqlResult<Option<Arc<dyn TableFunction>>> {
        if let (Some(work), Some(database)) = (&self.work, self.database_of(name)) {
            for extension in self.instance.extensions {
                let found = (extension.table_function)(work, &self.login, database, name)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    fn named_type(&self, name: &ObjectName) -> SqlResult<Option<SqlType>> {
        Ok(Session::named_type(self, name))
    }

    fn collation(&self, name: &str) -> SqlResult<Option<Collation>> {
        Ok(if name.eq_ignore_ascii_case("database_default") {
            Some(Session::collation(self))
        } else {
            Collation::by_name(name)
        })
    }

    fn function_type(&self, name: &str) -> Option<SqlType> {
        self.instance.extensions.iter().find_map(|extension| (extension.scalar_type)(name))
    }

    fn function(&self, name: &str, args: &[Value]) -> SqlResult<Option<Value>> {
        crate::engine::functions::session_function(self, name, args)
    }
}

impl Session {
    /// The database a name says, or the current one.
    fn database_of(&self, name: &ObjectName) -> Option<i32> {
        match &name.database {
            Some(database) => self.instance.lock().database_named(database).map(|d| d.id),
            None => Some(self.database),
        }
    }

    fn check_select(&self, database: i32, object: i32) -> SqlResult<()> {
        let target = crate::engine::instance::Target::object(database, object);
        self.instance.lock().check_permission(&self.login, target, "SELECT")
    }
}
