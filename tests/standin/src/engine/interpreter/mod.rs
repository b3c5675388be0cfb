//! Runs statements: what comes next, what an error ends, who catches it.
//!
//! # What an error ends
//!
//! An error undoes its statement. Then, unless a TRY catches it (Microsoft: "TRY...CATCH", "SET
//! XACT_ABORT", "Database Engine errors"):
//!
//! - under XACT_ABORT ON every error but RAISERROR's rolls the transaction back and ends the batch;
//! - some errors do so always: a failed conversion, a deadlock, a snapshot conflict, anything in a
//!   trigger;
//! - names that cannot be resolved end the procedure or batch they are in, and only a TRY outside
//!   of it can catch them;
//! - THROW ends the batch and leaves the transaction;
//! - any other error ends its statement, and the next one runs.
//!
//! Caught errors are not sent to the client. What would have rolled the transaction back dooms it
//! instead (XACT_STATE() = -1): it may be read in and rolled back, nothing else.

mod changes;
mod define;
mod dispatch;
mod done;
mod execute;
mod raise;
mod select_into;
mod setting;
pub mod trigger;

pub use execute::{call, report_call};
pub use trigger::fire;

use crate::{
    engine::{context::Session, expr, query},
    error::{SqlError, SqlResult},
    exchange::sink::{Cancelled, DoneKind, Sink},
    tsql::ast::{Batch, Spanned, Statement},
    value::{Value, convert},
};

/// Where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Next,
    Break,
    Continue,
    Return(Option<i32>),
}

/// Why not to go on.
#[derive(Debug)]
pub enum Stop {
    Cancelled,
    /// An error on its way to a TRY that will catch it. `level` is the frame it was raised in.
    Error {
        error: SqlError,
        level: usize,
    },
    /// The error has been sent; the frame ends, its caller goes on.
    Scope,
    /// The error has been sent; the batch ends.
    Batch,
}

impl From<Cancelled> for Stop {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// A statement that did not end well: an error that is still to be dealt with, or one that has
/// been.
pub enum Failure {
    Sql(SqlError),
    Stop(Stop),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Cancelled> for Failure {
    fn from(_: Cancelled) -> Self {
        Self::Stop(Stop::Cancelled)
    }
}

/// Runs statements one after the other.
pub fn run(session: &mut Session, batch: &Batch, sink: &mut dyn Sink) -> Result<Flow, Stop> {
    for statement in batch {
        match step(session, statement, sink)? {
            Flow::Next => {}
            flow => return Ok(flow),
        }
    }
    Ok(Flow::Next)
}

fn step(session: &mut Session, spanned: &Spanned, sink: &mut dyn Sink) -> Result<Flow, Stop> {
    if session.cancel().is_cancelled() {
        return Err(cancelled(session, sink));
    }
    crate::usage::used("statement", crate::usage::statement(&spanned.statement));
    if let Statement::AlterTable { action, .. } = &spanned.statement {
        crate::usage::used("alter table", crate::usage::alter_table(action));
    }
    match &spanned.statement {
        Statement::Block(batch) => run(session, batch, sink),
        Statement::Break => Ok(Flow::Break),
        Statement::Continue => Ok(Flow::Continue),
        Statement::If { condition, then, otherwise } => {
            match test(session, condition, spanned.line, sink)? {
                Some(true) => step(session, then, sink),
                Some(false) => {
                    otherwise.as_ref().map_or(Ok(Flow::Next), |s| step(session, s, sink))
                }
                None => Ok(Flow::Next),
            }
        }
        Statement::While { condition, body } => {
            while test(session, condition, spanned.line, sink)? == Some(true) {
                match step(session, body, sink)? {
                    Flow::Next | Flow::Continue => {}
                    Flow::Break => break,
                    flow @ Flow::Return(_) => return Ok(flow),
                }
                if session.cancel().is_cancelled() {
                    return Err(cancelled(session, sink));
                }
            }
            Ok(Flow::Next)
        }
        Statement::TryCatch { body, handler } => try_catch(session, body, handler, sink),
        Statement::Return(value) => match status(session, value.as_ref()) {
            Ok(status) => Ok(Flow::Return(status)),
            Err(error) => fail(session, error, spanned.line, sink).map(|()| Flow::Return(None)),
        },
        _ => {
            if session.options.fmtonly
                && let Some(flow) = format_only(session, spanned, sink)?
            {
                return Ok(flow);
            }
            match effective(session, spanned, sink) {
                Ok(()) => Ok(Flow::Next),
                Err(Failure::Stop(stop)) => Err(stop),
                Err(Failure::Sql(error)) => {
                    fail(session, error, spanned.line, sink)?;
                    sink.done(DoneKind::Other, None)?;
                    Ok(Flow::Next)
                }
            }
        }
    }
}

/// SET FMTONLY ON: a query is a result set of no rows, and what changes something does not. Bulk
/// loads ask for a table's columns this way.
fn format_only(
    session: &mut Session,
    spanned: &Spanned,
    sink: &mut dyn Sink,
) -> Result<Option<Flow>, Stop> {
    match &spanned.statement {
        Statement::SetOption { .. }
        | Statement::Declare(_)
        | Statement::SetVariable { .. }
        | Statement::Execute(_)
        | Statement::ExecuteText(_)
        | Statement::Use(_) => return Ok(None),
        Statement::Query(query) => match session.statement(|s| query::describe(&*s, query)) {
            Ok(columns) => {
                sink.columns(&columns.into_iter().map(|c| c.column).collect::<Vec<_>>())?;
                sink.done(DoneKind::Select, None)?;
            }
            Err(error) => fail(session, error, spanned.line, sink)?,
        },
        _ => {}
    }
    Ok(Some(Flow::Next))
}

/// A statement that does something, with the places where faults may be injected.
fn effective(session: &mut Session, spanned: &Spanned, sink: &mut dyn Sink) -> Result<(), Failure> {
    if let Some(fault) = sink.before_statement(&spanned.text)? {
        return Err(fault.into());
    }
    let done = dispatch::execute(session, spanned, sink)?;
    if let Some(fault) = sink.after_statement(&spanned.text)? {
        return Err(fault.into());
    }
    if let Some(rows) = done.row_count {
        session.row_count = rows;
    }
    if let Some((kind, rows)) = done.report {
        sink.done(kind, rows.filter(|_| !session.options.nocount))?;
    }
    Ok(())
}

/// RETURN's value.
fn status(session: &mut Session, value: Option<&sqlparser::ast::Expr>) -> SqlResult<Option<i32>> {
    let Some(expr) = value else { return Ok(None) };
    match session.statement(|s| expr::evaluate_as(&*s, expr, crate::value::SqlType::Int))? {
        Value::Int(n) => Ok(i32::try_from(n).ok()),
        _ => Ok(Some(0)),
    }
}

/// None: the condition failed, and the statement it belongs to is over.
fn test(
    session: &mut Session,
    condition: &sqlparser::ast::Expr,
    line: u32,
    sink: &mut dyn Sink,
) -> Result<Option<bool>, Stop> {
    match session.statement(|s| expr::condition(&*s, condition)) {
        Ok(holds) => {
            session.row_count = 0;
            Ok(Some(holds))
        }
        Err(error) => fail(session, error, line, sink).map(|()| None),
    }
}

fn try_catch(
    session: &mut Session,
    body: &Batch,
    handler: &Batch,
    sink: &mut dyn Sink,
) -> Result<Flow, Stop> {
    let level = session.nest_level();
    session.frame_mut().try_depth += 1;
    let result = run(session, body, sink);
    session.frame_mut().try_depth -= 1;
    match result {
        Err(Stop::Error { error, level: raised }) => {
            if raised == level && is_resolution(&error) {
                // Only a TRY further out may catch it; there is one, or it would have been sent.
                return Err(Stop::Error { error, level: raised });
            }
            session.caught.push(error);
            let result = run(session, handler, sink);
            session.caught.pop();
            result
        }
        other => other,
    }
}

fn cancelled(session: &mut Session, sink: &mut dyn Sink) -> Stop {
    if session.options.xact_abort {
        // Nobody may be there to hear of it.
        let _ = session.rollback_all(sink);
    }
    Stop::Cancelled
}

/// Names and columns are looked up when a statement is compiled: such an error is not the
/// statement's but its batch's.
fn is_resolution(error: &SqlError) -> bool {
    matches!(error.number, 137 | 207 | 208 | 209 | 1087 | 4104)
}

/// Errors that roll the transaction back (or doom it) whatever XACT_ABORT says.
pub fn always_rolls_back(error: &SqlError) -> bool {
    let conversion = convert::is_conversion_failure(error)
        && !matches!(error.number, 220 | 232 | 234 | 8115 | 8152);
    conversion || matches!(error.number, 217 | 1205 | 3609 | 3616 | 3930 | 3960 | 3961)
}

/// How an error came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Server,
    Raiserror,
    Throw,
}

/// Deals with an error of a statement; `Ok` when the next statement may run.
pub fn fail(
    session: &mut Session,
    error: SqlError,
    line: u32,
    sink: &mut dyn Sink,
) -> Result<(), Stop> {
    raise(session, error, line, Origin::Server, sink)
}

fn raise(
    session: &mut Session,
    error: SqlError,
    line: u32,
    origin: Origin,
    sink: &mut dyn Sink,
) -> Result<(), Stop> {
    if error.is_cancelled() {
        return Err(cancelled(session, sink));
    }
    let mut error = error.at(line);
    if error.procedure.is_empty() {
        error.procedure.clone_from(&session.frame().procedure);
    }
    session.row_count = 0;
    let honours_xact_abort = session.options.xact_abort && origin != Origin::Raiserror;
    let rolls_back = honours_xact_abort || always_rolls_back(&error);
    let level = session.nest_level();
    let resolution = is_resolution(&error) && origin == Origin::Server;
    let caught = session
        .frames
        .iter()
        .enumerate()
        .any(|(at, frame)| frame.try_depth > 0 && !(resolution && at == level));
    if caught && error.class < 20 {
        if rolls_back && session.txn.is_some() && session.reported_tran_count() > 0 {
            session.doomed = true;
        }
        return Err(Stop::Error { error, level });
    }
    let class = error.class;
    let unsupported = error.number == SqlError::unsupported("").number;
    sink.message(&error)?;
    if rolls_back {
        session.rollback_all(sink)?;
        return Err(Stop::Batch);
    }
    if class >= 20 || unsupported || origin == Origin::Throw {
        return Err(Stop::Batch);
    }
    if resolution {
        return Err(Stop::Scope);
    }
    Ok(())
}
