//! Procedures that report.

use super::{must_have, require_enabled};
use crate::{
    cdc::{instances, store},
    engine::{
        context::Session,
        procedures::{Argument, Arguments},
        sink::{Column, DoneKind, Sink},
        storage::Row,
    },
    error::{SqlError, SqlResult},
    value::{Length, SqlType, Value},
};

fn send(sink: &mut dyn Sink, columns: &[(&str, SqlType)], rows: &[Row]) -> SqlResult<()> {
    let columns: Vec<Column> = columns
        .iter()
        .map(|(name, ty)| Column {
            name: (*name).into(),
            ty: *ty,
            nullable: true,
            identity: false,
            computed: false,
        })
        .collect();
    let mut all = || {
        sink.columns(&columns)?;
        for row in rows {
            sink.row(row)?;
        }
        sink.done(DoneKind::Select, Some(rows.len() as u64))
    };
    all().map_err(|_| SqlError::cancelled())
}

fn text(s: &str) -> Value {
    Value::Str(s.into())
}

pub(super) fn change_data_capture(
    session: &mut Session,
    arguments: &mut [Argument],
    sink: &mut dyn Sink,
) -> SqlResult<i32> {
    let database = require_enabled(session)?;
    let args = Arguments::new(
        "sp_cdc_help_change_data_capture",
        &["@source_schema", "@source_name"],
        arguments,
    )?;
    let filled = |name: &str| args.text(name).filter(|t| !t.is_empty());
    let (schema, table) = (filled("@source_schema"), filled("@source_name"));
    if schema.is_some() != table.is_some() {
        let text = "When calling stored procedure [sys].sp_cdc_help_change_data capture, if either @source_schema or @source_name is non-null \
                    and non-empty, the other parameter must also be non-null and non-empty.";
        return Err(SqlError::new(22972, 16, text));
    }
    let rows: Vec<Row> = {
        let state = session.instance.lock();
        let catalog = &state.database(database)?.catalog;
        let names = |list: Vec<&str>| {
            text(
                &list
                    .iter()
                    .map(|n| format!("[{}]", n.replace(']', "]]")))
                    .collect::<Vec<_>>()
                    .join(", "),
            )
        };
        instances::load(&state, database, session.txn.unwrap_or(0))
            .into_iter()
            .filter(|i| instances::may_read(&state, &session.login, database, i))
            .filter_map(|i| {
                let source = catalog.table(i.source)?;
                let schema_name = catalog.schema_name(source.schema_id);
                let wanted = schema.as_deref().is_none_or(|s| s.eq_ignore_ascii_case(schema_name))
                    && table.as_deref().is_none_or(|t| t.eq_ignore_ascii_case(&source.name));
                let key = i
                    .key
                    .iter()
                    .filter_map(|id| {
                        i.columns.iter().find(|c| c.column_id == *id).map(|c| c.name.as_str())
                    })
                    .collect();
                let cell = |at: usize| i.row.get(at).cloned().unwrap_or(Value::Null);
                wanted.then(|| {
                    vec![
                        text(schema_name),
                        text(&source.name),
                        text(&i.name),
                        cell(0),
                        cell(2),
                        cell(4),
                        cell(5),
                        cell(6),
                        cell(7),
                        cell(8),
                        cell(9),
                        cell(10),
                        cell(11),
                        if i.key.is_empty() { Value::Null } else { names(key) },
                        names(i.columns.iter().map(|c| c.name.as_str()).collect()),
                    ]
                })
            })
            .collect()
    };
    let lsn = SqlType::Binary(10);
    let list = SqlType::NVarChar(Length::Max, session.collation());
    let columns = [
        ("source_schema", SqlType::SYSNAME),
        ("source_table", SqlType::SYSNAME),
        ("capture_instance", SqlType::SYSNAME),
        ("object_id", SqlType::Int),
        ("source_object_id", SqlType::Int),
        ("start_lsn", lsn),
        ("end_lsn", lsn),
        ("supports_net_changes", SqlType::Bit),
        ("has_drop_pending", SqlType::Bit),
        ("role_name", SqlType::SYSNAME),
        ("index_name", SqlType::SYSNAME),
        ("filegroup_name", SqlType::SYSNAME),
        ("create_date", SqlType::DateTime),
        ("index_column_list", list),
        ("captured_column_list", list),
    ];
    send(sink, &columns, &rows)?;
    Ok(0)
}

pub(super) fn jobs(
    session: &mut Session,
    _: &mut [Argument],
    sink: &mut dyn Sink,
) -> SqlResult<i32> {
    super::require_owner(session)?;
    let database = require_enabled(session)?;
    let mut rows: Vec<Row> = Vec::new();
    {
        let state = session.instance.lock();
        let db = state.database(database)?;
        let job = |kind: &str, numbers: [i64; 6]| -> Row {
            let [maxtrans, maxscans, continuous, polling, retention, threshold] =
                numbers.map(Value::Int);
            let continuous = Value::Bit(continuous == Value::Int(1));
            let id = crate::engine::views::job_id(database, if kind == "capture" { 1 } else { 2 });
            vec![
                id,
                text(kind),
                text(&format!("cdc.{}_{kind}", db.name)),
                maxtrans,
                maxscans,
                continuous,
                polling,
                retention,
                threshold,
            ]
        };
        if let Some(j) = &db.cdc.capture_job {
            rows.push(job(
                "capture",
                [
                    j.maxtrans.into(),
                    j.maxscans.into(),
                    j.continuous.into(),
                    j.pollinginterval,
                    0,
                    0,
                ],
            ));
        }
        if let Some(j) = &db.cdc.cleanup_job {
            rows.push(job("cleanup", [0, 0, 0, 0, j.retention, j.threshold]));
        }
    }
    let columns = [
        ("job_id", SqlType::UniqueIdentifier),
        ("job_type", SqlType::nvarchar(20)),
        ("job_name", SqlType::SYSNAME),
        ("maxtrans", SqlType::Int),
        ("maxscans", SqlType::Int),
        ("continuous", SqlType::Bit),
        ("pollinginterval", SqlType::BigInt),
        ("retention", SqlType::BigInt),
        ("threshold", SqlType::BigInt),
    ];
    send(sink, &columns, &rows)?;
    Ok(0)
}

/// The instance named by @capture_instance: 22963 without a name, 22920 without an instance.
fn named(
    session: &Session,
    database: i32,
    args: &Arguments<'_>,
) -> SqlResult<instances::CaptureInstance> {
    let name = args
        .text("@capture_instance")
        .filter(|t| !t.is_empty())
        .ok_or_else(|| must_have("@capture_instance"))?;
    let state = session.instance.lock();
    let db = state.database(database)?.name.clone();
    instances::load(&state, database, session.txn.unwrap_or(0))
        .into_iter()
        .find(|i| {
            i.name.eq_ignore_ascii_case(&name)
                && instances::may_read(&state, &session.login, database, i)
        })
        .ok_or_else(|| {
            SqlError::new(
                22920,
                16,
                format!("The named capture instance {name} does not exist for database {db}."),
            )
        })
}

pub(super) fn captured_columns(
    session: &mut Session,
    arguments: &mut [Argument],
    sink: &mut dyn Sink,
) -> SqlResult<i32> {
    let database = require_enabled(session)?;
    let args = Arguments::new("sp_cdc_get_captured_columns", &["@capture_instance"], arguments)?;
    let instance = named(session, database, &args)?;
    let rows: Vec<Row> = {
        let state = session.instance.lock();
        let catalog = &state.database(database)?.catalog;
        let source = catalog.table(instance.source);
        instance
            .columns
            .iter()
            .map(|c| {
                let ty = source.and_then(|s| s.column(c.column_id)).map(|c| c.ty);
                let number = |n: Option<i64>| n.map_or(Value::Null, Value::Int);
                vec![
                    text(source.map_or("", |s| catalog.schema_name(s.schema_id))),
                    text(source.map_or("", |s| s.name.as_str())),
                    text(&instance.name),
                    text(&c.name),
                    Value::Int(c.column_id.into()),
                    Value::Int(c.ordinal.into()),
                    text(&c.type_name),
                    number(ty.and_then(SqlType::length).map(i64::from)),
                    number(ty.filter(|t| t.is_numeric()).map(|t| t.precision().into())),
                    number(ty.filter(|t| t.is_numeric()).map(|_| 10)),
                    number(ty.filter(|t| t.is_numeric()).map(|t| t.scale().into())),
                    number(ty.filter(|t| t.is_datetime()).map(|t| t.scale().into())),
                ]
            })
            .collect()
    };
    let columns = [
        ("source_schema", SqlType::SYSNAME),
        ("source_table", SqlType::SYSNAME),
        ("capture_instance", SqlType::SYSNAME),
        ("column_name", SqlType::SYSNAME),
        ("column_id", SqlType::Int),
        ("column_ordinal", SqlType::Int),
        ("data_type", SqlType::SYSNAME),
        ("character_maximum_length", SqlType::Int),
        ("numeric_precision", SqlType::TinyInt),
        ("numeric_precision_radix", SqlType::SmallInt),
        ("numeric_scale", SqlType::Int),
        ("datetime_precision", SqlType::SmallInt),
    ];
    send(sink, &columns, &rows)?;
    Ok(0)
}

pub(super) fn ddl_history(
    session: &mut Session,
    arguments: &mut [Argument],
    sink: &mut dyn Sink,
) -> SqlResult<i32> {
    let database = require_enabled(session)?;
    let args = Arguments::new("sp_cdc_get_ddl_history", &["@capture_instance"], arguments)?;
    let instance = named(session, database, &args)?;
    let rows: Vec<Row> = {
        let state = session.instance.lock();
        let catalog = &state.database(database)?.catalog;
        let source = catalog.table(instance.source);
        store::rows(&state, database, "ddl_history", session.txn.unwrap_or(0))
            .into_iter()
            .filter(|(_, r)| r.get(1) == Some(&Value::Int(instance.object_id.into())))
            .map(|(_, r)| {
                let mut row = vec![
                    text(source.map_or("", |s| catalog.schema_name(s.schema_id))),
                    text(source.map_or("", |s| s.name.as_str())),
                    text(&instance.name),
                ];
                row.extend(r[2..].iter().cloned());
                row
            })
            .collect()
    };
    let columns = [
        ("source_schema", SqlType::SYSNAME),
        ("source_table", SqlType::SYSNAME),
        ("capture_instance", SqlType::SYSNAME),
        ("required_column_update", SqlType::Bit),
        ("ddl_command", SqlType::NVarChar(Length::Max, session.collation())),
        ("ddl_lsn", SqlType::Binary(10)),
        ("ddl_time", SqlType::DateTime),
    ];
    send(sink, &columns, &rows)?;
    Ok(0)
}
