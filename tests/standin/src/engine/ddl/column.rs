//! Column definitions become columns.

use super::names::auto_name;
use crate::{
    engine::{
        catalog::{ColumnMeta, ComputedMeta, DefaultMeta, IdentityMeta, TableMeta},
        context::Session,
        database::Database,
        expr::RowExpr,
        source::source_columns,
    },
    error::{SqlError, SqlResult},
    tsql::ast::{ColumnDef, DataType},
    value::{Collation, SqlType},
};
use sqlparser::ast::Expr;
use std::sync::Arc;

/// What a written type means for a column of a database with this collation, and whether the type
/// itself says NOT NULL.
pub fn resolve(
    session: &Session,
    ty: &DataType,
    collation: Collation,
) -> SqlResult<(SqlType, bool)> {
    Ok(match ty {
        DataType::Builtin { ty, explicit_collation: true, .. } => (*ty, true),
        DataType::Builtin { ty, database_default: true, .. } => {
            (ty.with_collation(session.collation()), true)
        }
        DataType::Builtin { ty, .. } => (ty.with_collation(collation), true),
        DataType::Named(name) => {
            (session.resolve_type(ty)?, !name.name.eq_ignore_ascii_case("sysname"))
        }
    })
}

/// A column without its default and computed expression, whose names need the database.
pub fn column(
    session: &Session,
    def: &ColumnDef,
    id: i32,
    collation: Collation,
) -> SqlResult<ColumnMeta> {
    let (ty, nullable) = match &def.ty {
        Some(ty) => resolve(session, ty, collation)?,
        None => (SqlType::Int, true),
    };
    let never_null = def.identity.is_some() || ty == SqlType::RowVersion || def.generated.is_some();
    let mut column =
        ColumnMeta::new(id, &def.name, ty, def.nullable.unwrap_or(nullable && !never_null));
    if def.identity.is_some() {
        let fits = matches!(
            ty,
            SqlType::TinyInt
                | SqlType::SmallInt
                | SqlType::Int
                | SqlType::BigInt
                | SqlType::Decimal { scale: 0, .. }
        );
        if !fits {
            let text = format!(
                "Identity column '{}' must be of data type int, bigint, smallint, tinyint, or decimal or numeric with a scale of 0, unencrypted, and \
                 constrained to be nonnullable.",
                def.name
            );
            return Err(SqlError::new(2749, 16, text));
        }
        column.nullable = false;
    }
    column.identity = def.identity.map(|(seed, increment)| IdentityMeta { seed, increment });
    column.sparse = def.sparse;
    column.rowguidcol = def.rowguidcol;
    column.hidden = def.hidden;
    column.generated = def.generated;
    column.encrypted = def.encrypted;
    column.masked.clone_from(&def.masked);
    column.column_set = def.column_set;
    Ok(column)
}

/// A default's text as `sys.default_constraints` shows it: `((1))`, `(getutcdate())`, `('dbo')`.
pub fn definition(text: &str) -> String {
    let text = text.trim();
    let wrapped = text.starts_with('(') && text.ends_with(')') && {
        let mut depth = 0;
        text.char_indices().all(|(at, c)| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth > 0 || at == text.len() - 1
        })
    };
    if text.parse::<f64>().is_ok() {
        format!("(({text}))")
    } else if wrapped {
        text.to_string()
    } else if text.ends_with("()") {
        format!("({})", text.to_lowercase())
    } else {
        format!("({text})")
    }
}

pub fn default(
    db: &mut Database,
    table: &str,
    column: &str,
    name: Option<&String>,
    expr: &Expr,
    text: &str,
) -> Arc<DefaultMeta> {
    let object_id = db.new_object_id();
    Arc::new(DefaultMeta {
        object_id,
        name: name.cloned().unwrap_or_else(|| auto_name("DF", table, Some(column), object_id)),
        system_named: name.is_none(),
        expr: expr.clone(),
        text: definition(text),
    })
}

/// Gives computed columns their types, which follow from the others.
pub fn bind_computed(session: &Session, meta: &mut TableMeta, defs: &[ColumnDef]) -> SqlResult<()> {
    for def in defs {
        let Some(computed) = &def.computed else { continue };
        let columns = source_columns(meta);
        let bound = RowExpr::bind(session.as_host(), &computed.expr, &[(&meta.name, &columns)])?;
        let Some(at) = meta.ordinal_named(&def.name) else { continue };
        let column = &mut meta.columns[at];
        column.ty = bound.ty();
        column.nullable = def.nullable.unwrap_or(bound.nullable());
        column.computed = Some(Arc::new(ComputedMeta {
            expr: computed.expr.clone(),
            text: definition(&computed.text),
            persisted: computed.persisted,
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::definition;

    #[test]
    fn definitions_are_shown_in_parentheses() {
        assert_eq!(definition("1"), "((1))");
        assert_eq!(definition("GETUTCDATE()"), "(getutcdate())");
        assert_eq!(definition("'dbo'"), "('dbo')");
        assert_eq!(definition("(0)"), "(0)");
        assert_eq!(definition("(a) + (b)"), "((a) + (b))");
    }
}
