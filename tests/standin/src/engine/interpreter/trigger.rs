//! A trigger's body, run within the statement that fired it.

use super::{Flow, Stop, run};
use crate::{
    engine::{
        catalog::ObjectId,
        context::{Frame, Session, TriggerRows},
    },
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    tsql::ast::Batch,
};

/// Runs a trigger. XACT_ABORT is on in it, so an error in it ends the batch and the transaction
/// (3616); so does its own ROLLBACK (3609).
pub fn fire(
    session: &mut Session,
    (name, object): (&str, ObjectId),
    body: &Batch,
    rows: TriggerRows,
    affected: u64,
    sink: &mut dyn Sink,
) -> SqlResult<()> {
    let (before, count) = (session.txn, session.row_count);
    session.push_frame(Frame::of(name, object, Some(rows)))?;
    session.options.xact_abort = true;
    session.row_count = i64::try_from(affected).unwrap_or(i64::MAX);
    sink.enter_procedure();
    let result = run(session, body, sink);
    let left = sink.leave_procedure();
    session.pop_frame();
    session.row_count = count;
    left.map_err(|_| SqlError::cancelled())?;
    match result {
        Ok(Flow::Next | Flow::Break | Flow::Continue | Flow::Return(_))
            if session.txn == before =>
        {
            Ok(())
        }
        Ok(_) => Err(SqlError::new(
            3609,
            16,
            "The transaction ended in the trigger. The batch has been aborted.",
        )),
        Err(Stop::Cancelled) => Err(SqlError::cancelled()),
        Err(Stop::Error { error, .. }) => Err(error),
        Err(Stop::Scope | Stop::Batch) => {
            let text = "An error was raised during trigger execution. The batch has been aborted and the user transaction, if any, has been rolled back.";
            Err(SqlError::new(3616, 16, text))
        }
    }
}
