//! Functions that ask the session: who, where, in what transaction, with what error.

use crate::{
    engine::context::Session,
    error::SqlResult,
    value::{Decimal, Value},
};
use std::sync::Arc;

fn text(s: impl AsRef<str>) -> Value {
    Value::Str(Arc::from(s.as_ref()))
}

/// None: not one of these. `name` is in upper case.
pub fn session_function(session: &Session, name: &str, args: &[Value]) -> SqlResult<Option<Value>> {
    // a function of sys has the database in front when one was written
    let (database, own) =
        name.rsplit_once('.').map_or((None, name), |(database, own)| (Some(database), own));
    for extension in session.instance.extensions {
        if let Some(work) = &session.work
            && (extension.scalar_type)(own).is_some()
        {
            let id = match database {
                Some(database) => {
                    session.instance.lock().open_database(&session.login, database)?
                }
                None => session.database,
            };
            return (extension.scalar)(work, &session.login, id, own, args);
        }
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
        ("ORIGINAL_LOGIN", []) => text(&session.login),
        ("USER_NAME", []) => {
            let state = session.instance.lock();
            state.user_of(&session.login, session.database).map_or(Value::Null, |u| text(&u.name))
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
        ("APPLOCK_TEST", _) => return super::applocks::test(session, args),
        _ => return super::metadata::metadata_function(session, name, args),
    }))
}

/// An identity value as SCOPE_IDENTITY gives it, numeric(38, 0).
fn identity(value: Option<i128>) -> Value {
    value.map_or(Value::Null, |mantissa| Value::Decimal(Decimal { mantissa, scale: 0 }))
}
