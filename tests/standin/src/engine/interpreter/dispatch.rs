//! One statement, done by whoever knows how.

use super::{Failure, changes, define, done::Done, execute, raise, select_into, setting};
use crate::{
    engine::{context::Session, dml, expr, query},
    error::{SqlError, SqlResult},
    exchange::sink::{DoneKind, EnvChange, Sink},
    tsql::ast::{AssignOp, Declare, Spanned, Statement},
    value::{SqlType, Value},
};
use sqlparser::ast::{BinaryOperator, Expr, Ident};
use std::time::{Duration, Instant};

pub fn execute(
    session: &mut Session,
    spanned: &Spanned,
    sink: &mut dyn Sink,
) -> Result<Done, Failure> {
    let line = spanned.line;
    match &spanned.statement {
        Statement::Query(query) => {
            if let Some(into) = select_into::target(query).transpose()? {
                let rows = changes::write(session, |s| select_into::run(s, query, &into, sink))?;
                return Ok(Done::rows(DoneKind::Insert, rows));
            }
            let rows = session.statement(|s| query::select(&*s, query, sink))?;
            Ok(Done::rows(DoneKind::Select, rows))
        }
        Statement::SelectAssign { assignments, query } => {
            let (values, rows) = session.statement(|s| query::assign(&*s, assignments, query))?;
            values.into_iter().try_for_each(|(name, value)| session.set_variable(&name, value))?;
            Ok(Done::quiet(Some(i64::try_from(rows).unwrap_or(i64::MAX))))
        }
        Statement::Declare(declared) => {
            declared.iter().try_for_each(|d| declare(session, d))?;
            Ok(Done::quiet(None))
        }
        Statement::SetVariable { name, op, value } => {
            let ty = session.variable_type(name)?;
            let combined = combine(name, *op, value);
            let value = session.statement(|s| expr::evaluate_as(&*s, &combined, ty))?;
            session.set_variable(name, value)?;
            Ok(Done::quiet(Some(1)))
        }
        Statement::SetOption { names, value } => {
            setting::set_options(session, names, value)?;
            Ok(Done::quiet(Some(0)))
        }
        Statement::Print(text) => {
            raise::print(session, text, line, sink)?;
            Ok(Done::quiet(Some(0)))
        }
        Statement::RaiseError { message, severity, state, args, with_log, with_nowait } => {
            raise::raiserror(
                session,
                (message, severity, state, args),
                (*with_log, *with_nowait),
                line,
                sink,
            )?;
            Ok(Done::quiet(Some(0)))
        }
        Statement::Throw(what) => {
            raise::throw(session, what.as_ref(), line, sink)?;
            Ok(Done::quiet(None))
        }
        Statement::WaitForDelay(delay) => {
            wait(session, delay)?;
            Ok(Done::quiet(Some(0)))
        }
        Statement::Use(name) => {
            use_database(session, name, sink)?;
            Ok(Done::quiet(Some(0)))
        }
        Statement::BeginTransaction { name } => {
            let name = transaction_name(session, name.as_deref())?;
            session.begin_transaction(&name, sink)?;
            Ok(Done::other())
        }
        Statement::Commit => {
            session.commit_transaction(sink)?;
            Ok(Done::other())
        }
        Statement::Rollback { name } => {
            let name = transaction_name(session, name.as_deref())?;
            session.rollback_transaction(Some(&name), sink)?;
            Ok(Done::other())
        }
        Statement::SaveTransaction { name } => {
            let name = transaction_name(session, Some(name))?;
            session.save_transaction(&name)?;
            Ok(Done::other())
        }
        Statement::Execute(call) => {
            execute::execute(session, call, sink)?;
            Ok(Done::quiet(None))
        }
        Statement::ExecuteText(parts) => {
            execute::execute_text(session, parts, sink)?;
            Ok(Done::quiet(None))
        }
        Statement::InsertBulk(bulk) => {
            session.bulk = Some((**bulk).clone());
            Ok(Done::quiet(None))
        }
        Statement::Insert(insert) => changes::insert(session, insert, sink),
        Statement::Update(update) => {
            let changed = changes::write(session, |s| dml::update(s, update, sink))?;
            changes::finish(session, DoneKind::Update, changed, sink)
        }
        Statement::Delete(delete) => {
            let changed = changes::write(session, |s| dml::delete(s, delete, sink))?;
            changes::finish(session, DoneKind::Delete, changed, sink)
        }
        Statement::Truncate { table } => {
            changes::write(session, |s| dml::truncate(s, table))?;
            Ok(Done::other())
        }
        Statement::SetIdentityInsert { table, on } => {
            session.statement(|s| dml::identity::set_identity_insert(s, table, *on))?;
            Ok(Done::quiet(Some(0)))
        }
        Statement::Dbcc { command, args } => {
            changes::dbcc(session, command, args, line, sink)?;
            Ok(Done::quiet(Some(0)))
        }
        Statement::Checkpoint => Ok(Done::other()),
        Statement::Kill(spid) => {
            kill(session, *spid)?;
            Ok(Done::other())
        }
        _ if changes::write(session, |s| define::define(s, spanned))? => Ok(Done::other()),
        _ => Err(SqlError::unsupported(
            spanned.text.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
        )
        .into()),
    }
}

fn declare(session: &mut Session, declared: &Declare) -> SqlResult<()> {
    // A DECLARE in a loop is met again: it is one variable, which keeps its value unless it is
    // given one.
    let ty = session.resolve_type(&declared.ty)?;
    match &declared.value {
        Some(value) => {
            if session.variable(&declared.name).is_none() {
                session.declare(&declared.name, ty, Value::Null);
            }
            let value = session.statement(|s| expr::evaluate_as(&*s, value, ty))?;
            session.declare(&declared.name, ty, value);
        }
        None if session.variable(&declared.name).is_none() => {
            session.declare(&declared.name, ty, Value::Null)
        }
        None => {}
    }
    Ok(())
}

/// `@v += e` is `@v = @v + e`.
fn combine(name: &str, op: AssignOp, value: &Expr) -> Expr {
    let op = match op {
        AssignOp::Set => return value.clone(),
        AssignOp::Add => BinaryOperator::Plus,
        AssignOp::Sub => BinaryOperator::Minus,
        AssignOp::Mul => BinaryOperator::Multiply,
        AssignOp::Div => BinaryOperator::Divide,
        AssignOp::Mod => BinaryOperator::Modulo,
        AssignOp::And => BinaryOperator::BitwiseAnd,
        AssignOp::Or => BinaryOperator::BitwiseOr,
        AssignOp::Xor => BinaryOperator::BitwiseXor,
    };
    let left = Box::new(Expr::Identifier(Ident::new(name)));
    Expr::BinaryOp { left, op, right: Box::new(Expr::Nested(Box::new(value.clone()))) }
}

/// A transaction's name may be in a variable.
fn transaction_name(session: &Session, name: Option<&str>) -> SqlResult<String> {
    let Some(name) = name else { return Ok(String::new()) };
    if !name.starts_with('@') {
        return Ok(name.to_owned());
    }
    match session.variable(name).map(|v| &v.value) {
        Some(Value::Str(s)) => Ok(s.to_string()),
        Some(_) => Ok(String::new()),
        None => Err(crate::engine::context::undeclared(name)),
    }
}

pub fn use_database(session: &mut Session, name: &str, sink: &mut dyn Sink) -> Result<(), Failure> {
    let old = session.database_name();
    let id = session.instance.lock().open_database(&session.login, name)?;
    session.database = id;
    session.publish();
    let new = session.database_name();
    let mut text = SqlError::new(5701, 0, format!("Changed database context to '{new}'."));
    text.state = 2;
    sink.env(&EnvChange::Database { new, old })?;
    sink.message(&text)?;
    Ok(())
}

/// WAITFOR DELAY; wakes for an attention.
fn wait(session: &mut Session, delay: &Expr) -> SqlResult<()> {
    let time =
        session.statement(|s| expr::evaluate_as(&*s, delay, SqlType::Time(7))).map_err(|_| {
            let text = "Incorrect time syntax in time string used with WAITFOR.".to_owned();
            SqlError::new(148, 15, text)
        })?;
    let Value::Time(ticks) = time else { return Ok(()) };
    let until = Instant::now() + Duration::from_nanos(ticks.saturating_mul(100));
    loop {
        if session.cancel().is_cancelled() {
            return Err(SqlError::cancelled());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        drop(session.instance.sleep(session.instance.lock(), left.min(Duration::from_millis(250))));
    }
}

fn kill(session: &Session, spid: i64) -> SqlResult<()> {
    let state = session.instance.lock();
    let found = u16::try_from(spid)
        .ok()
        .and_then(|spid| state.sessions.get(&spid).map(|info| (spid, info.cancel.clone())));
    let Some((spid, cancel)) = found else {
        return Err(SqlError::new(
            6106,
            16,
            format!("Process ID {spid} is not an active process ID."),
        ));
    };
    if spid == session.spid {
        return Err(SqlError::new(6104, 16, "Cannot use KILL to kill your own process."));
    }
    drop(state);
    cancel.kill();
    Ok(())
}
