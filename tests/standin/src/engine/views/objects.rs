//! Databases, schemas, objects, modules, triggers, types.

use super::{Context, Rows, Spec, bit, int, opt, text};
use crate::{
    engine::{
        catalog::{KeyKind, Object, ObjectId, TableKind, TableMeta},
        clock::Moment,
        database::MSDB,
    },
    error::SqlResult,
    value::{Collation, SqlType, Value},
};

const OBJECT: &str = "name sysname,object_id int,principal_id int?,schema_id int,parent_object_id int,type c2,type_desc n60,create_date dt,\
                      modify_date dt,is_ms_shipped bit,is_published bit,is_schema_published bit";

/// Compile-time concatenation of the columns every kind of object has with its own.
macro_rules! with_object {
    ($more:literal) => {
        concat!(
            "name sysname,object_id int,principal_id int?,schema_id int,parent_object_id int,type c2,type_desc n60,create_date dt,\
             modify_date dt,is_ms_shipped bit,is_published bit,is_schema_published bit,",
            $more
        )
    };
}
pub(super) use with_object;

pub(super) const VIEWS: &[Spec] = &[
    (
        "sys.databases",
        "name sysname,database_id int,source_database_id int?,owner_sid vb85?,create_date dt,compatibility_level tinyint,\
         collation_name sysname?,user_access tinyint?,user_access_desc n60?,is_read_only bit?,is_auto_close_on bit,is_auto_shrink_on bit?,\
         state tinyint?,state_desc n60?,is_in_standby bit?,is_cleanly_shutdown bit?,is_supplemental_logging_enabled bit?,\
         snapshot_isolation_state tinyint?,snapshot_isolation_state_desc n60?,is_read_committed_snapshot_on bit?,recovery_model tinyint?,\
         recovery_model_desc n60?,page_verify_option tinyint?,page_verify_option_desc n60?,is_auto_create_stats_on bit?,\
         is_auto_create_stats_incremental_on bit?,is_auto_update_stats_on bit?,is_auto_update_stats_async_on bit?,is_ansi_null_default_on bit?,\
         is_ansi_nulls_on bit?,is_ansi_padding_on bit?,is_ansi_warnings_on bit?,is_arithabort_on bit?,is_concat_null_yields_null_on bit?,\
         is_numeric_roundabort_on bit?,is_quoted_identifier_on bit?,is_recursive_triggers_on bit?,is_cursor_close_on_commit_on bit?,\
         is_local_cursor_default bit?,is_fulltext_enabled bit?,is_trustworthy_on bit?,is_db_chaining_on bit?,is_parameterization_forced bit?,\
         is_master_key_encrypted_by_server bit,is_query_store_on bit?,is_published bit,is_subscribed bit,is_merge_published bit,\
         is_distributor bit,is_sync_with_backup bit,service_broker_guid guid,is_broker_enabled bit,log_reuse_wait tinyint?,\
         log_reuse_wait_desc n60?,is_date_correlation_on bit,is_cdc_enabled bit,is_encrypted bit?,is_honor_broker_priority_on bit?,\
         replica_id guid?,group_database_id guid?,resource_pool_id int?,default_language_lcid smallint?,default_language_name n128?,\
         containment tinyint?,containment_desc n60?,target_recovery_time_in_seconds int?,delayed_durability int?,delayed_durability_desc n60?,\
         is_memory_optimized_elevate_to_snapshot_on bit?,is_federation_member bit?,is_remote_data_archive_enabled bit?,\
         is_mixed_page_allocation_on bit?,is_temporal_history_retention_enabled bit?,is_result_set_caching_on bit?,\
         is_accelerated_database_recovery_on bit?,is_ledger_on bit?,is_change_feed_enabled bit?",
        databases,
    ),
    ("sys.schemas", "name sysname,schema_id int,principal_id int?", |cx, rows| {
        for s in cx.db.catalog.schemas.values() {
            rows.push([
                ("name", text(&s.name)),
                ("schema_id", int(s.id)),
                ("principal_id", int(s.owner)),
            ]);
        }
        Ok(())
    }),
    ("sys.objects", OBJECT, |cx, rows| all_objects(cx, rows)),
    (
        "sys.sysobjects",
        "name sysname,id int,xtype c2,uid smallint?,info smallint?,status int?,base_schema_ver int?,replinfo int?,parent_obj int,crdate dt,\
         ftcatid smallint?,schema_ver int?,stats_schema_ver int?,type c2?,userstat smallint?,sysstat smallint?,indexdel smallint?,refdate dt,\
         version int?,deltrig int?,instrig int?,updtrig int?,seltrig int?,category int?,cache smallint?",
        old_objects,
    ),
    (
        "sys.tables",
        with_object!(
            "lob_data_space_id int,filestream_data_space_id int?,max_column_id_used int,lock_on_bulk_load bit,uses_ansi_nulls bit?,\
             is_replicated bit?,has_replication_filter bit?,is_merge_published bit?,is_sync_tran_subscribed bit?,has_unchecked_assembly_data bit,\
             text_in_row_limit int?,large_value_types_out_of_row bit?,is_tracked_by_cdc bit?,lock_escalation tinyint?,lock_escalation_desc n60?,\
             is_filetable bit?,is_memory_optimized bit?,durability tinyint?,durability_desc n60?,temporal_type tinyint?,temporal_type_desc n60?,\
             history_table_id int?,is_remote_data_archive_enabled bit?,is_external bit,history_retention_period int?,\
             history_retention_period_unit int?,history_retention_period_unit_desc n10?,is_node bit?,is_edge bit?,data_retention_period int?,\
             ledger_type tinyint?,ledger_type_desc n60?,ledger_view_id int?,is_dropped_ledger_table bit?"
        ),
        tables,
    ),
    (
        "sys.triggers",
        "name sysname,object_id int,parent_class tinyint,parent_class_desc n60?,parent_id int,type c2,type_desc n60?,create_date dt,\
         modify_date dt,is_ms_shipped bit,is_disabled bit,is_not_for_replication bit,is_instead_of_trigger bit",
        |cx, rows| {
            for object in visible(cx) {
                if let Object::Trigger(t) = object {
                    rows.push([
                        ("name", text(&t.name)),
                        ("object_id", int(t.object_id)),
                        ("parent_class", int(1)),
                        ("parent_class_desc", text("OBJECT_OR_COLUMN")),
                        ("parent_id", int(t.parent)),
                        ("type", text("TR")),
                        ("type_desc", text("SQL_TRIGGER")),
                        ("create_date", t.create_date.datetime()),
                        ("modify_date", t.modify_date.datetime()),
                        ("is_disabled", bit(t.disabled)),
                        ("is_instead_of_trigger", bit(t.instead_of)),
                    ]);
                }
            }
            Ok(())
        },
    ),
    (
        "sys.sql_modules",
        "object_id int,definition nmax?,uses_ansi_nulls bit?,uses_quoted_identifier bit?,is_schema_bound bit?,uses_database_collation bit?,\
         is_recompiled bit?,null_on_null_input bit?,execute_as_principal_id int?,uses_native_compilation bit?,inline_type bit?,is_inlineable bit?",
        |cx, rows| {
            for object in visible(cx) {
                let (definition, bound) = match object {
                    Object::View(v) => (&v.text, v.schemabinding),
                    Object::Procedure(p) => (&p.text, false),
                    Object::Trigger(t) => (&t.text, false),
                    Object::Table(_) => continue,
                };
                rows.push([
                    ("object_id", int(object.object_id())),
                    ("definition", text(definition)),
                    ("uses_ansi_nulls", bit(true)),
                    ("uses_quoted_identifier", bit(true)),
                    ("is_schema_bound", bit(bound)),
                    ("uses_database_collation", bit(false)),
                    ("is_recompiled", bit(false)),
                    ("null_on_null_input", bit(false)),
                ]);
            }
            Ok(())
        },
    ),
    (
        "sys.types",
        "name sysname,system_type_id tinyint,user_type_id int,schema_id int,principal_id int?,max_length smallint,precision tinyint,\
         scale tinyint,collation_name sysname?,is_nullable bit?,is_user_defined bit,is_assembly_type bit,default_object_id int,\
         rule_object_id int,is_table_type bit",
        types,
    ),
];

/// The objects the viewer sees, without table variables.
pub(super) fn visible<'a>(cx: &'a Context<'_>) -> impl Iterator<Item = &'a Object> {
    cx.db
        .catalog
        .objects
        .values()
        .filter(|o| !matches!(o, Object::Table(t) if t.kind == TableKind::Variable))
        .filter(|o| cx.sees(o.object_id()))
}

pub(super) fn visible_tables<'a>(
    cx: &'a Context<'_>,
) -> impl Iterator<Item = &'a std::sync::Arc<TableMeta>> {
    visible(cx).filter_map(Object::as_table)
}

/// What every view on objects shows of one.
pub(super) fn object_row(
    name: &str,
    id: ObjectId,
    schema: i32,
    parent: ObjectId,
    (ty, desc): (&str, &str),
    (created, modified): (Moment, Moment),
    shipped: bool,
) -> Vec<(&'static str, Value)> {
    vec![
        ("name", text(name)),
        ("object_id", int(id)),
        ("schema_id", int(schema)),
        ("parent_object_id", int(parent)),
        ("type", text(ty)),
        ("type_desc", text(desc)),
        ("create_date", created.datetime()),
        ("modify_date", modified.datetime()),
        ("is_ms_shipped", bit(shipped)),
    ]
}

fn describe(object: &Object) -> Vec<(&'static str, Value)> {
    let (kind, dates, parent, shipped) = match object {
        Object::Table(t) => {
            (("U ", "USER_TABLE"), (t.create_date, t.modify_date), 0, t.kind == TableKind::System)
        }
        Object::View(v) => (("V ", "VIEW"), (v.create_date, v.modify_date), 0, false),
        Object::Procedure(p) => {
            (("P ", "SQL_STORED_PROCEDURE"), (p.create_date, p.modify_date), 0, false)
        }
        Object::Trigger(t) => {
            (("TR", "SQL_TRIGGER"), (t.create_date, t.modify_date), t.parent, false)
        }
    };
    object_row(object.name(), object.object_id(), object.schema_id(), parent, kind, dates, shipped)
}

/// `sys.sysobjects`. What SQL Server 2000 kept in the low bits of `sysstat` is the kind of object,
/// as scripts of that time ask for it (`sysstat & 0xf = 3`); the triggers' columns and the flags
/// nobody documents are 0.
fn old_objects(cx: &Context<'_>, rows: &mut Rows<'_>) -> SqlResult<()> {
    each_object(cx, |object| {
        let of = |name: &str| {
            object
                .iter()
                .find(|(column, _)| *column == name)
                .map_or(Value::Null, |(_, value)| value.clone())
        };
        let kind = of("type");
        let Value::Str(word) = &kind else { return };
        let (old, stat) = match word.trim() {
            "S" => ("S ", 1),
            "V" => ("V ", 2),
            "U" => ("U ", 3),
            "P" => ("P ", 4),
            "D" => ("D ", 6),
            "TR" => ("TR", 8),
            "PK" | "UQ" => ("K ", 9),
            "F" => ("F ", 11),
            _ => ("C ", 7),
        };
        rows.push([
            ("name", of("name")),
            ("id", of("object_id")),
            ("xtype", kind.clone()),
            ("uid", of("schema_id")),
            ("info", int(0)),
            ("status", int(0)),
            ("base_schema_ver", int(0)),
            ("replinfo", int(0)),
            ("parent_obj", of("parent_object_id")),
            ("crdate", of("create_date")),
            ("ftcatid", int(0)),
            ("schema_ver", int(0)),
            ("stats_schema_ver", int(0)),
            ("type", text(old)),
            ("userstat", int(0)),
            ("sysstat", int(stat)),
            ("indexdel", int(0)),
            ("refdate", of("create_date")),
            ("version", int(0)),
            ("deltrig", int(0)),
            ("instrig", int(0)),
            ("updtrig", int(0)),
            ("seltrig", int(0)),
            ("category", int(0)),
            ("cache", int(0)),
        ]);
    });
    Ok(())
}

fn all_objects(cx: &Context<'_>, rows: &mut Rows<'_>) -> SqlResult<()> {
    each_object(cx, |object| rows.push(object));
    Ok(())
}

/// Every object, and what a table consists of.
fn each_object(cx: &Context<'_>, mut push: impl FnMut(Vec<(&'static str, Value)>)) {
    for object in visible(cx) {
        push(describe(object));
        let Object::Table(t) = object else { continue };
        let dates = (t.create_date, t.modify_date);
        let mut part = |name: &str, id, kind| {
            push(object_row(name, id, t.schema_id, t.object_id, kind, dates, false))
        };
        for index in &t.indexes {
            if let Some(id) = index.constraint_id {
                let primary = index.kind == KeyKind::PrimaryKey;
                part(
                    &index.name,
                    id,
                    if primary {
                        ("PK", "PRIMARY_KEY_CONSTRAINT")
                    } else {
                        ("UQ", "UNIQUE_CONSTRAINT")
                    },
                );
            }
        }
        for default in t.columns.iter().filter_map(|c| c.default.as_ref()) {
            part(&default.name, default.object_id, ("D ", "DEFAULT_CONSTRAINT"));
        }
        for check in &t.checks {
            part(&check.name, check.object_id, ("C ", "CHECK_CONSTRAINT"));
        }
        for fk in &t.foreign_keys {
            part(&fk.name, fk.object_id, ("F ", "FOREIGN_KEY_CONSTRAINT"));
        }
    }
}

fn tables(cx: &Context<'_>, rows: &mut Rows<'_>) -> SqlResult<()> {
    for object in visible(cx) {
        let Object::Table(t) = object else { continue };
        let mut row = describe(object);
        let versioned = t.temporal.as_ref().and_then(|p| p.history);
        let (temporal, temporal_desc) = match (t.history_of, versioned) {
            (Some(_), _) => (1, "HISTORY_TABLE"),
            (None, Some(_)) => (2, "SYSTEM_VERSIONED_TEMPORAL_TABLE"),
            (None, None) => (0, "NON_TEMPORAL_TABLE"),
        };
        row.extend([
            ("max_column_id_used", int(t.last_column_id)),
            ("uses_ansi_nulls", bit(true)),
            ("is_replicated", bit(false)),
            ("has_replication_filter", bit(false)),
            ("is_merge_published", bit(false)),
            ("is_sync_tran_subscribed", bit(false)),
            ("text_in_row_limit", int(0)),
            ("large_value_types_out_of_row", bit(false)),
            ("is_tracked_by_cdc", bit(t.is_tracked_by_cdc)),
            ("lock_escalation", int(0)),
            ("lock_escalation_desc", text("TABLE")),
            ("is_filetable", bit(false)),
            ("is_memory_optimized", bit(t.memory_optimized)),
            ("durability", int(0)),
            ("durability_desc", text("SCHEMA_AND_DATA")),
            ("temporal_type", int(temporal)),
            ("temporal_type_desc", text(temporal_desc)),
            ("history_table_id", opt(versioned, int)),
            ("is_remote_data_archive_enabled", bit(false)),
            ("is_node", bit(false)),
            ("is_edge", bit(false)),
            ("ledger_type", int(0)),
            ("ledger_type_desc", text("NON_LEDGER_TABLE")),
            ("is_dropped_ledger_table", bit(false)),
        ]);
        rows.push(row);
    }
    Ok(())
}

fn databases(cx: &Context<'_>, rows: &mut Rows<'_>) -> SqlResult<()> {
    for db in cx.state.databases.values() {
        let o = &db.options;
        let (recovery, wait) = match o.recovery {
            "FULL" => (1, "NOTHING"),
            "BULK_LOGGED" => (2, "NOTHING"),
            _ => (3, "NOTHING"),
        };
        // a log that capture has not read cannot be truncated
        let (wait_number, wait) = if o.is_cdc_enabled && !db.log.records.is_empty() {
            (6, "REPLICATION")
        } else {
            (0, wait)
        };
        rows.push([
            ("name", text(&db.name)),
            ("database_id", int(db.id)),
            ("owner_sid", Value::Bytes([1u8].as_slice().into())),
            ("create_date", db.create_date.datetime()),
            ("compatibility_level", int(o.compatibility_level)),
            ("collation_name", if o.offline { Value::Null } else { text(db.collation.name()) }),
            ("user_access", int(i64::from(o.single_user))),
            ("user_access_desc", text(if o.single_user { "SINGLE_USER" } else { "MULTI_USER" })),
            ("is_read_only", bit(o.read_only)),
            ("is_auto_shrink_on", bit(false)),
            ("state", int(if o.offline { 6 } else { 0 })),
            ("state_desc", text(if o.offline { "OFFLINE" } else { "ONLINE" })),
            ("is_in_standby", bit(false)),
            ("is_cleanly_shutdown", bit(false)),
            ("is_supplemental_logging_enabled", bit(false)),
            ("snapshot_isolation_state", int(i64::from(o.snapshot_isolation))),
            (
                "snapshot_isolation_state_desc",
                text(if o.snapshot_isolation { "ON" } else { "OFF" }),
            ),
            ("is_read_committed_snapshot_on", bit(o.read_committed_snapshot)),
            ("recovery_model", int(recovery)),
            ("recovery_model_desc", text(o.recovery)),
            ("page_verify_option", int(2)),
            ("page_verify_option_desc", text("CHECKSUM")),
            ("is_auto_create_stats_on", bit(true)),
            ("is_auto_update_stats_on", bit(true)),
            ("is_ansi_nulls_on", bit(false)),
            ("is_ansi_padding_on", bit(false)),
            ("is_quoted_identifier_on", bit(false)),
            ("is_query_store_on", bit(false)),
            ("is_trustworthy_on", bit(db.id == MSDB)),
            ("is_db_chaining_on", bit(!db.is_user_database())),
            ("service_broker_guid", Value::Guid(db.recovery_fork)),
            ("is_broker_enabled", bit(o.is_broker_enabled)),
            ("log_reuse_wait", int(wait_number)),
            ("log_reuse_wait_desc", text(wait)),
            ("is_cdc_enabled", bit(o.is_cdc_enabled)),
            ("is_encrypted", bit(o.is_encrypted)),
            ("replica_id", opt(db.availability.replica_id, Value::Guid)),
            ("containment", int(0)),
            ("containment_desc", text("NONE")),
            ("target_recovery_time_in_seconds", int(60)),
            ("delayed_durability", int(0)),
            ("delayed_durability_desc", text("DISABLED")),
            ("is_accelerated_database_recovery_on", bit(false)),
            ("is_ledger_on", bit(false)),
            ("is_change_feed_enabled", bit(false)),
        ]);
    }
    Ok(())
}

/// The server's own types, as rows of `sys.types`.
fn types(cx: &Context<'_>, rows: &mut Rows<'_>) -> SqlResult<()> {
    use crate::value::Length::N;
    let c = cx.db.collation;
    let all = [
        SqlType::Image,
        SqlType::Text(c),
        SqlType::UniqueIdentifier,
        SqlType::Date,
        SqlType::Time(7),
        SqlType::DateTime2(7),
        SqlType::DateTimeOffset(7),
        SqlType::TinyInt,
        SqlType::SmallInt,
        SqlType::Int,
        SqlType::SmallDateTime,
        SqlType::Real,
        SqlType::Money,
        SqlType::DateTime,
        SqlType::Float,
        SqlType::SqlVariant,
        SqlType::NText(c),
        SqlType::Bit,
        SqlType::Decimal { precision: 38, scale: 38 },
        SqlType::SmallMoney,
        SqlType::BigInt,
        SqlType::HierarchyId,
        SqlType::Geometry,
        SqlType::Geography,
        SqlType::VarBinary(N(8000)),
        SqlType::VarChar(N(8000), c),
        SqlType::Binary(8000),
        SqlType::Char(8000, c),
        SqlType::RowVersion,
        SqlType::NVarChar(N(4000), c),
        SqlType::NChar(4000, c),
        SqlType::Xml,
    ];
    let mut push = |name: &str, ty: SqlType, user: i32, schema: i32, nullable: bool, own: bool| {
        let collation = ty.collation().map(Collation::name);
        rows.push([
            ("name", text(name)),
            ("system_type_id", int(ty.system_type_id())),
            ("user_type_id", int(user)),
            ("schema_id", int(schema)),
            ("max_length", int(ty.max_length())),
            ("precision", int(ty.precision())),
            ("scale", int(ty.scale())),
            ("collation_name", opt(collation, text)),
            ("is_nullable", bit(nullable)),
            ("is_user_defined", bit(own)),
            ("is_assembly_type", bit(ty.system_type_id() == 240)),
        ]);
    };
    for ty in all {
        push(ty.name(), ty, ty.user_type_id(), 4, ty != SqlType::RowVersion, false);
    }
    push("numeric", SqlType::Decimal { precision: 38, scale: 38 }, 108, 4, true, false);
    push("sysname", SqlType::NVarChar(N(128), c), 256, 4, false, false);
    for alias in cx.db.catalog.types.values() {
        push(&alias.name, alias.ty, alias.user_type_id, alias.schema_id, alias.nullable, true);
    }
    Ok(())
}
