//! Columns and values, both ways (2.2.5.4 to 2.2.5.6).
//!
//! A TYPE_INFO says how the values after it are laid out. Three places differ in small ways
//! ([`Place`]): result sets and bulk loads name a text column's table and carry text pointers,
//! parameters do not; a UDT's metadata is shorter in a parameter.

pub mod decode;
pub mod encode;
pub mod fixed;
mod variant;

/// Type tokens (2.2.5.4).
pub(crate) mod token {
    pub const NULL: u8 = 0x1F;
    pub const IMAGE: u8 = 0x22;
    pub const TEXT: u8 = 0x23;
    pub const GUID: u8 = 0x24;
    pub const OLD_VARBINARY: u8 = 0x25;
    pub const INT_N: u8 = 0x26;
    pub const OLD_VARCHAR: u8 = 0x27;
    pub const DATE_N: u8 = 0x28;
    pub const TIME_N: u8 = 0x29;
    pub const DATETIME2_N: u8 = 0x2A;
    pub const DATETIMEOFFSET_N: u8 = 0x2B;
    pub const OLD_BINARY: u8 = 0x2D;
    pub const OLD_CHAR: u8 = 0x2F;
    pub const INT1: u8 = 0x30;
    pub const BIT: u8 = 0x32;
    pub const INT2: u8 = 0x34;
    pub const OLD_DECIMAL: u8 = 0x37;
    pub const INT4: u8 = 0x38;
    pub const DATETIME4: u8 = 0x3A;
    pub const FLOAT4: u8 = 0x3B;
    pub const MONEY: u8 = 0x3C;
    pub const DATETIME: u8 = 0x3D;
    pub const FLOAT8: u8 = 0x3E;
    pub const OLD_NUMERIC: u8 = 0x3F;
    pub const VARIANT: u8 = 0x62;
    pub const NTEXT: u8 = 0x63;
    pub const BIT_N: u8 = 0x68;
    pub const DECIMAL_N: u8 = 0x6A;
    pub const NUMERIC_N: u8 = 0x6C;
    pub const FLOAT_N: u8 = 0x6D;
    pub const MONEY_N: u8 = 0x6E;
    pub const DATETIME_N: u8 = 0x6F;
    pub const MONEY4: u8 = 0x7A;
    pub const INT8: u8 = 0x7F;
    pub const BIG_VARBINARY: u8 = 0xA5;
    pub const BIG_VARCHAR: u8 = 0xA7;
    pub const BIG_BINARY: u8 = 0xAD;
    pub const BIG_CHAR: u8 = 0xAF;
    pub const NVARCHAR: u8 = 0xE7;
    pub const NCHAR: u8 = 0xEF;
    pub const UDT: u8 = 0xF0;
    pub const XML: u8 = 0xF1;
    pub const TVP: u8 = 0xF3;
}

/// PLP lengths (2.2.5.2.3).
const PLP_NULL: u64 = u64::MAX;
const PLP_UNKNOWN: u64 = u64::MAX - 1;
/// The length in TYPE_INFO that says (max).
const MAX_MARK: u16 = 0xFFFF;
/// The length of a NULL where lengths have two bytes.
const NULL_MARK: u16 = 0xFFFF;

/// Where a TYPE_INFO and its values stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// COLMETADATA and ROW from the server
    Column,
    /// COLMETADATA and ROW of a bulk load: a text column's table is one name there, not a list of
    /// parts (so do SqlClient, mssql-tds, FreeTDS and tiberius)
    Bulk,
    /// an RPC's parameter and RETURNVALUE
    Param,
}

/// Bytes of a decimal's magnitude, by precision (2.2.5.5.1.6).
fn decimal_bytes(precision: u8) -> usize {
    match precision {
        0..=9 => 4,
        10..=19 => 8,
        20..=28 => 12,
        _ => 16,
    }
}

/// Bytes of a time, by scale (2.2.5.5.1.8).
fn time_bytes(scale: u8) -> usize {
    match scale {
        0..=2 => 3,
        3 | 4 => 4,
        _ => 5,
    }
}

/// 100 ns ticks in one unit of this scale.
fn ticks_per_unit(scale: u8) -> u64 {
    10u64.pow(u32::from(7u8.saturating_sub(scale)))
}

/// The order of a GUID's bytes on the wire (and back: it is its own inverse): its first three
/// groups are little-endian.
fn guid_order(g: [u8; 16]) -> [u8; 16] {
    [
        g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13],
        g[14], g[15],
    ]
}

#[cfg(test)]
mod tests;
