//! Functions that ask the session: who, where, in what transaction, with what error.

use crate::{
    engine::{context::Session, host::identity},
    error::SqlResult,
    value::Value,
};
use std::sync::Arc;

fn text(s: impl AsRef<str>) -> Value {
    Value::Str(Arc::from(s.as_ref()))
}

/// None: not one of these. `name` is in upper case.
pub fn session_function(session: &Session, name: &str, args: &[Value]) -> SqlResult<Option<Value>> {
    // sys.fn_cdc_…, with the database in front when one was written
    let (database, own) =
        name.rsplit_once('.').map_or((None, name), |(database, own)| (Some(database), own));
    if own.starts_with("FN_CDC_")
        && let Some(work) = &session.work
    {
        let id = match database {
            Some(database) => session.instance.lock().open_database(&session.login, database)?,
            None => session.database,
        };
        return crate::cdc::functions::scalar(work, &session.login, id, own, args);
    }
    let caught = session.caught.last();
    let of_error = |value: fn(&crate::error::SqlError) -> Value| caught.map_or(Value::Null, value);
    Ok(Some(match (name, args) {
        ("ERROR_NUMBER", []) => of_error(|e| Value::Int(i64::from(e.number))),
        ("ERROR_MESSAGE", []) => of_error(|e| text(&e.message)),
        ("ERROR_SEVERITY", []) => of_error(|e| Value::Int(i64::from(e.class))),
        ("ERROR_STATE", []) => of_error(|e| Value::Int(i64::from(e.state))),
        ("ERROR_LINE", []) => of_error(|e| Value::Int(i64::from(e.line))),
        ("ERROR_PROCEDURE", []) => {
            of_error(|e| if e.procedure.is_empty() { Value::Null } else { text(&e.procedure) })
        }
        ("XACT_STATE", []) => Value::Int(i64::from(session.xact_state())),
        ("SCOPE_IDENTITY", []) => identity(session.frame().identity),
        ("ROWCOUNT_BIG", []) => Value::Int(session.row_count),
        ("CURRENT_TRANSACTION_ID", []) => Value::Int(session.txn.map_or(0, |t| t as i64)),
        ("APP_NAME", []) => text(&session.info.app_name),
        ("HOST_NAME", []) => text(&session.info.host_name),
        ("HOST_ID", []) => text(session.info.client_pid.to_string()),
        ("ORIGINAL_LOGIN" | "SUSER_SNAME" | "SUSER_NAME" | "SYSTEM_USER", []) => {
            text(&session.login)
        }
        ("CURRENT_USER" | "SESSION_USER" | "USER" | "USER_NAME", []) => {
            let state = session.instance.lock();
            state.user_of(&session.login, session.database).map_or(Value::Null, |u| text(&u.name))
        }
        ("CONTEXT_INFO", []) if session.context_info.is_empty() => Value::Null,
        ("CONTEXT_INFO", []) => {
            let mut bytes = session.context_info.clone();
            bytes.resize(128, 0);
            Value::Bytes(bytes.into())
        }
        ("DB_NAME", []) => text(session.database_name()),
        ("DB_NAME", [Value::Int(id)]) => {
            let state = session.instance.lock();
            i32::try_from(*id)
                .ok()
                .and_then(|id| state.databases.get(&id))
                .map_or(Value::Null, |d| text(&d.name))
        }
        ("DB_ID", []) => Value::Int(i64::from(session.database)),
        ("DB_ID", [Value::Str(name)]) => session
            .instance
            .lock()
            .database_named(name)
            .map_or(Value::Null, |d| Value::Int(i64::from(d.id))),
        ("TRIGGER_NESTLEVEL", []) => {
            Value::Int(session.frames.iter().filter(|f| f.trigger.is_some()).count() as i64)
        }
        ("UPDATE", [Value::Str(column)]) => {
            let updated = session
                .frame()
                .trigger
                .as_ref()
                .is_some_and(|t| t.updated.iter().any(|c| c.eq_ignore_ascii_case(column)));
            Value::Bit(updated)
        }
        ("APPLOCK_TEST" | "APPLOCK_MODE", _) => {
            return super::applocks::function(session, name, args);
        }
        _ => return super::metadata::metadata_function(session, name, args),
    }))
}
