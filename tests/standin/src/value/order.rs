//! How two cells of one type compare, and bytes that compare the same way (row keys, sorting,
//! grouping, hashing).

use std::cmp::Ordering;

use super::{Collation, Decimal, SqlType, Value, datetime::Moment};

/// Bytes of a GUID (in text order) from the most to the least significant in SQL Server's order:
/// the last group counts first.
const GUID_ORDER: [usize; 16] = [10, 11, 12, 13, 14, 15, 8, 9, 7, 6, 5, 4, 3, 2, 1, 0];

/// Compares two cells that are both of type `ty`. NULL comes first, as in ORDER BY.
pub fn compare(a: &Value, b: &Value, ty: SqlType) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Bit(a), Value::Bit(b)) => a.cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => a.compare(*b),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or_else(|| a.total_cmp(b)),
        (Value::Str(a), Value::Str(b)) => {
            let collation = ty.compared_by().unwrap_or(Collation::LATIN1_BIN2);
            if collation.equal(a, b) { Ordering::Equal } else { collation.compare(a, b) }
        }
        (Value::Bytes(a), Value::Bytes(b)) => trim_zeros(a).cmp(trim_zeros(b)),
        _ => {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            write_key(a, ty, &mut x);
            write_key(b, ty, &mut y);
            x.cmp(&y)
        }
    }
}

/// Appends bytes for a cell of type `ty`: they compare as [`compare`] does, are equal exactly when
/// it says equal, and no key is a prefix of another, so the keys of several columns may follow one
/// another. For a descending column invert the bytes appended.
pub fn write_key(value: &Value, ty: SqlType, out: &mut Vec<u8>) {
    if matches!(value, Value::Null) {
        out.push(0);
        return;
    }
    out.push(1);
    match value {
        Value::Null => {}
        Value::Bit(b) => write_int(i64::from(*b), out),
        Value::Int(i) => write_int(*i, out),
        Value::Decimal(d) => {
            let scale = ty.as_decimal().map_or(d.scale, |(_, s)| s);
            let mantissa = d.rescale(scale).map_or(d.mantissa, |d| d.mantissa);
            out.extend_from_slice(&(mantissa ^ i128::MIN).to_be_bytes());
        }
        Value::Float(f) => write_float(*f, out),
        Value::Date(days) => write_i32(*days, out),
        Value::Time(ticks) => out.extend_from_slice(&ticks.to_be_bytes()),
        Value::DateTime { days, ticks300 } => {
            write_i32(*days, out);
            out.extend_from_slice(&ticks300.to_be_bytes());
        }
        Value::SmallDateTime { days, minutes } => {
            out.extend_from_slice(&days.to_be_bytes());
            out.extend_from_slice(&minutes.to_be_bytes());
        }
        Value::DateTime2 { days, ticks } | Value::DateTimeOffset { days, ticks, .. } => {
            write_i32(*days, out);
            out.extend_from_slice(&ticks.to_be_bytes());
        }
        Value::Str(s) => {
            let mut key = Vec::with_capacity(s.len() + 4);
            ty.compared_by().unwrap_or(Collation::LATIN1_BIN2).write_sort_key(s, &mut key);
            write_escaped(&key, out);
        }
        Value::Bytes(b) => write_escaped(trim_zeros(b), out),
        Value::Guid(g) => out.extend(GUID_ORDER.iter().map(|&i| g[i])),
        Value::Variant(v) => write_variant(v.0, &v.1, out),
    }
}

/// Trailing zero bytes do not count when binaries are compared: the shorter is padded with them.
fn trim_zeros(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    &bytes[..end]
}

fn write_int(i: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&(i ^ i64::MIN).to_be_bytes());
}

fn write_i32(i: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(&(i ^ i32::MIN).to_be_bytes());
}

fn write_float(f: f64, out: &mut Vec<u8>) {
    let f = if f == 0.0 { 0.0 } else { f };
    let bits = f.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.extend_from_slice(&ordered.to_be_bytes());
}

/// 0 is doubled as 0 255 and 0 0 ends: shorter sorts before longer.
fn write_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for b in bytes {
        out.push(*b);
        if *b == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

/// Values of two families compare by family alone (sql_variant, "Comparing sql_variant values");
/// within one by value.
fn write_variant(ty: SqlType, value: &Value, out: &mut Vec<u8>) {
    let decimal = |d: Decimal, out: &mut Vec<u8>| {
        let whole = d.trunc();
        let fraction = Decimal::new(
            d.mantissa - Decimal::new(whole, 0).rescale(d.scale).map_or(0, |w| w.mantissa),
            d.scale,
        );
        out.extend_from_slice(&(whole ^ i128::MIN).to_be_bytes());
        out.extend_from_slice(
            &(fraction.rescale(37).map_or(0, |f| f.mantissa) ^ i128::MIN).to_be_bytes(),
        );
    };
    match value {
        Value::Guid(_) => {
            out.push(1);
            write_key(value, ty, out);
        }
        Value::Bytes(_) => {
            out.push(2);
            write_key(value, ty, out);
        }
        Value::Str(_) => {
            // two collations compare by LCID, version, flags and sort id before any character
            let wire = ty.collation().unwrap_or(Collation::DEFAULT).wire();
            out.push(3);
            out.extend_from_slice(&wire);
            write_key(value, ty, out);
        }
        Value::Bit(b) => {
            out.push(4);
            decimal(Decimal::new(i128::from(*b), 0), out);
        }
        Value::Int(i) => {
            out.push(4);
            decimal(Decimal::new(i128::from(*i), 0), out);
        }
        Value::Decimal(d) => {
            out.push(4);
            decimal(*d, out);
        }
        Value::Float(f) => {
            out.push(5);
            write_float(*f, out);
        }
        other => {
            out.push(6);
            let utc = Moment::of(other).unwrap_or(Moment::new(0, 0)).to_utc();
            write_i32(utc.days, out);
            out.extend_from_slice(&utc.ticks.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(v: &Value, ty: SqlType) -> Vec<u8> {
        let mut out = Vec::new();
        write_key(v, ty, &mut out);
        out
    }

    fn ascending(values: &[Value], ty: SqlType) {
        for pair in values.windows(2) {
            assert!(key(&pair[0], ty) < key(&pair[1], ty), "{pair:?}");
            assert_eq!(compare(&pair[0], &pair[1], ty), Ordering::Less, "{pair:?}");
        }
    }

    #[test]
    fn keys_follow_order() {
        ascending(&[Value::Null, Value::Int(-5), Value::Int(0), Value::Int(7)], SqlType::Int);
        ascending(
            &[Value::Float(f64::MIN), Value::Float(-0.5), Value::Float(0.0), Value::Float(1e-300)],
            SqlType::Float,
        );
        assert_eq!(
            key(&Value::Float(-0.0), SqlType::Float),
            key(&Value::Float(0.0), SqlType::Float)
        );
        let d = |m, scale| Value::Decimal(Decimal::new(m, scale));
        let ty = SqlType::Decimal { precision: 10, scale: 2 };
        ascending(&[d(-150, 2), d(-1, 0), d(0, 2), d(1, 2), d(1, 0)], ty);
        let s = |t: &str| Value::Str(t.into());
        ascending(&[s(""), s("a"), s("a b"), s("aa"), s("B")], SqlType::varchar(5));
        assert_eq!(key(&s("ABC  "), SqlType::varchar(9)), key(&s("abc"), SqlType::varchar(9)));
        let b = |t: &[u8]| Value::Bytes(t.into());
        ascending(&[b(&[]), b(&[0, 1]), b(&[1]), b(&[1, 0, 1]), b(&[2])], SqlType::Binary(3));
        assert_eq!(key(&b(&[1, 0]), SqlType::Binary(2)), key(&b(&[1]), SqlType::Binary(2)));
    }

    #[test]
    fn guid_order() {
        // the known order of NEWSEQUENTIALID-style values: the last group decides
        let g = |i: usize| {
            let mut g = [0u8; 16];
            g[i] = 1;
            Value::Guid(g)
        };
        ascending(
            &[g(0), g(3), g(4), g(5), g(6), g(7), g(9), g(8), g(15), g(10)].map(|v| v),
            SqlType::UniqueIdentifier,
        );
    }

    #[test]
    fn variant_families() {
        let v = |ty, value| Value::Variant(Box::new((ty, value)));
        ascending(
            &[
                v(SqlType::UniqueIdentifier, Value::Guid([0xFF; 16])),
                v(SqlType::varchar(5), Value::Str("z".into())),
                v(SqlType::Int, Value::Int(5)),
                v(SqlType::Decimal { precision: 5, scale: 1 }, Value::Decimal(Decimal::new(51, 1))),
                v(SqlType::BigInt, Value::Int(6)),
                v(SqlType::Float, Value::Float(-1.0)),
                v(SqlType::Date, Value::Date(0)),
            ],
            SqlType::SqlVariant,
        );
        let same = compare(
            &v(SqlType::Int, Value::Int(5)),
            &v(SqlType::Decimal { precision: 5, scale: 1 }, Value::Decimal(Decimal::new(50, 1))),
            SqlType::SqlVariant,
        );
        assert!(same.is_eq(), "{same:?}");
    }
}
