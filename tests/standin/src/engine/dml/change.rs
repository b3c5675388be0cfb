//! UPDATE and DELETE.

use crate::{
    engine::{
        catalog::{Securable, TableMeta, TriggerMeta},
        context::Session,
        dml::{
            Changed, foreign_keys,
            output::BoundOutput,
            prepare::{Prepared, period_value, refuse_write},
            triggers::{after_triggers, fire_triggers, triggers},
            write::{Outcome, Target as Image, Writer, Written},
        },
        instance::{Target, Work},
        log::LoggedKind,
        query::{self, TargetRows, host::Row},
        scope::Found,
    },
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    tsql::ast::{AssignOp, Delete, Output, SetItem, Update},
    value::{SqlType, Value},
};
use sqlparser::ast::{BinaryOperator, Expr, Ident};
use std::sync::Arc;

/// How often a statement starts over because rows changed between its query and its writes, before
/// it gives up as a victim would.
const ATTEMPTS_MAX: usize = 1000;

/// What a SET item stores.
enum Assignment {
    /// `value`: place among the evaluated expressions; None for DEFAULT
    Column {
        ordinal: usize,
        value: Option<usize>,
    },
    /// `.WRITE`: places of the value and the offset
    Write {
        ordinal: usize,
        value: usize,
        offset: usize,
    },
    Variable {
        name: String,
        value: usize,
        ty: SqlType,
        column: Option<usize>,
    },
}

pub fn update(session: &mut Session, update: &Update, sink: &mut dyn Sink) -> SqlResult<Changed> {
    let probe = TargetRows {
        ctes: update.ctes.as_ref(),
        target: &update.target,
        hints: &update.hints,
        from: &update.from,
        condition: update.condition.as_ref(),
        top: update.top.as_ref(),
        exprs: Vec::new(),
    };
    let found = find(session, &probe)?;
    may_update(session, &found, &update.set)?;
    let (exprs, assignments) = assignments(session, &found.table, &update.set)?;
    let rows = TargetRows { exprs: exprs.iter().map(|e| (e, None)).collect(), ..probe };
    retry(session, |session| {
        change_once(session, &found, &rows, Some(&assignments), update.output.as_ref(), sink)
    })
}

pub fn delete(session: &mut Session, delete: &Delete, sink: &mut dyn Sink) -> SqlResult<Changed> {
    let rows = TargetRows {
        ctes: delete.ctes.as_ref(),
        target: &delete.target,
        hints: &delete.hints,
        from: &delete.from,
        condition: delete.condition.as_ref(),
        top: delete.top.as_ref(),
        exprs: Vec::new(),
    };
    let found = find(session, &rows)?;
    if !found.table.is_temp() {
        session.work().lock().check_permission(
            &session.login,
            Target::object(found.database, found.table.object_id),
            "DELETE",
        )?;
    }
    retry(session, |session| {
        change_once(session, &found, &rows, None, delete.output.as_ref(), sink)
    })
}

fn find(session: &Session, rows: &TargetRows<'_>) -> SqlResult<Found> {
    let source = query::target(session.as_host(), rows)?;
    let Some((database, table)) = source.table() else {
        return Err(SqlError::unsupported(format!(
            "changing {}, which is not a table",
            source.name().name
        )));
    };
    Ok(Found { database, table })
}

/// UPDATE on the table, or on every column that is set.
fn may_update(session: &Session, found: &Found, set: &[SetItem]) -> SqlResult<()> {
    if found.table.is_temp() {
        return Ok(());
    }
    let work = session.work();
    let state = work.lock();
    let whole = state.check_permission(
        &session.login,
        Target::object(found.database, found.table.object_id),
        "UPDATE",
    );
    if whole.is_ok() {
        return whole;
    }
    let columns = set.iter().filter_map(|item| match item {
        SetItem::Column { name, .. } | SetItem::Write { name, .. } => Some(name),
        SetItem::Variable { column, .. } => column.as_ref(),
    });
    for name in columns {
        let Some(at) = found.table.ordinal_named(name) else { return whole };
        let securable = Securable::Column(found.table.object_id, found.table.columns[at].column_id);
        if !state.has_permission(
            &session.login,
            Target { database: found.database, securable },
            "UPDATE",
        ) {
            return whole;
        }
    }
    Ok(())
}

/// Runs a statement until none of its rows has changed under it. `None`: one had.
fn retry(
    session: &mut Session,
    mut once: impl FnMut(&mut Session) -> SqlResult<Option<Changed>>,
) -> SqlResult<Changed> {
    let work = session.work();
    for _ in 0..ATTEMPTS_MAX {
        let mark = work.mark();
        match once(session) {
            Ok(Some(changed)) => return Ok(changed),
            Ok(None) => work.undo_to(mark),
            Err(error) => {
                work.undo_to(mark);
                return Err(error);
            }
        }
    }
    Err(SqlError::new(
        1205,
        13,
        "The statement's rows kept changing under it. Rerun the transaction.",
    ))
}

fn assignments(
    session: &Session,
    meta: &TableMeta,
    set: &[SetItem],
) -> SqlResult<(Vec<Expr>, Vec<Assignment>)> {
    let mut exprs = Vec::new();
    let mut out = Vec::new();
    let column = |name: &str| {
        let at = meta
            .ordinal_named(name)
            .ok_or_else(|| SqlError::new(207, 16, format!("Invalid column name '{name}'.")))?;
        if meta.columns[at].identity.is_some() {
            return Err(SqlError::new(
                8102,
                16,
                format!("Cannot update identity column '{}'.", meta.columns[at].name),
            ));
        }
        refuse_write(meta, at, false)?;
        Ok(at)
    };
    let mut seen = Vec::new();
    for item in set {
        match item {
            SetItem::Column { name, op, value } => {
                let ordinal = column(name)?;
                if seen.contains(&ordinal) {
                    let message = format!(
                        "The column name '{name}' is specified more than once in the SET clause or column list of an INSERT. A column cannot be assigned more than one value in the same clause. Modify the clause to make sure that a column is updated only once. If this statement updates or inserts columns into a view, column aliasing can conceal the duplication in your code."
                    );
                    return Err(SqlError::new(264, 16, message));
                }
                seen.push(ordinal);
                let value = value.as_ref().map(|expr| {
                    exprs.push(combined(
                        *op,
                        Expr::Identifier(Ident::with_quote(
                            '[',
                            meta.columns[ordinal].name.clone(),
                        )),
                        expr,
                    ));
                    exprs.len() - 1
                });
                out.push(Assignment::Column { ordinal, value });
            }
            SetItem::Write { name, arguments } => {
                let ordinal = column(name)?;
                if !super::append::takes(meta.columns[ordinal].ty) {
                    return Err(SqlError::unsupported(
                        ".WRITE on a column that is not varchar(max), nvarchar(max) or varbinary(max)",
                    ));
                }
                exprs.extend(arguments.iter().cloned());
                out.push(Assignment::Write {
                    ordinal,
                    value: exprs.len() - 3,
                    offset: exprs.len() - 2,
                });
            }
            SetItem::Variable { name, op, column: into, value } => {
                let Some(ty) = session.variable(name).map(|v| v.ty) else {
                    return Err(SqlError::new(
                        137,
                        15,
                        format!("Must declare the scalar variable \"{name}\"."),
                    ));
                };
                exprs.push(combined(*op, Expr::Identifier(Ident::new(name.clone())), value));
                let into = into.as_deref().map(column).transpose()?;
                out.push(Assignment::Variable {
                    name: name.clone(),
                    value: exprs.len() - 1,
                    ty,
                    column: into,
                });
            }
        }
    }
    Ok((exprs, out))
}

fn combined(op: AssignOp, left: Expr, right: &Expr) -> Expr {
    let op = match op {
        AssignOp::Set => return right.clone(),
        AssignOp::Add => BinaryOperator::Plus,
        AssignOp::Sub => BinaryOperator::Minus,
        AssignOp::Mul => BinaryOperator::Multiply,
        AssignOp::Div => BinaryOperator::Divide,
        AssignOp::Mod => BinaryOperator::Modulo,
        AssignOp::And => BinaryOperator::BitwiseAnd,
        AssignOp::Or => BinaryOperator::BitwiseOr,
        AssignOp::Xor => BinaryOperator::BitwiseXor,
    };
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(Expr::Nested(Box::new(right.clone()))),
    }
}

fn change_once(
    session: &mut Session,
    found: &Found,
    rows: &TargetRows<'_>,
    assignments: Option<&[Assignment]>,
    output: Option<&Output>,
    sink: &mut dyn Sink,
) -> SqlResult<Option<Changed>> {
    let work = session.work();
    let prepared = Prepared::new(session.as_host(), &work, found, true)?;
    let bound = match output {
        Some(output) => Some(BoundOutput::bind(session, output, &prepared)?),
        None => None,
    };
    let mut targets = Vec::new();
    set_target(session, Some(found.id()));
    let searched = query::target_rows(session.as_host(), rows, &mut |row| {
        targets.push(row);
        Ok(())
    });
    set_target(session, None);
    searched?;
    let mut changed = Changed { rows: targets.len() as u64, ..Changed::default() };
    let mut images = Vec::with_capacity(targets.len());
    for (count, target) in targets.into_iter().enumerate() {
        if count % 256 == 255 {
            work.check_cancelled()?;
        }
        let after = match assignments {
            None => None,
            Some(assignments) => {
                let mut row: Row = (*target.row).clone();
                for assignment in assignments {
                    match assignment {
                        Assignment::Column { ordinal, value } => {
                            row[*ordinal] = match value {
                                Some(at) => prepared.convert(
                                    *ordinal,
                                    target.values[*at].clone(),
                                    target.types[*at],
                                )?,
                                None => prepared.default_value(session.as_host(), *ordinal)?,
                            };
                        }
                        Assignment::Write { ordinal, value, offset } => {
                            if target.values[*offset] != Value::Null {
                                return Err(SqlError::unsupported(
                                    ".WRITE at an offset that is not NULL",
                                ));
                            }
                            let given = prepared.convert(
                                *ordinal,
                                target.values[*value].clone(),
                                target.types[*value],
                            )?;
                            row[*ordinal] = super::append::append(&row[*ordinal], &given)?;
                        }
                        Assignment::Variable { name, value, ty, column } => {
                            let given = target.values[*value].clone();
                            let cx = crate::value::convert::ConvertContext::default();
                            let own = crate::value::convert::cast(
                                &given,
                                target.types[*value],
                                *ty,
                                None,
                                &cx,
                            )?;
                            changed.assigned.retain(|(n, _)| n != name);
                            changed.assigned.push((name.clone(), own));
                            if let Some(at) = column {
                                row[*at] = prepared.convert(*at, given, target.types[*value])?;
                            }
                        }
                    }
                }
                prepared.complete_changed(session.as_host(), &work, &mut row)?;
                Some(row)
            }
        };
        images.push(Image { key: target.key, before: target.row, after });
    }
    let deletes = assignments.is_none();
    let of_verb = |t: &TriggerMeta| if deletes { t.delete } else { t.update };
    let instead = triggers(&work, found, |t| t.instead_of && of_verb(t));
    if !instead.is_empty() {
        let inserted = images.iter().filter_map(|i| i.after.clone().map(Arc::new)).collect();
        let deleted = images.iter().map(|i| i.before.clone()).collect();
        fire_triggers(
            session,
            found,
            &instead,
            Arc::new(inserted),
            Arc::new(deleted),
            changed.rows,
            sink,
        )?;
        return Ok(Some(changed));
    }
    let Outcome::Done(written) = Writer::open(&work, &prepared)?.change(images)? else {
        return Ok(None);
    };
    let mut effects = Vec::new();
    settle(
        session,
        found,
        &prepared,
        &written,
        if deletes { "DELETE" } else { "UPDATE" },
        &mut effects,
        0,
    )?;
    if let Some(bound) = bound {
        let rows = bound.rows(session, &written, prepared.meta.columns.len())?;
        changed.output = bound.deliver(session, rows, sink)?;
    }
    // cascaded tables first, as their triggers see the parent's change already
    effects.push(Effect { found: found.clone(), written, deletes });
    for effect in effects {
        fire_after(session, effect, sink)?;
    }
    Ok(Some(changed))
}

fn set_target(session: &mut Session, table: Option<crate::engine::lock::TableId>) {
    if let Some(work) = &mut session.work {
        work.target = table;
    }
}

/// Rows a statement changed in one table: its own, or one its foreign keys reached.
pub struct Effect {
    pub found: Found,
    pub written: Vec<Written>,
    pub deletes: bool,
}

/// What follows from rows that were replaced or deleted: history rows, foreign keys both ways,
/// cascades.
fn settle(
    session: &Session,
    found: &Found,
    prepared: &Prepared,
    written: &[Written],
    verb: &str,
    effects: &mut Vec<Effect>,
    depth: usize,
) -> SqlResult<()> {
    if depth > 32 {
        return Err(SqlError::new(
            217,
            16,
            "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).",
        ));
    }
    let work = &session.work();
    write_history(work, prepared, written)?;
    let new: Vec<Arc<Row>> = written.iter().filter_map(|w| w.after.clone()).collect();
    if !new.is_empty() {
        foreign_keys::check_changed_children(work, prepared, written, verb)?;
    }
    for cascade in foreign_keys::referenced(work, found, prepared, written, verb)? {
        let child = cascade.found;
        let child_prepared = Prepared::new(session.as_host(), work, &child, true)?;
        let mut targets = Vec::with_capacity(cascade.rows.len());
        for (key, before, change) in cascade.rows {
            let after = match change {
                foreign_keys::ChildChange::Delete => None,
                foreign_keys::ChildChange::Set(values) => {
                    let mut row: Row = (*before).clone();
                    for (at, value) in values {
                        row[at] = match value {
                            Some(value) => value,
                            None => child_prepared.default_value(session.as_host(), at)?,
                        };
                    }
                    child_prepared.complete_changed(session.as_host(), work, &mut row)?;
                    Some(row)
                }
            };
            targets.push(Image { key, before, after });
        }
        let deletes = targets.iter().all(|t| t.after.is_none());
        // A stale child row here means that another session changed it between the search and the
        // lock; the search is repeated.
        let Outcome::Done(written) = Writer::open(work, &child_prepared)?.change(targets)? else {
            return Err(SqlError::new(
                1205,
                13,
                "A referencing row changed under the statement. Rerun the transaction.",
            ));
        };
        settle(session, &child, &child_prepared, &written, verb, effects, depth + 1)?;
        effects.push(Effect { found: child, written, deletes });
    }
    Ok(())
}

/// SYSTEM_VERSIONING: the image that ends now goes to the history table.
fn write_history(work: &Work, prepared: &Prepared, written: &[Written]) -> SqlResult<()> {
    let Some(temporal) = &prepared.meta.temporal else { return Ok(()) };
    let Some(history) = temporal.history else { return Ok(()) };
    let Some(end) = prepared.meta.ordinal(temporal.end) else { return Ok(()) };
    let id = (prepared.id.0, history);
    let mut state = work.lock();
    let Some(meta) = state.table(id).cloned() else { return Ok(()) };
    for before in written.iter().filter_map(|w| w.before.as_ref()) {
        let mut row: Row = (**before).clone();
        row[end] = period_value(prepared.period_start(), prepared.meta.columns[end].ty);
        let row = Arc::new(row);
        let Some(data) = state.tables.get_mut(&id) else { return Ok(()) };
        let key = data.new_key(&row);
        state.write(work.txn, id, &meta, LoggedKind::Insert, key, Some(row), false);
    }
    Ok(())
}

fn fire_after(session: &mut Session, effect: Effect, sink: &mut dyn Sink) -> SqlResult<()> {
    let work = session.work();
    let which =
        after_triggers(&work, &effect.found, |t| if effect.deletes { t.delete } else { t.update });
    if which.is_empty() {
        return Ok(());
    }
    let rows = effect.written.len() as u64;
    let inserted = effect.written.iter().filter_map(|w| w.after.clone()).collect();
    let deleted = effect.written.iter().filter_map(|w| w.before.clone()).collect();
    fire_triggers(session, &effect.found, &which, Arc::new(inserted), Arc::new(deleted), rows, sink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compound_assignments_keep_their_precedence() {
        let one = Expr::Identifier(Ident::new("a"));
        let right = Expr::BinaryOp {
            left: Box::new(one.clone()),
            op: BinaryOperator::Plus,
            right: Box::new(one.clone()),
        };
        assert_eq!(combined(AssignOp::Mul, one, &right).to_string(), "a * (a + a)");
    }
}
