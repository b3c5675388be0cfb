//! Who may do what: database users behind logins, role membership, GRANT and DENY.
//!
//! A DENY anywhere beats every GRANT; members of sysadmin and the database's owner are not asked;
//! CONTROL on a securable (or on one that contains it) implies every permission on it (Microsoft:
//! "Permissions hierarchy").

use crate::{
    engine::{
        catalog::{Catalog, Object, Principal, Securable},
        database::{MASTER, MSDB, TEMPDB},
        instance::{State, Target},
    },
    error::{SqlError, SqlResult},
};

const DBO: i32 = 1;
const GUEST: i32 = 2;
const DB_OWNER: i32 = 16384;
const DB_DDLADMIN: i32 = 16387;
const DB_DATAREADER: i32 = 16390;
const DB_DATAWRITER: i32 = 16391;
const DB_DENYDATAREADER: i32 = 16392;
const DB_DENYDATAWRITER: i32 = 16393;

impl State {
    pub fn is_sysadmin(&self, login: &str) -> bool {
        self.login(login).is_some_and(|l| l.sysadmin)
    }

    /// The user a login is in a database: dbo for sysadmins, its own user, or guest in the system
    /// databases.
    pub fn user_of(&self, login: &str, database: i32) -> Option<&Principal> {
        let db = self.databases.get(&database)?;
        if self.is_sysadmin(login) {
            return db.catalog.principals.get(&DBO).map(AsRef::as_ref);
        }
        let own = db
            .catalog
            .principals
            .values()
            .find(|p| p.login.as_deref().is_some_and(|l| l.eq_ignore_ascii_case(login)));
        let guest = matches!(database, MASTER | TEMPDB | MSDB)
            .then(|| db.catalog.principals.get(&GUEST))
            .flatten();
        own.or(guest).map(AsRef::as_ref)
    }

    /// 916 when the login has no user in the database; 942 when it is offline; 911 when there is
    /// none.
    pub fn open_database(&self, login: &str, name: &str) -> SqlResult<i32> {
        let Some(db) = self.database_named(name) else {
            return Err(SqlError::new(
                911,
                16,
                format!(
                    "Database '{name}' does not exist. Make sure that the name is entered correctly."
                ),
            ));
        };
        if db.options.offline {
            return Err(SqlError::new(
                942,
                14,
                format!("Database '{}' cannot be opened because it is offline.", db.name),
            ));
        }
        if self.user_of(login, db.id).is_none() {
            let message = format!(
                "The server principal \"{login}\" is not able to access the database \"{}\" under the current security context.",
                db.name
            );
            return Err(SqlError::new(916, 14, message));
        }
        Ok(db.id)
    }

    pub fn default_schema(&self, login: &str, database: i32) -> String {
        self.user_of(login, database).map_or_else(|| "dbo".into(), |p| p.default_schema.clone())
    }

    /// The principal and every role it is in, directly or through other roles.
    pub fn memberships(catalog: &Catalog, principal: &Principal) -> Vec<i32> {
        let mut all = vec![principal.id, 0];
        let mut open = principal.member_of.clone();
        while let Some(id) = open.pop() {
            if !all.contains(&id) {
                all.push(id);
                open.extend(
                    catalog.principals.get(&id).map(|p| p.member_of.clone()).unwrap_or_default(),
                );
            }
        }
        all
    }

    pub fn has_permission(&self, login: &str, target: Target, permission: &str) -> bool {
        if self.is_sysadmin(login) {
            return true;
        }
        let Some(db) = self.databases.get(&target.database) else { return false };
        let Some(user) = self.user_of(login, target.database) else { return false };
        let catalog = &db.catalog;
        let roles = Self::memberships(catalog, user);
        if user.id == DBO || roles.contains(&DB_OWNER) {
            return true;
        }
        let reads = permission == "SELECT";
        let writes = matches!(permission, "INSERT" | "UPDATE" | "DELETE");
        if (reads && roles.contains(&DB_DENYDATAREADER))
            || (writes && roles.contains(&DB_DENYDATAWRITER))
        {
            return false;
        }
        let scopes = match target.securable {
            Securable::Database => vec![Securable::Database],
            Securable::Schema(id) => vec![Securable::Schema(id), Securable::Database],
            Securable::Object(id) | Securable::Column(id, _) => {
                let owner = catalog.objects.get(&id).map(|o| o.schema_id());
                let schema = owner.map(Securable::Schema);
                let column =
                    matches!(target.securable, Securable::Column(..)).then_some(target.securable);
                [column, Some(Securable::Object(id)), schema, Some(Securable::Database)]
                    .into_iter()
                    .flatten()
                    .collect()
            }
        };
        let mine = catalog
            .permissions
            .iter()
            .filter(|p| scopes.contains(&p.securable) && roles.contains(&p.grantee));
        let mut granted = match permission {
            "SELECT" => roles.contains(&DB_DATAREADER),
            "INSERT" | "UPDATE" | "DELETE" => roles.contains(&DB_DATAWRITER),
            "ALTER" | "CREATE TABLE" | "CREATE VIEW" | "CREATE PROCEDURE" | "REFERENCES"
            | "VIEW DEFINITION" => roles.contains(&DB_DDLADMIN),
            "CONNECT" => user.id != GUEST,
            _ => false,
        };
        // msdb's and master's own tables are open to everybody, as the system views are.
        granted |= reads
            && matches!(target.database, MASTER | MSDB)
            && matches!(target.securable, Securable::Object(id) if id < 0);
        for p in mine {
            let implied = p.permission == "CONTROL"
                || (p.permission == "ALTER" && permission == "VIEW DEFINITION");
            if p.permission == permission
                || (implied && !p.deny)
                || (p.permission == "CONTROL" && p.deny)
            {
                if p.deny {
                    return false;
                }
                granted = true;
            }
        }
        granted
    }

    /// 229 on an object, 262 in a database.
    pub fn check_permission(&self, login: &str, target: Target, permission: &str) -> SqlResult<()> {
        let db = self.database(target.database)?;
        if self.has_permission(login, target, permission) {
            let beyond = match target.securable {
                Securable::Object(id)
                    if matches!(permission, "SELECT" | "INSERT" | "UPDATE" | "DELETE") =>
                {
                    db.catalog.objects.get(&id).and_then(|o| {
                        if let Object::Table(t) = o { db.catalog.beyond(t) } else { None }
                    })
                }
                Securable::Object(_)
                | Securable::Column(..)
                | Securable::Schema(_)
                | Securable::Database => None,
            };
            return beyond.map_or(Ok(()), |what| Err(SqlError::unsupported(what)));
        }
        Err(match target.securable {
            Securable::Object(id) | Securable::Column(id, _) => {
                let object = db.catalog.objects.get(&id);
                let name = object.map_or("", |o| o.name());
                let schema = object.map_or("", |o| db.catalog.schema_name(o.schema_id()));
                SqlError::new(
                    229,
                    14,
                    format!(
                        "The {permission} permission was denied on the object '{name}', database '{}', schema '{schema}'.",
                        db.name
                    ),
                )
            }
            Securable::Schema(_) | Securable::Database => SqlError::new(
                262,
                14,
                format!("{permission} permission denied in database '{}'.", db.name),
            ),
        })
    }

    /// Is the login's user in that role? None when there is no such role.
    pub fn is_member(&self, login: &str, database: i32, role: &str) -> Option<bool> {
        let db = self.databases.get(&database)?;
        let role = db.catalog.principal_named(role)?;
        let user = self.user_of(login, database)?;
        Some(Self::memberships(&db.catalog, user).contains(&role.id))
    }

    /// Server-level permissions: VIEW SERVER STATE, ALTER ANY LOGIN, …
    pub fn has_server_permission(&self, login: &str, permission: &str) -> bool {
        self.login(login).is_some_and(|l| {
            let said = |name: &str| {
                l.permissions.iter().find(|(p, _)| p == name).map(|(_, granted)| *granted)
            };
            l.sysadmin
                || permission == "CONNECT SQL"
                || said(permission).or_else(|| said("CONTROL SERVER")).unwrap_or(false)
        })
    }
}
