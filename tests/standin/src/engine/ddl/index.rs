//! CREATE, DROP and ALTER INDEX.

use super::{constraint, open, rebuild};
use crate::{
    engine::{
        catalog::{
            ColumnId, FilterMeta, FilterOp, FilterTest, IndexMeta, KeyKind, Object, TableMeta,
            ViewMeta,
        },
        context::Session,
        expr,
        instance::Work,
        scope::find_object,
    },
    error::{SqlError, SqlResult},
    tsql::ast::{AlterIndex, CreateIndex, ObjectName},
};
use sqlparser::ast::{BinaryOperator, Expr};
use std::sync::Arc;

/// A filtered index's WHERE, its constants converted to the columns' types.
pub fn filter(
    session: &Session,
    meta: &TableMeta,
    create: &CreateIndex,
) -> SqlResult<Option<Arc<FilterMeta>>> {
    let Some((expr, text)) = &create.filter else { return Ok(None) };
    let mut tests = Vec::new();
    conjunction(session, meta, expr, &mut tests)?;
    Ok(Some(Arc::new(FilterMeta { text: super::column::definition(text), tests })))
}

fn conjunction(
    session: &Session,
    meta: &TableMeta,
    expr: &Expr,
    out: &mut Vec<(ColumnId, FilterTest)>,
) -> SqlResult<()> {
    let column = |e: &Expr| match e {
        Expr::Identifier(ident) => meta.column_named(&ident.value).ok_or_else(|| {
            SqlError::new(207, 16, format!("Invalid column name '{}'.", ident.value))
        }),
        other => Err(SqlError::new(
            10735,
            15,
            format!("Incorrect WHERE clause for filtered index near '{other}'."),
        )),
    };
    match expr {
        Expr::Nested(inner) => conjunction(session, meta, inner, out)?,
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjunction(session, meta, left, out)?;
            conjunction(session, meta, right, out)?;
        }
        Expr::IsNull(e) => out.push((column(e)?.column_id, FilterTest::IsNull)),
        Expr::IsNotNull(e) => out.push((column(e)?.column_id, FilterTest::IsNotNull)),
        Expr::InList { expr, list, negated: false } => {
            let c = column(expr)?;
            let values = list
                .iter()
                .map(|v| expr::evaluate_as(session.as_host(), v, c.ty))
                .collect::<SqlResult<_>>()?;
            out.push((c.column_id, FilterTest::In(values)));
        }
        Expr::BinaryOp { left, op, right } => {
            let op = match op {
                BinaryOperator::Eq => FilterOp::Eq,
                BinaryOperator::NotEq => FilterOp::NotEq,
                BinaryOperator::Lt => FilterOp::Lt,
                BinaryOperator::LtEq => FilterOp::LtEq,
                BinaryOperator::Gt => FilterOp::Gt,
                BinaryOperator::GtEq => FilterOp::GtEq,
                other => {
                    return Err(SqlError::new(
                        10735,
                        15,
                        format!("Incorrect WHERE clause for filtered index near '{other}'."),
                    ));
                }
            };
            let c = column(left)?;
            out.push((
                c.column_id,
                FilterTest::Compare(op, expr::evaluate_as(session.as_host(), right, c.ty)?),
            ));
        }
        other => {
            return Err(SqlError::new(
                10735,
                15,
                format!("Incorrect WHERE clause for filtered index near '{other}'."),
            ));
        }
    }
    Ok(())
}

/// Adds an index to a description. 1913, 1902, 1911.
pub fn add(
    meta: &mut TableMeta,
    create: &CreateIndex,
    filter: Option<Arc<FilterMeta>>,
) -> SqlResult<()> {
    let option =
        |name: &str| create.options.iter().any(|(o, v)| o == name && v.eq_ignore_ascii_case("ON"));
    if meta.index_named(&create.name).is_some() {
        if !option("DROP_EXISTING") {
            let text = format!(
                "The operation failed because an index or statistics with name '{}' already exists on table '{}'.",
                create.name, meta.name
            );
            return Err(SqlError::new(1913, 16, text));
        }
        meta.indexes.retain(|i| !i.name.eq_ignore_ascii_case(&create.name));
    }
    // A columnstore holds the same rows; here its rows stay where they are, and sys.indexes tells
    // of it.
    if create.clustered
        && let Some(other) = meta.clustered()
    {
        let text = format!(
            "Cannot create more than one clustered index on table '{}'. Drop the existing clustered index '{}' before creating another.",
            meta.name, other.name
        );
        return Err(SqlError::new(1902, 16, text));
    }
    let key = constraint::key_columns(meta, &create.columns, create.columnstore)?;
    let mut include = Vec::new();
    for name in &create.include {
        let column = meta.column_named(name).ok_or_else(|| {
            SqlError::new(
                1911,
                16,
                format!("Column name '{name}' does not exist in the target table or view."),
            )
        })?;
        include.push(column.column_id);
    }
    meta.indexes.push(Arc::new(IndexMeta {
        index_id: constraint::new_index_id(meta, create.clustered),
        name: create.name.clone(),
        unique: create.unique,
        clustered: create.clustered,
        kind: KeyKind::Index,
        constraint_id: None,
        system_named: false,
        key,
        include,
        filter,
        ignore_dup_key: option("IGNORE_DUP_KEY"),
        disabled: false,
        columnstore: create.columnstore,
    }));
    Ok(())
}

pub fn create_index(session: &mut Session, create: &CreateIndex) -> SqlResult<()> {
    let work = session.work();
    let missing = || {
        SqlError::new(
            1088,
            16,
            format!(
                "Cannot find the object \"{}\" because it does not exist or you do not have permissions.",
                crate::engine::scope::display(&create.table)
            ),
        )
    };
    let object = find_object(session, &work.lock(), &create.table)?;
    if let Some((database, Object::View(view))) = object {
        return index_view(&work, database, &view, create);
    }
    let found = open(session, &work, &create.table)
        .map_err(|e| if e.number == 4902 { missing() } else { e })?;
    let filter = filter(session, &found.table, create)?;
    let mut meta = (*found.table).clone();
    add(&mut meta, create, filter)?;
    rebuild(&work, found.database, meta, &mut |row| Ok(row.clone()))?;
    Ok(())
}

/// The first index of a view: unique, clustered, and of a schema-bound view (1939, 1940).
fn index_view(work: &Work, database: i32, view: &ViewMeta, create: &CreateIndex) -> SqlResult<()> {
    let name = &view.name;
    if !view.schemabinding {
        return Err(SqlError::new(
            1939,
            16,
            format!("Cannot create index on view '{name}' because the view is not schema bound."),
        ));
    }
    if !(create.unique && create.clustered) {
        let text = format!(
            "Cannot create index on view '{name}'. It does not have a unique clustered index."
        );
        return Err(if view.indexed {
            SqlError::unsupported("further indexes of a view")
        } else {
            SqlError::new(1940, 16, text)
        });
    }
    let indexed = ViewMeta { indexed: true, ..view.clone() };
    work.lock().put_object(
        work.txn,
        database,
        view.object_id,
        Some(Object::View(Arc::new(indexed))),
    );
    Ok(())
}

/// 3701; 3723 for a constraint's index.
pub fn drop_index(
    session: &mut Session,
    name: &str,
    table: &ObjectName,
    if_exists: bool,
) -> SqlResult<()> {
    let work = session.work();
    let missing = || {
        SqlError::new(
            3701,
            11,
            format!(
                "Cannot drop the index '{}.{name}', because it does not exist or you do not have permission.",
                table.name
            ),
        )
    };
    let found = match open(session, &work, table) {
        Err(_) if if_exists => return Ok(()),
        Err(e) if e.number == 4902 => return Err(missing()),
        other => other?,
    };
    let mut meta = (*found.table).clone();
    match meta.index_named(name) {
        None if if_exists => return Ok(()),
        None => return Err(missing()),
        Some(index) if index.kind != KeyKind::Index => {
            let kind = if index.kind == KeyKind::PrimaryKey { "PRIMARY KEY" } else { "UNIQUE KEY" };
            let text = format!(
                "An explicit DROP INDEX is not allowed on index '{}.{name}'. It is being used for {kind} constraint enforcement.",
                table.name
            );
            return Err(SqlError::new(3723, 16, text));
        }
        Some(_) => {}
    }
    meta.indexes.retain(|i| !i.name.eq_ignore_ascii_case(name));
    rebuild(&work, found.database, meta, &mut |row| Ok(row.clone()))?;
    Ok(())
}

/// ALTER INDEX n|ALL ON t DISABLE|REBUILD
pub fn alter_index(
    session: &mut Session,
    name: Option<&str>,
    table: &ObjectName,
    action: AlterIndex,
) -> SqlResult<()> {
    let work = session.work();
    let found = open(session, &work, table)?;
    let mut meta = (*found.table).clone();
    if let Some(name) = name
        && meta.index_named(name).is_none()
    {
        let text = format!("Cannot find index '{name}'.");
        return Err(SqlError::new(2727, 11, text));
    }
    let disabled = action == AlterIndex::Disable;
    for index in
        meta.indexes.iter_mut().filter(|i| name.is_none_or(|n| i.name.eq_ignore_ascii_case(n)))
    {
        if disabled && index.clustered {
            return Err(SqlError::unsupported("ALTER INDEX … DISABLE of a clustered index"));
        }
        Arc::make_mut(index).disabled = disabled;
    }
    rebuild(&work, found.database, meta, &mut |row| Ok(row.clone()))?;
    Ok(())
}
