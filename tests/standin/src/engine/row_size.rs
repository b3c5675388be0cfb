//! How many bytes a row takes on its page: 8,060 at most.
//!
//! Fixed columns take their room even where they are NULL; of variable ones each takes two bytes
//! beside its value, and a value of more than 24 bytes can go off the row, where it leaves a
//! pointer of 24 bytes.
//! <https://learn.microsoft.com/sql/relational-databases/databases/estimate-the-size-of-a-heap>,
//! <https://learn.microsoft.com/sql/relational-databases/pages-and-extents-architecture-guide#large-row-support>

use crate::{
    engine::catalog::{ColumnMeta, TableMeta},
    error::{SqlError, SqlResult},
    value::{Length, SqlType, Value},
};

const ROW_BYTES_MAX: usize = 8_060;
/// Status bits and the length of the fixed part.
const HEADER_BYTES: usize = 4;
/// What a value that went off the row leaves in it.
const POINTER_BYTES: usize = 24;

enum Room {
    Bit,
    Fixed(usize),
    /// at most so many bytes
    Variable(usize),
}

fn room(ty: SqlType) -> Room {
    let max = |length: Length, unit: usize| match length {
        Length::N(n) => usize::from(n) * unit,
        Length::Max => usize::MAX,
    };
    match ty {
        SqlType::Bit => Room::Bit,
        SqlType::VarChar(length, _) | SqlType::VarBinary(length) => Room::Variable(max(length, 1)),
        SqlType::NVarChar(length, _) => Room::Variable(max(length, 2)),
        SqlType::Text(_)
        | SqlType::NText(_)
        | SqlType::Image
        | SqlType::Xml
        | SqlType::SqlVariant
        | SqlType::HierarchyId
        | SqlType::Geometry
        | SqlType::Geography => Room::Variable(usize::MAX),
        fixed => Room::Fixed(usize::try_from(fixed.max_length()).unwrap_or(0)),
    }
}

/// The columns that are stored, and what they and a row's own bytes take at least.
struct Least {
    fixed: usize,
    overhead: usize,
    variable: usize,
}

fn stored(meta: &TableMeta) -> impl Iterator<Item = (usize, &ColumnMeta)> {
    meta.columns
        .iter()
        .enumerate()
        .filter(|(_, column)| column.computed.as_ref().is_none_or(|computed| computed.persisted))
}

fn least(meta: &TableMeta) -> Least {
    let (mut fixed, mut bits, mut variable, mut columns) = (0, 0usize, 0, 0usize);
    for (_, column) in stored(meta) {
        columns += 1;
        match room(column.ty) {
            Room::Bit => bits += 1,
            Room::Fixed(bytes) => fixed += bytes,
            Room::Variable(_) => variable += 1,
        }
    }
    Least {
        fixed: fixed + bits.div_ceil(8),
        overhead: HEADER_BYTES + 2 + columns.div_ceil(8),
        variable,
    }
}

/// Msg 1701: no row would fit.
pub fn check_table(meta: &TableMeta) -> SqlResult<()> {
    let Least { fixed, overhead, .. } = least(meta);
    let bytes = fixed + overhead;
    if bytes <= ROW_BYTES_MAX {
        return Ok(());
    }
    Err(SqlError::new(
        1701,
        16,
        format!(
            "Creating or altering table '{}' failed because the minimum row size would be {bytes}, including {overhead} bytes of internal \
             overhead. This exceeds the maximum allowable table row size of {ROW_BYTES_MAX} bytes.",
            meta.name
        ),
    ))
}

/// Whether there are values whose row does not fit.
pub fn may_not_fit(meta: &TableMeta) -> bool {
    let Least { fixed, overhead, variable } = least(meta);
    let values: usize = stored(meta)
        .map(|(_, column)| match room(column.ty) {
            Room::Variable(most) => most.min(POINTER_BYTES),
            Room::Bit | Room::Fixed(_) => 0,
        })
        .sum();
    fixed + overhead + 2 + 2 * variable + values > ROW_BYTES_MAX
}

/// Msg 511: this row does not fit.
pub fn check_row(meta: &TableMeta, row: &[Value]) -> SqlResult<()> {
    let Least { fixed, overhead, variable } = least(meta);
    let values: usize = stored(meta)
        .map(|(at, column)| match room(column.ty) {
            Room::Variable(_) => {
                row.get(at).map_or(0, |value| value_bytes(value, column.ty)).min(POINTER_BYTES)
            }
            Room::Bit | Room::Fixed(_) => 0,
        })
        .sum();
    let bytes = fixed + overhead + 2 + 2 * variable + values;
    if bytes <= ROW_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "Cannot create a row of size {bytes} which is greater than the allowable maximum row size of {ROW_BYTES_MAX}."
    );
    Err(SqlError::new(511, 16, text))
}

fn value_bytes(value: &Value, ty: SqlType) -> usize {
    match (value, ty) {
        (Value::Null, _) => 0,
        (Value::Bytes(bytes), _) => bytes.len(),
        (Value::Str(text), SqlType::VarChar(_, collation) | SqlType::Text(collation)) => {
            collation.encoded_len(text)
        }
        (Value::Str(text), _) => 2 * text.encode_utf16().count(),
        _ => POINTER_BYTES,
    }
}
