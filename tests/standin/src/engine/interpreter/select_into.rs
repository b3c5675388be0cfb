//! SELECT … INTO: a table made from a query's columns, then filled.
//!
//! Types, nullability and an identity property are carried over (Microsoft: "SELECT - INTO
//! Clause"); constraints, indexes and defaults are not.

use crate::{
    engine::{context::Session, ddl, dml, query, query::OutputColumn, scope::find_table},
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    tsql::ast::{ColumnDef, CreateTable, DataType, ObjectName},
    value::SqlType,
};
use sqlparser::ast::{Expr, Query, SetExpr};

/// The table a query's rows are to go to.
pub fn target(query: &Query) -> Option<SqlResult<ObjectName>> {
    let mut body = query.body.as_ref();
    loop {
        match body {
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Select(select) => {
                return select.into.as_ref().map(|into| object_name(&into.targets));
            }
            _ => return None,
        }
    }
}

/// `sqlparser` reads the name as an expression.
fn object_name(targets: &[Expr]) -> SqlResult<ObjectName> {
    let mut parts = match targets {
        [Expr::Identifier(name)] => vec![name.value.clone()],
        [Expr::CompoundIdentifier(names)] if names.len() <= 3 => {
            names.iter().map(|n| n.value.clone()).collect()
        }
        _ => return Err(SqlError::unsupported("this target of SELECT … INTO")),
    };
    let name = parts.pop().unwrap_or_default();
    let schema = parts.pop().filter(|s| !s.is_empty());
    Ok(ObjectName { database: parts.pop(), schema, name })
}

/// Runs it, within a statement: answers the number of rows. 1038 for a column without a name, 2705
/// for two of one name.
pub fn run(
    session: &mut Session,
    query: &Query,
    into: &ObjectName,
    sink: &mut dyn Sink,
) -> SqlResult<u64> {
    let mut columns = Vec::new();
    let mut rows = Vec::new();
    query::stream(
        &*session,
        query,
        &mut |output, _| {
            columns = output.to_vec();
            output
                .iter()
                .try_for_each(|c| if c.column.name.is_empty() { Err(unnamed()) } else { Ok(()) })
        },
        &mut |row| {
            rows.push(row.to_vec());
            Ok(())
        },
    )?;
    let create = CreateTable {
        name: into.clone(),
        columns: columns.iter().map(column).collect(),
        constraints: vec![],
        indexes: vec![],
        period: None,
        options: vec![],
    };
    ddl::create_table(session, &create)?;
    let found = {
        let work = session.work();
        let state = work.lock();
        find_table(session, &state, into)?
    };
    let names = columns.iter().map(|c| c.column.name.clone()).collect::<Vec<_>>();
    let types = columns.iter().map(|c| stored(c.column.ty)).collect::<Vec<_>>();
    // The rows bring the identity column's values with them.
    let before = session.identity_insert;
    if columns.iter().any(|c| c.identity.is_some()) {
        session.identity_insert = Some(found.id());
    }
    let count = dml::insert_rows(session, &found, &names, &types, rows, sink);
    session.identity_insert = before;
    count
}

/// A rowversion is copied as the bytes it is.
fn stored(ty: SqlType) -> SqlType {
    if ty == SqlType::RowVersion { SqlType::Binary(8) } else { ty }
}

fn column(output: &OutputColumn) -> ColumnDef {
    ColumnDef {
        name: output.column.name.clone(),
        ty: Some(DataType::Builtin {
            ty: stored(output.column.ty),
            explicit_collation: true,
            database_default: false,
        }),
        nullable: Some(output.column.nullable && output.identity.is_none()),
        identity: output.identity,
        default: None,
        computed: None,
        sparse: false,
        rowguidcol: false,
        hidden: false,
        generated: None,
        encrypted: None,
        masked: None,
        column_set: false,
        with_values: false,
        constraints: vec![],
    }
}

fn unnamed() -> SqlError {
    SqlError::new(
        1038,
        15,
        "An object or column name is missing or empty. For SELECT INTO statements, verify each column has a name. For other statements, look \
         for empty alias names. Aliases defined as \"\" or [] are not allowed. Change the alias to a valid name.",
    )
}
