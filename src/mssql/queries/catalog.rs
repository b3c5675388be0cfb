//! Queries of the catalog views: one function per question.
//!
//! Only `sys.*` views are read (INFORMATION_SCHEMA lacks identity, computed and generated columns).
//! Names are passed as parameters, compared by the server, and returned as the catalog has them. An
//! unknown type, or an unknown kind of temporal or ledger table, is returned as its name or number,
//! and refused by the code that needs to know it.
//!
//! A table on which this login has no permission looks like one that does not exist.
//! <https://learn.microsoft.com/sql/relational-databases/security/metadata-visibility-configuration>

use crate::mssql::client::{
    row::{Param, Row},
    session::Session,
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{
        name::{Ident, TableName},
        table::{Column, ColumnType, Database, ForeignKey, Length, Table, UniqueKey},
    },
};

/// The table of that name in the session's database; `None` where there is none that this login can
/// see.
pub async fn table(session: &mut Session, name: &TableName) -> Result<Option<Table>> {
    let named = [Param::Text(name.schema.as_str()), Param::Text(name.table.as_str())];
    let objects = session
        .rows(include_str!("../../../sql/catalog/object.sql"), &named)
        .await
        .with_context(|| format!("look up {name}"))?;
    // a case-sensitive catalog may be asked through a case-insensitive comparison only by a server
    // we do not know; then as written
    let exact = objects.iter().position(|row| {
        row.text(1).is_ok_and(|s| s == name.schema.as_str())
            && row.text(2).is_ok_and(|t| t == name.table.as_str())
    });
    let Some(object) = objects.get(exact.unwrap_or(0)) else { return Ok(None) };
    read_table(session, object)
        .await
        .with_context(|| format!("read the columns of {name}"))
        .map(Some)
}

/// Like [`table`] at a source, but a missing one is an error that says what to check.
pub async fn source_table(session: &mut Session, name: &TableName) -> Result<Table> {
    table(session, name).await?.ok_or_else(|| {
        Error::new(
            Kind::Missing,
            format!("source table {name} does not exist, or this login has no right on it"),
        )
        .with_hint("Check the name in table_mappings, and grant the login SELECT on the table")
    })
}

/// Like [`source_table`], at the destination.
pub async fn dest_table(session: &mut Session, name: &TableName) -> Result<Table> {
    table(session, name).await?.ok_or_else(|| {
        missing_dest_table(name).with_hint(
            "Create the table, or correct its name in table_mappings, and grant the login its rights on it",
        )
    })
}

/// A destination table that is not there, without what to do about it.
pub fn missing_dest_table(name: &TableName) -> Error {
    Error::new(
        Kind::DestMissing,
        format!("destination table {name} does not exist, or this login has no right on it"),
    )
}

async fn read_table(session: &mut Session, object: &Row) -> Result<Table> {
    let object_id = object.i32(0)?;
    let name = TableName {
        database: Ident::new(object.text(3)?),
        schema: Ident::new(object.text(1)?),
        table: Ident::new(object.text(2)?),
    };
    let temporal = object.i32(5)?;
    let has_ledgers = object.bool(6)?;
    let ledger = if has_ledgers {
        session
            .opt_row(include_str!("../../../sql/catalog/ledger.sql"), &[Param::Int(object_id)])
            .await?
            .map_or(Ok(0), |row| row.i32(0))?
    } else {
        0
    };
    const SHAPE: &str = concat!(
        "DECLARE @object_id INT = @P1;\n",
        include_str!("../../../sql/catalog/columns.sql"),
        include_str!("../../../sql/catalog/shape.sql")
    );
    let mut sets = session.result_sets(SHAPE, &[Param::Int(object_id)]).await?.into_iter();
    let mut next = || sets.next().unwrap_or_default();
    let (columns, keys, triggers, filters, rights) = (next(), next(), next(), next(), next());
    let sees_policies =
        rights.first().is_some_and(|row| row.opt_i32(0).is_ok_and(|allowed| allowed == Some(1)));
    let triggers = |instead: bool| -> Result<Vec<Ident>> {
        let mut names = Vec::new();
        for row in &triggers {
            if row.bool(1)? == instead {
                names.push(Ident::new(row.text(0)?));
            }
        }
        Ok(names)
    };
    Ok(Table {
        name,
        object_id,
        columns: columns.iter().map(column).collect::<Result<_>>()?,
        unique_keys: unique_keys(&keys)?,
        memory_optimized: object.bool(4)?,
        system_versioned: temporal == 2,
        ledger: ledger != 0,
        append_only: ledger == 3,
        history: temporal == 1 || ledger == 1,
        instead_of_triggers: triggers(true)?,
        after_triggers: triggers(false)?,
        sees_policies,
        row_filter: filters.first().map_or(Ok(0), |row| row.i64(0))? > 0,
        database_code_page: rights.first().map_or(Ok(None), |row| row.opt_i32(1))?,
    })
}

/// A row of `catalog_columns.sql`.
pub(in crate::mssql) fn column(row: &Row) -> Result<Column> {
    let collation = row.opt_text(6)?.map(str::to_owned);
    Ok(Column {
        column_id: row.i32(0)?,
        name: Ident::new(row.text(1)?),
        ty: column_type(row.text(2)?, row.i32(3)?, row.i32(4)?, row.i32(5)?),
        code_page: row.opt_i32(7)?,
        collation,
        nullable: row.opt_bool(8)?.unwrap_or(true),
        identity: row.bool(9)?,
        computed: row.bool(10)?,
        generated: row.opt_i32(11)?.unwrap_or(0) != 0,
        has_default: row.i32(12)? != 0,
        masked: row.opt_bool(13)?.unwrap_or(false),
        encrypted: row.opt_i32(14)?.is_some(),
        column_set: row.opt_bool(15)?.unwrap_or(false),
    })
}

/// A type by `sys.types.name` and the numbers of `sys.columns`. `max_length` is in bytes, -1 for
/// max.
pub fn column_type(name: &str, max_length: i32, precision: i32, scale: i32) -> ColumnType {
    let small = |number: i32| u8::try_from(number).unwrap_or(0);
    let bytes = |per: i32| u16::try_from(max_length / per).unwrap_or(0);
    let length = |per: i32| if max_length < 0 { Length::Max } else { Length::N(bytes(per)) };
    match name {
        "bit" => ColumnType::Bit,
        "tinyint" => ColumnType::TinyInt,
        "smallint" => ColumnType::SmallInt,
        "int" => ColumnType::Int,
        "bigint" => ColumnType::BigInt,
        "decimal" | "numeric" => {
            ColumnType::Decimal { precision: small(precision), scale: small(scale) }
        }
        "money" => ColumnType::Money,
        "smallmoney" => ColumnType::SmallMoney,
        "real" => ColumnType::Real,
        "float" => ColumnType::Float,
        "date" => ColumnType::Date,
        "time" => ColumnType::Time(small(scale)),
        "datetime" => ColumnType::DateTime,
        "smalldatetime" => ColumnType::SmallDateTime,
        "datetime2" => ColumnType::DateTime2(small(scale)),
        "datetimeoffset" => ColumnType::DateTimeOffset(small(scale)),
        "char" => ColumnType::Char(bytes(1)),
        "varchar" => ColumnType::VarChar(length(1)),
        "nchar" => ColumnType::NChar(bytes(2)),
        "nvarchar" | "sysname" => ColumnType::NVarChar(length(2)),
        "text" => ColumnType::Text,
        "ntext" => ColumnType::NText,
        "image" => ColumnType::Image,
        "binary" => ColumnType::Binary(bytes(1)),
        "varbinary" => ColumnType::VarBinary(length(1)),
        "uniqueidentifier" => ColumnType::UniqueIdentifier,
        "xml" => ColumnType::Xml,
        "sql_variant" => ColumnType::SqlVariant,
        "timestamp" | "rowversion" => ColumnType::RowVersion,
        "hierarchyid" => ColumnType::HierarchyId,
        "geometry" => ColumnType::Geometry,
        "geography" => ColumnType::Geography,
        other => ColumnType::Other(other.to_owned()),
    }
}

/// Rows of (index, its name, is it the primary key, column), in key order.
fn unique_keys(rows: &[Row]) -> Result<Vec<UniqueKey>> {
    let mut keys: Vec<(i32, UniqueKey)> = Vec::new();
    for row in rows {
        let (index, column) = (row.i32(0)?, Ident::new(row.text(3)?));
        match keys.last_mut() {
            Some((last, key)) if *last == index => key.columns.push(column),
            _ => keys.push((
                index,
                UniqueKey {
                    name: Ident::new(row.text(1)?),
                    primary: row.bool(2)?,
                    columns: vec![column],
                },
            )),
        }
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

/// The enabled foreign keys from a table and to it.
pub async fn foreign_keys(session: &mut Session, table: &Table) -> Result<Vec<ForeignKey>> {
    let rows = session
        .rows(include_str!("../../../sql/catalog/foreign_keys.sql"), &[Param::Int(table.object_id)])
        .await;
    let mut keys: Vec<(i32, ForeignKey)> = Vec::new();
    for row in rows.with_context(|| format!("read the foreign keys of {}", table.name))? {
        let (id, pair) = (row.i32(0)?, (Ident::new(row.text(8)?), Ident::new(row.text(9)?)));
        if let Some((last, key)) = keys.last_mut()
            && *last == id
        {
            key.columns.push(pair);
            continue;
        }
        let named = |schema: usize| -> Result<TableName> {
            let (schema, table_name) =
                (Ident::new(row.text(schema)?), Ident::new(row.text(schema + 1)?));
            Ok(TableName { database: table.name.database.clone(), schema, table: table_name })
        };
        let key = ForeignKey {
            name: Ident::new(row.text(1)?),
            child_id: row.i32(2)?,
            child: named(4)?,
            parent_id: row.i32(3)?,
            parent: named(6)?,
            columns: vec![pair],
            acts_on_delete: row.bool(10)?,
        };
        keys.push((id, key));
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

/// The session's database.
pub async fn database(session: &mut Session) -> Result<Database> {
    let row = session
        .row(include_str!("../../../sql/catalog/database.sql"), &[])
        .await
        .context("read sys.databases")?;
    Ok(Database {
        server: row.opt_text(0)?.unwrap_or_default().to_owned(),
        name: Ident::new(row.text(1)?),
        created: row.opt_text(2)?.unwrap_or_default().to_owned(),
        snapshot: row.opt_i32(3)? == Some(1),
        read_only: row.opt_bool(4)?.unwrap_or(false),
        group_id: row.opt_text(5)?.map(str::to_owned),
    })
}

/// The table's approximate row count, from the catalog.
pub async fn row_count(session: &mut Session, table: &Table) -> Result<Option<i64>> {
    let row = session
        .opt_row(include_str!("../../../sql/catalog/rows.sql"), &[Param::Int(table.object_id)])
        .await
        .context("read sys.partitions")?;
    row.map_or(Ok(None), |row| row.opt_i64(0))
}
