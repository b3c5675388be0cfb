//! A table with one of each kind of column that is not simple, for golden tests.

use crate::model::{
    carry::{Carried, Carry},
    id::MappingId,
    name::{Ident, TableName},
    table::{Column, ColumnType, Length},
};

#[allow(non_snake_case, reason = "a constant that cannot be const")]
pub fn TABLE() -> TableName {
    TableName::new("shop", "sales", "Order] Details")
}

pub fn stage_name() -> TableName {
    super::swap::stage(MappingId(7), &Ident::new("shop"))
}

pub fn column(name: &str, ty: ColumnType) -> Column {
    let text = super::staging::is_text(&ty);
    Column {
        name: Ident::new(name),
        column_id: 1,
        ty,
        collation: text.then(|| "Latin1_General_CI_AS".to_owned()),
        code_page: text.then_some(1252),
        nullable: true,
        identity: false,
        computed: false,
        generated: false,
        has_default: false,
        masked: false,
        encrypted: false,
        column_set: false,
    }
}

pub fn carried(source: (&str, ColumnType), dest: (&str, ColumnType), staged: ColumnType) -> Carried {
    let dest = column(dest.0, dest.1);
    Carried { source: column(source.0, source.1), collation: dest.collation.clone(), dest, staged }
}

/// Key: (id int → bigint, code); then money, ntext, datetimeoffset(3) and xml.
pub fn carry() -> Carry {
    let code = ColumnType::NVarChar(Length::N(20));
    let max = ColumnType::NVarChar(Length::Max);
    Carry {
        columns: vec![
            carried(("ID", ColumnType::Int), ("id", ColumnType::BigInt), ColumnType::Int),
            carried(("code", code.clone()), ("code", code.clone()), code),
            carried(("price", ColumnType::Money), ("price", ColumnType::Money), ColumnType::Decimal { precision: 19, scale: 4 }),
            carried(("note", ColumnType::NText), ("note", ColumnType::NText), max.clone()),
            carried(("at", ColumnType::DateTimeOffset(3)), ("at", ColumnType::DateTimeOffset(3)), ColumnType::DateTimeOffset(7)),
            carried(("doc", ColumnType::Xml), ("doc", ColumnType::Xml), max),
        ],
        key: vec![0, 1],
        identity: false,
        warnings: vec![],
        other_unique_keys: vec![],
    }
}
