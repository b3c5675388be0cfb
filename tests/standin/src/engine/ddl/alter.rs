//! ALTER TABLE.

use super::{column, constraint, open, put_meta, rebuild};
use crate::{
    engine::{
        catalog::{ColumnId, Object, TableMeta},
        context::Session,
        database::DdlEvent,
        dml::{end_of_time, period_value},
        expr::{self, RowExpr},
        instance::Work,
        query::host::Row,
        scope::{Found, full_name, local_name},
        source::source_columns,
    },
    error::{SqlError, SqlResult},
    tsql::ast::{AlterTable, ColumnDef, Generated, ObjectName, TableConstraint},
    value::{Value, convert},
};
use std::sync::Arc;

/// `text`: the statement's own words, for cdc.ddl_history.
pub fn alter_table(
    session: &mut Session,
    name: &ObjectName,
    action: &AlterTable,
    text: &str,
) -> SqlResult<()> {
    let work = session.work();
    let found = open(session, &work, name)?;
    let structural = match action {
        AlterTable::Add { columns, constraints, check } => {
            add_columns(session, &work, &found, columns)?;
            add_constraints(session, &work, name, columns, constraints, *check)?;
            !columns.is_empty()
        }
        AlterTable::AlterColumn { name, ty, nullable } => {
            let collation = work
                .lock()
                .database(if found.table.is_temp() { session.database } else { found.database })?
                .collation;
            let (ty, _) = column::resolve(session, ty, collation)?;
            alter_column(session, &work, &found, name, ty, *nullable)?;
            true
        }
        AlterTable::DropColumns { names, if_exists } => {
            drop_columns(&work, &found, names, *if_exists)?;
            true
        }
        AlterTable::DropConstraints { names, if_exists } => {
            drop_constraints(&work, &found, names, *if_exists)?;
            false
        }
        AlterTable::CheckConstraint { names, enable, with_check } => {
            check_constraints(session, &work, &found, names, *enable, *with_check)?;
            false
        }
        AlterTable::SwitchTo { target } => {
            switch(session, &work, &found, target)?;
            false
        }
    };
    if structural && found.table.is_tracked_by_cdc {
        let time = work.instance.now();
        let event = DdlEvent {
            txn: work.txn,
            committed: None,
            table: found.table.object_id,
            text: text.to_string(),
            time,
        };
        work.lock().database_mut(found.database)?.ddl_events.push(event);
    }
    Ok(())
}

fn ordinal(meta: &TableMeta, name: &str) -> SqlResult<usize> {
    meta.ordinal_named(name).ok_or_else(|| {
        SqlError::new(4924, 16, format!("ALTER TABLE ALTER COLUMN failed because column '{name}' does not exist in table '{}'.", meta.name))
    })
}

/// Rows that are there get NULL, or the default when the column is NOT NULL or WITH VALUES is said.
/// 4901 when neither is possible.
fn add_columns(session: &Session, work: &Work, found: &Found, defs: &[ColumnDef]) -> SqlResult<()> {
    if defs.is_empty() {
        return Ok(());
    }
    let mut meta = (*found.table).clone();
    let collation = work.lock().database(found.database)?.collation;
    for def in defs {
        if meta.ordinal_named(&def.name).is_some() {
            let text = format!(
                "Column names in each table must be unique. Column name '{}' in table '{}' is specified more than once.",
                def.name,
                local_name(&work.lock(), found.database, &meta)
            );
            return Err(SqlError::new(2705, 16, text));
        }
        meta.last_column_id += 1;
        let mut new = column::column(session, def, meta.last_column_id, collation)?;
        if let Some((name, expr, text)) = &def.default {
            let mut state = work.lock();
            new.default = Some(column::default(
                state.database_mut(found.database)?,
                &meta.name,
                &def.name,
                name.as_ref(),
                expr,
                text,
            ));
        }
        meta.columns.push(new);
    }
    column::bind_computed(session, &mut meta, defs)?;
    crate::engine::row_size::check_table(&meta)?;
    let first = meta.columns.len() - defs.len();
    let has_rows = !super::visible_rows(work, found).is_empty();
    let now = work.instance.now();
    // One value for all rows that are there, as SQL Server evaluates the default once per
    // statement.
    let mut fill: Vec<Value> = Vec::new();
    for (def, column) in defs.iter().zip(&meta.columns[first..]) {
        fill.push(match (&column.default, column.generated) {
            (_, Some(Generated::RowStart)) => period_value(now, column.ty),
            (_, Some(Generated::RowEnd)) => end_of_time(column.ty),
            (Some(default), None) if !column.nullable || def.with_values => expr::evaluate_as(session.as_host(), &default.expr, column.ty)?,
            _ if column.nullable || column.identity.is_some() || column.is_rowversion() || column.computed.is_some() || !has_rows => Value::Null,
            _ => {
                let text = format!(
                    "ALTER TABLE only allows columns to be added that can contain nulls, or have a DEFAULT definition specified, or the column being \
                     added is an identity or timestamp column, or alternatively if none of the previous conditions are satisfied the table must be empty \
                     to allow addition of this column. Column '{}' cannot be added to non-empty table '{}' because it does not satisfy these conditions.",
                    column.name, meta.name
                );
                return Err(SqlError::new(4901, 16, text));
            }
        });
    }
    let columns = source_columns(&meta);
    let mut computed = Vec::new();
    for (at, c) in meta.columns.iter().enumerate().skip(first) {
        if let Some(own) = &c.computed {
            computed.push((
                at,
                RowExpr::bind_as(session.as_host(), &own.expr, &[(&meta.name, &columns)], c.ty)?,
            ));
        }
    }
    let identity = meta.columns.iter().position(|c| c.identity.is_some()).filter(|at| *at >= first);
    let rowversion = meta.rowversion_ordinal().filter(|at| *at >= first);
    let mut last = None;
    let described = meta.clone();
    rebuild(work, found.database, meta, &mut |row| {
        let mut new: Row = row.clone();
        new.extend(fill.iter().cloned());
        if let Some(at) = identity
            && let Some(own) = &described.columns[at].identity
        {
            let next = last.map_or(own.seed, |l: i128| l + own.increment);
            last = Some(next);
            new[at] = crate::engine::dml::identity_value(&described.columns[at], next);
        }
        if let Some(at) = rowversion {
            new[at] = crate::engine::dml::new_rowversion(&mut work.lock(), found.database)?;
        }
        for (at, expr) in &computed {
            let value = expr.evaluate(session.as_host(), &[&new])?;
            new[*at] = value;
        }
        Ok(new)
    })?;
    if let Some(last) = last {
        work.lock().database_mut(found.database)?.set_identity(found.table.object_id, last);
    }
    Ok(())
}

fn add_constraints(
    session: &Session,
    work: &Work,
    name: &ObjectName,
    columns: &[ColumnDef],
    constraints: &[TableConstraint],
    check: Option<bool>,
) -> SqlResult<()> {
    let trusted = check != Some(false);
    let on_columns =
        columns.iter().flat_map(|c| c.constraints.iter().map(move |k| (Some(c.name.as_str()), k)));
    for (on, c) in on_columns.chain(constraints.iter().map(|c| (None, c))) {
        let found = open(session, work, name)?;
        let mut meta = (*found.table).clone();
        let id: Option<ColumnId> = on.and_then(|n| meta.column_named(n)).map(|c| c.column_id);
        let (checks, keys) = (meta.checks.len(), meta.foreign_keys.len());
        let rebuilds = constraint::add(
            session,
            &mut work.lock(),
            found.database,
            &mut meta,
            c,
            id,
            !trusted,
            false,
        )?;
        if rebuilds {
            rebuild(work, found.database, meta, &mut |row| Ok(row.clone()))?;
            continue;
        }
        if trusted {
            let as_new = Found { database: found.database, table: Arc::new(meta.clone()) };
            constraint::validate(
                session,
                work,
                &as_new,
                &meta.checks[checks..],
                &meta.foreign_keys[keys..],
            )?;
        }
        if let TableConstraint::Default { column, expr, with_values: true, .. } = c {
            let at = ordinal(&meta, column)?;
            let value = expr::evaluate_as(session.as_host(), expr, meta.columns[at].ty)?;
            rebuild(work, found.database, meta, &mut |row| {
                let mut new = row.clone();
                if matches!(new[at], Value::Null) {
                    new[at] = value.clone();
                }
                Ok(new)
            })?;
            continue;
        }
        put_meta(&mut work.lock(), work, found.database, meta);
    }
    Ok(())
}

fn alter_column(
    session: &Session,
    work: &Work,
    found: &Found,
    name: &str,
    ty: crate::value::SqlType,
    nullable: Option<bool>,
) -> SqlResult<()> {
    let mut meta = (*found.table).clone();
    let at = ordinal(&meta, name)?;
    let old = meta.columns[at].clone();
    let retyped = old.ty != ty;
    if old.computed.is_some() || old.is_rowversion() {
        let what = if old.computed.is_some() { "'COMPUTED'" } else { "'timestamp'" };
        return Err(SqlError::new(
            4928,
            16,
            format!("Cannot alter column '{name}' because it is {what}."),
        ));
    }
    let widened = std::mem::discriminant(&old.ty) == std::mem::discriminant(&ty);
    if retyped
        && !widened
        && let Some(dependent) = dependent(&work.lock(), found, &meta, old.column_id)
    {
        return Err(SqlError::new(
            5074,
            16,
            format!("The {} '{}' is dependent on column '{name}'.", dependent.0, dependent.1),
        ));
    }
    let column = &mut meta.columns[at];
    column.ty = ty;
    column.nullable = nullable.unwrap_or(true);
    let refuses_null = !column.nullable;
    crate::engine::row_size::check_table(&meta)?;
    let table = full_name(&work.lock(), found.database, &meta);
    let cx = session.convert_context();
    rebuild(work, found.database, meta, &mut |row| {
        let mut new = row.clone();
        if matches!(new[at], Value::Null) {
            if refuses_null {
                let text = format!(
                    "Cannot insert the value NULL into column '{name}', table '{table}'; column does not allow nulls. UPDATE fails."
                );
                return Err(SqlError::new(515, 16, text));
            }
        } else if retyped {
            new[at] = convert::assign(
                &row[at],
                old.ty,
                ty,
                &cx,
                convert::Target { table: &table, column: name },
            )?;
        }
        Ok(new)
    })?;
    Ok(())
}

/// What stands in the way of dropping (or retyping) a column.
fn dependent(
    state: &crate::engine::instance::State,
    found: &Found,
    meta: &TableMeta,
    id: ColumnId,
) -> Option<(&'static str, String)> {
    let uses = |text: &str| {
        meta.column(id).is_some_and(|c| {
            crate::engine::catalog::fold(text).contains(&crate::engine::catalog::fold(&c.name))
        })
    };
    if let Some(i) = meta
        .indexes
        .iter()
        .find(|i| i.key.iter().any(|k| k.column_id == id) || i.include.contains(&id))
    {
        return Some((if i.constraint_id.is_some() { "object" } else { "index" }, i.name.clone()));
    }
    if let Some(d) = meta.column(id).and_then(|c| c.default.as_ref()) {
        return Some(("object", d.name.clone()));
    }
    if let Some(f) = meta.foreign_keys.iter().find(|f| f.columns.contains(&id)) {
        return Some(("object", f.name.clone()));
    }
    if let Some(c) = meta.checks.iter().find(|c| c.column_id == Some(id) || uses(&c.text)) {
        return Some(("object", c.name.clone()));
    }
    if let Some(c) =
        meta.columns.iter().find(|c| c.computed.as_ref().is_some_and(|k| uses(&k.text)))
    {
        return Some(("column", c.name.clone()));
    }
    let catalog = &state.databases.get(&found.database)?.catalog;
    let (_, fk) = catalog
        .references_to(meta.object_id)
        .into_iter()
        .find(|(_, f)| f.referenced_columns.contains(&id))?;
    Some(("object", fk.name.clone()))
}

/// 4924, 5074 and 4922, 4923.
fn drop_columns(work: &Work, found: &Found, names: &[String], if_exists: bool) -> SqlResult<()> {
    let mut meta = (*found.table).clone();
    let mut gone = Vec::new();
    for name in names {
        let Some(at) = meta.ordinal_named(name) else {
            if if_exists {
                continue;
            }
            let text = format!(
                "ALTER TABLE DROP COLUMN failed because column '{name}' does not exist in table '{}'.",
                meta.name
            );
            return Err(SqlError::new(4924, 16, text));
        };
        if let Some((kind, dependent)) =
            dependent(&work.lock(), found, &meta, meta.columns[at].column_id)
        {
            return Err(SqlError::new(
                5074,
                16,
                format!("The {kind} '{dependent}' is dependent on column '{name}'."),
            ));
        }
        gone.push(at);
    }
    if gone.len() >= meta.columns.len() {
        let text = format!(
            "ALTER TABLE DROP COLUMN failed because '{}' is the only data column in table '{}'. A table must have at least one data column.",
            names[0], meta.name
        );
        return Err(SqlError::new(4923, 16, text));
    }
    let mut at = 0;
    meta.columns.retain(|_| {
        at += 1;
        !gone.contains(&(at - 1))
    });
    rebuild(work, found.database, meta, &mut |row| {
        Ok(row
            .iter()
            .enumerate()
            .filter(|(at, _)| !gone.contains(at))
            .map(|(_, v)| v.clone())
            .collect())
    })?;
    Ok(())
}

/// 3728; 3725 for a key that is referenced.
fn drop_constraints(
    work: &Work,
    found: &Found,
    names: &[String],
    if_exists: bool,
) -> SqlResult<()> {
    for name in names {
        let mut meta = (**work.lock().table(found.id()).unwrap_or(&found.table)).clone();
        let before = meta.constraint_ids().len();
        let same = |own: &str| own.eq_ignore_ascii_case(name);
        if let Some(key) = meta.indexes.iter().find(|i| i.constraint_id.is_some() && same(&i.name))
        {
            let references =
                work.lock().database(found.database)?.catalog.references_to(meta.object_id);
            if let Some((table, fk)) =
                references.iter().find(|(_, f)| f.key_index_id == key.index_id)
            {
                let text = format!(
                    "The constraint '{name}' is being referenced by table '{}', foreign key constraint '{}'.",
                    table.name, fk.name
                );
                return Err(SqlError::new(3725, 16, text));
            }
            meta.indexes.retain(|i| i.constraint_id.is_none() || !same(&i.name));
            rebuild(work, found.database, meta, &mut |row| Ok(row.clone()))?;
            continue;
        }
        meta.checks.retain(|c| !same(&c.name));
        meta.foreign_keys.retain(|f| !same(&f.name));
        for column in &mut meta.columns {
            if column.default.as_ref().is_some_and(|d| same(&d.name)) {
                column.default = None;
            }
        }
        if meta.constraint_ids().len() == before {
            if if_exists {
                continue;
            }
            return Err(SqlError::new(3728, 16, format!("'{name}' is not a constraint.")));
        }
        put_meta(&mut work.lock(), work, found.database, meta);
    }
    Ok(())
}

/// NOCHECK makes a constraint disabled and not trusted; CHECK enables it, and only WITH CHECK makes
/// it trusted again.
fn check_constraints(
    session: &Session,
    work: &Work,
    found: &Found,
    names: &[String],
    enable: bool,
    with_check: bool,
) -> SqlResult<()> {
    let mut meta = (*found.table).clone();
    for name in names {
        let known = meta.checks.iter().any(|c| c.name.eq_ignore_ascii_case(name))
            || meta.foreign_keys.iter().any(|f| f.name.eq_ignore_ascii_case(name));
        if !known {
            return Err(SqlError::new(4917, 16, format!("Constraint '{name}' does not exist.")));
        }
    }
    let named = |own: &str| names.is_empty() || names.iter().any(|n| n.eq_ignore_ascii_case(own));
    let (mut checks, mut keys) = (Vec::new(), Vec::new());
    for check in meta.checks.iter_mut().filter(|c| named(&c.name)) {
        let c = Arc::make_mut(check);
        (c.disabled, c.not_trusted) =
            (!enable, if enable { c.not_trusted && !with_check } else { true });
        checks.push(check.clone());
    }
    for key in meta.foreign_keys.iter_mut().filter(|f| named(&f.name)) {
        let f = Arc::make_mut(key);
        (f.disabled, f.not_trusted) =
            (!enable, if enable { f.not_trusted && !with_check } else { true });
        keys.push(key.clone());
    }
    if enable && with_check {
        let as_new = Found { database: found.database, table: Arc::new(meta.clone()) };
        constraint::validate(session, work, &as_new, &checks, &keys)?;
    }
    put_meta(&mut work.lock(), work, found.database, meta);
    Ok(())
}

/// ALTER TABLE a SWITCH TO b: b must be empty (4905) and alike (4943).
fn switch(session: &Session, work: &Work, found: &Found, target: &ObjectName) -> SqlResult<()> {
    let to = open(session, work, target)?;
    if found.table.is_tracked_by_cdc || to.table.is_tracked_by_cdc {
        return Err(SqlError::new(
            21867,
            16,
            "ALTER TABLE SWITCH statement failed. The table is enabled for Change Data Capture.",
        ));
    }
    if !super::visible_rows(work, &to).is_empty() {
        let text = format!(
            "ALTER TABLE SWITCH statement failed. The target table '{}' must be empty.",
            full_name(&work.lock(), to.database, &to.table)
        );
        return Err(SqlError::new(4905, 16, text));
    }
    let alike = found.table.columns.len() == to.table.columns.len()
        && found
            .table
            .columns
            .iter()
            .zip(&to.table.columns)
            .all(|(a, b)| a.name == b.name && a.ty == b.ty && a.nullable == b.nullable);
    if !alike {
        return Err(SqlError::new(
            4943,
            16,
            "ALTER TABLE SWITCH statement failed because the tables' columns differ.",
        ));
    }
    let rows = super::visible_rows(work, found);
    let mut rows = rows.into_iter();
    let mut data = crate::engine::storage::TableData::new(&to.table);
    for row in rows.by_ref() {
        let key = data.new_key(&row);
        data.put_committed(key, row);
    }
    let mut state = work.lock();
    let empty = crate::engine::storage::TableData::new(&found.table);
    state.put_data(work.txn, to.id(), Some(data));
    state.put_data(work.txn, found.id(), Some(empty));
    state.put_object(
        work.txn,
        to.database,
        to.table.object_id,
        Some(Object::Table(to.table.clone())),
    );
    Ok(())
}
