//! Queries about change data capture: one function per question.
//!
//! Capture instances have names of their own and are only ever read from `cdc.change_tables`. A
//! watermark of zero is never a position: `sys.fn_cdc_get_min_lsn` answers it for an instance that
//! does not exist and for one that this login may not read.
//! <https://learn.microsoft.com/sql/relational-databases/system-functions/sys-fn-cdc-get-min-lsn-transact-sql>

use crate::mssql::{
    client::{
        row::{Param, Row},
        session::Session,
    },
    queries::catalog::{column, column_type},
    tds::TdsConnection,
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{
        capture::{Capture, CapturedColumn, Instance, MaxLsn, TranIdentity, Transaction},
        column_map::{CarriedColumn, ColumnMap},
        lsn::Lsn,
        name::{Ident, TableName},
        table::{Column, Table},
        value::{Value, ValueRef},
    },
    tsql::copied::{copyable, enable_table, literal},
};
use std::collections::HashSet;

/// Whether CDC is enabled for the session's database.
pub async fn enabled(source: &mut Session) -> Result<bool> {
    let row = source
        .opt_row(include_str!("../../../sql/cdc/enabled.sql"), &[])
        .await
        .context("ask whether CDC is enabled")?;
    row.map_or(Ok(false), |row| Ok(row.opt_bool(0)?.unwrap_or(false)))
}

/// The newest captured transaction; `None` while there is none.
pub async fn max_lsn(source: &mut Session) -> Result<Option<MaxLsn>> {
    let row = source
        .opt_row(include_str!("../../../sql/cdc/max_lsn.sql"), &[])
        .await
        .context("read the maximum LSN")?;
    row.map_or(Ok(None), |row| read_max_lsn(&row))
}

fn read_max_lsn(row: &Row) -> Result<Option<MaxLsn>> {
    // without any row in the mapping table there is none; an empty binary or zero mean the same
    let lsn = match row.opt_bytes(0)? {
        None | Some([]) => return Ok(None),
        Some(_) => row.lsn(0)?,
    };
    if lsn.is_zero() {
        return Ok(None);
    }
    let identity = identity(row, 1)?;
    let transaction = transaction(row, 5)?;
    let (age_s, utc_offset_minutes) = (row.opt_i64(3)?, row.opt_i32(4)?.unwrap_or(0));
    Ok(Some(MaxLsn {
        lsn,
        identity,
        transaction,
        age_s,
        utc_offset_minutes,
        read_only: row.bool(8)?,
    }))
}

/// The source transaction whose id stands in this column and whose end time in the next; `None`
/// where it is not known.
pub fn identity(row: &Row, column: usize) -> Result<Option<TranIdentity>> {
    Ok(match (row.opt_bytes(column)?, row.opt_text(column + 1)?) {
        (Some(tran_id), Some(end_time)) => {
            Some(TranIdentity { tran_id: tran_id.to_vec(), end_time: end_time.to_owned() })
        }
        _ => None,
    })
}

/// The source transaction whose LSN stands in this column and what identifies it in the next two;
/// `None` where it is not known.
pub fn transaction(row: &Row, column: usize) -> Result<Option<Transaction>> {
    Ok(row
        .opt_lsn(column)?
        .zip(identity(row, column + 1)?)
        .map(|(lsn, identity)| Transaction { lsn, identity }))
}

/// The newest transaction up to an LSN, as far as the source still knows it.
pub async fn newest_transaction(source: &mut Session, up_to: Lsn) -> Result<Option<Transaction>> {
    let row = source
        .opt_row(include_str!("../../../sql/cdc/transaction.sql"), &[Param::Lsn(up_to)])
        .await;
    row.context("read cdc.lsn_time_mapping")?.map_or(Ok(None), |row| transaction(&row, 0))
}

/// Every capture instance of the database that this login can see.
pub async fn instances(source: &mut Session) -> Result<Vec<Instance>> {
    let mut instances = Vec::new();
    let take = |_: usize, row: Row| -> Result<()> {
        instances.extend(read_instance(&row, instances.last())?);
        Ok(())
    };
    source
        .for_each_row(include_str!("../../../sql/cdc/instances.sql"), &[], take)
        .await
        .context("read cdc.change_tables")?;
    Ok(instances)
}

/// The newest captured transaction, and then every capture instance, in one round trip.
pub async fn max_lsn_and_instances(
    source: &mut Session,
) -> Result<(Option<MaxLsn>, Vec<Instance>)> {
    const BOTH: &str = concat!(
        include_str!("../../../sql/cdc/max_lsn.sql"),
        include_str!("../../../sql/cdc/instances.sql")
    );
    let (mut upper, mut instances) = (None, Vec::new());
    let take = |set: usize, row: Row| -> Result<()> {
        match set {
            0 => upper = read_max_lsn(&row)?,
            _ => instances.extend(read_instance(&row, instances.last())?),
        }
        Ok(())
    };
    source
        .for_each_row(BOTH, &[], take)
        .await
        .context("read the maximum LSN and cdc.change_tables")?;
    Ok((upper, instances))
}

/// `None`: the source table was dropped, or this login cannot see it, and so it has no name.
fn read_instance(row: &Row, last: Option<&Instance>) -> Result<Option<Instance>> {
    let (Some(schema), Some(table)) = (row.opt_text(4)?, row.opt_text(5)?) else { return Ok(None) };
    Ok(Some(Instance {
        name: Ident::new(row.text(0)?),
        change_table: Ident::new(row.text(1)?),
        change_table_id: row.i32(2)?,
        created: row.opt_text(11)?.unwrap_or_default().to_owned(),
        source_id: row.i32(3)?,
        source_created: row.opt_text(12)?.unwrap_or_default().to_owned(),
        source: TableName::like(last.map(|last| &last.source), [row.text(10)?, schema, table]),
        start: row.opt_lsn(6)?.unwrap_or(Lsn::ZERO),
        min: row.opt_lsn(7)?.unwrap_or(Lsn::ZERO),
        role: row.opt_text(8)?.filter(|role| !role.is_empty()).map(Ident::new),
        has_command_id: row.bool(9)?,
    }))
}

/// The captured tables, by object id, that rows can be moved into or out of by `ALTER TABLE …
/// SWITCH`, which CDC does not record. (A table of one partition can be switched whole, and nothing
/// forbids that: those are not told.)
/// <https://learn.microsoft.com/sql/relational-databases/system-stored-procedures/sys-sp-cdc-enable-table-transact-sql>
pub async fn switchable(source: &mut Session) -> Result<HashSet<i32>> {
    let rows = source
        .rows(include_str!("../../../sql/cdc/switchable.sql"), &[])
        .await
        .context("look for captured tables with partitions")?;
    rows.iter().map(|row| row.i32(0)).collect()
}

/// An instance's columns.
pub async fn capture(source: &mut Session, instance: Instance) -> Result<Capture> {
    const COLUMNS: &str = concat!(
        "DECLARE @change_table_id INT = @P1;\n",
        include_str!("../../../sql/cdc/columns.sql")
    );
    let rows = source
        .rows(COLUMNS, &[Param::Int(instance.change_table_id)])
        .await
        .context("read cdc.captured_columns")?;
    let columns = captured(&rows)?;
    if columns.is_empty() {
        return Err(instance_dropped(&instance));
    }
    Ok(Capture { instance, columns })
}

/// Rows of `cdc_columns.sql`.
fn captured(rows: &[Row]) -> Result<Vec<CapturedColumn>> {
    let mut columns = Vec::with_capacity(rows.len());
    for row in rows {
        let ty = match row.opt_text(4)? {
            Some(name) => Some(column_type(
                name,
                row.opt_i32(5)?.unwrap_or_default(),
                row.opt_i32(6)?.unwrap_or_default(),
                row.opt_i32(7)?.unwrap_or_default(),
            )),
            None => None,
        };
        columns.push(CapturedColumn {
            ty,
            name: Ident::new(row.text(0)?),
            column_id: row.i32(1)?,
            ordinal: row.i32(2)?,
            computed: row.opt_bool(3)?.unwrap_or(false),
        });
    }
    Ok(columns)
}

/// The instance's LSN bounds now, and whether the `carried` columns of `table` and the captured columns
/// and types are still those of `capture`. Called after rows were read, it tells whether they were
/// read with the right columns.
pub async fn recheck(
    source: &mut Session,
    table: &Table,
    carried: &ColumnMap,
    capture: &Capture,
) -> Result<(LsnBounds, bool)> {
    const STILL: &str = concat!(
        "DECLARE @object_id INT = @P3, @change_table_id INT = @P4;\n",
        include_str!("../../../sql/cdc/bounds.sql"),
        include_str!("../../../sql/cdc/still_captured.sql"),
        include_str!("../../../sql/catalog/columns.sql"),
        include_str!("../../../sql/cdc/columns.sql")
    );
    let (instance, name) = (&capture.instance, table.name.local());
    let params = [
        Param::Text(instance.name.as_str()),
        Param::Text(&name),
        Param::Int(table.object_id),
        Param::Int(instance.change_table_id),
    ];
    let sets = source.result_sets(STILL, &params).await;
    let mut sets = sets
        .map_err(|error| explain_instance_error(error, instance))
        .context("read the low watermark")?
        .into_iter();
    let mut next = || sets.next().unwrap_or_default();
    let (low, named, columns, captured_now) = (next(), next(), next(), next());
    let Some(low) = low.first() else { return Err(not_readable(instance)) };
    let bounds = read_bounds(low, instance)?;
    let columns: Vec<Column> = columns.iter().map(column).collect::<Result<_>>()?;
    let same =
        named.first().is_some_and(|row| row.opt_i32(0).is_ok_and(|id| id == Some(table.object_id)))
            && carried.columns.iter().all(|CarriedColumn { source, .. }| {
                columns.iter().find(|now| now.column_id == source.column_id) == Some(source)
            })
            && captured(&captured_now)? == capture.columns;
    Ok((bounds, same))
}

/// The query for [`LsnBounds`]; `@P1` is the instance's name.
pub const BOUNDS_SQL: &str = include_str!("../../../sql/cdc/bounds.sql");

/// The LSNs of a capture instance that one session can read. A session stays with one server, whose
/// state never goes back: later queries of this session can read everything up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LsnBounds {
    /// The low watermark.
    pub min: Lsn,
    /// The newest captured LSN; zero where there is none.
    pub max: Lsn,
}

impl LsnBounds {
    /// The LSN up to which the session can see all changes: the newest captured one, or the last before
    /// the capture instance, which can be later on an idle source.
    pub fn visible_up_to(self) -> Lsn {
        if self.min.is_zero() { self.max } else { self.max.max(self.min.prev()) }
    }
}

impl LsnBounds {
    /// From a row of [`BOUNDS_SQL`]. An instance that is gone is an error that says so; a low
    /// watermark of zero otherwise is one about rights.
    pub fn new(
        instance: &Instance,
        min: Option<Lsn>,
        instances: i64,
        max: Option<Lsn>,
    ) -> Result<LsnBounds> {
        match min {
            _ if instances == 0 => Err(instance_dropped(instance)),
            Some(min) if !min.is_zero() => Ok(LsnBounds { min, max: max.unwrap_or(Lsn::ZERO) }),
            _ => Err(not_readable(instance)),
        }
    }
}

/// The LSN bounds of an instance now.
pub async fn bounds(source: &mut Session, instance: &Instance) -> Result<LsnBounds> {
    let row = source.row(BOUNDS_SQL, &[Param::Text(instance.name.as_str())]).await;
    let row = row
        .map_err(|error| explain_instance_error(error, instance))
        .context("read the low watermark")?;
    read_bounds(&row, instance)
}

fn read_bounds(row: &Row, instance: &Instance) -> Result<LsnBounds> {
    LsnBounds::new(instance, row.opt_lsn(0)?, row.i64(1)?, row.opt_lsn(2)?)
}

/// [`bounds`] on a connection of the copy lane.
pub async fn bounds_over_tds(source: &mut TdsConnection, instance: &Instance) -> Result<LsnBounds> {
    let name = Value::Text(instance.name.as_str().to_owned());
    let rows = source
        .rows(BOUNDS_SQL, &[&name])
        .await
        .map_err(|error| explain_instance_error(error, instance))
        .context("read the low watermark")?;
    let mut rows = rows.map_err(|why| {
        Error::new(Kind::Other, format!("the low watermark cannot be read: {why}"))
    })?;
    let mut bounds = None;
    while rows.next().await.context("read the low watermark")? {
        let instances = match rows.value_ref(1)? {
            ValueRef::Int(instances) => instances,
            _ => 0,
        };
        bounds = Some(LsnBounds::new(
            instance,
            lsn_cell(&rows.value_ref(0)?)?,
            instances,
            lsn_cell(&rows.value_ref(2)?)?,
        )?);
    }
    bounds.ok_or_else(|| instance_dropped(instance))
}

fn lsn_cell(cell: &ValueRef<'_>) -> Result<Option<Lsn>> {
    match cell {
        ValueRef::Bytes(bytes) => {
            let wrong = || Error::new(Kind::Other, format!("an LSN has {} bytes", bytes.len()));
            Lsn::from_bytes(bytes).ok_or_else(wrong).map(Some)
        }
        _ => Ok(None),
    }
}

/// The instance is no longer there.
pub fn instance_dropped(instance: &Instance) -> Error {
    Error::new(
        Kind::Missing,
        format!(
            "capture instance {} of {} was dropped: its changes can no longer be read",
            instance.name.as_str(),
            instance.source
        ),
    )
    .with_hint(format!(
        "Enable CDC for the table again: {}; a full sync follows by itself",
        copyable(&enable_table(&instance.source))
    ))
}

/// The instance is there, but this login may not read it.
pub fn not_readable(instance: &Instance) -> Error {
    let select = copyable(&format!("GRANT SELECT ON {} TO <user>", instance.source.local()));
    let fix = match &instance.role {
        Some(role) => format!(
            "Let the login in: {} (or {}); GRANT SELECT ON SCHEMA::cdc TO <user>; {select}",
            copyable(&format!("ALTER ROLE {role} ADD MEMBER <user>")),
            copyable(&format!("EXEC sp_addrolemember {}, N'<user>'", literal(role.as_str())))
        ),
        None => format!("GRANT SELECT ON SCHEMA::cdc TO <user>; {select}"),
    };
    Error::new(
        Kind::Permission,
        format!(
            "this login may not read capture instance {} of {}{}: its minimum LSN is zero",
            instance.name.as_str(),
            instance.source,
            instance.role.as_ref().map_or(String::new(), |role| format!(
                ", which is open to members of {} only",
                role.as_str()
            ))
        ),
    )
    .with_hint(fix)
}

/// An error while reading an instance's change table; where the number tells the cause, a clearer one.
pub fn explain_instance_error(error: Error, instance: &Instance) -> Error {
    match error.number {
        Some(208) => instance_dropped(instance).with_number(208),
        Some(229 | 230) => not_readable(instance).with_number(error.number.unwrap_or(229)),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_seen_what_was_before_the_capture_instance() {
        let lsn = |n: u8| Lsn::new([0, 0, 0, 1, 0, 0, 0, 0, 0, n]);
        let seen = |min, max| LsnBounds { min, max }.visible_up_to();
        assert_eq!(seen(lsn(19), lsn(17)), lsn(18));
        assert_eq!(seen(lsn(10), lsn(17)), lsn(17));
        assert_eq!(seen(Lsn::ZERO, lsn(17)), lsn(17));
    }
}
