//! One cell, without the driver's types: what keys, digests and control rows are made of.

/// A value as SQL Server means it. Dates are days since 0001-01-01, times 100 ns ticks since
/// midnight: nothing is rounded.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<T = String, B = Vec<u8>> {
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
    Text(T),
    Bytes(B),
    /// in the order of the text form
    Guid([u8; 16]),
}

/// A value that is still where it was read: text and bytes are not copied.
pub type ValueRef<'a> = Value<&'a str, &'a [u8]>;

impl Value {
    /// The value where it is.
    pub fn seen(&self) -> ValueRef<'_> {
        self.with(String::as_str, Vec::as_slice)
    }
}

impl ValueRef<'_> {
    /// A value of its own.
    pub fn to_value(&self) -> Value {
        self.with(|v| (*v).to_owned(), |v| v.to_vec())
    }
}

impl<T, B> Value<T, B> {
    /// The same value, with text and bytes held in another way.
    fn with<'a, U, C>(
        &'a self,
        text: impl FnOnce(&'a T) -> U,
        bytes: impl FnOnce(&'a B) -> C,
    ) -> Value<U, C> {
        match *self {
            Value::Null => Value::Null,
            Value::Bit(v) => Value::Bit(v),
            Value::Int(v) => Value::Int(v),
            Value::Decimal { mantissa, scale } => Value::Decimal { mantissa, scale },
            Value::Real(v) => Value::Real(v),
            Value::Float(v) => Value::Float(v),
            Value::Date(days) => Value::Date(days),
            Value::Time(ticks) => Value::Time(ticks),
            Value::DateTime { days_since_1900, ticks300 } => {
                Value::DateTime { days_since_1900, ticks300 }
            }
            Value::DateTime2 { days, ticks } => Value::DateTime2 { days, ticks },
            Value::DateTimeOffset { days, ticks, offset_minutes } => {
                Value::DateTimeOffset { days, ticks, offset_minutes }
            }
            Value::Text(ref v) => Value::Text(text(v)),
            Value::Bytes(ref v) => Value::Bytes(bytes(v)),
            Value::Guid(v) => Value::Guid(v),
        }
    }
}
