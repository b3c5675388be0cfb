//! Telling once per table that a carried column is not captured: in the log, and for `status`.

use crate::{
    control::Control,
    model::{
        capture::Capture,
        column_map::ColumnMap,
        id::MappingId,
        mapping::{Mapping, SyncType},
    },
    plan::mask::{self, Uncaptured},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tracing::warn;

/// What was reported last for each mapping; `None`: every column is captured. Kept in memory, so a
/// restart reports it again.
#[derive(Clone, Debug, Default)]
pub struct UncapturedWarnings(Arc<Mutex<HashMap<MappingId, Option<Uncaptured>>>>);

impl UncapturedWarnings {
    /// Logs and records which mapped columns the capture instance lacks, if that has changed.
    pub async fn report(
        &self,
        control: &Control,
        mapping: &Mapping,
        map: &ColumnMap,
        capture: &Capture,
    ) {
        let found = mask::uncaptured(map, capture);
        {
            let reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if reported.get(&mapping.id) == Some(&found) {
                return;
            }
        }
        let (id, server) = (mapping.id.0, mapping.server.0);
        if let Some(Uncaptured { message, fix }) = &found {
            warn!(
                mapping_id = id,
                server_id = server,
                sync_type = SyncType::SchemaCheck.as_str(),
                "{}: {message}; {fix}, which a full sync follows by itself",
                mapping.source
            );
        }
        let note = found.as_ref().map(|Uncaptured { message, fix }| format!("{message}; {fix}"));
        match control.note_uncaptured(mapping.id, note.as_deref()).await {
            Ok(()) => drop(
                self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(mapping.id, found),
            ),
            Err(error) => {
                warn!(
                    mapping_id = id,
                    server_id = server,
                    %error,
                    "{}: `status` does not show yet which columns are not captured; the next pass writes it",
                    mapping.source
                );
            }
        }
    }
}
