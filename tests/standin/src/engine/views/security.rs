//! Principals and permissions.

use super::{Spec, bit, int, opt, text};
use crate::{
    engine::catalog::{PrincipalKind, Securable},
    value::Value,
};

pub(super) const VIEWS: &[Spec] = &[
    (
        "sys.database_principals",
        "name sysname,principal_id int,type c1,type_desc n60?,default_schema_name sysname?,create_date dt,modify_date dt,\
         owning_principal_id int?,sid vb85?,is_fixed_role bit,authentication_type int,authentication_type_desc n60?,\
         default_language_name sysname?,default_language_lcid int?,allow_encrypted_value_modifications bit",
        |cx, rows| {
            for p in cx.db.catalog.principals.values() {
                let role = p.kind == PrincipalKind::Role;
                rows.push([
                    ("name", text(&p.name)),
                    ("principal_id", int(p.id)),
                    ("type", text(if role { "R" } else { "S" })),
                    ("type_desc", text(if role { "DATABASE_ROLE" } else { "SQL_USER" })),
                    (
                        "default_schema_name",
                        if role { Value::Null } else { text(&p.default_schema) },
                    ),
                    ("create_date", cx.db.create_date.datetime()),
                    ("modify_date", cx.db.create_date.datetime()),
                    ("owning_principal_id", if role { int(1) } else { Value::Null }),
                    (
                        "sid",
                        sid(cx
                            .state
                            .login(p.login.as_deref().unwrap_or(""))
                            .map_or(p.id, |l| l.id)),
                    ),
                    ("is_fixed_role", bit(role && p.fixed)),
                    ("authentication_type", int(i64::from(p.login.is_some()))),
                    (
                        "authentication_type_desc",
                        text(if p.login.is_some() { "INSTANCE" } else { "NONE" }),
                    ),
                ]);
            }
            Ok(())
        },
    ),
    ("sys.database_role_members", "role_principal_id int,member_principal_id int", |cx, rows| {
        for p in cx.db.catalog.principals.values() {
            for role in &p.member_of {
                rows.push([("role_principal_id", int(*role)), ("member_principal_id", int(p.id))]);
            }
        }
        Ok(())
    }),
    (
        "sys.database_permissions",
        "class tinyint,class_desc n60?,major_id int,minor_id int,grantee_principal_id int,grantor_principal_id int,type c4,\
         permission_name n128?,state c1,state_desc n60?",
        |cx, rows| {
            for p in &cx.db.catalog.permissions {
                let (class, desc, major, minor) = match p.securable {
                    Securable::Database => (0, "DATABASE", 0, 0),
                    Securable::Object(id) => (1, "OBJECT_OR_COLUMN", id, 0),
                    Securable::Column(id, column) => (1, "OBJECT_OR_COLUMN", id, column),
                    Securable::Schema(id) => (3, "SCHEMA", id, 0),
                };
                rows.push([
                    ("class", int(class)),
                    ("class_desc", text(desc)),
                    ("major_id", int(major)),
                    ("minor_id", int(minor)),
                    ("grantee_principal_id", int(p.grantee)),
                    ("grantor_principal_id", int(1)),
                    ("type", text(abbreviation(&p.permission))),
                    ("permission_name", text(&p.permission)),
                    ("state", text(if p.deny { "D" } else { "G" })),
                    ("state_desc", text(if p.deny { "DENY" } else { "GRANT" })),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.server_principals",
        "name sysname,principal_id int,sid vb85?,type c1,type_desc n60?,is_disabled bit?,create_date dt,modify_date dt,\
         default_database_name sysname?,default_language_name sysname?,credential_id int?,owning_principal_id int?,is_fixed_role bit",
        |cx, rows| {
            let logins = cx.state.logins.iter().map(|l| {
                (l.name.as_str(), l.id, false, l.disabled, Some(l.default_database.as_str()))
            });
            let roles = [("public", 2, true, false, None), ("sysadmin", 3, true, false, None)];
            for (name, id, role, disabled, database) in logins.chain(roles) {
                let id = if role { id + 100 } else { id };
                rows.push([
                    ("name", text(name)),
                    ("principal_id", int(id)),
                    ("sid", sid(id)),
                    ("type", text(if role { "R" } else { "S" })),
                    ("type_desc", text(if role { "SERVER_ROLE" } else { "SQL_LOGIN" })),
                    ("is_disabled", bit(disabled)),
                    ("create_date", cx.instance.start_time.datetime()),
                    ("modify_date", cx.instance.start_time.datetime()),
                    ("default_database_name", opt(database, text)),
                    ("default_language_name", if role { Value::Null } else { text("us_english") }),
                    ("is_fixed_role", bit(role)),
                ]);
            }
            Ok(())
        },
    ),
];

fn sid(id: i32) -> Value {
    if id == 1 {
        Value::Bytes([1u8].as_slice().into())
    } else {
        Value::Bytes(id.to_be_bytes().repeat(4).into())
    }
}

/// `sys.database_permissions.type`, four characters.
fn abbreviation(permission: &str) -> &'static str {
    match permission {
        "SELECT" => "SL  ",
        "INSERT" => "IN  ",
        "UPDATE" => "UP  ",
        "DELETE" => "DL  ",
        "EXECUTE" => "EX  ",
        "REFERENCES" => "RF  ",
        "ALTER" => "AL  ",
        "CONTROL" => "CL  ",
        "CONNECT" => "CO  ",
        "VIEW DEFINITION" => "VW  ",
        "VIEW DATABASE STATE" => "VWDS",
        "VIEW SERVER STATE" => "VWSS",
        "CONTROL SERVER" => "CL  ",
        "CREATE TABLE" => "CRTB",
        "CREATE VIEW" => "CRVW",
        "CREATE PROCEDURE" => "CRPR",
        _ => "    ",
    }
}
