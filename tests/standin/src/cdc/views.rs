//! `sys.dm_cdc_log_scan_sessions` and `msdb.dbo.cdc_jobs`.

use crate::{
    cdc::ScanSession,
    engine::{
        clock::Moment,
        views::{Context, Rows, Spec, bit, int, text},
    },
    error::SqlResult,
    value::Value,
};

pub(super) const VIEWS: &[Spec] = &[
    (
        "dbo.cdc_jobs",
        "database_id int,job_type n20,job_id guid?,maxtrans int?,maxscans int?,continuous bit?,pollinginterval bigint?,retention bigint?,\
         threshold bigint?",
        |cx, rows| {
            cx.require_msdb("cdc_jobs")?;
            for db in cx.state.databases.values() {
                if let Some(job) = &db.cdc.capture_job {
                    rows.push([
                        ("database_id", int(db.id)),
                        ("job_type", text("capture")),
                        ("job_id", job_id(db.id, 1)),
                        ("maxtrans", int(job.maxtrans)),
                        ("maxscans", int(job.maxscans)),
                        ("continuous", bit(job.continuous)),
                        ("pollinginterval", int(job.pollinginterval)),
                        ("retention", int(0)),
                        ("threshold", int(0)),
                    ]);
                }
                if let Some(job) = &db.cdc.cleanup_job {
                    rows.push([
                        ("database_id", int(db.id)),
                        ("job_type", text("cleanup")),
                        ("job_id", job_id(db.id, 2)),
                        ("maxtrans", int(0)),
                        ("maxscans", int(0)),
                        ("continuous", bit(false)),
                        ("pollinginterval", int(0)),
                        ("retention", int(job.retention)),
                        ("threshold", int(job.threshold)),
                    ]);
                }
            }
            Ok(())
        },
    ),
    (
        "sys.dm_cdc_log_scan_sessions",
        "session_id int,start_time dt,end_time dt,duration int,scan_phase n200,error_count int,start_lsn n23,current_lsn n23,end_lsn n23,\
         tran_count bigint,last_commit_lsn n23,last_commit_time dt,log_record_count bigint,schema_change_count bigint,command_count bigint,\
         first_begin_cdc_lsn n23,last_commit_cdc_lsn n23,last_commit_cdc_time dt,latency int,empty_scan_count bigint,failed_sessions_count int",
        scan_sessions,
    ),
];

/// A job's id: made of its database, so that it stays.
fn job_id(database: i32, number: u8) -> Value {
    let [a, b, c, d] = database.to_be_bytes();
    Value::Guid([0xCD, 0xC0, number, 0, a, b, 0x40, c, 0x80, d, 0, 0, 0, 0, 0, number])
}

/// Session 0 sums up the others, as the documentation of the view says.
fn scan_sessions(cx: &Context<'_>, rows: &mut Rows<'_>) -> SqlResult<()> {
    cx.require_database_state()?;
    let all = &cx.db.cdc.sessions;
    let Some(last) = all.back() else { return Ok(()) };
    let sum = ScanSession {
        id: 0,
        start: all.front().map_or(last.start, |s| s.start),
        transactions: all.iter().map(|s| s.transactions).sum(),
        commands: all.iter().map(|s| s.commands).sum(),
        errors: all.iter().map(|s| s.errors).sum(),
        ..last.clone()
    };
    for s in std::iter::once(&sum).chain(all.iter().rev()) {
        let commit: Moment = s.last_commit.unwrap_or(s.end);
        rows.push([
            ("session_id", int(s.id)),
            ("start_time", s.start.datetime()),
            ("end_time", s.end.datetime()),
            ("duration", int((s.end.0 - s.start.0) / 10_000_000)),
            ("scan_phase", text("Done")),
            ("error_count", int(s.errors)),
            ("start_lsn", text(&s.start_lsn)),
            ("current_lsn", text(&s.end_lsn)),
            ("end_lsn", text(&s.end_lsn)),
            ("tran_count", int(s.transactions)),
            ("last_commit_lsn", text(&s.end_lsn)),
            ("last_commit_time", commit.datetime()),
            ("log_record_count", int(s.commands)),
            ("command_count", int(s.commands)),
            ("first_begin_cdc_lsn", text(&s.start_lsn)),
            ("last_commit_cdc_lsn", text(&s.end_lsn)),
            ("last_commit_cdc_time", commit.datetime()),
            ("latency", int(((s.end.0 - commit.0) / 10_000_000).max(0))),
            ("empty_scan_count", int(s.empty_scans)),
        ]);
    }
    Ok(())
}
