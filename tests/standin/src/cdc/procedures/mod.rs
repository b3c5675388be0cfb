//! The system procedures `sys.sp_cdc_*`. Texts and numbers of errors are those of sys.messages
//! 22900 to 22999.

mod enable;
mod jobs;

use super::store;
use crate::{
    engine::{context::Session, procedures::SystemProcedure},
    error::{SqlError, SqlResult},
};

/// Names (lower case) and functions, for the table of system procedures.
pub const PROCEDURES: &[(&str, SystemProcedure)] = &[
    ("sp_cdc_enable_db", enable::enable_db),
    ("sp_cdc_disable_db", enable::disable_db),
    ("sp_cdc_enable_table", enable::enable_table),
    ("sp_cdc_disable_table", enable::disable_table),
    ("sp_cdc_change_job", jobs::change_job),
    ("sp_cdc_start_job", jobs::start_job),
    ("sp_cdc_stop_job", jobs::stop_job),
    ("sp_cdc_cleanup_change_table", jobs::cleanup_change_table),
];

/// Error 22904 for callers that are not dbo.
fn require_owner(session: &Session) -> SqlResult<()> {
    let state = session.instance.lock();
    let database = session.database;
    if state.is_sysadmin(&session.login)
        || state.is_member(&session.login, database, "db_owner") == Some(true)
    {
        return Ok(());
    }
    Err(SqlError::new(
        22904,
        16,
        "Caller is not authorized to initiate the requested action. DBO privileges are required.",
    ))
}

/// Error 22901 in a database without change data capture.
fn require_enabled(session: &Session) -> SqlResult<i32> {
    let state = session.instance.lock();
    let database = session.database;
    let db = state.database(database)?;
    if db.options.is_cdc_enabled { Ok(database) } else { Err(store::not_enabled(&db.name)) }
}

/// Error 22963.
fn must_have(name: &str) -> SqlError {
    SqlError::new(
        22963,
        16,
        format!(
            "Parameter '{name}' cannot be null or empty. Specify a value for the named parameter and retry the operation."
        ),
    )
}
