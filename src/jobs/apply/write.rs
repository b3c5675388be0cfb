//! The transaction of a commit group.

use super::{
    request::{ApplyRequest, ApplyTarget, BatchPolicy},
    source::GroupEnd,
    statements::ApplyStatements,
};
use crate::{
    control::checkpoint,
    error::{Kind, Result},
    jobs::rejected_row,
    model::lsn::Lsn,
    mssql::client::{row::Param, session::Session},
};

/// Writes the netted effects and, at the destination, the checkpoint. `stored` is the checkpoint
/// before the group; `fetched`: rows were fetched to complete others.
pub(super) async fn write_group(
    dest: &mut Session,
    request: &ApplyRequest<'_>,
    statements: &ApplyStatements,
    fetched: bool,
    stored: Option<Lsn>,
    end: &GroupEnd,
) -> Result<()> {
    let (to, transaction, last) = (end.to, end.transaction.as_ref(), end.to == request.to);
    let result = match &request.target {
        ApplyTarget::Staging { .. } => {
            dest.execute(&statements.write, &[Param::Bit(fetched)]).await
        }
        ApplyTarget::Dest { checkpoint, .. } => {
            let instance = &request.capture.instance;
            let (source, mark) = (instance.source_mark(), instance.mark());
            let mark = checkpoint.next_instance.as_ref().filter(|_| last).unwrap_or(&mark);
            let params = [
                Param::Bit(fetched),
                Param::Int(checkpoint.mapping.0),
                Param::OptLsn(stored),
                Param::Lsn(to),
                Param::OptBinary(transaction.map(|known| known.identity.tran_id.as_slice())),
                Param::OptText(transaction.map(|known| known.identity.end_time.as_str())),
                Param::Bit(checkpoint.resync && last),
                Param::OptLsn(transaction.map(|known| known.lsn)),
                Param::Text(&source),
                Param::Text(mark),
            ];
            dest.execute(&statements.write, &params).await
        }
    };
    let error = match result {
        Ok(_) => return Ok(()),
        Err(error) => checkpoint::fenced(error),
    };
    // The rejected row is looked for only where nothing else is tried: a larger group may satisfy a
    // foreign key or a unique key that a smaller one violates.
    let is_final = request.batch_policy == BatchPolicy::Whole
        || !matches!(error.kind, Kind::ForeignKey | Kind::Duplicate);
    let error = match &request.target {
        ApplyTarget::Dest { .. } if is_final && !dest.is_broken() => {
            let rows = &statements.row_statements;
            rejected_row::with_rejected_key(dest, request.map, rows, fetched, error).await
        }
        ApplyTarget::Dest { .. } | ApplyTarget::Staging { .. } => error,
    };
    Err(error.context(format!("apply changes up to {to}")))
}
