//! Logins, users, roles; GRANT, DENY and REVOKE.

use crate::{
    engine::{
        catalog::{Object, PermissionMeta, Principal, PrincipalKind as Kind, Securable},
        context::Session,
        scope::find_object,
    },
    error::{SqlError, SqlResult},
    tsql::ast::{PermissionTarget, PermissionVerb},
};
use std::sync::Arc;

fn denied() -> SqlError {
    SqlError::new(15247, 16, "User does not have permission to perform this action.")
}

fn missing(kind: &str, name: &str) -> SqlError {
    SqlError::new(
        15151,
        16,
        format!(
            "Cannot find the {kind} '{name}', because it does not exist or you do not have permission."
        ),
    )
}

pub fn create_login(session: &mut Session, name: &str, password: &str) -> SqlResult<()> {
    let now = session.instance.now();
    let mut state = session.instance.lock();
    if !state.has_server_permission(&session.login, "ALTER ANY LOGIN") {
        return Err(denied());
    }
    state.create_login(name, password, false, now)
}

/// Those who may change a database's principals and permissions.
fn may_manage(session: &Session) -> SqlResult<()> {
    let state = session.instance.lock();
    let member = |role| state.is_member(&session.login, session.database, role) == Some(true);
    if state.is_sysadmin(&session.login) || member("db_owner") || member("db_securityadmin") {
        Ok(())
    } else {
        Err(denied())
    }
}

fn add(session: &Session, principal: impl FnOnce(i32) -> Principal) -> SqlResult<()> {
    may_manage(session)?;
    let work = session.work();
    let mut state = work.lock();
    let database = session.database;
    state.keep_parts(work.txn, database);
    let db = state.database_mut(database)?;
    let id = db.new_principal_id();
    let principal = principal(id);
    if db.catalog.principal_named(&principal.name).is_some() {
        return Err(SqlError::new(
            15023,
            16,
            format!(
                "User, group, or role '{}' already exists in the current database.",
                principal.name
            ),
        ));
    }
    db.catalog.principals.insert(id, Arc::new(principal));
    Ok(())
}

/// CREATE USER n [FOR LOGIN l]: 15007 without such a login.
pub fn create_user(session: &mut Session, name: &str, login: Option<&str>) -> SqlResult<()> {
    let login = login.unwrap_or(name);
    if session.instance.lock().login(login).is_none() {
        return Err(SqlError::new(
            15007,
            16,
            format!("'{login}' is not a valid login or you do not have permission."),
        ));
    }
    add(session, |id| Principal {
        id,
        name: name.into(),
        kind: Kind::SqlUser,
        login: Some(login.into()),
        default_schema: "dbo".into(),
        fixed: false,
        member_of: Vec::new(),
    })
}

pub fn create_role(session: &mut Session, name: &str) -> SqlResult<()> {
    add(session, |id| Principal {
        id,
        name: name.into(),
        kind: Kind::Role,
        login: None,
        default_schema: String::new(),
        fixed: false,
        member_of: Vec::new(),
    })
}

pub fn drop_login(session: &mut Session, name: &str, if_exists: bool) -> SqlResult<()> {
    let mut state = session.instance.lock();
    if !state.has_server_permission(&session.login, "ALTER ANY LOGIN") {
        return Err(denied());
    }
    let before = state.logins.len();
    state.logins.retain(|l| !l.name.eq_ignore_ascii_case(name));
    if state.logins.len() == before && !if_exists { Err(missing("login", name)) } else { Ok(()) }
}

pub fn add_role_member(session: &mut Session, role: &str, member: &str) -> SqlResult<()> {
    may_manage(session)?;
    let work = session.work();
    let mut state = work.lock();
    state.keep_parts(work.txn, session.database);
    let db = state.database_mut(session.database)?;
    let role_id = db
        .catalog
        .principal_named(role)
        .filter(|p| p.kind == Kind::Role)
        .map(|p| p.id)
        .ok_or_else(|| missing("role", role))?;
    let mut new = db
        .catalog
        .principal_named(member)
        .map(|p| (**p).clone())
        .ok_or_else(|| missing("user", member))?;
    new.member_of.retain(|id| *id != role_id);
    new.member_of.push(role_id);
    db.catalog.principals.insert(new.id, Arc::new(new));
    Ok(())
}

/// GRANT, DENY, REVOKE. Of permissions on columns only UPDATE is looked at, so others are refused
/// by name.
pub fn permission(
    session: &mut Session,
    verb: PermissionVerb,
    permissions: &[String],
    on: Option<&PermissionTarget>,
    principals: &[String],
    columns: &[String],
) -> SqlResult<()> {
    if !columns.is_empty() && (permissions != ["UPDATE"] || verb == PermissionVerb::Deny) {
        return Err(SqlError::unsupported("permissions on columns other than GRANT UPDATE"));
    }
    let server = |p: &String| {
        matches!(
            p.as_str(),
            "VIEW SERVER STATE"
                | "VIEW ANY DATABASE"
                | "VIEW ANY DEFINITION"
                | "ALTER ANY LOGIN"
                | "CONTROL SERVER"
                | "CREATE ANY DATABASE"
                | "VIEW SERVER PERFORMANCE STATE"
                | "CONNECT SQL"
                | "ALTER ANY CONNECTION"
        )
    };
    if matches!(on, Some(PermissionTarget::Server))
        || (on.is_none() && permissions.iter().all(server))
    {
        let mut state = session.instance.lock();
        if !state.has_server_permission(&session.login, "CONTROL SERVER") {
            return Err(denied());
        }
        for name in principals {
            let Some(login) = state.logins.iter_mut().find(|l| l.name.eq_ignore_ascii_case(name))
            else {
                return Err(missing("login", name));
            };
            login.permissions.retain(|(p, _)| !permissions.contains(p));
            if verb != PermissionVerb::Revoke {
                login
                    .permissions
                    .extend(permissions.iter().map(|p| (p.clone(), verb == PermissionVerb::Grant)));
            }
        }
        return Ok(());
    }
    may_manage(session)?;
    let work = session.work();
    let mut state = work.lock();
    let (database, securable) = match on {
        None | Some(PermissionTarget::Server) => (session.database, Securable::Database),
        Some(PermissionTarget::Database(name)) => (
            state.database_named(name).map(|d| d.id).ok_or_else(|| missing("database", name))?,
            Securable::Database,
        ),
        Some(PermissionTarget::Schema(name)) => {
            let schema = state
                .database(session.database)?
                .catalog
                .schema_named(name)
                .map(|s| s.id)
                .ok_or_else(|| missing("schema", name))?;
            (session.database, Securable::Schema(schema))
        }
        Some(PermissionTarget::Object(name)) => {
            let (database, object) =
                find_object(session, &state, name)?.ok_or_else(|| missing("object", &name.name))?;
            (database, Securable::Object(object.object_id()))
        }
    };
    state.keep_parts(work.txn, database);
    let catalog = &mut state.database_mut(database)?.catalog;
    let mut securables = vec![securable];
    if let (Securable::Object(id), false) = (securable, columns.is_empty()) {
        let Some(Object::Table(table)) = catalog.objects.get(&id) else {
            return Err(SqlError::unsupported("permissions on columns of what is not a table"));
        };
        let found = columns.iter().map(|name| {
            let at = table.ordinal_named(name).ok_or_else(|| {
                SqlError::new(
                    1911,
                    16,
                    format!("Column name '{name}' does not exist in the target table or view."),
                )
            })?;
            Ok(Securable::Column(id, table.columns[at].column_id))
        });
        securables = found.collect::<SqlResult<_>>()?;
    }
    for (name, securable) in principals
        .iter()
        .flat_map(|name| securables.iter().map(move |securable| (name, *securable)))
    {
        let grantee =
            catalog.principal_named(name).map(|p| p.id).ok_or_else(|| missing("user", name))?;
        for permission in permissions.iter().map(|p| p.strip_suffix(" PRIVILEGES").unwrap_or(p)) {
            catalog.permissions.retain(|p| {
                !(p.grantee == grantee && p.securable == securable && p.permission == permission)
            });
            if verb != PermissionVerb::Revoke {
                let deny = verb == PermissionVerb::Deny;
                catalog.permissions.push(PermissionMeta {
                    securable,
                    grantee,
                    permission: permission.into(),
                    deny,
                });
            }
        }
    }
    Ok(())
}
