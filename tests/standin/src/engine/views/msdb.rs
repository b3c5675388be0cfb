//! msdb: capture jobs, agent jobs, restore history.

use super::{Spec, bit, int, text};
use crate::value::Value;

pub(super) const VIEWS: &[Spec] = &[(
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
)];

/// A job's id: made of its database, so that it stays.
fn job_id(database: i32, number: u8) -> Value {
    let [a, b, c, d] = database.to_be_bytes();
    Value::Guid([0xCD, 0xC0, number, 0, a, b, 0x40, c, 0x80, d, 0, 0, 0, 0, 0, number])
}
