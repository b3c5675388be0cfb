//! A row on its way into a table: conversion, defaults, identity, rowversion, period columns,
//! computed columns, NOT NULL and CHECK.

use crate::{
    engine::{
        catalog::{CheckMeta, ColumnMeta, TableMeta},
        clock::Moment,
        expr::{RowCondition, RowExpr},
        instance::{State, Work},
        lock::TableId,
        query::host::{Host, Row, SourceColumn},
        row_size,
        scope::{Found, full_name, local_name},
        source::source_columns,
    },
    error::{SqlError, SqlResult},
    tsql::ast::Generated,
    value::{
        Decimal, SqlType, Value,
        convert::{self, ConvertContext},
        types,
    },
};
use std::sync::Arc;

/// A table made ready for writing: its expressions are bound once per statement.
pub struct Prepared {
    pub id: TableId,
    pub meta: Arc<TableMeta>,
    /// database.schema.table
    pub full_name: String,
    /// schema.table
    pub local_name: String,
    pub database_name: String,
    columns: Vec<SourceColumn>,
    defaults: Vec<Option<RowExpr>>,
    computed: Vec<(usize, RowExpr)>,
    checks: Vec<(Arc<CheckMeta>, RowCondition)>,
    cx: ConvertContext,
    now: Moment,
    /// There are values whose row does not fit into a page.
    may_not_fit: bool,
}

impl Prepared {
    /// `checks`: are CHECK constraints enforced (a bulk load without CHECK_CONSTRAINTS does not)?
    pub fn new(host: &dyn Host, work: &Work, found: &Found, checks: bool) -> SqlResult<Self> {
        let meta = found.table.clone();
        let (full, local, database_name) = {
            let state = work.lock();
            let database = state.database(found.database)?.name.clone();
            (
                full_name(&state, found.database, &meta),
                local_name(&state, found.database, &meta),
                database,
            )
        };
        let columns = source_columns(&meta);
        let scope = [(meta.name.as_str(), columns.as_slice())];
        let mut defaults = Vec::new();
        for column in &meta.columns {
            defaults.push(match &column.default {
                Some(default) => Some(RowExpr::bind_as(host, &default.expr, &[], column.ty)?),
                None => None,
            });
        }
        let mut computed = Vec::new();
        for (at, column) in meta.columns.iter().enumerate() {
            if let Some(c) = &column.computed {
                computed.push((at, RowExpr::bind_as(host, &c.expr, &scope, column.ty)?));
            }
        }
        let mut bound = Vec::new();
        if checks {
            for check in meta.checks.iter().filter(|c| !c.disabled) {
                bound.push((check.clone(), RowCondition::bind(host, &check.expr, &scope)?));
            }
        }
        let cx = ConvertContext { date_format: host.settings().date_format };
        let now = work.instance.now();
        Ok(Self {
            id: found.id(),
            full_name: full,
            local_name: local,
            database_name,
            columns,
            defaults,
            computed,
            checks: bound,
            cx,
            now,
            may_not_fit: row_size::may_not_fit(&meta),
            meta,
        })
    }

    pub fn source_columns(&self) -> &[SourceColumn] {
        &self.columns
    }

    pub fn default_value(&self, host: &dyn Host, ordinal: usize) -> SqlResult<Value> {
        match self.defaults.get(ordinal).and_then(Option::as_ref) {
            Some(default) => default.evaluate(host, &[]),
            None => Ok(Value::Null),
        }
    }

    pub fn has_default(&self, ordinal: usize) -> bool {
        self.defaults.get(ordinal).is_some_and(Option::is_some)
    }

    /// A value as the column holds it; 257 or 206 where SQL Server does not convert by itself. (A
    /// NULL literal has a type only by name.)
    pub fn convert(&self, ordinal: usize, value: Value, from: SqlType) -> SqlResult<Value> {
        let column = &self.meta.columns[ordinal];
        if matches!(value, Value::Null) || from == column.ty {
            return Ok(value);
        }
        types::check_implicit(from, column.ty)?;
        convert::assign(
            &value,
            from,
            column.ty,
            &self.cx,
            convert::Target { table: &self.full_name, column: &column.name },
        )
    }

    /// Fills what the server itself provides, for a new row. `identity_given`: the row brings its
    /// identity value.
    pub fn complete_new(
        &self,
        host: &dyn Host,
        work: &Work,
        row: &mut Row,
        identity_given: bool,
    ) -> SqlResult<Option<i128>> {
        let mut identity = None;
        let mut state = None;
        if let Some(at) = self.meta.identity_ordinal() {
            let column = &self.meta.columns[at];
            let guard = state.insert(work.lock());
            if identity_given {
                identity = integer(&row[at]);
                raise_identity(guard, self.id, column, identity);
            } else {
                let value = next_identity(guard, self.id, column)?;
                row[at] = identity_value(column, value);
                identity = Some(value);
            }
        }
        if let Some(at) = self.meta.rowversion_ordinal() {
            let guard = state.get_or_insert_with(|| work.lock());
            row[at] = new_rowversion(guard, self.id.0)?;
        }
        drop(state);
        self.fill_periods(row);
        self.finish(host, row)?;
        Ok(identity)
    }

    /// As [`Self::complete_new`], for an image that replaces another.
    pub fn complete_changed(&self, host: &dyn Host, work: &Work, row: &mut Row) -> SqlResult<()> {
        if let Some(at) = self.meta.rowversion_ordinal() {
            row[at] = new_rowversion(&mut work.lock(), self.id.0)?;
        }
        self.fill_periods(row);
        self.finish(host, row).map_err(|mut e| {
            // The same constraint, met by another verb.
            e.message = e.message.replace("INSERT fails.", "UPDATE fails.").replacen(
                "The INSERT statement conflicted",
                "The UPDATE statement conflicted",
                1,
            );
            e
        })
    }

    pub fn period_start(&self) -> Moment {
        self.now
    }

    fn fill_periods(&self, row: &mut Row) {
        for (at, column) in self.meta.columns.iter().enumerate() {
            match column.generated {
                Some(Generated::RowStart) => row[at] = period_value(self.now, column.ty),
                Some(Generated::RowEnd) => row[at] = end_of_time(column.ty),
                None => {}
            }
        }
    }

    /// Computed columns, then NOT NULL, then CHECK, then the row's size.
    fn finish(&self, host: &dyn Host, row: &mut Row) -> SqlResult<()> {
        for (at, expr) in &self.computed {
            let value = expr.evaluate(host, &[row])?;
            row[*at] = value;
        }
        for (at, column) in self.meta.columns.iter().enumerate() {
            if !column.nullable && matches!(row[at], Value::Null) {
                return Err(SqlError {
                    state: 2,
                    ..SqlError::new(
                        515,
                        16,
                        format!(
                            "Cannot insert the value NULL into column '{}', table '{}'; column does not allow nulls. INSERT fails.",
                            column.name, self.full_name
                        ),
                    )
                });
            }
        }
        for (check, condition) in &self.checks {
            if condition.evaluate(host, &[row])? == Some(false) {
                let column = check
                    .column_id
                    .and_then(|id| self.meta.column(id))
                    .map_or(String::new(), |c| format!(", column '{}'", c.name));
                return Err(SqlError::new(
                    547,
                    16,
                    format!(
                        "The INSERT statement conflicted with the CHECK constraint \"{}\". The conflict occurred in database \"{}\", table \"{}\"{column}.",
                        check.name, self.database_name, self.local_name
                    ),
                ));
            }
        }
        if self.may_not_fit { row_size::check_row(&self.meta, row) } else { Ok(()) }
    }
}

pub fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(i) => Some(i128::from(*i)),
        Value::Decimal(d) => Some(d.mantissa / 10_i128.pow(u32::from(d.scale))),
        _ => None,
    }
}

pub fn identity_value(column: &ColumnMeta, value: i128) -> Value {
    match column.ty {
        SqlType::Decimal { scale, .. } => {
            Value::Decimal(Decimal { mantissa: value * 10_i128.pow(u32::from(scale)), scale })
        }
        _ => Value::Int(value as i64),
    }
}

fn limits(ty: SqlType) -> (i128, i128, &'static str) {
    match ty {
        SqlType::TinyInt => (0, 255, "tinyint"),
        SqlType::SmallInt => (i128::from(i16::MIN), i128::from(i16::MAX), "smallint"),
        SqlType::Int => (i128::from(i32::MIN), i128::from(i32::MAX), "int"),
        SqlType::BigInt => (i128::from(i64::MIN), i128::from(i64::MAX), "bigint"),
        SqlType::Decimal { precision, .. } => {
            let most = 10_i128.pow(u32::from(precision)) - 1;
            (-most, most, "numeric")
        }
        _ => (i128::MIN, i128::MAX, "numeric"),
    }
}

fn next_identity(state: &mut State, table: TableId, column: &ColumnMeta) -> SqlResult<i128> {
    let Some(identity) = &column.identity else {
        return Err(SqlError::unsupported("an identity value without an identity column"));
    };
    let db = state.database_mut(table.0)?;
    let next = db.peek_identity(table.1, identity.seed, identity.increment);
    let (low, high, name) = limits(column.ty);
    if next < low || next > high {
        return Err(SqlError::new(
            8115,
            16,
            format!("Arithmetic overflow error converting IDENTITY to data type {name}."),
        ));
    }
    db.set_identity(table.1, next);
    Ok(next)
}

/// A value given by hand moves the counter when it lies beyond it.
fn raise_identity(state: &mut State, table: TableId, column: &ColumnMeta, given: Option<i128>) {
    let (Some(identity), Some(given)) = (&column.identity, given) else { return };
    let Some(db) = state.databases.get_mut(&table.0) else { return };
    let last = db.identities.get(&table.1).and_then(|s| s.last);
    let beyond = match last {
        None => {
            (identity.increment > 0 && given >= identity.seed)
                || (identity.increment < 0 && given <= identity.seed)
        }
        Some(last) => {
            (identity.increment > 0 && given > last) || (identity.increment < 0 && given < last)
        }
    };
    if beyond {
        db.set_identity(table.1, given);
    }
}

pub fn new_rowversion(state: &mut State, database: i32) -> SqlResult<Value> {
    Ok(Value::Bytes(Arc::from(&state.database_mut(database)?.next_rowversion().to_be_bytes()[..])))
}

fn power(ty: SqlType) -> u64 {
    match ty {
        SqlType::DateTime2(scale) => 10_u64.pow(7 - u32::from(scale.min(7))),
        _ => 1,
    }
}

/// A moment at the precision of a period column.
pub fn period_value(at: Moment, ty: SqlType) -> Value {
    match at.datetime2() {
        Value::DateTime2 { days, ticks } => {
            Value::DateTime2 { days, ticks: ticks / power(ty) * power(ty) }
        }
        other => other,
    }
}

/// 9999-12-31 23:59:59.9999999, the end of a row that is current.
pub fn end_of_time(ty: SqlType) -> Value {
    let ticks = 864_000_000_000 - 1;
    Value::DateTime2 { days: 3_652_058, ticks: ticks / power(ty) * power(ty) }
}

/// Columns nobody writes: computed (271), rowversion (273, 272), generated (13536, 13537).
pub fn refuse_write(meta: &TableMeta, at: usize, insert: bool) -> SqlResult<()> {
    let column = &meta.columns[at];
    if column.computed.is_some() {
        let message = format!(
            "The column \"{}\" cannot be modified because it is either a computed column or is the result of a UNION operator.",
            column.name
        );
        return Err(SqlError::new(271, 16, message));
    }
    if column.is_rowversion() {
        return Err(if insert {
            SqlError::new(
                273,
                16,
                "Cannot insert an explicit value into a timestamp column. Use INSERT with a column list to exclude the timestamp column, or insert a DEFAULT into the timestamp column.",
            )
        } else {
            SqlError::new(272, 16, "Cannot update a timestamp column.")
        });
    }
    if column.generated.is_some() {
        return Err(if insert {
            SqlError::new(
                13536,
                16,
                format!(
                    "Cannot insert an explicit value into a GENERATED ALWAYS column in table '{}'. Use INSERT with a column list to exclude the GENERATED ALWAYS column, or insert a DEFAULT into GENERATED ALWAYS column.",
                    meta.name
                ),
            )
        } else {
            SqlError::new(
                13537,
                16,
                format!("Cannot update GENERATED ALWAYS columns in table '{}'.", meta.name),
            )
        });
    }
    Ok(())
}
