//! Constraints: defaults, checks, keys, foreign keys.

use super::{
    Context, Spec, bit, int, objects::object_row, objects::visible_tables, objects::with_object,
    text,
};
use crate::{
    engine::{
        catalog::{KeyKind, PolicyMeta, Securable},
        instance::Target,
    },
    tsql::ast::ReferentialAction,
};

/// Visible to who may see definitions or alter security policies ("sys.security_policies",
/// Permissions).
fn policies<'a>(cx: &'a Context<'_>) -> impl Iterator<Item = &'a PolicyMeta> {
    let on = Target { database: cx.db.id, securable: Securable::Database };
    let may = |permission| cx.state.has_permission(&cx.viewer.login, on, permission);
    let seen = cx.owner || may("VIEW DEFINITION") || may("ALTER ANY SECURITY POLICY");
    cx.db.catalog.policies.iter().filter(move |_| seen)
}

pub(super) const VIEWS: &[Spec] = &[
    (
        "sys.default_constraints",
        with_object!("parent_column_id int,definition nmax?,is_system_named bit"),
        |cx, rows| {
            for t in visible_tables(cx) {
                for c in &t.columns {
                    let Some(d) = &c.default else { continue };
                    let dates = (t.create_date, t.modify_date);
                    let mut row = object_row(
                        &d.name,
                        d.object_id,
                        t.schema_id,
                        t.object_id,
                        ("D ", "DEFAULT_CONSTRAINT"),
                        dates,
                        false,
                    );
                    row.extend([
                        ("parent_column_id", int(c.column_id)),
                        ("definition", text(&d.text)),
                        ("is_system_named", bit(d.system_named)),
                    ]);
                    rows.push(row);
                }
            }
            Ok(())
        },
    ),
    (
        "sys.check_constraints",
        with_object!(
            "is_disabled bit,is_not_for_replication bit,is_not_trusted bit,parent_column_id int,definition nmax?,\
             uses_database_collation bit?,is_system_named bit"
        ),
        |cx, rows| {
            for t in visible_tables(cx) {
                for c in &t.checks {
                    let dates = (t.create_date, t.modify_date);
                    let mut row = object_row(
                        &c.name,
                        c.object_id,
                        t.schema_id,
                        t.object_id,
                        ("C ", "CHECK_CONSTRAINT"),
                        dates,
                        false,
                    );
                    row.extend([
                        ("is_disabled", bit(c.disabled)),
                        ("is_not_trusted", bit(c.not_trusted)),
                        ("parent_column_id", int(c.column_id.unwrap_or(0))),
                        ("definition", text(&c.text)),
                        ("uses_database_collation", bit(true)),
                        ("is_system_named", bit(c.system_named)),
                    ]);
                    rows.push(row);
                }
            }
            Ok(())
        },
    ),
    (
        "sys.key_constraints",
        with_object!("unique_index_id int?,is_system_named bit,is_enforced bit?"),
        |cx, rows| {
            for t in visible_tables(cx) {
                for index in &t.indexes {
                    let Some(id) = index.constraint_id else { continue };
                    let primary = index.kind == KeyKind::PrimaryKey;
                    let kind = if primary {
                        ("PK", "PRIMARY_KEY_CONSTRAINT")
                    } else {
                        ("UQ", "UNIQUE_CONSTRAINT")
                    };
                    let dates = (t.create_date, t.modify_date);
                    let mut row =
                        object_row(&index.name, id, t.schema_id, t.object_id, kind, dates, false);
                    row.extend([
                        ("unique_index_id", int(index.index_id)),
                        ("is_system_named", bit(index.system_named)),
                        ("is_enforced", bit(true)),
                    ]);
                    rows.push(row);
                }
            }
            Ok(())
        },
    ),
    (
        "sys.foreign_keys",
        with_object!(
            "referenced_object_id int?,key_index_id int?,is_disabled bit,is_not_for_replication bit,is_not_trusted bit,\
             delete_referential_action tinyint?,delete_referential_action_desc n60?,update_referential_action tinyint?,\
             update_referential_action_desc n60?,is_system_named bit"
        ),
        |cx, rows| {
            let action = |a: ReferentialAction| match a {
                ReferentialAction::NoAction => (0, "NO_ACTION"),
                ReferentialAction::Cascade => (1, "CASCADE"),
                ReferentialAction::SetNull => (2, "SET_NULL"),
                ReferentialAction::SetDefault => (3, "SET_DEFAULT"),
            };
            for t in visible_tables(cx) {
                for f in &t.foreign_keys {
                    let dates = (t.create_date, t.modify_date);
                    let kind = ("F ", "FOREIGN_KEY_CONSTRAINT");
                    let mut row = object_row(
                        &f.name,
                        f.object_id,
                        t.schema_id,
                        t.object_id,
                        kind,
                        dates,
                        false,
                    );
                    let (delete, update) = (action(f.on_delete), action(f.on_update));
                    row.extend([
                        ("referenced_object_id", int(f.referenced_table)),
                        ("key_index_id", int(f.key_index_id)),
                        ("is_disabled", bit(f.disabled)),
                        ("is_not_trusted", bit(f.not_trusted)),
                        ("delete_referential_action", int(delete.0)),
                        ("delete_referential_action_desc", text(delete.1)),
                        ("update_referential_action", int(update.0)),
                        ("update_referential_action_desc", text(update.1)),
                        ("is_system_named", bit(f.system_named)),
                    ]);
                    rows.push(row);
                }
            }
            Ok(())
        },
    ),
    (
        "sys.foreign_key_columns",
        "constraint_object_id int,constraint_column_id int,parent_object_id int,parent_column_id int,referenced_object_id int,\
         referenced_column_id int",
        |cx, rows| {
            for t in visible_tables(cx) {
                for f in &t.foreign_keys {
                    for ((own, other), number) in
                        f.columns.iter().zip(&f.referenced_columns).zip(1i64..)
                    {
                        rows.push([
                            ("constraint_object_id", int(f.object_id)),
                            ("constraint_column_id", int(number)),
                            ("parent_object_id", int(t.object_id)),
                            ("parent_column_id", int(*own)),
                            ("referenced_object_id", int(f.referenced_table)),
                            ("referenced_column_id", int(*other)),
                        ]);
                    }
                }
            }
            Ok(())
        },
    ),
    (
        "sys.security_policies",
        with_object!(
            "is_enabled bit,is_not_for_replication bit,uses_database_collation bit?,is_schema_bound bit"
        ),
        |cx, rows| {
            for p in policies(cx) {
                rows.push([
                    ("name", text(&p.name)),
                    ("object_id", int(p.object_id)),
                    ("schema_id", int(p.schema_id)),
                    ("parent_object_id", int(0)),
                    ("type", text("SP")),
                    ("type_desc", text("SECURITY_POLICY")),
                    ("create_date", p.create_date.datetime()),
                    ("modify_date", p.create_date.datetime()),
                    ("is_enabled", bit(p.enabled)),
                    ("is_schema_bound", bit(true)),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.security_predicates",
        "object_id int,security_predicate_id int,target_object_id int,predicate_definition nmax,predicate_type int?,predicate_type_desc n60?,\
         operation int?,operation_desc n60?",
        |cx, rows| {
            for p in policies(cx) {
                for ((filter, definition, table), number) in p.predicates.iter().zip(1i64..) {
                    rows.push([
                        ("object_id", int(p.object_id)),
                        ("security_predicate_id", int(number)),
                        ("target_object_id", int(*table)),
                        ("predicate_definition", text(definition)),
                        ("predicate_type", int(i64::from(!filter))),
                        ("predicate_type_desc", text(if *filter { "FILTER" } else { "BLOCK" })),
                    ]);
                }
            }
            Ok(())
        },
    ),
    ("sys.synonyms", with_object!("base_object_name n1035?"), |_, _| Ok(())),
];
