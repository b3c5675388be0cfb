//! Types and columns as TDS describes them, and the numbers that stand for types and tokens.
//! <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/cbe9c510-eae6-4b1f-9893-a098944d430a>

use super::cell::CellForm;

// The tokens that more than one file needs.
pub(super) const COLUMNS: u8 = 0x81;
pub(super) const ROW: u8 = 0xD1;
/// A row that begins with a bitmap of its NULLs.
pub(super) const NBC_ROW: u8 = 0xD2;
pub(super) const DONE: u8 = 0xFD;

// Types that have a length and can be NULL.
pub(super) const INT: u8 = 0x26;
pub(super) const BIT: u8 = 0x68;
pub(super) const FLOAT: u8 = 0x6D;
pub(super) const MONEY: u8 = 0x6E;
pub(super) const DATETIME: u8 = 0x6F;
pub(super) const DECIMAL: u8 = 0x6A;
pub(super) const NUMERIC: u8 = 0x6C;
pub(super) const GUID: u8 = 0x24;
pub(super) const DATE: u8 = 0x28;
pub(super) const TIME: u8 = 0x29;
pub(super) const DATETIME2: u8 = 0x2A;
pub(super) const DATETIMEOFFSET: u8 = 0x2B;
pub(super) const VARBINARY: u8 = 0xA5;
pub(super) const BINARY: u8 = 0xAD;
pub(super) const VARCHAR: u8 = 0xA7;
pub(super) const CHAR: u8 = 0xAF;
pub(super) const NVARCHAR: u8 = 0xE7;
pub(super) const NCHAR: u8 = 0xEF;
/// The length of `(max)` types.
pub(super) const LENGTH_MAX: u16 = 0xFFFF;

/// A column's type as the wire has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Type {
    pub form: CellForm,
    /// TYPE_INFO: the type's number, then length, precision, scale or collation.
    pub info: Vec<u8>,
}

impl Type {
    pub fn at(&self, index: usize) -> u8 {
        self.info.get(index).copied().unwrap_or_default()
    }

    /// The type that also has NULL, and its number of bytes.
    pub fn nullable(&self) -> (u8, u8) {
        let CellForm::Fixed(bytes) = self.form else { return (self.at(0), self.at(1)) };
        let number = match self.at(0) {
            0x30 | 0x34 | 0x38 | 0x7F => INT,
            0x32 => BIT,
            0x3B | 0x3E => FLOAT,
            0x3C | 0x7A => MONEY,
            0x3A | 0x3D => DATETIME,
            other => other,
        };
        (number, bytes)
    }

    /// The declared length of a string or binary type.
    pub fn length(&self) -> u16 {
        u16::from_le_bytes([self.at(1), self.at(2)])
    }
}

/// One column of a result set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WireColumn {
    pub flags: u16,
    pub ty: Type,
    pub name: String,
}

/// UTF-16LE. The buffer is allocated once, so that it never grows and leaves a copy of a secret in
/// freed memory.
pub(super) fn utf16(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * text.len());
    bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    bytes
}
