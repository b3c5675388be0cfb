//! Keys: values encoded so that bytes compare as SQL Server orders them.
//!
//! Each part is self-delimiting, so parts can be put one after the other and a prefix of the parts
//! is a prefix of the bytes. NULL comes first, as in SQL Server. Text is its collation's sort key
//! (trailing blanks do not count; equal under the collation means equal bytes); binary ignores
//! trailing zeros; uniqueidentifier orders by its last six bytes first (Microsoft: "Comparing GUID
//! and uniqueidentifier values"). A descending part is the complement of the ascending one.

use crate::value::{Collation, SqlType, Value};

const NULL: u8 = 0;
const PRESENT: u8 = 1;

/// Appends one part. False, with `out` unchanged, when the value is not of the column's type: no
/// key of this column equals it byte for byte.
pub fn encode(out: &mut Vec<u8>, ty: &SqlType, value: &Value, descending: bool) -> bool {
    let start = out.len();
    let known = if matches!(value, Value::Null) {
        out.push(NULL);
        true
    } else {
        out.push(PRESENT);
        encode_present(out, ty, value)
    };
    if !known {
        out.truncate(start);
        return false;
    }
    if descending {
        for byte in &mut out[start..] {
            *byte = !*byte;
        }
    }
    true
}

fn encode_present(out: &mut Vec<u8>, ty: &SqlType, value: &Value) -> bool {
    match (ty, value) {
        (SqlType::Bit, Value::Bit(b)) => out.push(u8::from(*b)),
        (SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt, Value::Int(i)) => {
            out.extend_from_slice(&((*i as u64) ^ (1 << 63)).to_be_bytes());
        }
        (SqlType::Decimal { scale, .. }, Value::Decimal(d)) => {
            return encode_decimal(out, d.mantissa, d.scale, *scale);
        }
        (SqlType::Money | SqlType::SmallMoney, Value::Decimal(d)) => {
            return encode_decimal(out, d.mantissa, d.scale, 4);
        }
        (SqlType::Float | SqlType::Real, Value::Float(f)) => {
            let bits = if *f == 0.0 { 0 } else { f.to_bits() };
            let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
            out.extend_from_slice(&ordered.to_be_bytes());
        }
        (SqlType::Date, Value::Date(days)) => push_i32(out, *days),
        (SqlType::Time(_), Value::Time(ticks)) => out.extend_from_slice(&ticks.to_be_bytes()),
        (SqlType::DateTime, Value::DateTime { days, ticks300 }) => {
            push_i32(out, *days);
            out.extend_from_slice(&ticks300.to_be_bytes());
        }
        (SqlType::SmallDateTime, Value::SmallDateTime { days, minutes }) => {
            out.extend_from_slice(&days.to_be_bytes());
            out.extend_from_slice(&minutes.to_be_bytes());
        }
        (SqlType::DateTime2(_), Value::DateTime2 { days, ticks })
        | (SqlType::DateTimeOffset(_), Value::DateTimeOffset { days, ticks, .. }) => {
            push_i32(out, *days);
            out.extend_from_slice(&ticks.to_be_bytes());
        }
        (
            SqlType::Char(..) | SqlType::VarChar(..) | SqlType::NChar(..) | SqlType::NVarChar(..),
            Value::Str(s),
        ) => push_text(out, ty.compared_by().unwrap_or(Collation::LATIN1_BIN2), s),
        (
            SqlType::Binary(_) | SqlType::VarBinary(_) | SqlType::RowVersion | SqlType::HierarchyId,
            Value::Bytes(b),
        ) => {
            let end = b.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            push_escaped(out, b[..end].iter().copied());
        }
        (SqlType::UniqueIdentifier, Value::Guid(g)) => {
            // the text form is stored; its groups compare from the last to the first, and the first
            // three are little-endian on the wire
            out.extend_from_slice(&g[10..16]);
            out.extend_from_slice(&g[8..10]);
            out.extend(g[..8].iter().rev());
        }
        (SqlType::SqlVariant, Value::Variant(inner)) => {
            let (base, inner) = &**inner;
            out.push(variant_family(base));
            return encode_variant(out, base, inner);
        }
        _ => return false,
    }
    true
}

fn push_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&((value as u32) ^ (1 << 31)).to_be_bytes());
}

fn push_text(out: &mut Vec<u8>, collation: Collation, text: &str) {
    let start = out.len();
    collation.write_sort_key(text, out);
    if out[start..].contains(&0) {
        let plain = out.split_off(start);
        push_escaped(out, plain.into_iter());
    } else {
        out.extend_from_slice(&[0, 0]);
    }
}

/// A zero byte becomes `00 FF`, the end `00 00`: shorter sorts first, and nothing runs into the
/// next part.
fn push_escaped(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    for byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

/// Aligned to the column's scale; digits beyond it mean that no key equals the value.
fn encode_decimal(out: &mut Vec<u8>, mantissa: i128, scale: u8, column_scale: u8) -> bool {
    let aligned = if scale <= column_scale {
        mantissa.checked_mul(10_i128.pow(u32::from(column_scale - scale)))
    } else {
        let divisor = 10_i128.pow(u32::from(scale - column_scale));
        (mantissa % divisor == 0).then_some(mantissa / divisor)
    };
    let Some(aligned) = aligned else { return false };
    out.extend_from_slice(&((aligned as u128) ^ (1 << 127)).to_be_bytes());
    true
}

/// sql_variant orders by the family of the base type first (Microsoft: "sql_variant", data type
/// family hierarchy).
fn variant_family(base: &SqlType) -> u8 {
    match base {
        SqlType::SqlVariant => 9,
        SqlType::DateTime
        | SqlType::SmallDateTime
        | SqlType::DateTime2(_)
        | SqlType::DateTimeOffset(_)
        | SqlType::Date
        | SqlType::Time(_) => 8,
        SqlType::Float | SqlType::Real => 7,
        SqlType::Decimal { .. }
        | SqlType::Money
        | SqlType::SmallMoney
        | SqlType::Bit
        | SqlType::TinyInt
        | SqlType::SmallInt
        | SqlType::Int
        | SqlType::BigInt => 6,
        SqlType::Char(..)
        | SqlType::VarChar(..)
        | SqlType::NChar(..)
        | SqlType::NVarChar(..)
        | SqlType::Text(_)
        | SqlType::NText(_) => 5,
        SqlType::Binary(_) | SqlType::VarBinary(_) | SqlType::Image | SqlType::RowVersion => 4,
        SqlType::UniqueIdentifier => 3,
        SqlType::Xml | SqlType::HierarchyId | SqlType::Geometry | SqlType::Geography => 2,
    }
}

/// Exact numbers of every type compare with each other, dates too: each family has one encoding.
fn encode_variant(out: &mut Vec<u8>, base: &SqlType, value: &Value) -> bool {
    match value {
        Value::Bit(b) => encode_decimal(out, i128::from(*b), 0, 10),
        Value::Int(i) => encode_decimal(out, i128::from(*i), 0, 10),
        Value::Decimal(d) => encode_decimal(out, d.mantissa, d.scale, 10),
        Value::Null
        | Value::Float(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::DateTime { .. }
        | Value::SmallDateTime { .. }
        | Value::DateTime2 { .. }
        | Value::DateTimeOffset { .. }
        | Value::Str(_)
        | Value::Bytes(_)
        | Value::Guid(_)
        | Value::Variant(_) => encode_present(out, base, value),
    }
}

/// The least byte string greater than every one that starts with `prefix`; None when there is none.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let end = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut out = prefix[..=end].to_vec();
    out[end] += 1;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Decimal;
    use std::sync::Arc;

    fn key(ty: &SqlType, value: &Value, descending: bool) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(encode(&mut out, ty, value, descending), "{ty:?} {value:?}");
        out
    }

    fn ordered(ty: SqlType, values: &[Value]) {
        for pair in values.windows(2) {
            assert!(key(&ty, &pair[0], false) < key(&ty, &pair[1], false), "{pair:?}");
            assert!(key(&ty, &pair[0], true) > key(&ty, &pair[1], true), "{pair:?} descending");
        }
    }

    fn text(s: &str) -> Value {
        Value::Str(Arc::from(s))
    }

    #[test]
    fn bytes_order_as_values_do() {
        ordered(
            SqlType::Int,
            &[Value::Null, Value::Int(-5), Value::Int(-1), Value::Int(0), Value::Int(7)],
        );
        let float = |f: f64| Value::Float(f);
        ordered(
            SqlType::Float,
            &[float(-1e300), float(-1.0), float(0.0), float(1e-300), float(2.0)],
        );
        let dec = |mantissa, scale| Value::Decimal(Decimal { mantissa, scale });
        ordered(
            SqlType::Decimal { precision: 10, scale: 3 },
            &[dec(-1, 0), dec(0, 3), dec(15, 1), dec(1501, 3), dec(2, 0)],
        );
        ordered(
            SqlType::VarBinary(crate::value::Length::Max),
            &[
                Value::Bytes(Arc::from(&[][..])),
                Value::Bytes(Arc::from(&[0, 1][..])),
                Value::Bytes(Arc::from(&[1][..])),
                Value::Bytes(Arc::from(&[1, 0, 1][..])),
                Value::Bytes(Arc::from(&[1, 1][..])),
            ],
        );
    }

    #[test]
    fn text_follows_its_collation() {
        let ty = SqlType::NVarChar(crate::value::Length::N(20), Collation::DEFAULT);
        assert_eq!(key(&ty, &text("Abc  "), false), key(&ty, &text("aBC"), false));
        ordered(ty, &[text(""), text("a"), text("AB"), text("b")]);
        let ty = SqlType::NVarChar(crate::value::Length::N(20), Collation::LATIN1_BIN2);
        assert_ne!(key(&ty, &text("A"), false), key(&ty, &text("a"), false));
        ordered(ty, &[text("A"), text("AB"), text("a")]);
    }

    #[test]
    fn guids_compare_by_their_last_group_first() {
        let guid = |s: &str| {
            Value::Guid(uuid::Uuid::parse_str(s).map(uuid::Uuid::into_bytes).unwrap_or_default())
        };
        ordered(
            SqlType::UniqueIdentifier,
            &[
                guid("ffffffff-ffff-ffff-ffff-000000000001"),
                guid("00000000-0000-0000-0100-000000000002"),
                guid("00000000-0000-0100-0200-000000000002"),
                guid("00000000-0000-0001-0200-000000000002"),
            ],
        );
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let ty = SqlType::VarBinary(crate::value::Length::Max);
        let two = |a: &[u8], b: &[u8]| {
            let mut out = key(&ty, &Value::Bytes(Arc::from(a)), false);
            out.extend(key(&ty, &Value::Bytes(Arc::from(b)), false));
            out
        };
        assert!(two(&[1], &[9]) < two(&[1, 0, 1], &[]));
        assert_eq!(after_prefix(&[1, 0xFF]), Some(vec![2]));
        assert_eq!(after_prefix(&[0xFF]), None);
    }
}
