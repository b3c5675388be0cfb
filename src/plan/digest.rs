//! The hash of a row: canonical bytes, then MD5. Two rows have the same hash exactly when their values
//! are equal.
//!
//! # The encoding
//!
//! Anyone can recompute it. A row is its carried columns in ascending order of the destination
//! column's name (by code point), each as one *kind* byte and its payload; integers in payloads are
//! big-endian.
//!
//! | kind | what | payload |
//! |---|---|---|
//! | `00` | NULL | nothing |
//! | `01` | a number: bit, integers, decimal, numeric, money | length (4 bytes), then ASCII digits: `-` if negative, no leading or trailing zeros, `.` only before decimals, `0` for zero |
//! | `02` | real and float, and numbers where either side is one | the 8 bytes of the IEEE 754 double; -0 is not 0 |
//! | `03` | text, xml | length (4 bytes), then UTF-8; where either side is `char` or `nchar`, without trailing spaces |
//! | `04` | binary, and types carried as binary | length (4 bytes), then the bytes |
//! | `05` | uniqueidentifier | 16 bytes in the order of its text form |
//! | `06` | date, datetime2, datetime, smalldatetime | days since 0001-01-01 (4 bytes), 100 ns ticks since midnight (8 bytes) |
//! | `07` | time | 100 ns ticks since midnight (8 bytes) |
//! | `08` | datetimeoffset | the UTC instant as in `06`, then the offset in minutes (2 bytes) |
//! | `09` | text, xml, binary that is large (`tsql::large` defines the size) | the MD5 that its server computed of its bytes, text as UTF-16LE (16 bytes) |
//!
//! So `int` 1, `bigint` 1 and `decimal(9,2)` 1.00 are `01 00000001 31`, an empty string is `03
//! 00000000` and not `00`.
//!
//! A `datetime` counts 1/300 s, and which `datetime2` it becomes depends on the compatibility level
//! and the scale (`.003`, `.0033333`:
//! <https://learn.microsoft.com/sql/t-sql/data-types/datetime2-transact-sql#convert-other-date-and-time-types-to-datetime2>).
//! Where either side is a `datetime`, every value that a conversion from `datetime` can produce
//! counts as the whole milliseconds that `datetime` shows; any other value stays as it is.
//!
//! A row's hash is the MD5 of its encoding; a set's hash is the MD5 of the row hashes in the order
//! of the rows' encoded keys (the key's columns in key order, encoded in the same way).

use std::fmt;

use md5::{Digest, Md5};

use crate::model::{
    column_map::{CarriedColumn, ColumnMap},
    table::ColumnType,
    value::{Value, ValueRef},
};

/// An MD5.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 16]);

/// 32 hexadecimal digits, as the log table has them.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Most encoded keys are not longer.
const KEY_BYTES: usize = 24;

/// What the two sides of a column have in common, beyond their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnForm {
    Plain,
    /// A number on one side is a float on the other.
    Float,
    /// Trailing spaces are padding.
    Padded,
    /// One side has the grain of `datetime`.
    DateTime,
}

fn form(column: &CarriedColumn) -> ColumnForm {
    let either = |is: fn(&ColumnType) -> bool| is(&column.source.ty) || is(&column.dest.ty);
    if either(|ty| matches!(ty, ColumnType::Real | ColumnType::Float)) {
        ColumnForm::Float
    } else if either(|ty| matches!(ty, ColumnType::Char(_) | ColumnType::NChar(_))) {
        ColumnForm::Padded
    } else if either(|ty| matches!(ty, ColumnType::DateTime | ColumnType::SmallDateTime)) {
        ColumnForm::DateTime
    } else {
        ColumnForm::Plain
    }
}

/// How the rows of one mapping are encoded.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// places in the row, by column name, and of columns that can be large the places of their
    /// hashes
    row: Vec<(usize, ColumnForm, Option<usize>)>,
    key: Vec<(usize, ColumnForm)>,
    /// places in a row that has the key's columns alone, in key order
    key_alone: Vec<(usize, ColumnForm)>,
}

impl Encoding {
    pub fn new(map: &ColumnMap) -> Self {
        let large = map.large_columns();
        let hash = |i| large.iter().position(|&column| column == i).map(|n| map.columns.len() + n);
        let mut row: Vec<_> =
            map.columns.iter().enumerate().map(|(i, column)| (i, form(column), hash(i))).collect();
        row.sort_by(|(a, ..), (b, ..)| map.columns[*a].name().cmp(map.columns[*b].name()));
        let key: Vec<_> = map
            .key
            .iter()
            .filter_map(|&i| map.columns.get(i).map(|column| (i, form(column))))
            .collect();
        let key_alone = key.iter().enumerate().map(|(place, &(_, form))| (place, form)).collect();
        Encoding { row, key, key_alone }
    }

    /// The hash of a row whose cells, in the order of the [`ColumnMap`] and with the hashes of large
    /// values behind them, `row` tells. `scratch` is overwritten: one buffer serves all rows.
    pub fn hash<'a, E>(
        &self,
        row: impl Fn(usize) -> Result<ValueRef<'a>, E>,
        scratch: &mut Vec<u8>,
    ) -> Result<Hash, E> {
        scratch.clear();
        for &(i, form, hash) in &self.row {
            match hash.map(&row).transpose()? {
                Some(Value::Bytes(hash)) => {
                    scratch.push(9);
                    scratch.extend_from_slice(hash);
                }
                _ => cell(&row(i)?, form, scratch),
            }
        }
        Ok(Hash(Md5::digest(scratch).into()))
    }

    /// The encoded key of such a row.
    pub fn key<'a, E>(&self, row: impl Fn(usize) -> Result<ValueRef<'a>, E>) -> Result<Vec<u8>, E> {
        let mut bytes = Vec::with_capacity(KEY_BYTES);
        encode(&self.key, row, &mut bytes)?;
        Ok(bytes)
    }

    /// The encoded key, from the values of the key's columns in key order.
    pub fn key_of(&self, key: &[Value]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(KEY_BYTES);
        for &(i, form) in &self.key_alone {
            cell(&key.get(i).map_or(Value::Null, Value::seen), form, &mut bytes);
        }
        bytes
    }
}

/// The hash over row hashes, in the order they come.
pub fn hash_of_hashes<'a>(hashes: impl IntoIterator<Item = &'a Hash>) -> Hash {
    let mut all = Md5::new();
    for hash in hashes {
        all.update(hash.0);
    }
    Hash(all.finalize().into())
}

fn encode<'a, E>(
    columns: &[(usize, ColumnForm)],
    row: impl Fn(usize) -> Result<ValueRef<'a>, E>,
    bytes: &mut Vec<u8>,
) -> Result<(), E> {
    columns.iter().try_for_each(|&(i, form)| row(i).map(|value| cell(&value, form, bytes)))
}

fn cell(value: &ValueRef<'_>, form: ColumnForm, bytes: &mut Vec<u8>) {
    match value {
        Value::Null => bytes.push(0),
        Value::Bit(v) => number(i128::from(*v), 0, form, bytes),
        Value::Int(v) => number(i128::from(*v), 0, form, bytes),
        Value::Decimal { mantissa, scale } => number(*mantissa, *scale, form, bytes),
        Value::Real(v) => float(f64::from(*v), bytes),
        Value::Float(v) => float(*v, bytes),
        Value::Text(text) => {
            let text = if form == ColumnForm::Padded { text.trim_end_matches(' ') } else { text };
            sized(3, text.as_bytes(), bytes);
        }
        Value::Bytes(v) => sized(4, v, bytes),
        Value::Guid(v) => {
            bytes.push(5);
            bytes.extend_from_slice(v);
        }
        Value::Date(days) => instant(6, *days, 0, bytes),
        Value::DateTime2 { days, ticks } => instant(
            6,
            *days,
            if form == ColumnForm::DateTime { as_datetime(*ticks) } else { *ticks },
            bytes,
        ),
        Value::DateTime { days_since_1900, ticks300 } => {
            instant(6, days_since_1900 + DAYS_TO_1900, milliseconds(*ticks300), bytes)
        }
        Value::Time(ticks) => {
            bytes.push(7);
            bytes.extend_from_slice(&ticks.to_be_bytes());
        }
        Value::DateTimeOffset { days, ticks, offset_minutes } => {
            instant(8, *days, *ticks, bytes);
            bytes.extend_from_slice(&offset_minutes.to_be_bytes());
        }
    }
}

/// Days from 0001-01-01 to 1900-01-01.
const DAYS_TO_1900: i32 = 693_595;
const TICKS_PER_MS: u64 = 10_000;

/// The whole milliseconds that `datetime` shows for so many 1/300 s, in ticks: 0, 3, 7, 10, …
fn milliseconds(ticks300: u32) -> u64 {
    (u64::from(ticks300) * 10 + 1) / 3 * TICKS_PER_MS
}

/// A `datetime2`'s ticks: whole milliseconds if it is the image of a `datetime` at any scale from 3
/// to 7, else as they are.
fn as_datetime(ticks: u64) -> u64 {
    // the nearest 1/300 s; a day has 25,920,000 of them
    let nearest = (ticks * 3 + 50_000) / 100_000;
    let Ok(ticks300) = u32::try_from(nearest) else { return ticks };
    let exact = (nearest * 200_000 + 3) / 6;
    let image = [1u64, 10, 100, 1_000, 10_000]
        .iter()
        .any(|grain| (exact + grain / 2) / grain * grain == ticks);
    if image { milliseconds(ticks300) } else { ticks }
}

fn instant(kind: u8, days: i32, ticks: u64, bytes: &mut Vec<u8>) {
    bytes.push(kind);
    bytes.extend_from_slice(&days.to_be_bytes());
    bytes.extend_from_slice(&ticks.to_be_bytes());
}

fn float(value: f64, bytes: &mut Vec<u8>) {
    bytes.push(2);
    bytes.extend_from_slice(&value.to_bits().to_be_bytes());
}

fn sized(kind: u8, payload: &[u8], bytes: &mut Vec<u8>) {
    bytes.push(kind);
    // SQL Server's longest value is 2^31 - 1 bytes
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(payload);
}

fn number(mantissa: i128, scale: u8, form: ColumnForm, bytes: &mut Vec<u8>) {
    if form == ColumnForm::Float {
        // only integers of at most ten digits go to floats
        return float(mantissa as f64, bytes);
    }
    bytes.push(1);
    let length_at = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    decimal(mantissa, scale, bytes);
    // at most 38 digits, a sign, a point and zeros
    let length = u32::try_from(bytes.len() - length_at - 4).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = bytes.get_mut(length_at..length_at + 4) {
        place.copy_from_slice(&length);
    }
}

/// `mantissa / 10^scale` without needless zeros.
pub(super) fn decimal_text(mantissa: i128, scale: u8) -> String {
    let mut text = Vec::new();
    decimal(mantissa, scale, &mut text);
    text.into_iter().map(char::from).collect()
}

/// Appends `mantissa / 10^scale` in ASCII.
fn decimal(mantissa: i128, scale: u8, text: &mut Vec<u8>) {
    if mantissa < 0 {
        text.push(b'-');
    }
    let magnitude = mantissa.unsigned_abs();
    match u64::try_from(magnitude) {
        // nearly every number, and many times faster to divide
        Ok(magnitude) => digits(magnitude, scale, text),
        Err(_) => digits(magnitude, scale, text),
    }
}

fn digits<N>(mut rest: N, mut scale: u8, text: &mut Vec<u8>)
where
    N: Copy
        + PartialEq
        + From<u8>
        + std::ops::Div<Output = N>
        + std::ops::Rem<Output = N>
        + TryInto<u8>,
{
    let (zero, ten) = (N::from(0), N::from(10));
    while scale > 0 && rest % ten == zero {
        rest = rest / ten;
        scale -= 1;
    }
    let begin = text.len();
    let mut place = 0u8;
    loop {
        if place == scale && scale > 0 {
            text.push(b'.');
        }
        text.push(b'0' + (rest % ten).try_into().unwrap_or(0));
        rest = rest / ten;
        place = place.saturating_add(1);
        if rest == zero && place > scale {
            break;
        }
    }
    if let Some(number) = text.get_mut(begin..) {
        number.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(value: &Value, form: ColumnForm) -> String {
        let mut bytes = Vec::new();
        cell(&value.seen(), form, &mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn cells_have_the_documented_bytes() {
        let plain = |value| hex(&value, ColumnForm::Plain);
        assert_eq!(plain(Value::Null), "00");
        assert_eq!(plain(Value::Bit(true)), "010000000131");
        assert_eq!(plain(Value::Int(-10)), "01000000032d3130");
        assert_eq!(plain(Value::Decimal { mantissa: -1_050, scale: 3 }), "01000000052d312e3035");
        assert_eq!(plain(Value::Float(-0.0)), "028000000000000000");
        assert_eq!(plain(Value::Real(1.5)), "023ff8000000000000");
        assert_eq!(plain(Value::Text(String::new())), "0300000000");
        assert_eq!(plain(Value::Text("é ".into())), "0300000003c3a920");
        assert_eq!(plain(Value::Bytes(vec![0, 255])), "040000000200ff");
        assert_eq!(plain(Value::Guid([0xab; 16])), format!("05{}", "ab".repeat(16)));
        assert_eq!(plain(Value::Date(1)), "06000000010000000000000000");
        assert_eq!(plain(Value::DateTime2 { days: 0, ticks: 1 }), "06000000000000000000000001");
        assert_eq!(plain(Value::Time(256)), "070000000000000100");
        assert_eq!(
            plain(Value::DateTimeOffset { days: 0, ticks: 1, offset_minutes: -60 }),
            "06000000000000000000000001ffc4".replacen("06", "08", 1)
        );
    }

    #[test]
    fn what_says_the_same_is_the_same() {
        let plain = |value| hex(&value, ColumnForm::Plain);
        assert_eq!(plain(Value::Int(1)), plain(Value::Decimal { mantissa: 100, scale: 2 }));
        assert_eq!(plain(Value::Int(0)), plain(Value::Decimal { mantissa: 0, scale: 38 }));
        assert_ne!(plain(Value::Null), plain(Value::Text(String::new())));
        assert_ne!(plain(Value::Float(0.0)), plain(Value::Float(-0.0)));
        assert_eq!(
            hex(&Value::Int(7), ColumnForm::Float),
            hex(&Value::Real(7.0), ColumnForm::Float)
        );
        assert_eq!(
            hex(&Value::Text("a  ".into()), ColumnForm::Padded),
            hex(&Value::Text("a".into()), ColumnForm::Padded)
        );
        assert_ne!(plain(Value::Text("a ".into())), plain(Value::Text("a".into())));
        assert_eq!(
            plain(Value::Date(693_595)),
            plain(Value::DateTime { days_since_1900: 0, ticks300: 0 })
        );
    }

    /// Every 1/300 s of a day, as datetime2 at each scale that may hold it, in both roundings SQL
    /// Server has had.
    #[test]
    fn every_datetime_is_one_instant_as_datetime2() {
        for ticks300 in (0..25_920_000u32).step_by(7).chain(0..3_000).chain(25_919_000..25_920_000)
        {
            let own = milliseconds(ticks300);
            let exact = (u64::from(ticks300) * 200_000 + 3) / 6;
            assert_eq!(own / TICKS_PER_MS % 10, [0, 3, 7][ticks300 as usize % 3]);
            for grain in [1, 10, 100, 1_000, 10_000] {
                assert_eq!(
                    as_datetime((exact + grain / 2) / grain * grain),
                    own,
                    "{ticks300} at {grain}"
                );
            }
            assert_eq!(as_datetime(own), own);
        }
        assert_eq!(as_datetime(33_334), 33_334, "not an image of any datetime");
        assert_ne!(as_datetime(31_000), milliseconds(1));
    }

    #[test]
    fn decimals_are_written_one_way() {
        for (mantissa, scale, text) in [
            (0, 0, "0"),
            (0, 9, "0"),
            (5, 1, "0.5"),
            (-5, 3, "-0.005"),
            (1200, 2, "12"),
            (1250, 2, "12.5"),
            (-10, 0, "-10"),
            (i128::from(u64::MAX), 0, "18446744073709551615"),
            (i128::from(u64::MAX) + 1, 1, "1844674407370955161.6"),
            (-(10i128.pow(38) - 1), 0, &format!("-{}", "9".repeat(38))),
            (10i128.pow(38) - 1, 38, &format!("0.{}", "9".repeat(38))),
        ] {
            assert_eq!(decimal_text(mantissa, scale), text);
        }
    }

    /// Tells a row's cells.
    fn cells<'a>(
        row: &'a [Value],
    ) -> impl Fn(usize) -> Result<ValueRef<'a>, std::convert::Infallible> {
        |i| Ok(row[i].seen())
    }

    /// Two large values differ by their hashes, and a large one is never an empty one.
    #[test]
    fn large_values_are_told_by_their_hashes() {
        let encoding = Encoding::new(&crate::tsql::testing::map());
        let hash = |large: Value| {
            let mut row = vec![Value::Null; 7];
            row[5] = Value::Text(String::new());
            row.push(large);
            let Ok(hash) = encoding.hash(cells(&row), &mut Vec::new());
            hash
        };
        let hashes = [Value::Null, Value::Bytes(vec![1; 16]), Value::Bytes(vec![2; 16])].map(hash);
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
    }

    /// The bytes of the table above, put together by hand and hashed with `md5sum`: at, code, doc,
    /// id, note, price.
    #[test]
    fn a_golden_row() {
        let row = [
            Value::Int(17),
            Value::Text("é ".into()),
            Value::Decimal { mantissa: 125_000, scale: 4 },
            Value::Null,
            Value::DateTimeOffset { days: 738_944, ticks: 1_234_567, offset_minutes: 120 },
            Value::Text("<a/>".into()),
            // the hashes of large values: none here
            Value::Null,
            Value::Null,
        ];
        let encoding = Encoding::new(&crate::tsql::testing::map());
        let mut bytes = vec![0xff; 3];
        let Ok(hash) = encoding.hash(cells(&row), &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "08000b4680000000000012d68700780300000003c3a92003000000043c612f3e0100000002313700010000000431322e35"
        );
        assert_eq!(hash.to_string(), "444c16c366b31c99038be6907009f656");
        assert_eq!(Ok(encoding.key_of(&row[..2])), encoding.key(cells(&row)));
    }

    /// `printf '\x03\x00\x00\x00\x01a\x01\x00\x00\x00\x011' | md5sum`, and so on: recomputed
    /// outside of this program.
    #[test]
    fn golden_hashes() {
        let key = vec![(0, ColumnForm::Plain)];
        let encoding = Encoding {
            row: vec![(1, ColumnForm::Plain, None), (0, ColumnForm::Plain, None)],
            key: key.clone(),
            key_alone: key,
        };
        let mut scratch = Vec::new();
        let Ok(one) = encoding.hash(cells(&[Value::Int(1), Value::Text("a".into())]), &mut scratch);
        let Ok(two) = encoding.hash(cells(&[Value::Int(2), Value::Null]), &mut scratch);
        assert_eq!(one.to_string(), "f41e859ef9d39ba99ffe0fb981efcb3a");
        assert_eq!(two.to_string(), "a3a7ba6233d81859d15cfef02b5d72b1");
        assert_eq!(hash_of_hashes([&one, &two]).to_string(), "36ed7c8cbd655c0f4c61e2e3ad24f6a2");
        assert_eq!(
            Ok(encoding.key_of(&[Value::Int(2)])),
            encoding.key(cells(&[Value::Int(2), Value::Null]))
        );
    }
}
