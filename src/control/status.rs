//! What `status` reads of every mapping, and what `sync` reads of one full sync.

use super::{Control, lease::GONE_AFTER, mappings::outdated};
use crate::{
    error::{Context, Kind, Result},
    model::{
        id::{MappingId, StatusId},
        name::TableName,
    },
    mssql::client::row::{Param, Row},
    plan::status::{
        DaemonPresence, Finding, NewestRun, NewestVerification, OpenError, ServerError, StatusRow,
    },
};

/// Every mapping there is, enabled or not, and whether a daemon works on them.
#[derive(Clone, Debug)]
pub struct StatusSnapshot {
    pub daemon: DaemonPresence,
    pub mappings: Vec<StatusRow>,
    /// The control database has all that `init` makes today.
    pub is_current: bool,
}

/// What `init` adds to the control database of an older version, as far as it is read here.
struct Columns {
    initial_sync: bool,
    error_code: bool,
    is_parked: bool,
    uncaptured: bool,
    daemons: bool,
    mapping_status: bool,
}

impl Columns {
    fn read(row: &Row) -> Result<Self> {
        Ok(Columns {
            initial_sync: row.bool(0)?,
            error_code: row.bool(1)?,
            is_parked: row.bool(2)?,
            uncaptured: row.bool(3)?,
            daemons: row.bool(4)?,
            mapping_status: row.bool(5)?,
        })
    }

    fn are_all_there(&self) -> bool {
        self.initial_sync
            && self.error_code
            && self.is_parked
            && self.uncaptured
            && self.daemons
            && self.mapping_status
    }

    /// The statement for the columns there are.
    fn statement(&self) -> String {
        let column = |there, name: &str, instead: &str| {
            if there { name.to_owned() } else { format!("CAST(NULL AS {instead})") }
        };
        include_str!("../../sql/control/status.sql")
            .replace("{initial_sync}", &column(self.initial_sync, "m.initial_sync", "NVARCHAR(10)"))
            .replace("{error_code}", &column(self.error_code, "x.error_code", "NVARCHAR(50)"))
            .replace(
                "{source_database}",
                &column(self.error_code, "x.source_database", "NVARCHAR(255)"),
            )
            // a constant cannot be ordered by (Msg 408)
            .replace(
                "{is_parked}",
                if self.is_parked { "x.is_parked" } else { "CAST(x.retry_count * 0 AS BIT)" },
            )
            .replace("{uncaptured}", &column(self.uncaptured, "g.uncaptured", "NVARCHAR(MAX)"))
    }
}

/// A full sync's row in sync_status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullSyncRun {
    pub id: StatusId,
    pub status: String,
    pub records: i64,
    pub error: Option<String>,
}

impl Control {
    /// All mappings, with their newest run, error and verification. Works on the control database of
    /// an older version: what it does not have is unknown.
    pub async fn status_snapshot(&self) -> Result<StatusSnapshot> {
        let mut session = self.session().await?;
        let reading = "read the status of the mappings";
        let columns = session
            .row(include_str!("../../sql/control/status_columns.sql"), &[])
            .await
            .context(reading)
            .and_then(|row| Columns::read(&row))?;
        let daemon = if columns.daemons {
            let silence_s = i32::try_from(GONE_AFTER.as_secs()).unwrap_or(i32::MAX);
            let row = session
                .row(include_str!("../../sql/control/daemons.sql"), &[Param::Int(silence_s)])
                .await
                .context(reading)?;
            match row.bool(0)? {
                true => DaemonPresence::Alive,
                false => DaemonPresence::Gone { last_beat: row.opt_text(1)?.map(str::to_owned) },
            }
        } else {
            DaemonPresence::Unknown
        };
        let rows =
            session.rows(&columns.statement(), &[]).await.map_err(outdated).context(reading)?;
        let mappings = rows.iter().map(status_row).collect::<Result<_>>()?;
        Ok(StatusSnapshot { daemon, mappings, is_current: columns.are_all_there() })
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

/// A row of `status.sql`, whose columns are counted on from one group to the next.
fn status_row(row: &Row) -> Result<StatusRow> {
    let text = |at: usize| -> Result<Option<String>> { Ok(row.opt_text(at)?.map(str::to_owned)) };
    Ok(StatusRow {
        mapping: row.i32(0)?,
        server_id: row.i32(1)?,
        server: row.text(2)?.to_owned(),
        source: TableName::new(row.text(3)?, row.text(4)?, row.text(5)?),
        dest: TableName::new(row.text(6)?, row.text(7)?, row.text(8)?),
        enabled: row.bool(9)?,
        server_enabled: row.bool(10)?,
        cdc_enabled: row.bool(11)?,
        full_sync_requested: row.bool(12)?,
        full_sync_pending_at: text(13)?,
        last_full_sync_at: text(14)?,
        no_initial_sync: row
            .opt_text(15)?
            .is_some_and(|word| word.trim().eq_ignore_ascii_case("NONE")),
        created_at: text(16)?,
        last_cdc_lsn: row.opt_lsn(17)?.map(|lsn| lsn.to_string()),
        lag_seconds: row.opt_i64(18)?,
        lag_reason: text(19)?,
        lag_since: text(20)?,
        unknown_lag_seconds: row.opt_i64(21)?,
        uncaptured: text(22)?,
        last_run: newest_run(row, 23)?,
        error: open_error(row, 28)?,
        server_error: server_error(row, 34)?,
        verification: match text(38)? {
            Some(status) => Some(NewestVerification { status, at: text(39)? }),
            None => None,
        },
        finding: match text(40)? {
            Some(kind) => {
                let mismatches = row.opt_i64(41)?.unwrap_or(0);
                Some(Finding { kind, mismatches, at: text(42)? })
            }
            None => None,
        },
        rows: None,
    })
}

fn newest_run(row: &Row, from: usize) -> Result<Option<NewestRun>> {
    let text =
        |at: usize| -> Result<Option<String>> { Ok(row.opt_text(from + at)?.map(str::to_owned)) };
    let (Some(sync_type), Some(status)) = (text(0)?, text(1)?) else { return Ok(None) };
    let records = row.opt_i64(from + 2)?.unwrap_or(0);
    Ok(Some(NewestRun { sync_type, status, records, started_at: text(3)?, completed_at: text(4)? }))
}

fn open_error(row: &Row, from: usize) -> Result<Option<OpenError>> {
    let text =
        |at: usize| -> Result<Option<String>> { Ok(row.opt_text(from + at)?.map(str::to_owned)) };
    let (Some(error_type), Some(message)) = (text(0)?, text(2)?) else { return Ok(None) };
    Ok(Some(OpenError {
        error_type,
        code: text(1)?,
        message,
        at: text(3)?,
        parked: row.opt_bool(from + 4)?.unwrap_or(false),
        advice: text(5)?,
    }))
}

fn server_error(row: &Row, from: usize) -> Result<Option<ServerError>> {
    let text =
        |at: usize| -> Result<Option<String>> { Ok(row.opt_text(from + at)?.map(str::to_owned)) };
    let Some(message) = text(1)? else { return Ok(None) };
    Ok(Some(ServerError { code: text(0)?, message, at: text(2)?, advice: text(3)? }))
}
