//! The system views: `sys.*` and those of extensions, computed from the
//! catalog whenever they are opened.
//!
//! A view is a line of column names and types (as the SQL Server 2022 documentation lists them) and
//! a function that fills rows by column name. What a function leaves out is NULL, or zero in a
//! column that cannot be NULL. Metadata is shown as permissions allow: an object appears to who
//! holds some permission on it.

mod columns;
mod constraints;
mod indexes;
mod objects;
mod security;
mod server;

use crate::{
    engine::{
        catalog::{ColumnMeta, ObjectId},
        database::Database,
        extension::Extensions,
        instance::{Instance, State, Target},
        lock::Spid,
        query::host::{
            Access, Row, RowCursor, RowKey, RowSource, SourceColumn, SourceKey, SourceRow,
        },
    },
    error::{SqlError, SqlResult},
    tsql::ast::ObjectName,
    value::{Collation, Length, SqlType, Value},
};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

/// Who looks.
#[derive(Clone, Debug)]
pub struct Viewer {
    pub login: String,
    pub spid: Spid,
}

/// What a view's function sees. `db` is the database the name was resolved in.
pub struct Context<'a> {
    pub instance: &'a Instance,
    pub state: &'a State,
    pub db: &'a Database,
    viewer: &'a Viewer,
    /// dbo, or a member of db_owner: sees everything
    owner: bool,
}

impl Context<'_> {
    /// Whether the viewer may know of an object.
    fn sees(&self, id: ObjectId) -> bool {
        let target = Target::object(self.db.id, id);
        self.owner
            || [
                "VIEW DEFINITION",
                "SELECT",
                "INSERT",
                "UPDATE",
                "DELETE",
                "EXECUTE",
                "ALTER",
                "REFERENCES",
            ]
            .iter()
            .any(|p| self.state.has_permission(&self.viewer.login, target, p))
    }

    /// 300 without VIEW SERVER STATE.
    fn require_server_state(&self) -> SqlResult<()> {
        if self.state.has_server_permission(&self.viewer.login, "VIEW SERVER STATE") {
            return Ok(());
        }
        Err(SqlError::new(
            300,
            14,
            "VIEW SERVER STATE permission was denied on object 'server', database 'master'.",
        ))
    }

    /// 229 for a table of msdb: public has no right on it.
    pub fn require_msdb(&self, table: &str) -> SqlResult<()> {
        let target = Target {
            database: crate::engine::database::MSDB,
            securable: crate::engine::catalog::Securable::Database,
        };
        if self.state.is_sysadmin(&self.viewer.login)
            || self.state.has_permission(&self.viewer.login, target, "SELECT")
        {
            return Ok(());
        }
        let text = format!(
            "The SELECT permission was denied on the object '{table}', database 'msdb', schema 'dbo'."
        );
        Err(SqlError::new(229, 14, text))
    }

    /// 262 without VIEW DATABASE STATE.
    pub fn require_database_state(&self) -> SqlResult<()> {
        if self.owner || self.state.has_server_permission(&self.viewer.login, "VIEW SERVER STATE") {
            return Ok(());
        }
        let target =
            Target { database: self.db.id, securable: crate::engine::catalog::Securable::Database };
        if self.state.has_permission(&self.viewer.login, target, "VIEW DATABASE STATE") {
            return Ok(());
        }
        Err(SqlError::new(
            262,
            14,
            format!("VIEW DATABASE STATE permission denied in database '{}'.", self.db.name),
        ))
    }
}

/// Rows being collected, by column name.
pub struct Rows<'a> {
    columns: &'a [SourceColumn],
    places: &'a HashMap<Arc<str>, usize>,
    rows: Vec<Arc<Row>>,
}

impl Rows<'_> {
    pub fn push(&mut self, values: impl IntoIterator<Item = (&'static str, Value)>) {
        let mut row: Row = self
            .columns
            .iter()
            .map(|c| if c.nullable { Value::Null } else { zero(c.ty) })
            .collect();
        for (name, value) in values {
            // a name the view does not have is a slip in this module: the test below fills every
            // view and looks for it
            debug_assert!(self.places.contains_key(name), "no column {name}");
            if let Some(at) = self.places.get(name) {
                row[*at] = value;
            }
        }
        self.rows.push(Arc::new(row));
    }
}

fn zero(ty: SqlType) -> Value {
    match ty {
        SqlType::Bit => Value::Bit(false),
        SqlType::DateTime => Value::DateTime { days: 0, ticks300: 0 },
        t if t.is_integer() => Value::Int(0),
        t if t.is_character() => Value::Str("".into()),
        t if t.is_binary() => Value::Bytes(Arc::from(&[][..])),
        SqlType::UniqueIdentifier => Value::Guid([0; 16]),
        SqlType::Float => Value::Float(0.0),
        _ => Value::Null,
    }
}

pub fn text(s: impl AsRef<str>) -> Value {
    Value::Str(s.as_ref().into())
}

pub fn int(i: impl Into<i64>) -> Value {
    Value::Int(i.into())
}

pub fn bit(b: bool) -> Value {
    Value::Bit(b)
}

fn opt<T>(value: Option<T>, to: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::Null, to)
}

pub type Fill = fn(&Context<'_>, &mut Rows<'_>) -> SqlResult<()>;

/// `schema.name`, the columns, the function. Column types: `sysname`, `int`, …, `n60` (nvarchar in
/// the fixed catalog collation), `v10` (varchar), `c2` (char), `nmax`, `vb85`, `b10`, `dt`
/// (datetime), `d18.0`; a question mark makes the column nullable.
pub type Spec = (&'static str, &'static str, Fill);

#[derive(Clone, Copy)]
struct View {
    schema: &'static str,
    name: &'static str,
    columns: &'static str,
    fill: Fill,
}

impl View {
    fn of((name, columns, fill): &Spec) -> Option<Self> {
        let (schema, name) = name.split_once('.')?;
        Some(Self { schema, name, columns, fill: *fill })
    }
}

static VIEWS: LazyLock<HashMap<(String, String), View>> = LazyLock::new(|| {
    let all = [
        objects::VIEWS,
        columns::VIEWS,
        indexes::VIEWS,
        constraints::VIEWS,
        security::VIEWS,
        server::VIEWS,
    ];
    all.into_iter()
        .flatten()
        .filter_map(View::of)
        .map(|view| ((view.schema.to_lowercase(), view.name.to_lowercase()), view))
        .collect()
});

/// The engine's own views, and those of extensions.
fn all(extensions: Extensions) -> impl Iterator<Item = View> {
    let others = extensions.iter().flat_map(|e| e.views).filter_map(View::of);
    VIEWS.values().copied().chain(others)
}

fn named(extensions: Extensions, schema: &str, name: &str) -> Option<View> {
    let own = VIEWS.get(&(schema.to_lowercase(), name.to_lowercase())).copied();
    own.or_else(|| {
        all(extensions).find(|view| {
            view.schema.eq_ignore_ascii_case(schema) && view.name.eq_ignore_ascii_case(name)
        })
    })
}

fn parse_type(spec: &str, database: Collation) -> SqlType {
    // the collation of the catalog's own constants, whatever the database's
    let fixed = Collation::by_name("Latin1_General_CI_AS_KS_WS").unwrap_or(Collation::DEFAULT);
    let number = |at: usize| spec[at..].parse().unwrap_or(128);
    match spec {
        "sysname" => SqlType::NVarChar(Length::N(128), database),
        "int" => SqlType::Int,
        "smallint" => SqlType::SmallInt,
        "tinyint" => SqlType::TinyInt,
        "bigint" => SqlType::BigInt,
        "bit" => SqlType::Bit,
        "guid" => SqlType::UniqueIdentifier,
        "dt" => SqlType::DateTime,
        "float" => SqlType::Float,
        "real" => SqlType::Real,
        "variant" => SqlType::SqlVariant,
        "nmax" => SqlType::NVarChar(Length::Max, database),
        _ if spec.starts_with("vb") => SqlType::VarBinary(Length::N(number(2))),
        _ if spec.starts_with('n') => SqlType::NVarChar(Length::N(number(1)), fixed),
        _ if spec.starts_with('v') => SqlType::VarChar(Length::N(number(1)), fixed),
        _ if spec.starts_with('c') => SqlType::Char(number(1), fixed),
        _ if spec.starts_with('b') => SqlType::Binary(number(1)),
        _ => {
            let (p, s) = spec[1..].split_once('.').unwrap_or((&spec[1..], "0"));
            SqlType::Decimal { precision: p.parse().unwrap_or(18), scale: s.parse().unwrap_or(0) }
        }
    }
}

/// The system tables of SQL Server 2000 that are views now: they answer without a schema, and as
/// `dbo.…`, too.
/// <https://learn.microsoft.com/sql/relational-databases/system-compatibility-views/system-compatibility-views-transact-sql>
const COMPATIBILITY: &[&str] = &["sysobjects"];

/// A system view as a row source, or None when there is none of that name. `database` is where the
/// name is resolved; a name without a schema never means a system view, but for the
/// [`COMPATIBILITY`] ones.
pub fn find(
    instance: &Arc<Instance>,
    viewer: &Viewer,
    database: i32,
    name: &ObjectName,
) -> Option<Arc<dyn RowSource>> {
    let schema = name.schema.as_deref().unwrap_or("dbo").to_lowercase();
    let lower = name.name.to_lowercase();
    let schema = if schema == "dbo" && COMPATIBILITY.contains(&lower.as_str()) {
        "sys".into()
    } else {
        schema
    };
    let view = named(instance.extensions, &schema, &lower)?;
    crate::usage::used("view", &format!("{}.{}", view.schema, view.name));
    let (database_name, collation) = {
        let state = instance.lock();
        let db = state.databases.get(&database)?;
        if view.schema == "dbo" && database != crate::engine::database::MSDB {
            return None;
        }
        (db.name.clone(), db.collation)
    };
    let columns: Vec<SourceColumn> = view
        .columns
        .split(',')
        .filter_map(|spec| {
            let (column, ty) = spec.trim().split_once(' ')?;
            let nullable = ty.ends_with('?');
            Some(SourceColumn::plain(
                column,
                parse_type(ty.trim_end_matches('?'), collation),
                nullable,
            ))
        })
        .collect();
    let places = columns.iter().enumerate().map(|(i, c)| (c.name.clone(), i)).collect();
    Some(Arc::new(ViewSource {
        instance: instance.clone(),
        viewer: viewer.clone(),
        database,
        database_name,
        view,
        columns,
        places,
    }))
}

/// Every view, `schema.name`.
pub fn names(extensions: Extensions) -> Vec<String> {
    all(extensions).map(|view| format!("{}.{}", view.schema, view.name)).collect()
}

/// The columns of the system views, which have negative ids here as they do in SQL Server.
fn system_columns(extensions: Extensions, collation: Collation) -> Vec<(i32, ColumnMeta)> {
    let mut views: Vec<View> = all(extensions).filter(|view| view.schema == "sys").collect();
    views.sort_by_key(|view| view.name);
    let mut columns = Vec::new();
    for (view, object) in views.into_iter().zip(100..) {
        for (spec, id) in view.columns.split(',').zip(1..) {
            if let Some((name, ty)) = spec.trim().split_once(' ') {
                columns.push((
                    -object,
                    ColumnMeta::new(
                        id,
                        name,
                        parse_type(ty.trim_end_matches('?'), collation),
                        ty.ends_with('?'),
                    ),
                ));
            }
        }
    }
    columns
}

/// Whether a system view of that name exists (`OBJECT_ID(N'sys.tables')`).
pub fn exists(extensions: Extensions, schema: &str, name: &str) -> bool {
    named(extensions, schema, name).is_some()
}

struct ViewSource {
    instance: Arc<Instance>,
    viewer: Viewer,
    database: i32,
    database_name: String,
    view: View,
    columns: Vec<SourceColumn>,
    places: HashMap<Arc<str>, usize>,
}

impl RowSource for ViewSource {
    fn name(&self) -> ObjectName {
        ObjectName {
            database: Some(self.database_name.clone()),
            schema: Some(self.view.schema.into()),
            name: self.view.name.into(),
        }
    }

    fn columns(&self) -> &[SourceColumn] {
        &self.columns
    }

    fn keys(&self) -> &[SourceKey] {
        &[]
    }

    fn estimated_rows(&self) -> u64 {
        100
    }

    fn open(&self, access: &Access) -> SqlResult<Box<dyn RowCursor>> {
        if access.key.is_some() {
            return Err(SqlError::unsupported(format!("a seek on sys view {}", self.view.name)));
        }
        let state = self.instance.lock();
        let db = state.database(self.database)?;
        let owner = state.is_sysadmin(&self.viewer.login)
            || state.is_member(&self.viewer.login, self.database, "db_owner") == Some(true);
        let context =
            Context { instance: &self.instance, state: &state, db, viewer: &self.viewer, owner };
        let mut rows = Rows { columns: &self.columns, places: &self.places, rows: Vec::new() };
        (self.view.fill)(&context, &mut rows)?;
        Ok(Box::new(ViewCursor { rows: rows.rows, at: 0 }))
    }
}

struct ViewCursor {
    rows: Vec<Arc<Row>>,
    at: usize,
}

impl RowCursor for ViewCursor {
    fn next_page(&mut self, page: &mut Vec<SourceRow>) -> SqlResult<bool> {
        let end = (self.at + 64).min(self.rows.len());
        for (row, number) in self.rows[self.at..end].iter().zip(self.at as u64..) {
            page.push(SourceRow { key: RowKey::from(&number.to_be_bytes()[..]), row: row.clone() });
        }
        self.at = end;
        Ok(end < self.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cdc, engine::instance::InstanceConfig};

    const EXTENSIONS: Extensions = &[&cdc::EXTENSION];

    /// Every view opens in every database, and every cell can stand in its column.
    #[test]
    fn all_views_fill() {
        let instance = Instance::new(InstanceConfig::default(), EXTENSIONS);
        let now = instance.now();
        instance.lock().create_database("shop", Collation::DEFAULT, now).expect("a new name");
        let viewer = Viewer { login: "sa".into(), spid: 51 };
        for view in all(EXTENSIONS) {
            let (schema, name) = (view.schema, view.name);
            for database in 1..=5 {
                let full =
                    ObjectName { database: None, schema: Some(schema.into()), name: name.into() };
                let Some(source) = find(&instance, &viewer, database, &full) else {
                    assert_eq!(schema, "dbo");
                    continue;
                };
                let mut rows = Vec::new();
                let mut cursor = source.open(&Access::default()).expect("a view opens");
                while cursor.next_page(&mut rows).expect("a page") {}
                for row in &rows {
                    for (column, value) in source.columns().iter().zip(row.row.iter()) {
                        let cx = crate::value::convert::ConvertContext::default();
                        assert!(
                            column.nullable || !matches!(value, Value::Null),
                            "{schema}.{name}.{} is NULL",
                            column.name
                        );
                        let same =
                            crate::value::convert::cast(value, column.ty, column.ty, Some(0), &cx);
                        assert!(same.is_ok(), "{schema}.{name}.{}: {value:?}", column.name);
                    }
                }
            }
        }
    }
}
