//! Keys of rows for hash tables, DISTINCT, GROUP BY and ORDER BY.

use crate::value::{SqlType, Value, order};

/// Appends a value so that keys compare as the values do, the other way round when `descending`.
pub fn encode_ordered(value: &Value, ty: SqlType, descending: bool, out: &mut Vec<u8>) {
    let start = out.len();
    order::write_key(value, ty, out);
    if descending {
        for byte in &mut out[start..] {
            *byte = !*byte;
        }
    }
}

/// The key of a whole row.
pub fn of_row(row: &[Value], types: &[SqlType]) -> Vec<u8> {
    let mut out = Vec::with_capacity(row.len() * 12);
    for (value, ty) in row.iter().zip(types) {
        order::write_key(value, *ty, &mut out);
    }
    out
}
