//! A table with one of each kind of column that is not simple, for golden tests.

use crate::model::{
    capture::{Capture, CapturedColumn, Instance},
    column_map::{CarriedColumn, ColumnMap, KEY_COLLATION, staged_name},
    id::MappingId,
    lsn::Lsn,
    name::{Ident, TableName},
    table::{Column, ColumnType, Length},
};

#[allow(non_snake_case, reason = "a constant that cannot be const")]
pub fn TABLE() -> TableName {
    TableName::new("shop", "sales", "Order] Details")
}

pub fn stage_name() -> TableName {
    super::swap::stage(MappingId(7), 0, &Ident::new("shop"))
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

pub fn carried(
    source: (&str, ColumnType),
    dest: (&str, ColumnType),
    staged: ColumnType,
) -> CarriedColumn {
    let dest = column(dest.0, dest.1);
    CarriedColumn {
        source: column(source.0, source.1),
        collation: dest.collation.clone(),
        dest,
        staged_name: staged_name(0),
        staged,
    }
}

/// As a column of the key is carried.
fn of_key(mut column: CarriedColumn) -> CarriedColumn {
    column.collation = column.collation.map(|_| KEY_COLLATION.to_owned());
    column
}

/// Key: (id int → bigint, code); then money, ntext, datetimeoffset(3) and xml.
pub fn map() -> ColumnMap {
    let code = ColumnType::NVarChar(Length::N(20));
    let max = ColumnType::NVarChar(Length::Max);
    let mut map = ColumnMap {
        columns: vec![
            carried(("ID", ColumnType::Int), ("id", ColumnType::BigInt), ColumnType::Int),
            of_key(carried(("code", code.clone()), ("code", code.clone()), code)),
            carried(
                ("price", ColumnType::Money),
                ("price", ColumnType::Money),
                ColumnType::Decimal { precision: 19, scale: 4 },
            ),
            carried(("note", ColumnType::NText), ("note", ColumnType::NText), max.clone()),
            carried(
                ("at", ColumnType::DateTimeOffset(3)),
                ("at", ColumnType::DateTimeOffset(3)),
                ColumnType::DateTimeOffset(7),
            ),
            carried(("doc", ColumnType::Xml), ("doc", ColumnType::Xml), max),
        ],
        key: vec![0, 1],
        merges_keys: false,
        identity: false,
        warnings: vec![],
        other_unique_keys: vec![],
    };
    for (place, column) in map.columns.iter_mut().enumerate() {
        column.staged_name = staged_name(place);
    }
    map
}

/// [`map`] with a key that cannot be NULL, as most keys.
pub fn keyed() -> ColumnMap {
    let mut map = map();
    for &i in &map.key {
        map.columns[i].source.nullable = false;
        map.columns[i].dest.nullable = false;
    }
    map
}

/// An instance that captures all columns of [`map`] but `at`; `note` has its bit in the second
/// byte from the end.
pub fn capture() -> Capture {
    let ty = |name: &str| {
        map()
            .columns
            .into_iter()
            .find(|column| column.source.name.as_str() == name)
            .map(|column| column.source.ty)
    };
    let captured = |(name, ordinal)| CapturedColumn {
        name: Ident::new(name),
        column_id: 1,
        ordinal,
        computed: false,
        ty: ty(name),
    };
    Capture {
        instance: Instance {
            name: Ident::new("sales_details"),
            change_table: Ident::new("sales_details_CT"),
            change_table_id: 99,
            created: "2026-01-01 00:00:00.000".to_owned(),
            source_id: 7,
            source_created: "2026-01-01 00:00:00.000".to_owned(),
            source: TABLE(),
            start: Lsn::ZERO.next(),
            min: Lsn::ZERO.next(),
            role: None,
            has_command_id: true,
        },
        columns: [("ID", 1), ("code", 2), ("price", 3), ("doc", 5), ("note", 10)]
            .into_iter()
            .map(captured)
            .collect(),
    }
}

/// Compares with a file in `golden/`; with `BLESS=1` in the environment it is written instead.
pub fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tsql/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, format!("{}\n", text.trim_end_matches('\n'))).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text.trim_end_matches('\n'),
        expected.trim_end_matches('\n'),
        "{name} differs; BLESS=1 writes it anew"
    );
}
