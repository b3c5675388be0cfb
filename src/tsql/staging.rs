//! The staged form: how a column is read, kept on the way, and written.
//!
//! Rows travel in the form that `model::column_map` calls *staged*. Reading casts what the driver would
//! not carry exactly (money goes through a double there; a `varchar` would be loaded in another
//! code page; a CLR type has no bulk form), keeping declares every column with its base type and an
//! explicit COLLATE (a `#` table takes its collation from tempdb otherwise, and comparing it with
//! the destination is error 468), and writing lets the server make the last conversion.
//!
//! Everything here is text only, made of [`Ident`]s.
//! <https://learn.microsoft.com/sql/t-sql/functions/cast-and-convert-transact-sql#implicit-conversions>

use std::fmt::Write;

use crate::model::{
    column_map::{CarriedColumn, ColumnMap, KEY_COLLATION},
    name::Ident,
    table::{ColumnType, Length, collation_word},
};

/// A type as DDL and CAST spell it, without a collation.
pub fn type_name(ty: &ColumnType) -> String {
    match ty {
        ColumnType::Bit => "bit".into(),
        ColumnType::TinyInt => "tinyint".into(),
        ColumnType::SmallInt => "smallint".into(),
        ColumnType::Int => "int".into(),
        ColumnType::BigInt => "bigint".into(),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ColumnType::Money => "money".into(),
        ColumnType::SmallMoney => "smallmoney".into(),
        ColumnType::Real => "real".into(),
        ColumnType::Float => "float".into(),
        ColumnType::Date => "date".into(),
        ColumnType::Time(scale) => format!("time({scale})"),
        ColumnType::DateTime => "datetime".into(),
        ColumnType::SmallDateTime => "smalldatetime".into(),
        ColumnType::DateTime2(scale) => format!("datetime2({scale})"),
        ColumnType::DateTimeOffset(scale) => format!("datetimeoffset({scale})"),
        ColumnType::Char(n) => format!("char({n})"),
        ColumnType::VarChar(length) => format!("varchar({})", max_or(*length)),
        ColumnType::NChar(n) => format!("nchar({n})"),
        ColumnType::NVarChar(length) => format!("nvarchar({})", max_or(*length)),
        ColumnType::Text => "text".into(),
        ColumnType::NText => "ntext".into(),
        ColumnType::Image => "image".into(),
        ColumnType::Binary(n) => format!("binary({n})"),
        ColumnType::VarBinary(length) => format!("varbinary({})", max_or(*length)),
        ColumnType::UniqueIdentifier => "uniqueidentifier".into(),
        ColumnType::Xml => "xml".into(),
        ColumnType::SqlVariant => "sql_variant".into(),
        ColumnType::RowVersion => "rowversion".into(),
        ColumnType::HierarchyId => "hierarchyid".into(),
        ColumnType::Geometry => "geometry".into(),
        ColumnType::Geography => "geography".into(),
        ColumnType::Other(name) => Ident::new(name.as_str()).to_string(),
    }
}

fn max_or(length: Length) -> String {
    match length {
        Length::N(n) => n.to_string(),
        Length::Max => "max".into(),
    }
}

/// char, varchar, nchar, nvarchar, text and ntext: the types that take COLLATE.
pub fn is_text(ty: &ColumnType) -> bool {
    matches!(
        ty,
        ColumnType::Char(_)
            | ColumnType::VarChar(_)
            | ColumnType::NChar(_)
            | ColumnType::NVarChar(_)
            | ColumnType::Text
            | ColumnType::NText
    )
}

/// ` COLLATE name` for a text type, with the database's own collation where none is known.
fn collate(ty: &ColumnType, collation: Option<&str>) -> String {
    if is_text(ty) {
        format!(" COLLATE {}", collation_word(collation).unwrap_or("DATABASE_DEFAULT"))
    } else {
        String::new()
    }
}

/// `[c0] type COLLATE … NULL`: a column of a staging or `#` table. All are nullable: a delete's
/// image has NULLs where a column says NOT NULL, and a nullable column has one form on the wire.
pub fn column_ddl(column: &CarriedColumn) -> String {
    format!(
        "{} {}{} NULL",
        column.staged_name,
        type_name(&column.staged),
        collate(&column.staged, column.collation.as_deref())
    )
}

/// `[c0] type COLLATE …` as INSERT BULK declares it; a collation that is not known is not named.
pub fn bulk_column(column: &CarriedColumn) -> String {
    let collate = column
        .collation
        .as_deref()
        .map(|name| collate(&column.staged, Some(name)))
        .unwrap_or_default();
    format!("{} {}{collate}", column.staged_name, type_name(&column.staged))
}

/// The staged columns of a CREATE TABLE, in the order of `map`.
pub fn columns_ddl(map: &ColumnMap) -> String {
    map.columns.iter().map(column_ddl).collect::<Vec<_>>().join(", ")
}

/// The source's column in staged form: `alias` names the source table or its change table, which
/// have the same column names.
pub fn read(column: &CarriedColumn, alias: &str) -> String {
    let cell = format!("{alias}.{}", column.source.name);
    if column.source.ty == column.staged {
        cell
    } else {
        format!("CAST({cell} AS {})", type_name(&column.staged))
    }
}

/// The source's column as it is compared with [`read_dest_staged`]'s: text as text, also where it
/// is staged as bytes.
pub fn read_compared(column: &CarriedColumn, alias: &str) -> String {
    let cell = format!("{alias}.{}", column.source.name);
    match (&column.source.ty, &column.staged) {
        (ColumnType::Char(n) | ColumnType::VarChar(Length::N(n)), ColumnType::VarBinary(_)) => {
            format!("CAST({cell} AS {})", type_name(&unicode(*n, true)))
        }
        _ => read(column, alias),
    }
}

/// `read AS [c0], …`: a SELECT list that yields staged rows in the order of `map`.
pub fn read_list(map: &ColumnMap, alias: &str) -> String {
    list(map, |column| format!("{} AS {}", read(column, alias), column.staged_name))
}

/// The staged column as a value of the destination's type.
pub fn write(column: &CarriedColumn, alias: &str) -> String {
    write_cell(column, &format!("{alias}.{}", column.staged_name))
}

/// The staged `cell` as a value of the destination's type.
pub fn write_cell(column: &CarriedColumn, cell: &str) -> String {
    let to = &column.dest.ty;
    let cell = format!("{cell}{}", recollate(column));
    match to {
        _ if column.staged == *to => cell,
        // style 1 keeps white space, which CAST would drop
        ColumnType::Xml => format!("CONVERT(xml, {cell}, 1)"),
        // there is no way from nvarchar to text but through varchar, and the code page is the
        // staged collation's; bytes become text by the code page of the database (`plan::row_size`)
        ColumnType::Text => format!("CAST({cell} AS varchar(max))"),
        ColumnType::NText => format!("CAST({cell} AS nvarchar(max))"),
        ColumnType::Image => format!("CAST({cell} AS varbinary(max))"),
        _ => format!("CAST({cell} AS {})", type_name(to)),
    }
}

/// ` COLLATE name` where the staged text has another collation than the destination's column: a
/// CAST takes the code page from the collation, and two collations cannot be compared (Msg 468).
fn recollate(column: &CarriedColumn) -> String {
    let to = &column.dest;
    if column.collation == to.collation || !is_text(&column.staged) {
        String::new()
    } else {
        collate(&to.ty, to.collation.as_deref())
    }
}

/// The destination's column as it is compared and read: like [`fn@write`]'s result, also where the
/// type itself has no comparison.
pub fn read_dest(column: &CarriedColumn, alias: &str) -> String {
    let cell = format!("{alias}.{}", column.name());
    match comparable(&column.dest.ty) {
        Some(ty) => format!("CAST({cell} AS {ty})"),
        None => cell,
    }
}

/// The destination's column in staged form, so that both sides of a verification arrive as the same
/// kind of cell.
pub fn read_dest_staged(column: &CarriedColumn, alias: &str) -> String {
    let cell = format!("{alias}.{}", column.name());
    match column.dest.ty {
        // the driver's double would round these
        ColumnType::Money => format!("CAST({cell} AS decimal(19,4))"),
        ColumnType::SmallMoney => format!("CAST({cell} AS decimal(10,4))"),
        // decoded by the server, whatever the code page
        ColumnType::Char(n) => format!("CAST({cell} AS {})", type_name(&unicode(n, false))),
        ColumnType::VarChar(Length::N(n)) => {
            format!("CAST({cell} AS {})", type_name(&unicode(n, true)))
        }
        ColumnType::VarChar(Length::Max)
        | ColumnType::Text
        | ColumnType::NText
        | ColumnType::Xml => {
            format!("CAST({cell} AS nvarchar(max))")
        }
        ColumnType::Image | ColumnType::Geometry | ColumnType::Geography => {
            format!("CAST({cell} AS varbinary(max))")
        }
        ColumnType::HierarchyId => format!("CAST({cell} AS varbinary(892))"),
        _ => cell,
    }
}

/// What holds `n` bytes of a code page in Unicode: at most one unit per byte.
fn unicode(n: u16, varying: bool) -> ColumnType {
    match (n, varying) {
        (..=4000, true) => ColumnType::NVarChar(Length::N(n)),
        (..=4000, false) => ColumnType::NChar(n),
        _ => ColumnType::NVarChar(Length::Max),
    }
}

/// The type that stands in for one that cannot be compared.
fn comparable(ty: &ColumnType) -> Option<&'static str> {
    match ty {
        ColumnType::Text => Some("varchar(max)"),
        ColumnType::NText | ColumnType::Xml => Some("nvarchar(max)"),
        ColumnType::Image | ColumnType::Geometry | ColumnType::Geography => Some("varbinary(max)"),
        _ => None,
    }
}

/// The staged column as [`read_dest`] gives the destination's.
fn write_comparable(column: &CarriedColumn, alias: &str) -> String {
    let written = write(column, alias);
    match (&column.dest.ty, comparable(&column.dest.ty)) {
        // `write` already stops at the comparable type for these
        (ColumnType::Text | ColumnType::NText | ColumnType::Image, _) | (_, None) => written,
        (_, Some(ty)) => format!("CAST({written} AS {ty})"),
    }
}

/// `dest.[key] = staged and …`, in the destination's type and under its collation: keys are equal
/// when *it* says so.
pub fn same_key(map: &ColumnMap, staged: &str, dest: &str) -> String {
    let pairs: Vec<_> = map
        .key_columns()
        .map(|column| format!("{dest}.{} = {}", column.name(), write(column, staged)))
        .collect();
    pairs.join(" AND ")
}

/// [`fn@same_key`], and the same text in both, not only what the destination takes for the same.
pub fn same_key_exactly(map: &ColumnMap, staged: &str, dest: &str) -> String {
    let text: String =
        texts(map).map(|column| format!(" AND {}", same_text(column, staged, dest))).collect();
    same_key(map, staged, dest) + &text
}

/// Two keys that are the same to the destination have other texts.
pub fn other_text(map: &ColumnMap, staged: &str, dest: &str) -> String {
    let same: Vec<_> = texts(map).map(|column| same_text(column, staged, dest)).collect();
    format!("NOT ({})", same.join(" AND "))
}

fn same_text(column: &CarriedColumn, staged: &str, dest: &str) -> String {
    format!("{} = {staged}.{}", read_dest_key(column, dest), column.staged_name)
}

/// The destination's key column in staged form, under the staged key's collation.
pub fn read_dest_key(column: &CarriedColumn, alias: &str) -> String {
    let collate =
        if is_text(&column.dest.ty) { format!(" COLLATE {KEY_COLLATION}") } else { String::new() };
    read_dest_staged(column, alias) + &collate
}

/// The key's columns that are text.
fn texts(map: &ColumnMap) -> impl Iterator<Item = &CarriedColumn> {
    map.key_columns().filter(|column| is_text(&column.dest.ty))
}

/// True when the two differ in any byte, NULLs included: a case-insensitive collation, a trailing
/// space, -0 or another offset of the same instant must not hide a change. (Comparing binary values
/// of different length is left to DATALENGTH, not to padding rules.)
pub fn differs(column: &CarriedColumn, staged: &str, dest: &str) -> String {
    let (old, new) = (read_dest(column, dest), write_comparable(column, staged));
    let bare = format!("{dest}.{}", column.name());
    let given = format!("{staged}.{}", column.staged_name);
    let nulls = format!(
        "({bare} IS NULL AND {given} IS NOT NULL) OR ({bare} IS NOT NULL AND {given} IS NULL)"
    );
    match &column.dest.ty {
        ty if is_text(ty) || matches!(ty, ColumnType::Xml) => {
            format!(
                "DATALENGTH({old}) <> DATALENGTH({new}) OR CAST({old} AS varbinary(max)) <> CAST({new} AS varbinary(max)) OR {nulls}"
            )
        }
        ColumnType::Binary(_)
        | ColumnType::VarBinary(_)
        | ColumnType::Image
        | ColumnType::Geometry
        | ColumnType::Geography => {
            format!("DATALENGTH({old}) <> DATALENGTH({new}) OR {old} <> {new} OR {nulls}")
        }
        ColumnType::Float => {
            format!("CAST({old} AS binary(8)) <> CAST({new} AS binary(8)) OR {nulls}")
        }
        ColumnType::Real => {
            format!("CAST({old} AS binary(4)) <> CAST({new} AS binary(4)) OR {nulls}")
        }
        ColumnType::DateTimeOffset(_) => {
            format!(
                "{old} <> {new} OR DATEPART(tzoffset, {old}) <> DATEPART(tzoffset, {new}) OR {nulls}"
            )
        }
        _ => format!("{old} <> {new} OR {nulls}"),
    }
}

/// May two equal keys of this type differ in their bytes, so that an UPDATE must write the key too?
pub fn equal_may_differ(ty: &ColumnType) -> bool {
    is_text(ty)
        || matches!(
            ty,
            ColumnType::DateTimeOffset(_)
                | ColumnType::Float
                | ColumnType::Real
                | ColumnType::VarBinary(_)
        )
}

/// One row, a parameter per column; `table` and `columns` are quoted already.
pub fn insert_one(table: &str, columns: &[&str]) -> String {
    let values: Vec<_> = (1..=columns.len()).map(|i| format!("@P{i}")).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), values.join(", "))
}

/// `[a], [b], …`: the carried columns at the destination.
pub fn names(map: &ColumnMap) -> String {
    list(map, |column| column.name().to_string())
}

/// `[c0], [c1], …`: the staged columns.
pub fn staged_names(map: &ColumnMap) -> String {
    list(map, |column| column.staged_name.to_string())
}

/// The carried columns as values of the destination's types.
pub fn write_list(map: &ColumnMap, alias: &str) -> String {
    list(map, |column| write(column, alias))
}

/// The columns an UPDATE may set: not identity, and of the key only what may differ between equal
/// keys.
pub fn updatable(map: &ColumnMap) -> impl Iterator<Item = &CarriedColumn> {
    map.columns
        .iter()
        .enumerate()
        .filter(|(i, column)| {
            !column.dest.identity && (!map.key.contains(i) || equal_may_differ(&column.dest.ty))
        })
        .map(|(_, column)| column)
}

fn list(map: &ColumnMap, each: impl Fn(&CarriedColumn) -> String) -> String {
    let mut text = String::new();
    for (i, column) in map.columns.iter().enumerate() {
        let _ = write!(text, "{}{}", if i == 0 { "" } else { ", " }, each(column));
    }
    text
}
