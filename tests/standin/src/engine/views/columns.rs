//! Columns: `sys.columns` and the views that narrow it, periods, masks.

use super::{Context, Rows, Spec, bit, int, objects::visible, objects::visible_tables, opt, text};
use crate::{
    engine::catalog::{ColumnMeta, Object},
    error::SqlResult,
    tsql::ast::{Encryption, Generated},
    value::{Collation, Decimal, Length, SqlType, Value},
};

macro_rules! with_column {
    ($more:literal) => {
        concat!(
            "object_id int,name sysname?,column_id int,system_type_id tinyint,user_type_id int,max_length smallint,precision tinyint,\
             scale tinyint,collation_name sysname?,is_nullable bit?,is_ansi_padded bit,is_rowguidcol bit,is_identity bit,",
            $more
        )
    };
}

pub(super) const VIEWS: &[Spec] = &[
    (
        "sys.columns",
        with_column!(
            "is_computed bit,is_filestream bit,is_replicated bit?,is_non_sql_subscribed bit?,is_merge_published bit?,is_dts_replicated bit?,\
             is_xml_document bit,xml_collection_id int,default_object_id int,rule_object_id int,is_sparse bit?,is_column_set bit?,\
             generated_always_type tinyint?,generated_always_type_desc n60?,encryption_type int?,encryption_type_desc n64?,\
             encryption_algorithm_name sysname?,column_encryption_key_id int?,column_encryption_key_database_name sysname?,is_hidden bit,\
             is_masked bit,graph_type int?,graph_type_desc n60?,is_data_deletion_filter_column bit?,ledger_view_column_type tinyint?,\
             ledger_view_column_type_desc n60?,is_dropped_ledger_column bit?"
        ),
        columns,
    ),
    (
        "sys.all_columns",
        with_column!(
            "is_computed bit,is_filestream bit,is_replicated bit?,is_non_sql_subscribed bit?,is_merge_published bit?,is_dts_replicated bit?,\
             is_xml_document bit,xml_collection_id int,default_object_id int,rule_object_id int,is_sparse bit?,is_column_set bit?,\
             generated_always_type tinyint?,generated_always_type_desc n60?,is_hidden bit,is_masked bit"
        ),
        with_system_columns,
    ),
    (
        "sys.identity_columns",
        with_column!(
            "is_computed bit,default_object_id int,is_sparse bit?,is_column_set bit?,is_hidden bit,is_masked bit,seed_value variant?,\
             increment_value variant?,last_value variant?,is_not_for_replication bit?"
        ),
        |cx, rows| {
            for t in visible_tables(cx) {
                for c in &t.columns {
                    let Some(identity) = &c.identity else { continue };
                    let number =
                        |n: i128| Value::Variant(Box::new((c.ty, identity_value(c.ty, n))));
                    let last = cx.db.identities.get(&t.object_id).and_then(|i| i.last);
                    let mut row = base(t.object_id, c);
                    row.extend([
                        ("seed_value", number(identity.seed)),
                        ("increment_value", number(identity.increment)),
                        ("last_value", opt(last, number)),
                        ("is_not_for_replication", bit(false)),
                        ("is_sparse", bit(false)),
                        ("is_column_set", bit(false)),
                    ]);
                    rows.push(row);
                }
            }
            Ok(())
        },
    ),
    (
        "sys.computed_columns",
        with_column!(
            "is_computed bit,default_object_id int,definition nmax?,uses_database_collation bit,is_persisted bit,is_sparse bit?,\
             is_column_set bit?,is_hidden bit,is_masked bit"
        ),
        |cx, rows| {
            for t in visible_tables(cx) {
                for c in &t.columns {
                    let Some(computed) = &c.computed else { continue };
                    let mut row = base(t.object_id, c);
                    row.extend([
                        ("is_computed", bit(true)),
                        ("definition", text(&computed.text)),
                        ("uses_database_collation", bit(true)),
                        ("is_persisted", bit(computed.persisted)),
                    ]);
                    rows.push(row);
                }
            }
            Ok(())
        },
    ),
];

/// An identity value as a cell of its column's type.
fn identity_value(ty: SqlType, n: i128) -> Value {
    match ty {
        SqlType::Decimal { .. } => Value::Decimal(Decimal::new(n, 0)),
        _ => Value::Int(i64::try_from(n).unwrap_or(0)),
    }
}

/// The columns of the catalog every narrowed view starts with.
fn base(object_id: i32, c: &ColumnMeta) -> Vec<(&'static str, Value)> {
    let padded = c.ty.is_character() && !c.ty.is_old_lob()
        || matches!(c.ty, SqlType::Binary(_) | SqlType::VarBinary(Length::N(_) | Length::Max));
    vec![
        ("object_id", int(object_id)),
        ("name", text(&c.name)),
        ("column_id", int(c.column_id)),
        ("system_type_id", int(c.ty.system_type_id())),
        ("user_type_id", int(c.user_type_id.unwrap_or(c.ty.user_type_id()))),
        ("max_length", int(c.ty.max_length())),
        ("precision", int(c.ty.precision())),
        ("scale", int(c.ty.scale())),
        ("collation_name", opt(c.ty.collation().map(Collation::name), text)),
        ("is_nullable", bit(c.nullable)),
        ("is_ansi_padded", bit(padded)),
        ("is_rowguidcol", bit(c.rowguidcol)),
        ("is_identity", bit(c.identity.is_some())),
        ("is_computed", bit(c.computed.is_some())),
        ("default_object_id", int(c.default.as_ref().map_or(0, |d| d.object_id))),
        ("is_hidden", bit(c.hidden)),
        ("is_masked", bit(c.masked.is_some())),
    ]
}

fn column_row(object_id: i32, c: &ColumnMeta) -> Vec<(&'static str, Value)> {
    let (generated, generated_desc) = match c.generated {
        None => (0, "NOT_APPLICABLE"),
        Some(Generated::RowStart) => (1, "AS_ROW_START"),
        Some(Generated::RowEnd) => (2, "AS_ROW_END"),
    };
    let mut row = base(object_id, c);
    row.extend([
        ("is_replicated", bit(false)),
        ("is_non_sql_subscribed", bit(false)),
        ("is_merge_published", bit(false)),
        ("is_dts_replicated", bit(false)),
        ("is_sparse", bit(c.sparse)),
        ("is_column_set", bit(c.column_set)),
        ("generated_always_type", int(generated)),
        ("generated_always_type_desc", text(generated_desc)),
    ]);
    row
}

fn each_column(cx: &Context<'_>, mut f: impl FnMut(i32, &ColumnMeta)) {
    for object in visible(cx) {
        let columns = match object {
            Object::Table(t) => &t.columns,
            Object::View(v) => &v.columns,
            Object::Procedure(_) | Object::Trigger(_) => continue,
        };
        columns.iter().for_each(|c| f(object.object_id(), c));
    }
}

fn columns(cx: &Context<'_>, rows: &mut Rows<'_>) -> SqlResult<()> {
    each_column(cx, |id, c| {
        let mut row = column_row(id, c);
        if let Some(encryption) = c.encrypted {
            let (kind, kind_desc) = match encryption {
                Encryption::Deterministic => (1, "DETERMINISTIC"),
                Encryption::Randomized => (2, "RANDOMIZED"),
            };
            row.extend([("encryption_type", int(kind)), ("encryption_type_desc", text(kind_desc))]);
        }
        rows.push(row);
    });
    Ok(())
}

fn all_columns(cx: &Context<'_>, rows: &mut Rows<'_>) -> SqlResult<()> {
    each_column(cx, |id, c| rows.push(column_row(id, c)));
    Ok(())
}

/// The columns of the system views besides.
fn with_system_columns(cx: &Context<'_>, rows: &mut Rows<'_>) -> SqlResult<()> {
    all_columns(cx, rows)?;
    for (id, column) in super::system_columns(cx.instance.extensions, cx.db.collation) {
        rows.push(column_row(id, &column));
    }
    Ok(())
}
