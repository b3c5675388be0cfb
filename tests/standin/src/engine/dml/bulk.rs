//! Bulk load: INSERT BULK, then rows.
//!
//! What SQL Server's options mean (Microsoft: BULK INSERT, SqlBulkCopyOptions): without
//! CHECK_CONSTRAINTS neither CHECK nor FOREIGN KEY constraints are looked at, and both are not
//! trusted afterwards (PRIMARY KEY, UNIQUE and NOT NULL always hold); without FIRE_TRIGGERS none
//! fires; without KEEP_NULLS a NULL for a column with a default becomes the default; identity
//! values are kept when the load names the identity column and KEEP_IDENTITY, as drivers do it,
//! means naming it: a load that does not is given new ones.

use crate::{
    engine::{
        catalog::Object,
        context::Session,
        dml::{
            foreign_keys,
            prepare::{Prepared, refuse_write},
            triggers::{after_triggers, fire_triggers},
            write::Writer,
        },
        instance::{Target, Work},
        lock::TableMode,
        query::host::Row,
        scope::{Found, find_table, invalid_object},
    },
    error::{SqlError, SqlResult},
    exchange::sink::{Column, Sink},
    tsql::ast::InsertBulk,
    value::{SqlType, Value},
};
use std::sync::Arc;

/// A bulk load that is under way. All of it is one statement.
pub struct BulkLoad {
    found: Found,
    prepared: Prepared,
    work: Work,
    /// ordinals of the incoming columns
    places: Vec<usize>,
    check: bool,
    fire: bool,
    keep_nulls: bool,
    identity_given: bool,
    mark: usize,
    rows: u64,
    fired: Vec<Arc<Row>>,
}

impl BulkLoad {
    /// Opens the table for the columns the load announced. The session's statement (and
    /// transaction) stays open until [`Self::end`].
    pub fn begin(session: &mut Session, bulk: &InsertBulk) -> SqlResult<Self> {
        let work = session.work();
        let option = |name: &str| bulk.options.iter().any(|o| o == name);
        let found = {
            let state = work.lock();
            let found = find_table(session, &state, &bulk.table).map_err(|e| {
                if e.number == 208 {
                    SqlError { state: 1, ..invalid_object(&bulk.table) }
                } else {
                    e
                }
            })?;
            if found.table.is_temp() {
                drop(state);
            } else {
                state.check_permission(
                    &session.login,
                    Target::object(found.database, found.table.object_id),
                    "INSERT",
                )?;
                let mode = if option("TABLOCK") {
                    TableMode::Exclusive
                } else {
                    TableMode::IntentExclusive
                };
                drop(work.lock_table(state, found.id(), mode)?);
            }
            found
        };
        let mut places = Vec::new();
        for (name, _) in &bulk.columns {
            let at = found
                .table
                .ordinal_named(name)
                .ok_or_else(|| SqlError::new(207, 16, format!("Invalid column name '{name}'.")))?;
            refuse_write(&found.table, at, true)?;
            places.push(at);
        }
        let check = option("CHECK_CONSTRAINTS");
        let prepared = Prepared::new(session.as_host(), &work, &found, check)?;
        let mark = work.mark();
        let identity_given = found.table.identity_ordinal().is_some_and(|at| places.contains(&at));
        let mut load = Self {
            prepared,
            places,
            check,
            fire: option("FIRE_TRIGGERS"),
            keep_nulls: option("KEEP_NULLS"),
            identity_given,
            mark,
            rows: 0,
            fired: Vec::new(),
            found,
            work,
        };
        if !check {
            load.distrust()?;
        }
        Ok(load)
    }

    /// Constraints nobody looked at are not trusted.
    fn distrust(&mut self) -> SqlResult<()> {
        let mut state = self.work.lock();
        let id = self.found.id();
        let Some(meta) = state.table(id) else { return Ok(()) };
        let trusted = meta.checks.iter().any(|c| !c.not_trusted)
            || meta.foreign_keys.iter().any(|f| !f.not_trusted);
        if !trusted {
            return Ok(());
        }
        let mut new = (**meta).clone();
        for check in &mut new.checks {
            Arc::make_mut(check).not_trusted = true;
        }
        for fk in &mut new.foreign_keys {
            Arc::make_mut(fk).not_trusted = true;
        }
        state.put_object(self.work.txn, id.0, id.1, Some(Object::Table(Arc::new(new))));
        Ok(())
    }

    pub fn columns(&self) -> Vec<&str> {
        self.places.iter().map(|at| self.prepared.meta.columns[*at].name.as_str()).collect()
    }

    /// Takes rows whose values have the types of `columns` (as announced on the wire).
    pub fn rows(
        &mut self,
        session: &mut Session,
        columns: &[Column],
        rows: Vec<Row>,
    ) -> SqlResult<()> {
        let types: Vec<SqlType> = columns.iter().map(|c| c.ty).collect();
        let width = self.prepared.meta.columns.len();
        let missing: Vec<usize> = (0..width)
            .filter(|at| !self.places.contains(at) && self.prepared.has_default(*at))
            .collect();
        let mut complete = Vec::with_capacity(rows.len());
        for given in rows {
            let mut row: Row = vec![Value::Null; width];
            for ((at, value), ty) in self.places.iter().zip(given).zip(&types) {
                row[*at] = if matches!(value, Value::Null)
                    && !self.keep_nulls
                    && self.prepared.has_default(*at)
                {
                    self.prepared.default_value(session.as_host(), *at)?
                } else {
                    self.prepared.convert(*at, value, *ty)?
                };
            }
            for at in &missing {
                row[*at] = self.prepared.default_value(session.as_host(), *at)?;
            }
            if let Some(identity) = self.prepared.complete_new(
                session.as_host(),
                &self.work,
                &mut row,
                self.identity_given,
            )? {
                session.set_last_identity(identity);
            }
            complete.push(row);
        }
        let (written, _) = Writer::open(&self.work, &self.prepared)?.insert(complete)?;
        if self.check {
            foreign_keys::check_children(&self.work, &self.prepared, &written, "INSERT")?;
        }
        self.rows += written.len() as u64;
        if self.fire {
            self.fired.extend(written);
        }
        Ok(())
    }

    /// All rows are in: fires the triggers, answers the count.
    pub fn end(self, session: &mut Session, sink: &mut dyn Sink) -> SqlResult<u64> {
        if self.fire {
            let after = after_triggers(&self.work, &self.found, |t| t.insert);
            fire_triggers(
                session,
                &self.found,
                &after,
                Arc::new(self.fired),
                Arc::default(),
                self.rows,
                sink,
            )?;
        }
        Ok(self.rows)
    }

    /// Nothing of it stays.
    pub fn abort(self) {
        self.work.undo_to(self.mark);
    }
}
