//! CREATE, ALTER and DROP DATABASE. They are not part of any transaction (226).

use crate::{
    engine::{context::Session, instance::State},
    error::{SqlError, SqlResult},
    tsql::ast::{AlterDatabase, Others},
    value::Collation,
};
use std::{sync::MutexGuard, time::Duration};

/// A session that leaves a database tells nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// 226 inside an explicit transaction.
fn outside(session: &Session, statement: &str) -> SqlResult<()> {
    if session.tran_count > 0 {
        return Err(SqlError::new(
            226,
            16,
            format!("{statement} statement not allowed within multi-statement transaction."),
        ));
    }
    Ok(())
}

fn collation(session: &Session, name: Option<&str>) -> SqlResult<Collation> {
    match name {
        None => Ok(session.instance.config.collation),
        Some(name) => Collation::by_name(name)
            .ok_or_else(|| SqlError::new(448, 16, format!("Invalid collation '{name}'."))),
    }
}

pub fn create_database(session: &mut Session, name: &str, collate: Option<&str>) -> SqlResult<()> {
    outside(session, "CREATE DATABASE")?;
    let collation = collation(session, collate)?;
    let now = session.instance.now();
    let mut state = session.instance.lock();
    if !state.has_server_permission(&session.login, "CREATE ANY DATABASE") {
        return Err(SqlError::new(
            262,
            14,
            "CREATE DATABASE permission denied in database 'master'.",
        ));
    }
    state.create_database(name, collation, now)?;
    Ok(())
}

/// 3701, 3702 while somebody uses it, 3708 for a system database.
pub fn drop_database(session: &mut Session, name: &str, if_exists: bool) -> SqlResult<()> {
    outside(session, "DROP DATABASE")?;
    let mut state = session.instance.lock();
    let Some((id, user)) = state.database_named(name).map(|d| (d.id, d.is_user_database())) else {
        if if_exists {
            return Ok(());
        }
        return Err(SqlError::new(
            3701,
            11,
            format!(
                "Cannot drop the database '{name}', because it does not exist or you do not have permission."
            ),
        ));
    };
    if !user {
        return Err(SqlError::new(
            3708,
            16,
            format!("Cannot drop the database '{name}' because it is a system database."),
        ));
    }
    if !state.is_sysadmin(&session.login)
        && state.is_member(&session.login, id, "db_owner") != Some(true)
    {
        return Err(SqlError::new(
            3701,
            11,
            format!(
                "Cannot drop the database '{name}', because it does not exist or you do not have permission."
            ),
        ));
    }
    if session.database == id
        || state.sessions.values().any(|s| s.database == id && s.spid != session.spid)
    {
        return Err(SqlError::new(
            3702,
            16,
            format!("Cannot drop database \"{name}\" because it is currently in use."),
        ));
    }
    state.drop_database(id);
    Ok(())
}

/// Waits until no other session is in a database that is taken offline, or ends them, or fails
/// (5070, 5069). Where others are to be ended they are for other settings, too.
fn alone<'a>(
    session: &'a Session,
    mut state: MutexGuard<'a, State>,
    id: i32,
    setting: &str,
    others: Others,
) -> SqlResult<MutexGuard<'a, State>> {
    loop {
        let there = state.sessions.values().filter(|s| s.database == id && s.spid != session.spid);
        match others {
            Others::End => {
                there.for_each(|s| s.cancel.kill());
                return Ok(state);
            }
            _ if setting != "OFFLINE" || there.count() == 0 => return Ok(state),
            Others::Fail => {
                let text = format!(
                    "Database state cannot be changed while other users are using the database '{}'",
                    state.database(id).map(|db| db.name.clone()).unwrap_or_default()
                );
                return Err(SqlError::new(5070, 16, text));
            }
            Others::Wait if session.cancel().is_cancelled() => return Err(SqlError::cancelled()),
            Others::Wait => state = session.instance.sleep(state, LOOK_AGAIN),
        }
    }
}

pub fn alter_database(
    session: &mut Session,
    name: Option<&str>,
    action: &AlterDatabase,
) -> SqlResult<()> {
    outside(session, "ALTER DATABASE")?;
    let mut state = session.instance.lock();
    let id = match name {
        Some(name) => state.database_named(name).map(|d| d.id),
        None => Some(session.database),
    };
    let permitted = id.is_some_and(|id| {
        state.is_sysadmin(&session.login)
            || state.is_member(&session.login, id, "db_owner") == Some(true)
    });
    let Some(id) = id.filter(|_| permitted) else {
        let text = format!(
            "User does not have permission to alter database '{}', the database does not exist, or the database is not in a state that allows access checks.",
            name.unwrap_or("")
        );
        return Err(SqlError::new(5011, 14, text));
    };
    if let AlterDatabase::Set { name, others, .. } = action {
        state = alone(session, state, id, name, *others)?;
    }
    let db = state.database_mut(id)?;
    match action {
        AlterDatabase::Collate(name) => {
            let new = collation(session, Some(name))?;
            if !db.catalog.name_by(new) {
                let text = format!(
                    "ALTER DATABASE failed. The default collation of database '{}' cannot be set to {name}.",
                    db.name
                );
                return Err(SqlError::new(5072, 16, text));
            }
            db.collation = new;
        }
        AlterDatabase::ModifyName(new) => db.name.clone_from(new),
        AlterDatabase::Set { name, value, .. } => {
            let word = value
                .split_whitespace()
                .next()
                .unwrap_or("")
                .trim_start_matches('=')
                .to_uppercase();
            let on = word == "ON";
            match name.as_str() {
                "ALLOW_SNAPSHOT_ISOLATION" => db.options.snapshot_isolation = on,
                "READ_COMMITTED_SNAPSHOT" => db.options.read_committed_snapshot = on,
                "READ_ONLY" => db.options.read_only = true,
                "READ_WRITE" => db.options.read_only = false,
                "OFFLINE" => db.options.offline = true,
                "ONLINE" => db.options.offline = false,
                "SINGLE_USER" => db.options.single_user = true,
                "MULTI_USER" => db.options.single_user = false,
                "ENABLE_BROKER" => db.options.is_broker_enabled = true,
                "DISABLE_BROKER" => db.options.is_broker_enabled = false,
                "RECOVERY" => {
                    db.options.recovery = match word.as_str() {
                        "FULL" => "FULL",
                        "SIMPLE" => "SIMPLE",
                        "BULK_LOGGED" => "BULK_LOGGED",
                        _ => return Err(SqlError::unsupported(format!("RECOVERY {word}"))),
                    }
                }
                "COMPATIBILITY_LEVEL" => {
                    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
                    db.options.compatibility_level = digits.parse().map_err(|_| {
                        SqlError::unsupported(format!("COMPATIBILITY_LEVEL {value}"))
                    })?;
                }
                // Settings whose effect nobody can see here.
                "AUTO_CLOSE"
                | "AUTO_SHRINK"
                | "AUTO_CREATE_STATISTICS"
                | "AUTO_UPDATE_STATISTICS"
                | "PAGE_VERIFY"
                | "QUERY_STORE"
                | "TRUSTWORTHY"
                | "DELAYED_DURABILITY"
                | "ACCELERATED_DATABASE_RECOVERY" => {}
                other => {
                    return Err(SqlError::unsupported(format!("ALTER DATABASE … SET {other}")));
                }
            }
        }
    }
    drop(state);
    session.instance.notify();
    Ok(())
}
