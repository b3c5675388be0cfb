//! The capture and cleanup jobs, and the same work by hand.

use super::{must_have, require_enabled, require_owner};
use crate::{
    cdc::{CaptureJob, CleanupJob, capture, cleanup, store},
    engine::{
        context::Session,
        procedures::{Argument, Arguments},
    },
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    value::Value,
};

const SETTINGS: [&str; 7] = [
    "@job_type",
    "@maxtrans",
    "@maxscans",
    "@continuous",
    "@pollinginterval",
    "@retention",
    "@threshold",
];

/// Which job: capture or cleanup.
fn kind(args: &Arguments<'_>, default: &str) -> SqlResult<bool> {
    let name = args.text("@job_type").unwrap_or_else(|| default.into());
    match name.to_ascii_lowercase().as_str() {
        "capture" => Ok(true),
        "cleanup" => Ok(false),
        other => Err(SqlError::new(
            22992,
            16,
            format!(
                "The specified @job_type, {other}, is not supported. The value specified for the parameter @job_type must be N'capture' to \
                 indicate a capture job, or N'cleanup' to indicate a cleanup job."
            ),
        )),
    }
}

/// Error 22970 and its like.
fn check(args: &Arguments<'_>) -> SqlResult<()> {
    if args.integer("@maxtrans").is_some_and(|n| n <= 0) {
        return Err(SqlError::new(
            22991,
            16,
            "The value specified for the parameter @maxtrans must be greater than 0.",
        ));
    }
    if args.integer("@maxscans").is_some_and(|n| n <= 0) {
        let text = "The value for parameter @maxscans specified for the Change Data Capture job must be greater than 0.";
        return Err(SqlError::new(22970, 16, text));
    }
    if args.integer("@pollinginterval").is_some_and(|n| !(0..86_400).contains(&n)) {
        let text = "The value specified for the parameter @pollinginterval must be greater than or equal to 0 and less than 24 hours(Max: 86399 \
                    seconds). Specify a polling interval (in seconds) that is less than 24 hours (86,400 seconds).";
        return Err(SqlError::new(22990, 16, text));
    }
    if args.integer("@retention").is_some_and(|n| !(1..=52_594_800).contains(&n)) {
        let text = "The retention value specified for the Change Data Capture cleanup process must be greater than 0 and less than or equal to \
                    52594800. When creating or modifying the cleanup job, specify a retention value (in minutes) that is within that range. If \
                    this error is encountered when executing the sys.sp_cdc_cleanup_change_table stored procedure, reset the retention value \
                    associated with the job to a non-negative value less than 52594800 by using the sp_cdc_change_job stored procedure.";
        return Err(SqlError::new(22994, 16, text));
    }
    Ok(())
}

fn capture_settings(args: &Arguments<'_>, job: CaptureJob) -> CaptureJob {
    let small = |name: &str, old: i32| {
        args.integer(name).and_then(|n| i32::try_from(n).ok()).unwrap_or(old)
    };
    CaptureJob {
        maxtrans: small("@maxtrans", job.maxtrans),
        maxscans: small("@maxscans", job.maxscans),
        continuous: args.integer("@continuous").map_or(job.continuous, |n| n != 0),
        pollinginterval: args.integer("@pollinginterval").unwrap_or(job.pollinginterval),
    }
}

fn cleanup_settings(args: &Arguments<'_>, job: CleanupJob) -> CleanupJob {
    CleanupJob {
        retention: args.integer("@retention").unwrap_or(job.retention),
        threshold: args.integer("@threshold").unwrap_or(job.threshold),
    }
}

pub(super) fn change_job(
    session: &mut Session,
    arguments: &mut [Argument],
    _: &mut dyn Sink,
) -> SqlResult<i32> {
    require_owner(session)?;
    let database = require_enabled(session)?;
    let args = Arguments::new("sp_cdc_change_job", &SETTINGS, arguments)?;
    let capture = kind(&args, "capture")?;
    check(&args)?;
    let mut state = session.instance.lock();
    let cdc = &mut state.database_mut(database)?.cdc;
    if let Some(job) = cdc.capture_job.as_mut().filter(|_| capture) {
        *job = capture_settings(&args, *job);
    } else if let Some(job) = cdc.cleanup_job.as_mut().filter(|_| !capture) {
        *job = cleanup_settings(&args, *job);
    } else {
        let text = format!(
            "The Change Data Capture '{}' job does not exist in the system table 'msdb.dbo.cdc_jobs'. Use the stored procedure \
             'sys.sp_cdc_add_job' to add the Change Data Capture job.",
            if capture { "capture" } else { "cleanup" }
        );
        return Err(SqlError::new(22997, 16, text));
    }
    Ok(0)
}

pub(super) fn start_job(
    session: &mut Session,
    arguments: &mut [Argument],
    _: &mut dyn Sink,
) -> SqlResult<i32> {
    require_owner(session)?;
    let database = require_enabled(session)?;
    let args = Arguments::new("sp_cdc_start_job", &["@job_type"], arguments)?;
    if !kind(&args, "capture")? {
        // what the cleanup job does at two in the morning
        let now = session.instance.now();
        cleanup::retention(&mut session.instance.lock(), database, now)?;
        return Ok(0);
    }
    let now = session.instance.now();
    let mut state = session.instance.lock();
    state.database_mut(database)?.cdc.running = true;
    if state.database(database)?.cdc.mode != crate::cdc::CaptureMode::Manual {
        capture::scan(&mut state, database, now, usize::MAX);
    }
    Ok(0)
}

pub(super) fn stop_job(
    session: &mut Session,
    arguments: &mut [Argument],
    _: &mut dyn Sink,
) -> SqlResult<i32> {
    require_owner(session)?;
    let database = require_enabled(session)?;
    let args = Arguments::new("sp_cdc_stop_job", &["@job_type"], arguments)?;
    if kind(&args, "capture")? {
        session.instance.lock().database_mut(database)?.cdc.running = false;
    }
    Ok(0)
}

pub(super) fn cleanup_change_table(
    session: &mut Session,
    arguments: &mut [Argument],
    _: &mut dyn Sink,
) -> SqlResult<i32> {
    require_owner(session)?;
    let database = require_enabled(session)?;
    let names = ["@capture_instance", "@low_water_mark", "@threshold", "@fCleanupFailed"];
    let args = Arguments::new("sp_cdc_cleanup_change_table", &names, arguments)?;
    args.required("@capture_instance")?;
    args.required("@low_water_mark")?;
    let instance = args
        .text("@capture_instance")
        .filter(|t| !t.is_empty())
        .ok_or_else(|| must_have("@capture_instance"))?;
    let now = session.instance.now();
    let mut state = session.instance.lock();
    // NULL: the rows go, the low end stays
    let mark = match args.value("@low_water_mark") {
        Value::Null => {
            let found = crate::cdc::instances::load(&state, database, 0)
                .into_iter()
                .find(|i| i.name.eq_ignore_ascii_case(&instance));
            let Some(found) = found else {
                return Err(cleanup::no_instance(&state, database, &instance));
            };
            found.start_lsn
        }
        value => store::lsn_of(&value).ok_or_else(|| {
            SqlError::new(257, 16, "Implicit conversion to binary is not allowed.")
        })?,
    };
    cleanup::change_table(&mut state, database, &instance, &mark, now)?;
    Ok(0)
}
