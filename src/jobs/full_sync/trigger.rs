//! The trigger column: set back to 0 at the source, where the source lets us.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use super::swap;
use crate::{
    control::ErrorCode,
    error::{Context, Error, Kind, Result},
    jobs::Env,
    model::{
        id::MappingId,
        mapping::{Mapping, SyncType},
    },
    mssql::client::{row::Param, session::Session},
    tsql::{self, poll::TriggerColumn},
};

/// Sets the trigger column back to 0, in batches, only where it is 1. `false` when the source
/// refuses (no right, or read-only).
pub async fn reset(source: &mut Session, env: &Env, mapping: &Mapping) -> Result<bool> {
    let Some(column) = &mapping.trigger_column else { return Ok(true) };
    let params = [Param::Text(&mapping.source.local()), Param::Text(column.as_str())];
    let text = source
        .row(&tsql::poll::is_text(), &params)
        .await
        .with_context(|| format!("read the type of trigger column {column}"))?;
    let trigger = TriggerColumn { column, text: text.i64(0)? > 0 };
    let sql = tsql::swap::reset_trigger(&mapping.source, trigger, env.config.batch_rows);
    loop {
        // only what this statement changed: a trigger of the table's fires, and tells of its own
        // rows, also when there were none
        match swap::count(source, &sql).await {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if matches!(error.number, Some(229 | 230 | 3906)) => {
                source.recover().await?;
                let grant = tsql::copied::copyable(&format!(
                    "GRANT UPDATE ON {} ({column}) TO <user>",
                    mapping.source.local()
                ));
                let fix = format!("{grant}, or use full_sync_requested");
                let error = error.with_hint(fix.as_str());
                tracing::error!(
                    mapping_id = mapping.id.0,
                    server_id = mapping.server.0,
                    sync_type = SyncType::FullSync.as_str(),
                    error_type = error.kind.error_type(),
                    error_code = ErrorCode::TriggerNotReset.as_str(),
                    error_details = %format!("{}; the source says: {}", error.details(1, "ignored until it was 0"), error.message()),
                    "trigger column {column} of {} cannot be reset; it is ignored until it was 0. {fix}",
                    mapping.source
                );
                return Ok(false);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("reset trigger column {column}"));
            }
        }
        if env.stopping() {
            return Err(Error::new(
                Kind::Cancelled,
                "asked to stop while the trigger column was reset",
            ));
        }
    }
}

/// Mappings whose source refuses to reset the trigger column. What such a column says is not a
/// request until it was seen 0: otherwise one request would be a full sync every tick. Kept in
/// memory; a restart asks once more.
#[derive(Clone, Debug, Default)]
pub struct Triggers(Arc<Mutex<HashSet<MappingId>>>);

impl Triggers {
    /// Forgets mappings that are not this process's any more.
    pub fn retain(&self, is_ours: impl Fn(&MappingId) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(is_ours);
    }

    pub(super) fn refuse(&self, mapping: MappingId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(mapping);
    }

    /// What the column says is no request now.
    pub fn is_refused(&self, mapping: MappingId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&mapping)
    }

    /// No row has it set any more: the next one that does is a request.
    pub fn seen_zero(&self, mapping: MappingId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&mapping);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_trigger_is_no_request_until_it_was_seen_zero() {
        let triggers = Triggers::default();
        let mapping = MappingId(1);
        assert!(!triggers.is_refused(mapping));
        triggers.refuse(mapping);
        assert!(triggers.is_refused(mapping));
        triggers.seen_zero(mapping);
        assert!(!triggers.is_refused(mapping));
    }
}
