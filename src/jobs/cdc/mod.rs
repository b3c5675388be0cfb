//! A CDC pass of one mapping: reads the window of changes that the poll chose and applies it to the
//! destination.
//!
//! # Why the steps come in this order
//!
//! The window's end was read **before** the catalogs are read here, then the pass reads the tables'
//! columns, then the captured columns, and then applies ([`super::apply`]). A column that is
//! dropped after the window's end has NULL only in change rows after it, and a column that is gone
//! from the source now is not mapped at all. So a dropped column never writes NULL over values of
//! the destination. If a table is altered during the pass, the pass reads the columns again and
//! continues where it is.
//!
//! **Unique keys and foreign keys.** A unique value can move between rows over several source
//! transactions, and a foreign key can need rows of another table that were committed in the same
//! source transaction. Therefore ([`window`]):
//!
//! - After error 547 the pass applies one transaction, then groups that grow, as far as they go. A
//!   mapping that waits for other tables' rows is polled again when those tables have moved on.
//! - A pass that applied nothing, or that failed with 2601 or 2627, is repeated with everything up
//!   to the window's end as one group. If the table references itself, the statements run in the
//!   opposite order.
//! - If that fails too, it is an error. No change is skipped: the next poll tries again.
//!
//! **Change of the capture instance.** A second instance may capture a column that the first one
//! does not. Rows written before the second one lack that column, and `ADD … DEFAULT` writes no
//! change rows. So the transaction that reaches the second instance's start also requests a full
//! sync, and records that the second instance is read from there on.

mod constraints;
mod window;

use super::{Env, JobEnd, apply::Applied};
use crate::{
    control::RunOutcome,
    error::{Error, Kind, Result},
    model::{
        capture::{Instance, Transaction},
        lsn::Lsn,
        mapping::{Mapping, SyncType},
    },
    plan::retry::WAITS_MAX,
};
use std::time::Duration;
use tokio::time::Instant;

/// What a poll decided for a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdcPass {
    pub instance: Instance,
    /// The instance that is read after `to`, if that is another one.
    pub switch_to: Option<Instance>,
    /// `last_cdc_lsn` when the poll read it.
    pub stored: Option<Lsn>,
    /// exclusive
    pub from: Lsn,
    /// inclusive
    pub to: Lsn,
    /// The newest source transaction up to `to`, where it is known.
    pub transaction: Option<Transaction>,
}

/// Reads the window's changes and applies them; counts them in the mapping's row of sync_status, also
/// after a failure.
/// `applied` is what was committed, also after a failure.
///
/// `failed_before` counts the failures in a row before this pass. Waiting for rows of a related
/// table becomes an error only after [`WAITS_MAX`] passes that applied nothing.
pub async fn run(
    env: &Env,
    mapping: &Mapping,
    pass: CdcPass,
    failed_before: u32,
    applied: &mut Applied,
) -> Result<JobEnd> {
    let began = Instant::now();
    let row = env.control.start_cdc(mapping.id, env.generation).await?;
    let result = window::apply_window(env, mapping, &pass, applied).await;
    let changes = i64::try_from(applied.changes).unwrap_or(i64::MAX);
    let complete = matches!(result, Ok(window::WindowEnd::Complete));
    let may_wait = applied.reached.is_some() || failed_before + 1 < WAITS_MAX;
    let (outcome, end) = outcome(mapping, &pass, result, changes, may_wait);
    env.control.finish_cdc(mapping.id, row, outcome).await;
    if complete {
        log_completed(env, mapping, changes, began.elapsed(), &pass);
    }
    end
}

/// What sync_status and the daemon are told of a pass.
fn outcome(
    mapping: &Mapping,
    pass: &CdcPass,
    result: Result<window::WindowEnd>,
    changes: i64,
    may_wait: bool,
) -> (RunOutcome, Result<JobEnd>) {
    let paused =
        |message: String| RunOutcome { error: Some(message), ..RunOutcome::paused(changes) };
    let error = match result {
        Ok(window::WindowEnd::Complete) => {
            return (RunOutcome::completed(changes), Ok(JobEnd::Completed));
        }
        Ok(window::WindowEnd::SourceBehind(seen)) => {
            let message = format!(
                "the server that changes were read from has captured {seen} at most, but another server has captured {}: it is a secondary replica that is behind, and the rest of the changes follows",
                pass.to
            );
            return (paused(message), Ok(JobEnd::Stopped));
        }
        Err(error) => error,
    };
    match error.kind {
        Kind::Cancelled => (RunOutcome::paused(changes), Ok(JobEnd::Stopped)),
        Kind::ForeignKey if may_wait => {
            (paused(format!("waits for a related table: {error}")), Err(error))
        }
        // not an error of this run: the next poll finds the gap too, and handles it
        Kind::Gap => {
            log_gap(mapping, &error);
            (RunOutcome::failed(changes, 1, error.to_string()), Ok(JobEnd::Stopped))
        }
        _ => (RunOutcome::failed(changes, 1, error.to_string()), Err(error)),
    }
}

fn log_gap(mapping: &Mapping, error: &Error) {
    tracing::warn!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::Cdc.as_str(),
        %error,
        "{}: changes that were to be read are no longer at the source; the next poll decides what follows",
        mapping.source
    );
}

fn log_completed(env: &Env, mapping: &Mapping, changes: i64, took: Duration, pass: &CdcPass) {
    let took_ms = i32::try_from(took.as_millis()).unwrap_or(i32::MAX);
    let Mapping { id, server, source, .. } = mapping;
    if env.activity.cdc_pass(*id, *server, source, changes, took) {
        tracing::info!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::Cdc.as_str(),
            records_count = changes,
            execution_time_ms = took_ms,
            "{}: {changes} changes applied up to LSN {}",
            mapping.source,
            pass.to
        );
    } else {
        tracing::debug!(
            mapping_id = mapping.id.0,
            "{}: {changes} changes applied up to LSN {}",
            mapping.source,
            pass.to
        );
    }
    if let Some(next) = &pass.switch_to {
        tracing::info!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::Cdc.as_str(),
            "{}: changes are read from capture instance {} from now on; {} may be dropped",
            mapping.source,
            next.name.as_str(),
            pass.instance.name.as_str()
        );
    }
}
