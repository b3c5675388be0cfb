//! Keys as bytes and back: what a verification remembers between two runs.
//!
//! A list of keys is one after the other: a byte with the number of columns, then per column a kind
//! byte (as the match below has them) and the value, numbers in big-endian order, text and bytes
//! with their length in four bytes before them. A list of bytes that does not read back to its end
//! is no list.

use crate::model::value::Value;

/// The bytes of a list of keys.
pub fn encode_keys<'a>(keys: impl Iterator<Item = &'a Vec<Value>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for key in keys {
        // SQL Server's keys have at most 32 columns
        bytes.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
        for value in key {
            encode(value, &mut bytes);
        }
    }
    bytes
}

/// The keys in such bytes.
pub fn decode_keys(bytes: &[u8]) -> Option<Vec<Vec<Value>>> {
    let mut reader = Reader(bytes);
    let mut keys = Vec::new();
    while !reader.0.is_empty() {
        let [columns] = reader.array()?;
        keys.push((0..columns).map(|_| reader.value()).collect::<Option<Vec<_>>>()?);
    }
    Some(keys)
}

fn encode(value: &Value, bytes: &mut Vec<u8>) {
    let mut put = |kind: u8, payload: &[u8]| {
        bytes.push(kind);
        bytes.extend_from_slice(payload);
    };
    match value {
        Value::Null => put(0, &[]),
        Value::Bit(v) => put(1, &[u8::from(*v)]),
        Value::Int(v) => put(2, &v.to_be_bytes()),
        Value::Decimal { mantissa, scale } => {
            put(3, &mantissa.to_be_bytes());
            bytes.push(*scale);
        }
        Value::Real(v) => put(4, &v.to_be_bytes()),
        Value::Float(v) => put(5, &v.to_be_bytes()),
        Value::Date(v) => put(6, &v.to_be_bytes()),
        Value::Time(v) => put(7, &v.to_be_bytes()),
        Value::DateTime { days_since_1900, ticks300 } => {
            put(8, &days_since_1900.to_be_bytes());
            bytes.extend_from_slice(&ticks300.to_be_bytes());
        }
        Value::DateTime2 { days, ticks } => {
            put(9, &days.to_be_bytes());
            bytes.extend_from_slice(&ticks.to_be_bytes());
        }
        Value::DateTimeOffset { days, ticks, offset_minutes } => {
            put(10, &days.to_be_bytes());
            bytes.extend_from_slice(&ticks.to_be_bytes());
            bytes.extend_from_slice(&offset_minutes.to_be_bytes());
        }
        Value::Text(v) => {
            put(11, &length(v.len()));
            bytes.extend_from_slice(v.as_bytes());
        }
        Value::Bytes(v) => {
            put(12, &length(v.len()));
            bytes.extend_from_slice(v);
        }
        Value::Guid(v) => put(13, v),
    }
}

fn length(bytes: usize) -> [u8; 4] {
    // a key has at most 1,700 bytes
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn sized(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head.to_vec())
    }

    fn value(&mut self) -> Option<Value> {
        let [kind] = self.array()?;
        Some(match kind {
            0 => Value::Null,
            1 => Value::Bit(self.array::<1>()? != [0]),
            2 => Value::Int(i64::from_be_bytes(self.array()?)),
            3 => {
                let mantissa = i128::from_be_bytes(self.array()?);
                let [scale] = self.array()?;
                Value::Decimal { mantissa, scale }
            }
            4 => Value::Real(f32::from_be_bytes(self.array()?)),
            5 => Value::Float(f64::from_be_bytes(self.array()?)),
            6 => Value::Date(i32::from_be_bytes(self.array()?)),
            7 => Value::Time(u64::from_be_bytes(self.array()?)),
            8 => Value::DateTime {
                days_since_1900: i32::from_be_bytes(self.array()?),
                ticks300: u32::from_be_bytes(self.array()?),
            },
            9 => Value::DateTime2 {
                days: i32::from_be_bytes(self.array()?),
                ticks: u64::from_be_bytes(self.array()?),
            },
            10 => Value::DateTimeOffset {
                days: i32::from_be_bytes(self.array()?),
                ticks: u64::from_be_bytes(self.array()?),
                offset_minutes: i16::from_be_bytes(self.array()?),
            },
            11 => Value::Text(String::from_utf8(self.sized()?).ok()?),
            12 => Value::Bytes(self.sized()?),
            13 => Value::Guid(self.array()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_as_they_were() {
        let keys = vec![
            vec![Value::Int(-7), Value::Text("é ".into())],
            vec![Value::Null],
            vec![
                Value::Decimal { mantissa: -10i128.pow(37), scale: 38 },
                Value::Bit(true),
                Value::Bytes(vec![0, 255]),
            ],
            vec![
                Value::Date(1),
                Value::Time(2),
                Value::DateTime { days_since_1900: -3, ticks300: 4 },
                Value::DateTime2 { days: 5, ticks: 6 },
            ],
            vec![
                Value::DateTimeOffset { days: 7, ticks: 8, offset_minutes: -90 },
                Value::Guid([9; 16]),
                Value::Real(0.5),
                Value::Float(-0.0),
            ],
            vec![],
        ];
        let bytes = encode_keys(keys.iter());
        assert_eq!(decode_keys(&bytes), Some(keys));
        assert_eq!(decode_keys(&[]), Some(vec![]));
    }

    #[test]
    fn what_was_cut_off_or_is_strange_is_no_list() {
        let bytes = encode_keys([vec![Value::Int(1), Value::Text("abc".into())]].iter());
        for end in 1..bytes.len() {
            assert_eq!(decode_keys(&bytes[..end]), None, "{end}");
        }
        assert_eq!(decode_keys(&[1, 99]), None);
    }
}
