//! Values and types, as SQL Server has them.
//!
//! A [`Value`] is what a cell holds at run time; a [`SqlType`] is what the catalog, a variable or
//! an expression says about it. An expression always has a static type (a result set's columns are
//! described before its first row), so a value need not carry its own exact type: an `int` and a
//! `bigint` cell both hold [`Value::Int`].

pub mod binary;
mod collation;
pub mod convert;
pub mod datetime;
pub mod decimal;
mod integers;
pub mod order;
pub mod text;
mod text_order;
pub mod types;

use std::sync::Arc;

/// One cell. Ordering and equality of text need a collation, so this type deliberately implements
/// neither `Ord` nor `Hash`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bit(bool),
    /// tinyint, smallint, int, bigint
    Int(i64),
    /// decimal and numeric; money and smallmoney (scale 4)
    Decimal(Decimal),
    /// float and real (a real is the f32 widened, so its bits survive)
    Float(f64),
    /// days since 0001-01-01
    Date(i32),
    /// 100 ns ticks since midnight
    Time(u64),
    /// days since 1900-01-01 (may be negative) and 1/300 s since midnight
    DateTime {
        days: i32,
        ticks300: u32,
    },
    /// days since 1900-01-01 and minutes since midnight
    SmallDateTime {
        days: u16,
        minutes: u16,
    },
    /// days since 0001-01-01 and 100 ns ticks since midnight
    DateTime2 {
        days: i32,
        ticks: u64,
    },
    /// the UTC instant as days and ticks, and the offset it is shown with
    DateTimeOffset {
        days: i32,
        ticks: u64,
        offset_minutes: i16,
    },
    /// every character type, and xml
    Str(Arc<str>),
    /// binary, varbinary, image, rowversion, hierarchyid, geometry, geography
    Bytes(Arc<[u8]>),
    /// in the order of the text form (`00112233-4455-…`), not of the wire
    Guid([u8; 16]),
    /// sql_variant: the value and its base type
    Variant(Box<(SqlType, Value)>),
}

/// An exact decimal: `mantissa / 10^scale`. |mantissa| < 10^38.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    pub mantissa: i128,
    pub scale: u8,
}

/// The declared length of a variable-length type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// characters for nchar/nvarchar (UTF-16 units), bytes for char/varchar/binary/varbinary
    N(u16),
    Max,
}

/// A declared type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlType {
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Decimal { precision: u8, scale: u8 },
    Money,
    SmallMoney,
    Real,
    Float,
    Date,
    Time(u8),
    DateTime,
    SmallDateTime,
    DateTime2(u8),
    DateTimeOffset(u8),
    Char(u16, Collation),
    VarChar(Length, Collation),
    NChar(u16, Collation),
    NVarChar(Length, Collation),
    Text(Collation),
    NText(Collation),
    Binary(u16),
    VarBinary(Length),
    Image,
    UniqueIdentifier,
    Xml,
    SqlVariant,
    RowVersion,
    HierarchyId,
    Geometry,
    Geography,
}

/// A collation, by its place in the table of the collations this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Collation(pub(crate) u16);
