//! OUTPUT: one row for every row changed, to the client or into a table.

use crate::{
    engine::{
        context::Session,
        database::TEMPDB,
        dml::{insert::insert_rows, prepare::Prepared, write::Written},
        expr::RowExpr,
        query::host::{Row, SourceColumn},
        scope::{Found, find_table},
    },
    error::{SqlError, SqlResult},
    exchange::sink::{Column, Sink},
    tsql::ast::{Output, TargetName},
    value::{SqlType, Value},
};
use sqlparser::ast::{Expr, Ident, SelectItem, SelectItemQualifiedWildcardKind};

/// An OUTPUT clause bound to a table.
pub struct BoundOutput {
    columns: Vec<Column>,
    types: Vec<SqlType>,
    items: Vec<RowExpr>,
    into: Option<(TargetName, Vec<String>)>,
}

impl BoundOutput {
    pub fn bind(session: &Session, output: &Output, prepared: &Prepared) -> SqlResult<Self> {
        let source: Vec<SourceColumn> = prepared
            .source_columns()
            .iter()
            .map(|c| SourceColumn { nullable: true, ..c.clone() })
            .collect();
        let scope = [("inserted", source.as_slice()), ("deleted", source.as_slice())];
        let mut bound = Self {
            columns: Vec::new(),
            types: Vec::new(),
            items: Vec::new(),
            into: output.into.clone(),
        };
        for item in &output.items {
            match item {
                SelectItem::UnnamedExpr(expr) => bound.add(session, expr, name_of(expr), &scope)?,
                SelectItem::ExprWithAlias { expr, alias } => {
                    bound.add(session, expr, alias.value.clone(), &scope)?
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    _,
                ) => {
                    let prefix = name.to_string();
                    for column in source.iter().filter(|c| !c.hidden) {
                        let expr = Expr::CompoundIdentifier(vec![
                            Ident::new(prefix.clone()),
                            Ident::with_quote('[', column.name.to_string()),
                        ]);
                        bound.add(session, &expr, column.name.to_string(), &scope)?;
                    }
                }
                other => return Err(SqlError::unsupported(format!("OUTPUT {other}"))),
            }
        }
        Ok(bound)
    }

    fn add(
        &mut self,
        session: &Session,
        expr: &Expr,
        name: String,
        scope: &[(&str, &[SourceColumn])],
    ) -> SqlResult<()> {
        let item = RowExpr::bind(session.as_host(), expr, scope)?;
        self.types.push(item.ty());
        self.columns.push(Column {
            name,
            ty: item.ty(),
            nullable: item.nullable(),
            identity: false,
            computed: false,
        });
        self.items.push(item);
        Ok(())
    }

    pub fn rows(
        &self,
        session: &Session,
        written: &[Written],
        width: usize,
    ) -> SqlResult<Vec<Row>> {
        let nothing: Row = vec![Value::Null; width];
        let mut out = Vec::with_capacity(written.len());
        for w in written {
            let inserted = w.after.as_deref().unwrap_or(&nothing);
            let deleted = w.before.as_deref().unwrap_or(&nothing);
            let values =
                self.items.iter().map(|i| i.evaluate(session.as_host(), &[inserted, deleted]));
            out.push(values.collect::<SqlResult<Row>>()?);
        }
        Ok(out)
    }

    /// Into the OUTPUT INTO table, or handed back for the client.
    pub fn deliver(
        self,
        session: &mut Session,
        rows: Vec<Row>,
        sink: &mut dyn Sink,
    ) -> SqlResult<Option<(Vec<Column>, Vec<Row>)>> {
        let Some((target, columns)) = &self.into else { return Ok(Some((self.columns, rows))) };
        let found = target_table(session, target)?;
        insert_rows(session, &found, columns, &self.types, rows, sink)?;
        Ok(None)
    }
}

/// The table an INSERT or OUTPUT INTO names.
pub fn target_table(session: &Session, target: &TargetName) -> SqlResult<Found> {
    let work = session.work();
    let state = work.lock();
    match target {
        TargetName::Object(name) => find_table(session, &state, name),
        TargetName::Variable(name) => {
            let table =
                session.table_variable(name).and_then(|id| state.table((TEMPDB, id)).cloned());
            match table {
                Some(table) => Ok(Found { database: TEMPDB, table }),
                None => Err(SqlError::new(
                    1087,
                    15,
                    format!("Must declare the table variable \"{name}\"."),
                )),
            }
        }
        TargetName::Alias(name) => {
            Err(SqlError::new(208, 16, format!("Invalid object name '{name}'.")))
        }
    }
}

fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::CompoundIdentifier(parts) => {
            parts.last().map_or_else(String::new, |p| p.value.clone())
        }
        _ => String::new(),
    }
}
