//! SET IDENTITY_INSERT and DBCC CHECKIDENT.

use crate::{
    engine::{
        context::Session,
        database::IdentityState,
        dml::prepare::integer,
        instance::Target,
        scope::{display, find_table, full_name},
    },
    error::{SqlError, SqlResult},
    tsql::ast::ObjectName,
};

/// SET IDENTITY_INSERT table ON|OFF: one table per session (8107), and it must have the property
/// (8106).
pub fn set_identity_insert(session: &mut Session, name: &ObjectName, on: bool) -> SqlResult<()> {
    let work = session.work();
    let state = work.lock();
    let found = find_table(session, &state, name).map_err(|_| {
        SqlError::new(
            1088,
            16,
            format!("Cannot find the object \"{}\" because it does not exist or you do not have permissions.", display(name)),
        )
    })?;
    state.check_permission(
        &session.login,
        Target::object(found.database, found.table.object_id),
        "ALTER",
    )?;
    if found.table.identity_ordinal().is_none() {
        let message = format!(
            "Table '{}' does not have the identity property. Cannot perform SET operation.",
            display(name)
        );
        return Err(SqlError::new(8106, 16, message));
    }
    let current = session.identity_insert;
    if on
        && let Some(other) = current.filter(|other| *other != found.id())
        && let Some(meta) = state.table(other)
    {
        let message = format!(
            "IDENTITY_INSERT is already ON for table '{}'. Cannot perform SET operation for table '{}'.",
            full_name(&state, other.0, meta),
            display(name)
        );
        return Err(SqlError::new(8107, 16, message));
    }
    drop(state);
    if on {
        session.identity_insert = Some(found.id());
    } else if current == Some(found.id()) {
        session.identity_insert = None;
    }
    Ok(())
}

/// What DBCC CHECKIDENT is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckIdent {
    NoReseed,
    /// to the greatest value in the table, if that is beyond the current one
    Reseed,
    ReseedTo(i128),
}

/// Answers the message DBCC prints (7998/7997).
pub fn check_identity(
    session: &Session,
    name: &ObjectName,
    action: CheckIdent,
) -> SqlResult<String> {
    let work = session.work();
    let mut state = work.lock();
    let found = find_table(session, &state, name)?;
    state.check_permission(
        &session.login,
        Target::object(found.database, found.table.object_id),
        "ALTER",
    )?;
    let Some(at) = found.table.identity_ordinal() else {
        return Err(SqlError::new(
            7997,
            16,
            format!("'{}' does not contain an identity column.", found.table.name),
        ));
    };
    let id = found.id();
    let rows = state.tables.get(&id);
    let most = rows.and_then(|d| {
        d.rows
            .values()
            .filter_map(|s| s.committed.as_ref())
            .filter_map(|row| integer(&row[at]))
            .max()
    });
    let before = state.database(id.0)?.identities.get(&id.1).and_then(|s| s.last);
    let new = match action {
        CheckIdent::NoReseed => None,
        CheckIdent::Reseed => most
            .filter(|m| before.is_none_or(|b| *m > b))
            .map(|m| IdentityState { last: Some(m), next_is_last: false }),
        // A table that never had a row since it was made (or truncated) starts with the value
        // itself.
        CheckIdent::ReseedTo(value) => {
            Some(IdentityState { last: Some(value), next_is_last: before.is_none() })
        }
    };
    if let Some(new) = new {
        state.database_mut(id.0)?.identities.insert(id.1, new);
    }
    let show = |value: Option<i128>| value.map_or_else(|| "NULL".to_string(), |v| v.to_string());
    Ok(match action {
        CheckIdent::ReseedTo(_) => {
            format!("Checking identity information: current identity value '{}'.", show(before))
        }
        CheckIdent::NoReseed | CheckIdent::Reseed => {
            format!(
                "Checking identity information: current identity value '{}', current column value '{}'.",
                show(before),
                show(most)
            )
        }
    })
}
