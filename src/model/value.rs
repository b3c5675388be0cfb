//! One cell, without the driver's types: what keys, digests and control rows are made of.

/// A value as SQL Server means it. Dates are days since 0001-01-01, times 100 ns ticks since midnight: nothing is rounded.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bit(bool),
    /// tinyint to bigint
    Int(i64),
    /// decimal, numeric, and money read through CAST: `mantissa / 10^scale`
    Decimal {
        mantissa: i128,
        scale: u8,
    },
    Real(f32),
    Float(f64),
    Date(i32),
    Time(u64),
    /// datetime and smalldatetime keep their own grain: 1/300 s
    DateTime {
        days_since_1900: i32,
        ticks300: u32,
    },
    DateTime2 {
        days: i32,
        ticks: u64,
    },
    /// the UTC instant and the offset it is shown with
    DateTimeOffset {
        days: i32,
        ticks: u64,
        offset_minutes: i16,
    },
    Text(String),
    Bytes(Vec<u8>),
    /// in the order of the text form
    Guid([u8; 16]),
}
