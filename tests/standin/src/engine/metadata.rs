//! Functions that ask the catalog: `OBJECT_ID`, `COL_LENGTH`, `SERVERPROPERTY` and their kin.
//!
//! A name, id or property nobody knows gives NULL, as in SQL Server; so does what the caller may
//! not see. Properties that this server has no answer for are refused by name, because a silent
//! NULL there would be an answer.

use crate::{
    engine::{
        catalog::{Catalog, ColumnMeta, Object, ObjectId, Securable},
        context::Session,
        database::TEMPDB,
        instance::{State, Target},
        scope::find_object,
        views,
    },
    error::{SqlError, SqlResult},
    tsql::ast::ObjectName,
    value::{Collation, Length, SqlType, Value},
};
use std::sync::Arc;

fn text(s: impl AsRef<str>) -> Value {
    Value::Str(Arc::from(s.as_ref()))
}

fn int(n: impl Into<i64>) -> Value {
    Value::Int(n.into())
}

fn variant(ty: SqlType, value: Value) -> Value {
    if value == Value::Null { Value::Null } else { Value::Variant(Box::new((ty, value))) }
}

fn variant_text(s: impl AsRef<str>) -> Value {
    variant(SqlType::NVarChar(Length::N(128), Collation::DEFAULT), text(s))
}

fn variant_int(n: impl Into<i64>) -> Value {
    variant(SqlType::Int, int(n))
}

fn id(value: &Value) -> Option<i32> {
    match value {
        Value::Int(n) => i32::try_from(*n).ok(),
        _ => None,
    }
}

fn string(value: &Value) -> Option<&str> {
    match value {
        Value::Str(s) => Some(s),
        _ => None,
    }
}

/// A written name's parts: brackets and double quotes taken off. None where it is no name of at
/// most three parts.
fn parse_name(written: &str) -> Option<ObjectName> {
    let mut parts = vec![String::new()];
    let mut chars = written.trim().chars().peekable();
    while let Some(c) = chars.next() {
        let close = match c {
            '[' => ']',
            '"' => '"',
            '.' => {
                parts.push(String::new());
                continue;
            }
            _ => {
                parts.last_mut()?.push(c);
                continue;
            }
        };
        loop {
            match chars.next()? {
                c if c == close && chars.peek() == Some(&close) => {
                    chars.next();
                    parts.last_mut()?.push(close);
                }
                c if c == close => break,
                c => parts.last_mut()?.push(c),
            }
        }
    }
    let name = parts.pop()?;
    let schema = parts.pop().filter(|s| !s.is_empty());
    let database = parts.pop().filter(|s| !s.is_empty());
    (parts.is_empty() && !name.is_empty()).then_some(ObjectName { database, schema, name })
}

/// sys.objects.type, without its blanks.
fn kind(object: &Object, catalog: &Catalog, id: ObjectId) -> &'static str {
    match object {
        Object::Table(t) if t.object_id == id => "U",
        Object::Table(t) => {
            if t.foreign_keys.iter().any(|f| f.object_id == id) {
                "F"
            } else if t.checks.iter().any(|c| c.object_id == id) {
                "C"
            } else if t.primary_key().and_then(|k| k.constraint_id) == Some(id) {
                "PK"
            } else if t.indexes.iter().any(|i| i.constraint_id == Some(id)) {
                "UQ"
            } else {
                "D"
            }
        }
        Object::View(_) => "V",
        Object::Procedure(_) => "P",
        Object::Trigger(_) => {
            let _ = catalog;
            "TR"
        }
    }
}

fn object_id(session: &Session, written: &str, wanted: Option<&str>) -> Option<i32> {
    let name = parse_name(written)?;
    let state = session.instance.lock();
    let matches = |kind: &str| wanted.is_none_or(|wanted| wanted.trim().eq_ignore_ascii_case(kind));
    if let Ok(Some((_, object))) = find_object(session, &state, &name) {
        let id = object.object_id();
        return matches(kind(&object, &Catalog::default(), id)).then_some(id);
    }
    let database = match &name.database {
        Some(database) => state.open_database(&session.login, database).ok()?,
        None => session.database,
    };
    let catalog = &state.databases.get(&database)?.catalog;
    let schema =
        name.schema.clone().unwrap_or_else(|| state.default_schema(&session.login, database));
    // a constraint
    let constraint = catalog.schema_named(&schema).and_then(|s| catalog.id_of(s.id, &name.name));
    if let Some(id) = constraint
        && let Some(owner) = catalog.owner_of(id)
    {
        return matches(kind(&Object::Table(owner.clone()), catalog, id)).then_some(id);
    }
    (views::exists(session.instance.extensions, &schema, &name.name) && matches("V")).then_some(-1)
}

/// A table or view and what it is in, by id; temp tables are in tempdb.
fn with_object<T>(
    session: &Session,
    id: i32,
    database: Option<i32>,
    f: impl FnOnce(&State, &Catalog, &Object) -> Option<T>,
) -> Option<T> {
    let state = session.instance.lock();
    let own = database.unwrap_or(session.database);
    let catalog = &state.databases.get(&own)?.catalog;
    if let Some(object) = catalog.object(id) {
        return f(&state, catalog, object);
    }
    let temp = &state.databases.get(&TEMPDB)?.catalog;
    (database.is_none())
        .then(|| temp.object(id))
        .flatten()
        .and_then(|object| f(&state, temp, object))
}

fn columns(object: &Object) -> &[ColumnMeta] {
    match object {
        Object::Table(t) => &t.columns,
        Object::View(v) => &v.columns,
        Object::Procedure(_) | Object::Trigger(_) => &[],
    }
}

fn object_name(session: &Session, id: i32, database: Option<i32>, schema: bool) -> Option<Value> {
    let found = with_object(session, id, database, |_, catalog, object| {
        Some(if schema {
            text(catalog.schema_name(object.schema_id()))
        } else {
            text(object.name())
        })
    });
    found.or_else(|| {
        let state = session.instance.lock();
        let catalog = &state.databases.get(&database.unwrap_or(session.database))?.catalog;
        let owner = catalog.owner_of(id)?;
        if schema {
            return Some(text(catalog.schema_name(owner.schema_id)));
        }
        owner.constraint_ids().into_iter().find(|(own, _)| *own == id).map(|(_, name)| text(name))
    })
}

fn server_property(session: &Session, property: &str) -> SqlResult<Value> {
    let config = &session.instance.config;
    Ok(match property.to_uppercase().as_str() {
        "SERVERNAME" | "MACHINENAME" | "COMPUTERNAMEPHYSICALNETBIOS" => {
            variant_text(&config.server_name)
        }
        "INSTANCENAME" | "PRODUCTUPDATELEVEL" => Value::Null,
        "EDITION" => variant_text("Developer Edition (64-bit)"),
        "ENGINEEDITION" => variant_int(3),
        "EDITIONID" => variant(SqlType::BigInt, int(-2_117_995_310i64)),
        "PRODUCTVERSION" => variant_text("16.0.4135.4"),
        "PRODUCTLEVEL" => variant_text("RTM"),
        "PRODUCTMAJORVERSION" => variant_text("16"),
        "PRODUCTMINORVERSION" => variant_text("0"),
        "PRODUCTBUILD" => variant_text("4135"),
        "COLLATION" => variant_text(config.tempdb_collation.name()),
        "ISHADRENABLED"
        | "ISCLUSTERED"
        | "ISINTEGRATEDSECURITYONLY"
        | "ISSINGLEUSER"
        | "ISXTPSUPPORTED" => variant_int(0),
        "PROCESSID" => variant_int(i64::from(std::process::id())),
        other => return Err(SqlError::unsupported(format!("SERVERPROPERTY of {other}"))),
    })
}

fn database_property(session: &Session, name: &str, property: &str) -> SqlResult<Value> {
    let state = session.instance.lock();
    let Some(db) = state.database_named(name) else { return Ok(Value::Null) };
    Ok(match property.to_uppercase().as_str() {
        "COLLATION" => variant_text(db.collation.name()),
        "STATUS" => variant_text(if db.options.offline { "OFFLINE" } else { "ONLINE" }),
        "UPDATEABILITY" => {
            let read_only = db.options.read_only || session.work().on_secondary(&state, db.id);
            variant_text(if read_only { "READ_ONLY" } else { "READ_WRITE" })
        }
        "USERACCESS" => {
            variant_text(if db.options.single_user { "SINGLE_USER" } else { "MULTI_USER" })
        }
        "RECOVERY" => variant_text(db.options.recovery),
        "EDITION" | "SERVICEOBJECTIVE" => Value::Null,
        other => return Err(SqlError::unsupported(format!("DATABASEPROPERTYEX of {other}"))),
    })
}

/// 1, 0, or NULL for a securable nobody knows.
fn has_perms(
    session: &Session,
    securable: &Value,
    class: &Value,
    permission: &str,
) -> SqlResult<Value> {
    let permission = permission.to_uppercase();
    let class = string(class).map(str::to_uppercase);
    let state = session.instance.lock();
    let login = &session.login;
    let allowed = match (string(securable), class.as_deref()) {
        (None, None) => state.has_server_permission(login, &permission),
        (name, Some("DATABASE")) => {
            let database = match name {
                // a name as an identifier is written: one that needs brackets is none without
                Some(name) => {
                    let name = parse_name(name)
                        .filter(|name| name.database.is_none() && name.schema.is_none());
                    match name.and_then(|name| state.open_database(login, &name.name).ok()) {
                        Some(id) => id,
                        None => return Ok(Value::Null),
                    }
                }
                None => session.database,
            };
            let any = permission == "ANY";
            any || state.has_permission(
                login,
                Target { database, securable: Securable::Database },
                &permission,
            )
        }
        (Some(name), Some("SCHEMA")) => {
            let catalog = &state.database(session.database)?.catalog;
            let Some(schema) = catalog.schema_named(name.trim_matches(['[', ']'])) else {
                return Ok(Value::Null);
            };
            state.has_permission(
                login,
                Target { database: session.database, securable: Securable::Schema(schema.id) },
                &permission,
            )
        }
        (Some(name), Some("OBJECT")) => {
            let Some(name) = parse_name(name) else { return Ok(Value::Null) };
            match find_object(session, &state, &name) {
                Ok(Some((database, object))) => state.has_permission(
                    login,
                    Target::object(database, object.object_id()),
                    &permission,
                ),
                _ => return Ok(Value::Null),
            }
        }
        (_, class) => {
            return Err(SqlError::unsupported(format!(
                "HAS_PERMS_BY_NAME of class {}",
                class.unwrap_or("NULL")
            )));
        }
    };
    Ok(int(i64::from(allowed)))
}

/// The same for a column of a table.
fn column_perms(
    session: &Session,
    table: &Value,
    permission: &Value,
    column: &Value,
) -> SqlResult<Value> {
    let (Some(name), Some(permission), Some(column)) =
        (string(table).and_then(parse_name), string(permission), string(column))
    else {
        return Ok(Value::Null);
    };
    let state = session.instance.lock();
    let Ok(Some((database, Object::Table(table)))) = find_object(session, &state, &name) else {
        return Ok(Value::Null);
    };
    let Some(at) = table.ordinal_named(column) else { return Ok(Value::Null) };
    let securable = Securable::Column(table.object_id, table.columns[at].column_id);
    let allowed = state.has_permission(
        &session.login,
        Target { database, securable },
        &permission.to_uppercase(),
    );
    Ok(int(i64::from(allowed)))
}

/// sys.types' own rows, by user_type_id.
fn type_name(id: i32) -> Option<&'static str> {
    let name = match id {
        34 => "image",
        35 => "text",
        36 => "uniqueidentifier",
        40 => "date",
        41 => "time",
        42 => "datetime2",
        43 => "datetimeoffset",
        48 => "tinyint",
        52 => "smallint",
        56 => "int",
        58 => "smalldatetime",
        59 => "real",
        60 => "money",
        61 => "datetime",
        62 => "float",
        98 => "sql_variant",
        99 => "ntext",
        104 => "bit",
        106 => "decimal",
        108 => "numeric",
        122 => "smallmoney",
        127 => "bigint",
        128 => "hierarchyid",
        129 => "geometry",
        130 => "geography",
        165 => "varbinary",
        167 => "varchar",
        173 => "binary",
        175 => "char",
        189 => "timestamp",
        231 => "nvarchar",
        239 => "nchar",
        241 => "xml",
        256 => "sysname",
        _ => return None,
    };
    Some(name)
}

/// None: not one of these. `name` is in upper case.
pub fn metadata_function(
    session: &Session,
    name: &str,
    args: &[Value],
) -> SqlResult<Option<Value>> {
    let or_null = |value: Option<Value>| value.unwrap_or(Value::Null);
    let database_id = session.database;
    Ok(Some(match (name, args) {
        ("OBJECT_ID", [written]) => {
            or_null(string(written).and_then(|w| object_id(session, w, None)).map(int))
        }
        ("OBJECT_ID", [written, kind]) => {
            or_null(string(written).and_then(|w| object_id(session, w, string(kind))).map(int))
        }
        ("OBJECT_NAME", [object]) => {
            or_null(id(object).and_then(|o| object_name(session, o, None, false)))
        }
        ("OBJECT_NAME", [object, db]) => {
            or_null(id(object).and_then(|o| object_name(session, o, id(db), false)))
        }
        ("OBJECT_SCHEMA_NAME", [object]) => {
            or_null(id(object).and_then(|o| object_name(session, o, None, true)))
        }
        ("OBJECT_SCHEMA_NAME", [object, db]) => {
            or_null(id(object).and_then(|o| object_name(session, o, id(db), true)))
        }
        ("SCHEMA_ID", [] | [_]) => {
            let state = session.instance.lock();
            let own = state.default_schema(&session.login, database_id);
            let name = match args {
                [name] => string(name).unwrap_or_default(),
                _ => own.as_str(),
            };
            or_null(
                state
                    .databases
                    .get(&database_id)
                    .and_then(|d| d.catalog.schema_named(name))
                    .map(|s| int(s.id)),
            )
        }
        ("COL_LENGTH", [table, column]) => {
            let found = string(table).and_then(|t| object_id(session, t, None)).zip(string(column));
            let database = string(table).and_then(parse_name).and_then(|n| n.database);
            let database =
                database.and_then(|n| session.instance.lock().database_named(&n).map(|d| d.id));
            or_null(found.and_then(|(object, column)| {
                with_object(session, object, database, |_, _, o| {
                    columns(o)
                        .iter()
                        .find(|c| c.name.eq_ignore_ascii_case(column))
                        .map(|c| int(c.ty.max_length()))
                })
            }))
        }
        ("SERVERPROPERTY", [property]) => match string(property) {
            Some(property) => server_property(session, property)?,
            None => Value::Null,
        },
        ("DATABASEPROPERTYEX", [db, property]) => match (string(db), string(property)) {
            (Some(db), Some(property)) => database_property(session, db, property)?,
            _ => Value::Null,
        },
        ("COLLATIONPROPERTY", [collation, property]) => {
            match (string(collation).and_then(Collation::by_name), string(property)) {
                (Some(collation), Some(property)) => match property.to_uppercase().as_str() {
                    "CODEPAGE" => variant_int(i64::from(collation.code_page())),
                    "LCID" => variant_int(1033),
                    "NAME" => variant_text(collation.name()),
                    other => {
                        return Err(SqlError::unsupported(format!("COLLATIONPROPERTY of {other}")));
                    }
                },
                _ => Value::Null,
            }
        }
        ("HAS_PERMS_BY_NAME", [securable, _, permission, column, _]) => {
            column_perms(session, securable, permission, column)?
        }
        ("HAS_PERMS_BY_NAME", [securable, class, permission]) => match string(permission) {
            Some(permission) => has_perms(session, securable, class, permission)?,
            None => Value::Null,
        },
        ("USER_NAME", [user]) => {
            let state = session.instance.lock();
            let db = state.databases.get(&database_id);
            or_null(id(user).and_then(|u| db?.catalog.principals.get(&u)).map(|p| text(&p.name)))
        }
        ("TYPE_NAME", [ty]) => {
            let state = session.instance.lock();
            let alias = id(ty)
                .and_then(|t| state.databases.get(&database_id)?.catalog.types.get(&t))
                .map(|t| text(&t.name));
            or_null(alias.or_else(|| id(ty).and_then(type_name).map(text)))
        }
        ("NEWID", []) => {
            let mut bytes = session.instance.lock().random_bytes();
            bytes[6] = (bytes[6] & 0x0f) | 0x40;
            bytes[8] = (bytes[8] & 0x3f) | 0x80;
            Value::Guid(bytes)
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let parts = |written| parse_name(written).map(|n| (n.database, n.schema, n.name));
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(parts("t"), Some((None, None, "t".into())));
        assert_eq!(parts("[dbo].[a]]b.c]"), Some((None, some("dbo"), "a]b.c".into())));
        assert_eq!(parts("tempdb..#t"), Some((some("tempdb"), None, "#t".into())));
        assert_eq!(parts("\"d\".s.t"), Some((some("d"), some("s"), "t".into())));
        for bad in ["", "a.b.c.d", "[a", "dbo."] {
            assert!(parse_name(bad).is_none(), "{bad}");
        }
    }
}
