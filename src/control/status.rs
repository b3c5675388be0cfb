//! What `status` reads of every mapping, and what `sync` reads of one full sync.

use super::{Control, mappings::outdated};
use crate::{
    error::{Context, Kind, Result},
    model::{
        id::{MappingId, StatusId},
        name::TableName,
    },
    mssql::client::row::{Param, Row},
    plan::status::{NewestRun, NewestVerification, OpenError, StatusRow},
};

/// A full sync's row in sync_status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullSyncRun {
    pub id: StatusId,
    pub status: String,
    pub records: i64,
    pub error: Option<String>,
}

impl Control {
    /// All mappings, enabled or not, with their newest run, error and verification.
    pub async fn status_rows(&self) -> Result<Vec<StatusRow>> {
        let rows = self
            .session()
            .await?
            .rows(include_str!("../../sql/control/status.sql"), &[])
            .await
            .map_err(outdated)
            .context("read the status of the mappings")?;
        rows.iter().map(status_row).collect()
    }

    /// Asks for a full sync, as an operator would.
    pub async fn request_full_sync(&self, mapping: MappingId) -> Result<()> {
        self.session()
            .await?
            .execute(
                include_str!("../../sql/control/request_full_sync.sql"),
                &[Param::Int(mapping.0)],
            )
            .await
            .context("ask for a full sync")
            .map(drop)
    }

    /// The newest full sync of a mapping after `after`.
    pub async fn newest_full_sync(
        &self,
        mapping: MappingId,
        after: StatusId,
    ) -> Result<Option<FullSyncRun>> {
        let params = [Param::Int(mapping.0), Param::BigInt(after.0)];
        let row = self
            .session()
            .await?
            .opt_row(include_str!("../../sql/control/newest_full_sync.sql"), &params)
            .await
            .context("read sync_status")?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(FullSyncRun {
            id: StatusId(row.i64(0)?),
            status: row.text(1)?.to_owned(),
            records: row.i64(2)?,
            error: row.opt_text(3)?.map(str::to_owned),
        }))
    }

    /// Sets `parked` of a mapping's open error. Does nothing on a control database without that
    /// column, where `init` was not run after an update.
    pub async fn mark_error_parked(
        &self,
        mapping: i32,
        error_type: &str,
        message: &str,
    ) -> Result<()> {
        let mut session = self.session().await?;
        let params = [Param::Int(mapping), Param::Text(error_type), Param::Text(message)];
        match session.execute(include_str!("../../sql/control/error_parked.sql"), &params).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind, Kind::Missing | Kind::Schema) => {
                session.recover().await
            }
            Err(error) => Err(error).context("write error_logs"),
        }
    }
}

fn status_row(row: &Row) -> Result<StatusRow> {
    let text = |at: usize| -> Result<Option<String>> { Ok(row.opt_text(at)?.map(str::to_owned)) };
    let run = match (text(17)?, text(18)?) {
        (Some(sync_type), Some(status)) => Some(NewestRun {
            sync_type,
            status,
            records: row.opt_i64(19)?.unwrap_or(0),
            started_at: text(20)?,
            completed_at: text(21)?,
        }),
        _ => None,
    };
    let error = match (text(22)?, text(23)?) {
        (Some(error_type), Some(message)) => Some(OpenError {
            error_type,
            message,
            at: text(24)?,
            parked: row.opt_bool(25)?.unwrap_or(false),
        }),
        _ => None,
    };
    Ok(StatusRow {
        mapping: row.i32(0)?,
        server: row.text(1)?.to_owned(),
        source: TableName::new(row.text(2)?, row.text(3)?, row.text(4)?),
        dest: TableName::new(row.text(5)?, row.text(6)?, row.text(7)?),
        enabled: row.bool(8)?,
        server_enabled: row.bool(9)?,
        cdc_enabled: row.bool(10)?,
        full_sync_requested: row.bool(11)?,
        full_sync_pending: row.bool(12)?,
        last_full_sync_at: text(13)?,
        last_cdc_lsn: row.opt_lsn(14)?.map(|lsn| lsn.to_string()),
        lag_seconds: row.opt_i64(15)?,
        lag_reason: text(16)?,
        last_run: run,
        error,
        server_error: text(26)?,
        verification: text(27)?
            .map(|status| -> Result<NewestVerification> {
                Ok(NewestVerification { status, at: text(28)? })
            })
            .transpose()?,
        uncaptured: text(29)?,
        rows: None,
    })
}
