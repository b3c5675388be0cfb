//! Decodes a cell's bytes to a value, exactly.
//! <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/3840ef93-3b10-4aca-9fd1-a210b8bb1d0c>

use encoding_rs::mem::{convert_utf16_to_str, utf16_valid_up_to};

use super::types::{self, Type};
use crate::{
    error::{Error, Kind, Result},
    model::value::{Value, ValueRef},
    mssql::classify,
};

/// How the cells of a column are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CellType {
    Int,
    Bit,
    Float,
    Decimal { scale: u8 },
    DateTime,
    Date,
    Time { scale: u8 },
    DateTime2 { scale: u8 },
    DateTimeOffset { scale: u8 },
    Guid,
    Bytes,
    Text,
}

impl CellType {
    /// `None`: a type whose cells are not read here. Text in a code page is one: it comes as
    /// Unicode (`plan::convert`).
    pub fn of(ty: &Type) -> Option<CellType> {
        let (number, _) = ty.nullable();
        Some(match number {
            types::INT => CellType::Int,
            types::BIT => CellType::Bit,
            types::FLOAT => CellType::Float,
            types::DECIMAL | types::NUMERIC => CellType::Decimal { scale: ty.at(3) },
            types::DATETIME => CellType::DateTime,
            types::DATE => CellType::Date,
            types::TIME => CellType::Time { scale: ty.at(1) },
            types::DATETIME2 => CellType::DateTime2 { scale: ty.at(1) },
            types::DATETIMEOFFSET => CellType::DateTimeOffset { scale: ty.at(1) },
            types::GUID => CellType::Guid,
            types::VARBINARY | types::BINARY => CellType::Bytes,
            types::NVARCHAR | types::NCHAR => CellType::Text,
            _ => return None,
        })
    }

    /// Decodes a cell that is neither NULL nor text. `bytes` do not include the length.
    pub fn decode(self, bytes: &[u8]) -> Result<ValueRef<'_>> {
        let wrong = || {
            Error::new(
                Kind::Connection,
                format!("the server sent a cell of {} bytes as {self:?}", bytes.len()),
            )
        };
        Ok(match (self, bytes) {
            (CellType::Int, [byte]) => Value::Int(i64::from(*byte)),
            (CellType::Int, [a, b]) => Value::Int(i64::from(i16::from_le_bytes([*a, *b]))),
            (CellType::Int, [a, b, c, d]) => {
                Value::Int(i64::from(i32::from_le_bytes([*a, *b, *c, *d])))
            }
            (CellType::Int, _) => {
                Value::Int(i64::from_le_bytes(bytes.try_into().map_err(|_| wrong())?))
            }
            (CellType::Bit, [bit]) => Value::Bit(*bit != 0),
            (CellType::Float, [a, b, c, d]) => Value::Real(f32::from_le_bytes([*a, *b, *c, *d])),
            (CellType::Float, _) => {
                Value::Float(f64::from_le_bytes(bytes.try_into().map_err(|_| wrong())?))
            }
            (CellType::Decimal { scale }, [sign, digits @ ..]) => {
                let mantissa =
                    i128::try_from(unsigned(digits).ok_or_else(wrong)?).map_err(|_| wrong())?;
                Value::Decimal { mantissa: if *sign == 0 { -mantissa } else { mantissa }, scale }
            }
            (CellType::DateTime, [a, b, c, d]) => Value::DateTime {
                days_since_1900: i32::from(u16::from_le_bytes([*a, *b])),
                // smalldatetime counts minutes
                ticks300: u32::from(u16::from_le_bytes([*c, *d])) * 60 * 300,
            },
            (CellType::DateTime, [a, b, c, d, e, f, g, h]) => Value::DateTime {
                days_since_1900: i32::from_le_bytes([*a, *b, *c, *d]),
                ticks300: u32::from_le_bytes([*e, *f, *g, *h]),
            },
            (CellType::Date, [a, b, c]) => Value::Date(days(*a, *b, *c)),
            (CellType::Time { scale }, _) => Value::Time(ticks(bytes, scale).ok_or_else(wrong)?),
            (CellType::DateTime2 { scale }, [time @ .., a, b, c]) => Value::DateTime2 {
                days: days(*a, *b, *c),
                ticks: ticks(time, scale).ok_or_else(wrong)?,
            },
            (CellType::DateTimeOffset { scale }, [time @ .., a, b, c, low, high]) => {
                Value::DateTimeOffset {
                    days: days(*a, *b, *c),
                    ticks: ticks(time, scale).ok_or_else(wrong)?,
                    offset_minutes: i16::from_le_bytes([*low, *high]),
                }
            }
            (CellType::Guid, _) => Value::Guid(
                uuid::Uuid::from_bytes_le(bytes.try_into().map_err(|_| wrong())?).into_bytes(),
            ),
            (CellType::Bytes, _) => Value::Bytes(bytes),
            _ => return Err(wrong()),
        })
    }
}

/// Up to 16 bytes, the lowest first.
fn unsigned(bytes: &[u8]) -> Option<u128> {
    if let Ok(bytes) = bytes.try_into() {
        // most decimals: up to 19 digits
        return Some(u128::from(u64::from_le_bytes(bytes)));
    }
    let mut all = [0; 16];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u128::from_le_bytes(all))
}

fn days(a: u8, b: u8, c: u8) -> i32 {
    i32::from_le_bytes([a, b, c, 0])
}

/// 100 ns since midnight.
fn ticks(bytes: &[u8], scale: u8) -> Option<u64> {
    const GRAIN: [u64; 8] = [10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
    let mut all = [0; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    u64::from_le_bytes(all).checked_mul(*GRAIN.get(usize::from(scale))?)
}

/// The texts of a row as UTF-8, in one buffer, so that they need no allocation each.
#[derive(Debug, Default)]
pub(super) struct TextBuffer {
    /// Text up to `end`, then unused space.
    utf8: String,
    end: usize,
    units: Vec<u16>,
}

/// UTF-16 units that are decoded at a time.
const UNITS: usize = 8 * 1024;
/// Room that is kept for the next row.
const ROOM_KEPT_BYTES: usize = 1 << 20;

impl TextBuffer {
    pub fn clear(&mut self) {
        self.end = 0;
        if self.utf8.len() > ROOM_KEPT_BYTES {
            self.utf8 = String::new();
        }
    }

    pub fn get(&self, from: usize, to: usize) -> &str {
        self.utf8.get(from..to).unwrap_or_default()
    }

    /// Adds a cell of UTF-16, and returns its range in this buffer.
    pub fn add(&mut self, mut bytes: &[u8]) -> Result<(usize, usize)> {
        let from = self.end;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(2 * UNITS));
            self.units.clear();
            self.units
                .extend(now.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])));
            let valid = utf16_valid_up_to(&self.units);
            // a surrogate pair may be split at the end of a part, and only there
            let cut = valid + 1 == self.units.len() && !later.is_empty();
            if !(valid == self.units.len() || cut) || now.len() % 2 == 1 {
                return Err(classify::invalid_utf16());
            }
            self.make_room(3 * valid);
            let room = self.utf8.get_mut(self.end..).unwrap_or_default();
            self.end += convert_utf16_to_str(&self.units[..valid], room);
            bytes = &bytes[2 * valid..];
        }
        Ok((from, self.end))
    }

    fn make_room(&mut self, bytes: usize) {
        let wanted = self.end + bytes;
        if self.utf8.len() < wanted {
            self.utf8.extend(std::iter::repeat_n('\0', wanted - self.utf8.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mssql::tds::cell::CellForm;

    fn read(info: &[u8], bytes: &[u8]) -> Result<Value> {
        let form =
            if matches!(info, [0x38 | 0x3E]) { CellForm::Fixed(info[0]) } else { CellForm::Byte };
        let meaning = CellType::of(&Type { form, info: info.to_vec() }).unwrap();
        if meaning == CellType::Text {
            let mut texts = TextBuffer::default();
            let (from, to) = texts.add(bytes)?;
            return Ok(Value::Text(texts.get(from, to).to_owned()));
        }
        Ok(meaning.decode(bytes)?.to_value())
    }

    #[test]
    fn cells_of_every_type_are_read() {
        let read = |info: &[u8], bytes: &[u8]| read(info, bytes).unwrap();
        assert_eq!(read(&[0x38], &(-2i32).to_le_bytes()), Value::Int(-2));
        assert_eq!(read(&[types::INT, 8], &(-2i64).to_le_bytes()), Value::Int(-2));
        assert_eq!(read(&[types::INT, 2], &(-2i16).to_le_bytes()), Value::Int(-2));
        assert_eq!(read(&[types::INT, 1], &[200]), Value::Int(200));
        assert_eq!(read(&[types::BIT, 1], &[1]), Value::Bit(true));
        assert_eq!(read(&[types::FLOAT, 4], &1.5f32.to_le_bytes()), Value::Real(1.5));
        assert_eq!(read(&[0x3E], &(-0.0f64).to_le_bytes()), Value::Float(-0.0));
        assert_eq!(
            read(&[types::DECIMAL, 5, 9, 2], &[0, 1, 2, 0, 0]),
            Value::Decimal { mantissa: -513, scale: 2 }
        );
        assert_eq!(
            read(&[types::NUMERIC, 9, 18, 0], &[1, 1, 0, 0, 0, 0, 0, 0, 1]),
            Value::Decimal { mantissa: (1 << 56) + 1, scale: 0 }
        );
        let mut most = vec![1];
        most.extend_from_slice(&(10u128.pow(38) - 1).to_le_bytes());
        assert_eq!(
            read(&[types::DECIMAL, 17, 38, 38], &most),
            Value::Decimal { mantissa: 10i128.pow(38) - 1, scale: 38 }
        );
        assert_eq!(read(&[types::DATE], &[1, 0, 0]), Value::Date(1));
        assert_eq!(read(&[types::TIME, 3], &[5, 0, 0, 0]), Value::Time(50_000));
        assert_eq!(
            read(&[types::DATETIME2, 7], &[1, 0, 0, 0, 0, 2, 0, 0]),
            Value::DateTime2 { days: 2, ticks: 1 }
        );
        assert_eq!(
            read(&[types::DATETIMEOFFSET, 7], &[1, 0, 0, 0, 0, 2, 0, 0, 0xC4, 0xFF]),
            Value::DateTimeOffset { days: 2, ticks: 1, offset_minutes: -60 }
        );
        assert_eq!(
            read(&[types::DATETIME, 4], &[2, 0, 1, 0]),
            Value::DateTime { days_since_1900: 2, ticks300: 18_000 }
        );
        assert_eq!(
            read(&[types::DATETIME, 8], &[2, 0, 0, 0, 1, 0, 0, 0]),
            Value::DateTime { days_since_1900: 2, ticks300: 1 }
        );
        assert_eq!(read(&[types::VARBINARY, 9, 0], &[]), Value::Bytes(Vec::new()));
        assert_eq!(
            read(&[types::NVARCHAR, 8, 0], &[0xE9, 0, 0x3D, 0xD8, 0x9A, 0xDE]),
            Value::Text("é🚚".into())
        );
        let guid = uuid::Uuid::from_u128(0x00112233_4455_6677_8899_AABBCCDDEEFF);
        assert_eq!(read(&[types::GUID, 16], &guid.to_bytes_le()), Value::Guid(guid.into_bytes()));
    }

    #[test]
    fn what_cannot_be_a_cell_is_refused() {
        for (info, bytes) in [
            (&[types::TIME, 9][..], &[1][..]),
            (&[types::DECIMAL, 17, 38, 0], &[1; 30]),
            (&[types::DECIMAL, 17, 38, 0], &[0xFF; 17]),
            (&[types::INT, 8], &[1, 2, 3]),
            (&[types::INT, 8], &[]),
            (&[types::GUID, 16], &[1]),
            (&[types::NVARCHAR, 8, 0], &[0x3D, 0xD8]),
            (&[types::NVARCHAR, 8, 0], &[0x3D, 0xD8, 0, 0]),
            (&[types::NVARCHAR, 8, 0], &[0x3D]),
        ] {
            assert!(read(info, bytes).is_err(), "{info:?} {bytes:?}");
        }
        for info in [&[types::VARCHAR, 9, 0][..], &[types::CHAR, 9, 0], &[0x62], &[types::MONEY, 8]]
        {
            assert!(
                CellType::of(&Type { form: CellForm::Short, info: info.to_vec() }).is_none(),
                "{info:?} is never staged"
            );
        }
    }

    /// Whatever is cut where: a pair of surrogates on the border of what is decoded at a time stays
    /// one.
    #[test]
    fn long_texts_are_whole() {
        for lead in [0, 1, 2] {
            let text = format!("{}{}東é", "a".repeat(lead), "🚚".repeat(UNITS));
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let mut texts = TextBuffer::default();
            let first = texts.add(&[b'x', 0]).unwrap();
            let second = texts.add(&bytes).unwrap();
            let third = texts.add(&[b'y', 0]).unwrap();
            let got = [first, second, third].map(|(from, to)| texts.get(from, to));
            assert!(got == ["x", &text, "y"], "{lead}");
            texts.clear();
            assert_eq!(texts.add(&[b'z', 0]).unwrap(), (0, 1));
        }
    }
}
