//! msdb: capture jobs, agent jobs, restore history.

use super::{Spec, bit, int, opt, text};
use crate::value::Value;

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
        "dbo.sysjobs",
        "job_id guid,originating_server_id int,name sysname,enabled tinyint,description n512?,start_step_id int,category_id int,owner_sid vb85,\
         date_created dt,date_modified dt,version_number int",
        |cx, rows| {
            cx.require_msdb("sysjobs")?;
            for db in cx.state.databases.values() {
                let jobs = [
                    (db.cdc.capture_job.is_some(), 1, "capture"),
                    (db.cdc.cleanup_job.is_some(), 2, "cleanup"),
                ];
                for (_, number, kind) in jobs.into_iter().filter(|(exists, ..)| *exists) {
                    rows.push([
                        ("job_id", job_id(db.id, number)),
                        ("name", text(format!("cdc.{}_{kind}", db.name))),
                        ("enabled", int(1)),
                        ("start_step_id", int(1)),
                        ("date_created", db.create_date.datetime()),
                        ("date_modified", db.create_date.datetime()),
                    ]);
                }
            }
            Ok(())
        },
    ),
    (
        "dbo.sysjobactivity",
        "session_id int,job_id guid,run_requested_date dt?,run_requested_source sysname?,queued_date dt?,start_execution_date dt?,\
         last_executed_step_id int?,last_executed_step_date dt?,stop_execution_date dt?,job_history_id int?,next_scheduled_run_date dt?",
        |cx, rows| {
            cx.require_msdb("sysjobactivity")?;
            for db in cx.state.databases.values().filter(|d| d.cdc.capture_job.is_some()) {
                let stopped = (!db.cdc.running).then(|| cx.instance.now().datetime());
                rows.push([
                    ("session_id", int(1)),
                    ("job_id", job_id(db.id, 1)),
                    ("start_execution_date", cx.instance.start_time.datetime()),
                    ("stop_execution_date", opt(stopped, |s| s)),
                ]);
            }
            Ok(())
        },
    ),
    (
        "dbo.restorehistory",
        "restore_history_id int,restore_date dt?,destination_database_name n128?,user_name n128?,backup_set_id int,restore_type c1?,replace bit?,\
         recovery bit?,restart bit?,stop_at dt?,device_count tinyint?,stop_at_mark_name n128?,stop_before bit?",
        |cx, rows| {
            cx.require_msdb("restorehistory")?;
            for db in cx.state.databases.values() {
                for (id, date) in &db.restores {
                    rows.push([
                        ("restore_history_id", int(*id)),
                        ("restore_date", date.datetime()),
                        ("destination_database_name", text(&db.name)),
                        ("user_name", text("sa")),
                        ("backup_set_id", int(*id)),
                        ("restore_type", text("D")),
                        ("replace", bit(true)),
                        ("recovery", bit(true)),
                    ]);
                }
            }
            Ok(())
        },
    ),
];

/// A job's id: made of its database, so that it stays.
pub fn job_id(database: i32, number: u8) -> Value {
    let [a, b, c, d] = database.to_be_bytes();
    Value::Guid([0xCD, 0xC0, number, 0, a, b, 0x40, c, 0x80, d, 0, 0, 0, 0, 0, number])
}
