//! Enabling and disabling databases and tables.

use super::{must_have, require_enabled, require_owner};
use crate::{
    cdc::{
        CaptureMode, CleanupJob, capture,
        instances::{self, CaptureInstance},
        removal::{captured_type, disable_database, drop_instance, set_tracked},
        store::{self, NewTable, lsn_value},
    },
    engine::{
        catalog::{
            IndexMeta, KeyKind, Object, Principal, PrincipalKind, SchemaMeta, TableKind, TableMeta,
        },
        context::Session,
        database::MSDB,
        lock::TableMode,
        procedures::{Argument, Arguments},
        storage::TxnId,
    },
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    tsql::ast::ObjectName,
    value::{Length, SqlType, Value},
};
use std::sync::Arc;

const LSN: SqlType = SqlType::Binary(10);
const RESERVED: [&str; 5] =
    ["__$start_lsn", "__$end_lsn", "__$seqval", "__$operation", "__$update_mask"];
/// A change table has at most 1,024 columns, metadata included.
const MAX_CAPTURED: usize = 1018;

pub(super) fn enable_db(
    session: &mut Session,
    _: &mut [Argument],
    sink: &mut dyn Sink,
) -> SqlResult<i32> {
    let database = session.database;
    {
        let state = session.instance.lock();
        if !state.is_sysadmin(&session.login) {
            let text = "Caller is not authorized to initiate the requested action. System administrator privileges are required.";
            return Err(SqlError::new(22902, 16, text));
        }
        let db = state.database(database)?;
        if db.options.is_cdc_enabled {
            let note = SqlError::new(
                22905,
                10,
                format!(
                    "Database '{}' is already enabled for Change Data Capture. Ensure that the correct database context is set, and retry the \
                     operation. To report on the databases enabled for Change Data Capture, query the is_cdc_enabled column in the sys.databases \
                     catalog view.",
                    db.name
                ),
            );
            drop(state);
            sink.message(&note).map_err(|_| SqlError::cancelled())?;
            return Ok(1);
        }
        if database <= MSDB {
            let text = format!(
                "Could not enable Change Data Capture for database '{}'. Change data capture is not supported on system databases, or on a \
                 distribution database.",
                db.name
            );
            return Err(SqlError::new(22989, 16, text));
        }
        if db.catalog.schema_named(store::SCHEMA).is_some()
            || db.catalog.principal_named(store::SCHEMA).is_some()
        {
            let text = format!(
                "The database '{}' cannot be enabled for Change Data Capture because a database user named 'cdc' or a schema named 'cdc' \
                 already exists in the current database. These objects are required exclusively by Change Data Capture. Drop or rename the \
                 user or schema and retry the operation.",
                db.name
            );
            return Err(SqlError::new(22906, 16, text));
        }
    }
    session.statement(|session| {
        let Some(txn) = session.txn else { return Ok(()) };
        let now = session.now;
        let mut state = session.instance.lock();
        state.keep_parts(txn, database);
        let db = state.database_mut(database)?;
        let (schema, user) = (db.new_schema_id(), db.new_principal_id());
        db.catalog.schemas.insert(
            schema,
            Arc::new(SchemaMeta { id: schema, name: store::SCHEMA.into(), owner: user }),
        );
        let principal = Principal {
            id: user,
            name: store::SCHEMA.into(),
            kind: PrincipalKind::SqlUser,
            login: None,
            default_schema: store::SCHEMA.into(),
            fixed: false,
            member_of: vec![16384],
        };
        db.catalog.principals.insert(user, Arc::new(principal));
        db.options.is_cdc_enabled = true;
        db.log.records.clear();
        db.cdc.running = true;
        let sysname = SqlType::NVarChar(Length::N(128), db.collation);
        let long = SqlType::NVarChar(Length::N(1000), db.collation);
        let max = SqlType::NVarChar(Length::Max, db.collation);
        let column = |name: &str, ty: SqlType, nullable: bool| (name.to_string(), ty, nullable);
        let tables = [
            NewTable {
                name: "change_tables",
                columns: vec![
                    column("object_id", SqlType::Int, false),
                    column("version", SqlType::Int, true),
                    column("source_object_id", SqlType::Int, true),
                    column("capture_instance", sysname, false),
                    column("start_lsn", LSN, true),
                    column("end_lsn", LSN, true),
                    column("supports_net_changes", SqlType::Bit, true),
                    column("has_drop_pending", SqlType::Bit, true),
                    column("role_name", sysname, true),
                    column("index_name", sysname, true),
                    column("filegroup_name", sysname, true),
                    column("create_date", SqlType::DateTime, true),
                    column("partition_switch", SqlType::Bit, false),
                ],
                key: &["object_id"],
                key_name: "change_tables_clustered_idx".into(),
                index: Some(("source_object_id_idx", "source_object_id")),
            },
            NewTable {
                name: "captured_columns",
                columns: vec![
                    column("object_id", SqlType::Int, false),
                    column("column_name", sysname, false),
                    column("column_id", SqlType::Int, true),
                    column("column_type", sysname, false),
                    column("column_ordinal", SqlType::Int, false),
                    column("is_computed", SqlType::Bit, true),
                    column("masking_function", long, true),
                ],
                key: &["object_id", "column_ordinal"],
                key_name: "captured_columns_clustered_idx".into(),
                index: None,
            },
            NewTable {
                name: "index_columns",
                columns: vec![
                    column("object_id", SqlType::Int, false),
                    column("column_name", sysname, false),
                    column("index_ordinal", SqlType::TinyInt, false),
                    column("column_id", SqlType::Int, false),
                ],
                key: &["object_id", "index_ordinal", "column_id"],
                key_name: "index_columns_clustered_idx".into(),
                index: None,
            },
            NewTable {
                name: "ddl_history",
                columns: vec![
                    column("source_object_id", SqlType::Int, true),
                    column("object_id", SqlType::Int, false),
                    column("required_column_update", SqlType::Bit, true),
                    column("ddl_command", max, true),
                    column("ddl_lsn", LSN, false),
                    column("ddl_time", SqlType::DateTime, true),
                ],
                key: &["object_id", "ddl_lsn"],
                key_name: "ddl_history_clustered_idx".into(),
                index: None,
            },
            NewTable {
                name: "lsn_time_mapping",
                columns: vec![
                    column("start_lsn", LSN, false),
                    column("tran_begin_time", SqlType::DateTime, true),
                    column("tran_end_time", SqlType::DateTime, true),
                    column("tran_id", SqlType::VarBinary(Length::N(10)), true),
                    column("tran_begin_lsn", LSN, true),
                ],
                key: &["start_lsn"],
                key_name: "lsn_time_mapping_clustered_idx".into(),
                index: Some(("lsn_time_mapping_nonunique_idx", "tran_end_time")),
            },
        ];
        for table in tables {
            store::create_table(&mut state, txn, database, table, now)?;
        }
        Ok(())
    })?;
    Ok(0)
}

pub(super) fn disable_db(
    session: &mut Session,
    _: &mut [Argument],
    _: &mut dyn Sink,
) -> SqlResult<i32> {
    let database = session.database;
    {
        let state = session.instance.lock();
        if !state.is_sysadmin(&session.login) {
            let text = "Caller is not authorized to initiate the requested action. System administrator privileges are required.";
            return Err(SqlError::new(22902, 16, text));
        }
        if !state.database(database)?.options.is_cdc_enabled {
            return Ok(0);
        }
    }
    session.statement(|session| {
        let Some(txn) = session.txn else { return Ok(()) };
        disable_database(&mut session.instance.lock(), txn, database)
    })?;
    Ok(0)
}

/// What sp_cdc_enable_table was asked for.
struct Request {
    schema: String,
    table: String,
    instance: String,
    net_changes: Option<bool>,
    role: Option<String>,
    index: Option<String>,
    columns: Option<Vec<String>>,
    filegroup: Option<String>,
    partition_switch: bool,
}

pub(super) fn enable_table(
    session: &mut Session,
    arguments: &mut [Argument],
    _: &mut dyn Sink,
) -> SqlResult<i32> {
    require_owner(session)?;
    let database = require_enabled(session)?;
    let names = [
        "@source_schema",
        "@source_name",
        "@role_name",
        "@capture_instance",
        "@supports_net_changes",
        "@index_name",
        "@captured_column_list",
        "@filegroup_name",
        "@allow_partition_switch",
    ];
    let args = Arguments::new("sp_cdc_enable_table", &names, arguments)?;
    for name in &names[..3] {
        args.required(name)?;
    }
    let filled = |name: &str| args.text(name).filter(|t| !t.is_empty());
    let schema = filled("@source_schema").ok_or_else(|| must_have("@source_schema"))?;
    let table = filled("@source_name").ok_or_else(|| must_have("@source_name"))?;
    if args.text("@role_name").is_some_and(|r| r.is_empty()) {
        let text = "Parameter @role_name cannot be empty. Specify a value for @role_name and retry the operation. Supply null as the value if \
                    no role is to be used to gate access to captured change data.";
        return Err(SqlError::new(22907, 16, text));
    }
    let request = Request {
        instance: filled("@capture_instance").unwrap_or_else(|| format!("{schema}_{table}")),
        net_changes: args.integer("@supports_net_changes").map(|n| n != 0),
        role: args.text("@role_name"),
        index: filled("@index_name"),
        columns: filled("@captured_column_list").map(|list| split_names(&list)).transpose()?,
        filegroup: filled("@filegroup_name"),
        partition_switch: args.integer("@allow_partition_switch") != Some(0),
        schema,
        table,
    };
    let first = session.statement(|session| {
        let Some((txn, work)) = session.txn.zip(session.work.clone()) else { return Ok(false) };
        let state = session.instance.lock();
        let meta = source(&state, database, &request.schema, &request.table)?;
        // writers that know nothing of the instance must be gone before it begins
        let mut state = work.lock_table(state, (database, meta.object_id), TableMode::Schema)?;
        create_instance(&mut state, txn, database, &request, session)
    })?;
    let mut state = session.instance.lock();
    if first && let Some(db) = state.databases.get_mut(&database) {
        db.cdc.capture_job.get_or_insert_default();
        db.cdc.cleanup_job.get_or_insert_with(CleanupJob::default);
    }
    // the first scan of a capture job that runs finds the enabling itself
    if state.database(database)?.cdc.mode != CaptureMode::Manual {
        let now = session.instance.now();
        capture::scan(&mut state, database, now, usize::MAX);
    }
    Ok(0)
}

fn source(
    state: &crate::engine::instance::State,
    database: i32,
    schema: &str,
    table: &str,
) -> SqlResult<Arc<TableMeta>> {
    let name = ObjectName { database: None, schema: Some(schema.into()), name: table.into() };
    let missing = || {
        SqlError::new(
            22931,
            16,
            format!(
                "Source table '{schema}.{table}' does not exist in the current database. Ensure that the correct database context is set. \
                 Specify a valid schema and table name for the database."
            ),
        )
    };
    match state.resolve(database, schema, &name) {
        Some((_, Object::Table(t))) if t.kind == TableKind::User => Ok(t.clone()),
        Some((_, Object::Table(t))) if t.kind == TableKind::System => Err(SqlError::new(
            22974,
            16,
            "Tables contained in the cdc schema cannot be enabled for Change Data Capture.",
        )),
        _ => Err(missing()),
    }
}

/// True when it is the database's first.
fn create_instance(
    state: &mut crate::engine::instance::State,
    txn: TxnId,
    database: i32,
    request: &Request,
    session: &Session,
) -> SqlResult<bool> {
    let Request { schema, table, instance, .. } = request;
    // as it is now that nobody else can change it
    let meta = source(state, database, schema, table)?;
    if instance.chars().count() > 100 {
        let text = format!(
            "Capture instance name '{instance}' exceeds the length limit of 100 characters. Specify a name that satisfies the length constraint."
        );
        return Err(SqlError::new(22927, 16, text));
    }
    let existing = instances::load(state, database, txn);
    if existing.iter().any(|i| i.name.eq_ignore_ascii_case(instance)) {
        let text = format!(
            "Could not create a capture instance because the capture instance name '{instance}' already exists in the current database. \
             Specify an explicit unique name for the parameter @capture_instance."
        );
        return Err(SqlError::new(22926, 16, text));
    }
    if existing.iter().filter(|i| i.source == meta.object_id).count() >= 2 {
        let text = format!(
            "Two capture instances already exist for source table '{schema}.{table}'. A table can have at most two capture instances. If the \
             current tracking options are not appropriate, disable change tracking for the obsolete instance by using sys.sp_cdc_disable_table \
             and retry the operation."
        );
        return Err(SqlError::new(22962, 16, text));
    }
    if request.filegroup.as_deref().is_some_and(|f| !f.eq_ignore_ascii_case("PRIMARY")) {
        let name = state.database(database)?.name.clone();
        let text = format!(
            "The specified filegroup '{}' is not a valid filegroup for database '{name}'. Specify a valid existing filegroup or create the \
             named filegroup, and retry the operation.",
            request.filegroup.as_deref().unwrap_or_default()
        );
        return Err(SqlError::new(22973, 16, text));
    }
    if meta.indexes.iter().any(|i| i.columnstore && i.clustered) {
        return Err(SqlError::unsupported(
            "change data capture of a table with a clustered columnstore index",
        ));
    }
    let ordinals = captured(&meta, request)?;
    let index = key_index(&meta, request)?;
    let net_changes = request.net_changes.unwrap_or(index.is_some());
    let Some(key) = index.as_ref().map(|i| i.key.clone()).or((!net_changes).then(Vec::new)) else {
        let text = "The parameter @supports_net_changes is set to 1, but the source table does not have a primary key defined and no alternate \
                    unique index has been specified.";
        return Err(SqlError::new(22939, 16, text));
    };
    if net_changes && key.iter().any(|k| !ordinals.contains(&k.ordinal)) {
        let text = "Columns used to uniquely identify a row for net change tracking must be included in the list of captured columns. Add either \
                    the primary key columns of the source table, or the columns defined for the index specified in the parameter @index_name to \
                    the list of captured columns and retry the operation.";
        return Err(SqlError::new(22943, 16, text));
    }
    let object_id = create_change_table(state, txn, database, &meta, instance, &ordinals, session)?;
    let lsn = state.database_mut(database)?.log.next_lsn();
    let text = |s: &str| Value::Str(s.into());
    let optional = |s: &Option<String>| s.as_deref().map_or(Value::Null, text);
    let row = vec![
        Value::Int(object_id.into()),
        Value::Int(0),
        Value::Int(meta.object_id.into()),
        text(instance),
        lsn_value(&lsn),
        Value::Null,
        Value::Bit(net_changes),
        Value::Null,
        optional(&request.role),
        index.as_ref().map_or(Value::Null, |i| text(&i.name)),
        optional(&request.filegroup),
        session.now.datetime(),
        Value::Bit(request.partition_switch),
    ];
    store::insert(state, txn, database, "change_tables", row);
    for (ordinal, number) in ordinals.iter().zip(1i64..) {
        let c = &meta.columns[*ordinal];
        let row = vec![
            Value::Int(object_id.into()),
            text(&c.name),
            Value::Int(c.column_id.into()),
            text(c.ty.name()),
            Value::Int(number),
            Value::Bit(c.computed.is_some()),
            optional(&c.masked),
        ];
        store::insert(state, txn, database, "captured_columns", row);
    }
    for (k, number) in key.iter().zip(1i64..) {
        let name = meta.columns.get(k.ordinal).map_or("", |c| c.name.as_str());
        let row = vec![
            Value::Int(object_id.into()),
            text(name),
            Value::Int(number),
            Value::Int(k.column_id.into()),
        ];
        store::insert(state, txn, database, "index_columns", row);
    }
    if let Some(role) = &request.role
        && state.database(database)?.catalog.principal_named(role).is_none()
    {
        state.keep_parts(txn, database);
        let db = state.database_mut(database)?;
        let id = db.new_principal_id();
        let principal = Principal {
            id,
            name: role.clone(),
            kind: PrincipalKind::Role,
            login: None,
            default_schema: String::new(),
            fixed: false,
            member_of: Vec::new(),
        };
        db.catalog.principals.insert(id, Arc::new(principal));
    }
    set_tracked(state, txn, database, meta.object_id, true);
    Ok(existing.is_empty())
}

/// Ordinals in the source of the columns captured, in the source's order.
fn captured(meta: &TableMeta, request: &Request) -> SqlResult<Vec<usize>> {
    let ordinals: Vec<usize> = match &request.columns {
        None => (0..meta.columns.len()).collect(),
        Some(names) => {
            let mut ordinals = names
                .iter()
                .map(|name| {
                    meta.ordinal_named(name).ok_or_else(|| {
                        let text = format!(
                            "Could not locate '{name}' as a column of source table '{}.{}'. Specify a valid column name.",
                            request.schema, request.table
                        );
                        SqlError::new(22930, 16, text)
                    })
                })
                .collect::<SqlResult<Vec<_>>>()?;
            ordinals.sort_unstable();
            ordinals.dedup();
            ordinals
        }
    };
    if ordinals
        .iter()
        .any(|at| RESERVED.iter().any(|r| r.eq_ignore_ascii_case(&meta.columns[*at].name)))
    {
        let text = format!(
            "Source table '{}' contains one of the following reserved column names: __$start_lsn, __$end_lsn, __$seqval, __$operation, and \
             __$update_mask. To enable Change Data Capture for this table, specify a captured column list and ensure that these columns are \
             excluded from the list.",
            request.table
        );
        return Err(SqlError::new(22975, 16, text));
    }
    if ordinals.len() > MAX_CAPTURED {
        let text = format!(
            "The number of columns captured by capture instance '{}' exceeds the maximum allowed number: {MAX_CAPTURED}. Use the \
             @captured_columns_list parameter to specify a subset of the columns less than or equal to the maximum allowed and resubmit the \
             request.",
            request.instance
        );
        return Err(SqlError::new(22925, 16, text));
    }
    Ok(ordinals)
}

/// The index that identifies rows: the one named, else the primary key.
fn key_index(meta: &TableMeta, request: &Request) -> SqlResult<Option<Arc<IndexMeta>>> {
    let Some(name) = &request.index else { return Ok(meta.primary_key().cloned()) };
    let Some(index) = meta.index_named(name) else {
        let text = format!(
            "Index name '{name}' is not an index for table '{}.{}'. Specify a valid index name for the table.",
            request.schema, request.table
        );
        return Err(SqlError::new(22928, 16, text));
    };
    if !index.unique && index.kind == KeyKind::Index {
        let text = format!(
            "Index '{name}' must be either a primary key or a unique index for table '{}.{}'. Specify an index that meets at least one of these \
             requirements.",
            request.schema, request.table
        );
        return Err(SqlError::new(22929, 16, text));
    }
    Ok(Some(index.clone()))
}

fn create_change_table(
    state: &mut crate::engine::instance::State,
    txn: TxnId,
    database: i32,
    meta: &TableMeta,
    instance: &str,
    ordinals: &[usize],
    session: &Session,
) -> SqlResult<i32> {
    let with_command = state.database(database)?.cdc.command_id;
    let mut columns = vec![
        ("__$start_lsn".to_string(), LSN, false),
        ("__$end_lsn".to_string(), LSN, true),
        ("__$seqval".to_string(), LSN, false),
        ("__$operation".to_string(), SqlType::Int, false),
        ("__$update_mask".to_string(), SqlType::VarBinary(Length::N(128)), true),
    ];
    columns.extend(
        ordinals
            .iter()
            .map(|at| (meta.columns[*at].name.clone(), captured_type(meta.columns[*at].ty), true)),
    );
    if with_command {
        columns.push(("__$command_id".to_string(), SqlType::Int, true));
    }
    let key: &[&str] = if with_command {
        &["__$start_lsn", "__$command_id", "__$seqval", "__$operation"]
    } else {
        &["__$start_lsn", "__$seqval", "__$operation"]
    };
    let name = format!("{instance}_CT");
    let table = NewTable {
        name: &name,
        columns,
        key,
        key_name: format!("{name}_clustered_idx"),
        index: None,
    };
    store::create_table(state, txn, database, table, session.now)
}

/// A list of names: plain, in brackets or in double quotes, separated by commas (22965 when a quote
/// is not closed).
fn split_names(list: &str) -> SqlResult<Vec<String>> {
    let unterminated = || {
        SqlError::new(
            22965,
            16,
            "A quoted column in the column list is not properly terminated. Verify that columns are correctly delimited and retry the operation. \
             For more information, see 'Delimited Identifiers' in Books Online.",
        )
    };
    let mut names = Vec::new();
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        let close = match c {
            '[' => ']',
            '"' => '"',
            c if c.is_whitespace() || c == ',' => continue,
            c => {
                let mut name = String::from(c);
                while let Some(more) = chars.next_if(|c| *c != ',') {
                    name.push(more);
                }
                names.push(name.trim_end().to_string());
                continue;
            }
        };
        let mut name = String::new();
        loop {
            let c = chars.next().ok_or_else(unterminated)?;
            if c == close && chars.next_if_eq(&close).is_none() {
                break;
            }
            name.push(c);
        }
        names.push(name);
    }
    Ok(names)
}

pub(super) fn disable_table(
    session: &mut Session,
    arguments: &mut [Argument],
    _: &mut dyn Sink,
) -> SqlResult<i32> {
    require_owner(session)?;
    let database = require_enabled(session)?;
    let args = Arguments::new(
        "sp_cdc_disable_table",
        &["@source_schema", "@source_name", "@capture_instance"],
        arguments,
    )?;
    let required = |name: &str| -> SqlResult<String> {
        args.required(name)?;
        args.text(name).filter(|t| !t.is_empty()).ok_or_else(|| must_have(name))
    };
    let (schema, table, name) =
        (required("@source_schema")?, required("@source_name")?, required("@capture_instance")?);
    session.statement(|session| {
        let Some((txn, work)) = session.txn.zip(session.work.clone()) else { return Ok(()) };
        let state = session.instance.lock();
        let meta = source(&state, database, &schema, &table)?;
        let mut state = work.lock_table(state, (database, meta.object_id), TableMode::Schema)?;
        let of_table: Vec<CaptureInstance> =
            instances::load(&state, database, txn).into_iter().filter(|i| i.source == meta.object_id).collect();
        let all = name.eq_ignore_ascii_case("all");
        let (gone, kept): (Vec<_>, Vec<_>) = of_table.into_iter().partition(|i| all || i.name.eq_ignore_ascii_case(&name));
        if gone.is_empty() {
            let text = format!(
                "Change data capture instance '{name}' has not been enabled for the source table '{schema}.{table}'. Use \
                 sys.sp_cdc_help_change_data_capture to verify the capture instance name and retry the operation."
            );
            return Err(SqlError::new(22960, 16, text));
        }
        for instance in &gone {
            drop_instance(&mut state, txn, database, instance);
        }
        if kept.is_empty() {
            set_tracked(&mut state, txn, database, meta.object_id, false);
        }
        Ok(())
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_lists() {
        let names = split_names("a, [b c],\"d\"\"e\" , [f]]g],h i").unwrap_or_default();
        assert_eq!(names, ["a", "b c", "d\"e", "f]g", "h i"]);
        assert_eq!(split_names("[a").map_err(|e| e.number), Err(22965));
    }
}
