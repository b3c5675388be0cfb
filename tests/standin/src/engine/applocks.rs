//! Application locks: sp_getapplock, sp_releaseapplock and APPLOCK_TEST.
//!
//! A resource belongs to a database; its name is compared byte by byte and cut after 255
//! characters. A lock of the session is held until it is released as often as it was taken, or the
//! session ends; one of the transaction ends with it. Only the database principal `public` is known
//! here.
//! <https://learn.microsoft.com/sql/relational-databases/system-stored-procedures/sp-getapplock-transact-sql>

use crate::{
    engine::{
        context::Session,
        lock::{AppMode, AppOwner},
        procedures::{Argument, Arguments},
    },
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    value::Value,
};

const RESOURCE_CHARS_MAX: usize = 255;

/// sp_getapplock's RETURN values.
const GRANTED: i32 = 0;
const GRANTED_AFTER_WAITING: i32 = 1;
const TIMED_OUT: i32 = -1;
const DEADLOCK_VICTIM: i32 = -3;
const BAD_CALL: i32 = -999;

fn principal(name: Option<&str>) -> SqlResult<()> {
    match name {
        None => Ok(()),
        Some(name) if name.eq_ignore_ascii_case("public") => Ok(()),
        Some(name) => Err(SqlError::unsupported(format!(
            "an application lock of the database principal {name}"
        ))),
    }
}

fn resource(session: &Session, name: &str) -> (i32, String) {
    (session.database, name.chars().take(RESOURCE_CHARS_MAX).collect())
}

/// `None`: no such owner. 3918 for a transaction's lock outside of one.
fn owner(session: &Session, text: &str) -> SqlResult<Option<AppOwner>> {
    if text.eq_ignore_ascii_case("Session") {
        return Ok(Some(AppOwner::Session(session.spid)));
    }
    if !text.eq_ignore_ascii_case("Transaction") {
        return Ok(None);
    }
    match session.txn {
        Some(txn) if session.tran_count > 0 => Ok(Some(AppOwner::Transaction(txn, session.spid))),
        _ => Err(SqlError::new(
            3918,
            16,
            "The statement or function must be executed in the context of a user transaction.",
        )),
    }
}

pub fn get(session: &mut Session, arguments: &mut [Argument], _: &mut dyn Sink) -> SqlResult<i32> {
    let args = Arguments::new(
        "sp_getapplock",
        &["@Resource", "@LockMode", "@LockOwner", "@LockTimeout", "@DbPrincipal"],
        arguments,
    )?;
    args.required("@Resource")?;
    args.required("@LockMode")?;
    principal(args.text("@DbPrincipal").as_deref())?;
    let mode = args.text("@LockMode").and_then(|text| AppMode::parse(&text));
    let owner = owner(session, args.text("@LockOwner").as_deref().unwrap_or("Transaction"))?;
    let timeout_ms = args.integer("@LockTimeout").unwrap_or(session.options.lock_timeout_ms);
    let (Some(name), Some(mode), Some(owner)) = (args.text("@Resource"), mode, owner) else {
        return Ok(BAD_CALL);
    };
    if timeout_ms < -1 {
        return Ok(BAD_CALL);
    }
    let resource = resource(session, &name);
    session.statement(|session| {
        let Some(work) = session.work.clone() else { return Ok(BAD_CALL) };
        let mut waited = false;
        let granted = work.wait_for(work.lock(), timeout_ms, |state| {
            let blockers = state.locks.app_blockers(&resource, owner, mode);
            waited |= !blockers.is_empty();
            blockers
        });
        match granted {
            Ok(mut state) => {
                state.locks.grant_app(resource.clone(), owner, mode);
                Ok(if waited { GRANTED_AFTER_WAITING } else { GRANTED })
            }
            Err(error) if error.number == 1222 => Ok(TIMED_OUT),
            Err(error) if error.number == 1205 => Ok(DEADLOCK_VICTIM),
            Err(error) => Err(error),
        }
    })
}

/// 1223 for a lock that is not held.
pub fn release(
    session: &mut Session,
    arguments: &mut [Argument],
    _: &mut dyn Sink,
) -> SqlResult<i32> {
    let args = Arguments::new(
        "sp_releaseapplock",
        &["@Resource", "@LockOwner", "@DbPrincipal"],
        arguments,
    )?;
    args.required("@Resource")?;
    principal(args.text("@DbPrincipal").as_deref())?;
    let owner = owner(session, args.text("@LockOwner").as_deref().unwrap_or("Transaction"))?;
    let (Some(name), Some(owner)) = (args.text("@Resource"), owner) else { return Ok(BAD_CALL) };
    let resource = resource(session, &name);
    if !session.instance.lock().locks.release_app(&resource, owner) {
        let text = format!(
            "Cannot release the application lock (Database Principal: 'public', Resource: '{}') because it is not currently held.",
            resource.1
        );
        return Err(SqlError::new(1223, 16, text));
    }
    session.instance.notify();
    Ok(GRANTED)
}

/// APPLOCK_TEST; None: arguments that it does not have.
pub fn test(session: &Session, args: &[Value]) -> SqlResult<Option<Value>> {
    let texts: Vec<&str> = args
        .iter()
        .filter_map(|arg| if let Value::Str(text) = arg { Some(text.as_ref()) } else { None })
        .collect();
    Ok(match texts.as_slice() {
        [who, named, mode, held_by] => {
            principal(Some(who))?;
            let (Some(mode), Some(owner)) = (AppMode::parse(mode), owner(session, held_by)?) else {
                return Ok(Some(Value::Null));
            };
            let free = session
                .instance
                .lock()
                .locks
                .app_blockers(&resource(session, named), owner, mode)
                .is_empty();
            Some(Value::Int(i64::from(free)))
        }
        _ if texts.len() < args.len() => Some(Value::Null),
        _ => None,
    })
}
