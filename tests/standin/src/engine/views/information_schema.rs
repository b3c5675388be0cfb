//! `INFORMATION_SCHEMA`.

use super::{
    Context, Rows, Spec, columns::position, int, objects::visible, objects::visible_tables, opt,
    text,
};
use crate::{
    engine::catalog::{ColumnMeta, KeyKind, Object, TableKind, TableMeta},
    error::SqlResult,
    value::{Collation, Length, SqlType, Value},
};

pub(super) const VIEWS: &[Spec] = &[
    (
        "INFORMATION_SCHEMA.SCHEMATA",
        "CATALOG_NAME n128?,SCHEMA_NAME n128,SCHEMA_OWNER n128?,DEFAULT_CHARACTER_SET_CATALOG v6?,DEFAULT_CHARACTER_SET_SCHEMA v3?,\
         DEFAULT_CHARACTER_SET_NAME n128?",
        |cx, rows| {
            for s in cx.db.catalog.schemas.values() {
                let owner = cx.db.catalog.principals.get(&s.owner).map(|p| &p.name);
                rows.push([
                    ("CATALOG_NAME", text(&cx.db.name)),
                    ("SCHEMA_NAME", text(&s.name)),
                    ("SCHEMA_OWNER", opt(owner, text)),
                    ("DEFAULT_CHARACTER_SET_NAME", text("iso_1")),
                ]);
            }
            Ok(())
        },
    ),
    (
        "INFORMATION_SCHEMA.TABLES",
        "TABLE_CATALOG n128?,TABLE_SCHEMA sysname?,TABLE_NAME sysname,TABLE_TYPE v10?",
        |cx, rows| {
            for object in visible(cx) {
                let kind = match object {
                    Object::Table(t) if t.kind != TableKind::Variable => "BASE TABLE",
                    Object::View(_) => "VIEW",
                    Object::Table(_) | Object::Procedure(_) | Object::Trigger(_) => continue,
                };
                rows.push([
                    ("TABLE_CATALOG", text(&cx.db.name)),
                    ("TABLE_SCHEMA", text(cx.db.catalog.schema_name(object.schema_id()))),
                    ("TABLE_NAME", text(object.name())),
                    ("TABLE_TYPE", text(kind)),
                ]);
            }
            Ok(())
        },
    ),
    (
        "INFORMATION_SCHEMA.VIEWS",
        "TABLE_CATALOG n128?,TABLE_SCHEMA sysname?,TABLE_NAME sysname,VIEW_DEFINITION n4000?,CHECK_OPTION v7?,IS_UPDATABLE v2",
        |cx, rows| {
            for object in visible(cx) {
                let Object::View(v) = object else { continue };
                rows.push([
                    ("TABLE_CATALOG", text(&cx.db.name)),
                    ("TABLE_SCHEMA", text(cx.db.catalog.schema_name(v.schema_id))),
                    ("TABLE_NAME", text(&v.name)),
                    (
                        "VIEW_DEFINITION",
                        if v.text.encode_utf16().count() <= 4000 {
                            text(&v.text)
                        } else {
                            Value::Null
                        },
                    ),
                    ("CHECK_OPTION", text("NONE")),
                    ("IS_UPDATABLE", text("NO")),
                ]);
            }
            Ok(())
        },
    ),
    (
        "INFORMATION_SCHEMA.COLUMNS",
        "TABLE_CATALOG n128?,TABLE_SCHEMA sysname?,TABLE_NAME sysname,COLUMN_NAME sysname?,ORDINAL_POSITION int?,COLUMN_DEFAULT n4000?,\
         IS_NULLABLE v3?,DATA_TYPE n128?,CHARACTER_MAXIMUM_LENGTH int?,CHARACTER_OCTET_LENGTH int?,NUMERIC_PRECISION tinyint?,\
         NUMERIC_PRECISION_RADIX smallint?,NUMERIC_SCALE int?,DATETIME_PRECISION smallint?,CHARACTER_SET_CATALOG sysname?,\
         CHARACTER_SET_SCHEMA sysname?,CHARACTER_SET_NAME sysname?,COLLATION_CATALOG sysname?,COLLATION_SCHEMA sysname?,\
         COLLATION_NAME sysname?,DOMAIN_CATALOG sysname?,DOMAIN_SCHEMA sysname?,DOMAIN_NAME sysname?",
        columns,
    ),
    (
        "INFORMATION_SCHEMA.TABLE_CONSTRAINTS",
        "CONSTRAINT_CATALOG n128?,CONSTRAINT_SCHEMA sysname?,CONSTRAINT_NAME sysname,TABLE_CATALOG n128?,TABLE_SCHEMA sysname?,\
         TABLE_NAME sysname,CONSTRAINT_TYPE v11?,IS_DEFERRABLE v2,INITIALLY_DEFERRED v2",
        |cx, rows| {
            for t in visible_tables(cx) {
                let keys = t.indexes.iter().filter_map(|i| match i.kind {
                    KeyKind::PrimaryKey => Some((&i.name, "PRIMARY KEY")),
                    KeyKind::Unique => Some((&i.name, "UNIQUE")),
                    KeyKind::Index => None,
                });
                let checks = t.checks.iter().map(|c| (&c.name, "CHECK"));
                let foreign = t.foreign_keys.iter().map(|f| (&f.name, "FOREIGN KEY"));
                for (name, kind) in keys.chain(checks).chain(foreign) {
                    let mut row = constraint(cx, t, name);
                    row.extend([
                        ("CONSTRAINT_TYPE", text(kind)),
                        ("IS_DEFERRABLE", text("NO")),
                        ("INITIALLY_DEFERRED", text("NO")),
                    ]);
                    rows.push(row);
                }
            }
            Ok(())
        },
    ),
    (
        "INFORMATION_SCHEMA.KEY_COLUMN_USAGE",
        "CONSTRAINT_CATALOG n128?,CONSTRAINT_SCHEMA sysname?,CONSTRAINT_NAME sysname,TABLE_CATALOG n128?,TABLE_SCHEMA sysname?,\
         TABLE_NAME sysname,COLUMN_NAME sysname?,ORDINAL_POSITION int",
        |cx, rows| {
            for t in visible_tables(cx) {
                let keys = t.indexes.iter().filter(|i| i.kind != KeyKind::Index);
                let keys =
                    keys.map(|i| (&i.name, i.key.iter().map(|k| k.column_id).collect::<Vec<_>>()));
                let foreign = t.foreign_keys.iter().map(|f| (&f.name, f.columns.clone()));
                for (name, ids) in keys.chain(foreign) {
                    for (id, number) in ids.into_iter().zip(1i64..) {
                        let mut row = constraint(cx, t, name);
                        row.extend([
                            ("COLUMN_NAME", opt(t.column(id).map(|c| &c.name), text)),
                            ("ORDINAL_POSITION", int(number)),
                        ]);
                        rows.push(row);
                    }
                }
            }
            Ok(())
        },
    ),
    (
        "INFORMATION_SCHEMA.REFERENTIAL_CONSTRAINTS",
        "CONSTRAINT_CATALOG n128?,CONSTRAINT_SCHEMA sysname?,CONSTRAINT_NAME sysname,UNIQUE_CONSTRAINT_CATALOG n128?,\
         UNIQUE_CONSTRAINT_SCHEMA sysname?,UNIQUE_CONSTRAINT_NAME sysname?,MATCH_OPTION v7?,UPDATE_RULE v11?,DELETE_RULE v11?",
        |cx, rows| {
            use crate::tsql::ast::ReferentialAction as A;
            let rule = |a: A| match a {
                A::NoAction => "NO ACTION",
                A::Cascade => "CASCADE",
                A::SetNull => "SET NULL",
                A::SetDefault => "SET DEFAULT",
            };
            for t in visible_tables(cx) {
                for f in &t.foreign_keys {
                    let other = cx.db.catalog.table(f.referenced_table);
                    rows.push([
                        ("CONSTRAINT_CATALOG", text(&cx.db.name)),
                        ("CONSTRAINT_SCHEMA", text(cx.db.catalog.schema_name(t.schema_id))),
                        ("CONSTRAINT_NAME", text(&f.name)),
                        ("UNIQUE_CONSTRAINT_CATALOG", text(&cx.db.name)),
                        (
                            "UNIQUE_CONSTRAINT_SCHEMA",
                            opt(other, |o| text(cx.db.catalog.schema_name(o.schema_id))),
                        ),
                        (
                            "UNIQUE_CONSTRAINT_NAME",
                            opt(other.and_then(|o| o.index(f.key_index_id)), |i| text(&i.name)),
                        ),
                        ("MATCH_OPTION", text("SIMPLE")),
                        ("UPDATE_RULE", text(rule(f.on_update))),
                        ("DELETE_RULE", text(rule(f.on_delete))),
                    ]);
                }
            }
            Ok(())
        },
    ),
];

fn constraint(cx: &Context<'_>, t: &TableMeta, name: &str) -> Vec<(&'static str, Value)> {
    let schema = cx.db.catalog.schema_name(t.schema_id);
    vec![
        ("CONSTRAINT_CATALOG", text(&cx.db.name)),
        ("CONSTRAINT_SCHEMA", text(schema)),
        ("CONSTRAINT_NAME", text(name)),
        ("TABLE_CATALOG", text(&cx.db.name)),
        ("TABLE_SCHEMA", text(schema)),
        ("TABLE_NAME", text(&t.name)),
    ]
}

fn columns(cx: &Context<'_>, rows: &mut Rows<'_>) -> SqlResult<()> {
    for object in visible(cx) {
        let list = match object {
            Object::Table(t) => &t.columns,
            Object::View(v) => &v.columns,
            Object::Procedure(_) | Object::Trigger(_) => continue,
        };
        let schema = cx.db.catalog.schema_name(object.schema_id());
        for (c, number) in list.iter().zip(1i32..) {
            let number = object.as_table().map_or(number, |t| position(t, c.column_id));
            let mut row = vec![
                ("TABLE_CATALOG", text(&cx.db.name)),
                ("TABLE_SCHEMA", text(schema)),
                ("TABLE_NAME", text(object.name())),
                ("COLUMN_NAME", text(&c.name)),
                ("ORDINAL_POSITION", int(number)),
                ("COLUMN_DEFAULT", opt(c.default.as_ref(), |d| text(&d.text))),
                ("IS_NULLABLE", text(if c.nullable { "YES" } else { "NO" })),
            ];
            row.extend(type_columns(c));
            rows.push(row);
        }
    }
    Ok(())
}

fn type_columns(c: &ColumnMeta) -> Vec<(&'static str, Value)> {
    let ty = c.ty;
    let (characters, octets) = match ty {
        SqlType::Text(_) | SqlType::Image => (Some(i32::MAX), Some(i32::MAX)),
        SqlType::NText(_) => (Some(1_073_741_823), Some(2_147_483_646)),
        SqlType::Xml
        | SqlType::VarChar(Length::Max, _)
        | SqlType::NVarChar(Length::Max, _)
        | SqlType::VarBinary(Length::Max) => (Some(-1), Some(-1)),
        SqlType::SqlVariant => (Some(0), Some(0)),
        _ => (ty.length().map(i32::from), ty.length().map(|_| i32::from(ty.max_length()))),
    };
    let numeric = ty.is_numeric() && ty != SqlType::Bit;
    let approximate = matches!(ty, SqlType::Float | SqlType::Real);
    let fraction = match ty {
        SqlType::Date | SqlType::SmallDateTime => Some(0),
        t if t.is_datetime() => Some(t.scale()),
        _ => None,
    };
    let collation = ty.collation().map(Collation::name);
    vec![
        ("DATA_TYPE", text(ty.name())),
        ("CHARACTER_MAXIMUM_LENGTH", opt(characters, int)),
        ("CHARACTER_OCTET_LENGTH", opt(octets, int)),
        ("NUMERIC_PRECISION", if numeric { int(ty.precision()) } else { Value::Null }),
        (
            "NUMERIC_PRECISION_RADIX",
            if numeric { int(if approximate { 2 } else { 10 }) } else { Value::Null },
        ),
        ("NUMERIC_SCALE", if numeric && !approximate { int(ty.scale()) } else { Value::Null }),
        ("DATETIME_PRECISION", opt(fraction, int)),
        (
            "CHARACTER_SET_NAME",
            opt(collation, |_| text(if ty.is_unicode() { "UNICODE" } else { "iso_1" })),
        ),
        ("COLLATION_NAME", opt(collation, text)),
    ]
}
