//! Rows and parameters: the driver's cells on one side, our values on the other.
//!
//! Cells that only pass through (a copy from source to destination) are never looked at:
//! [`Row::into_cells`] hands over the driver's own row, which a bulk load takes as it is.
//! Everything else reads cells through typed getters that say which column was wrong, because a
//! server, a view or a stand-in may always answer with another type than the one we hoped for.

use crate::mssql::client::convert;
use crate::{
    error::{Error, Kind, Result},
    model::{
        lsn::Lsn,
        secret::Secret,
        value::{Value, ValueRef},
    },
};
use std::borrow::Cow;
use tiberius::{ColumnData, ToSql, TokenRow, TypeInfo, numeric::Numeric};

/// The longest cell that the driver's bulk load takes.
const CELL_BYTES_MAX: usize = 65_535;

/// A parameter of a statement, `@P1` being the first. Every NULL has a type, because the server
/// wants one.
#[derive(Clone, Copy, Debug)]
pub enum Param<'a> {
    Bit(bool),
    Int(i32),
    OptInt(Option<i32>),
    BigInt(i64),
    OptBigInt(Option<i64>),
    Float(f64),
    /// nvarchar
    Text(&'a str),
    OptText(Option<&'a str>),
    /// varbinary
    Binary(&'a [u8]),
    OptBinary(Option<&'a [u8]>),
    /// ten bytes; compares with BINARY(10) as bytes
    Lsn(Lsn),
    OptLsn(Option<Lsn>),
    /// days since 0001-01-01, 100 ns ticks since midnight
    DateTime2 {
        days: i32,
        ticks: u64,
    },
    /// A key value: bound with its own type, so that an index can be used.
    Value(&'a Value),
}

impl ToSql for Param<'_> {
    fn to_sql(&self) -> ColumnData<'_> {
        match *self {
            Param::Bit(v) => ColumnData::Bit(Some(v)),
            Param::Int(v) => ColumnData::I32(Some(v)),
            Param::OptInt(v) => ColumnData::I32(v),
            Param::BigInt(v) => ColumnData::I64(Some(v)),
            Param::OptBigInt(v) => ColumnData::I64(v),
            Param::Float(v) => ColumnData::F64(Some(v)),
            Param::Text(v) => ColumnData::String(Some(Cow::Borrowed(v))),
            Param::OptText(v) => ColumnData::String(v.map(Cow::Borrowed)),
            Param::Binary(v) => ColumnData::Binary(Some(Cow::Borrowed(v))),
            Param::OptBinary(v) => ColumnData::Binary(v.map(Cow::Borrowed)),
            Param::Lsn(v) => ColumnData::Binary(Some(Cow::Owned(v.as_bytes().to_vec()))),
            Param::OptLsn(v) => {
                ColumnData::Binary(v.map(|lsn| Cow::Owned(lsn.as_bytes().to_vec())))
            }
            Param::DateTime2 { days, ticks } => ColumnData::DateTime2(Some(datetime2(days, ticks))),
            // As text, which statements cast to the column's type: the driver would declare `0.5`
            // of scale 38 as `numeric(39,38)`, which there is not (Msg 2717).
            Param::Value(Value::Decimal { mantissa, scale: scale @ 38 }) => {
                ColumnData::String(Some(Cow::Owned(decimal_text(*mantissa, *scale))))
            }
            Param::Value(value) => cell(value),
        }
    }
}

fn datetime2(days: i32, ticks: u64) -> tiberius::time::DateTime2 {
    tiberius::time::DateTime2::new(
        tiberius::time::Date::new(u32::try_from(days).unwrap_or(0)),
        tiberius::time::Time::new(ticks, 7),
    )
}

fn cell(value: &Value) -> ColumnData<'_> {
    match value {
        Value::Null => ColumnData::String(None),
        Value::Bit(v) => ColumnData::Bit(Some(*v)),
        Value::Int(v) => ColumnData::I64(Some(*v)),
        Value::Decimal { mantissa, scale } if *scale <= Numeric::MAX_NUMERIC_SCALE => {
            ColumnData::Numeric(Some(Numeric::new_with_scale(*mantissa, *scale)))
        }
        // Not a value SQL Server can have; as text it is refused there, in words.
        Value::Decimal { mantissa, scale } => {
            ColumnData::String(Some(Cow::Owned(format!("{mantissa}e-{scale}"))))
        }
        Value::Real(v) => ColumnData::F32(Some(*v)),
        Value::Float(v) => ColumnData::F64(Some(*v)),
        Value::Date(days) => {
            ColumnData::Date(Some(tiberius::time::Date::new(u32::try_from(*days).unwrap_or(0))))
        }
        Value::Time(ticks) => ColumnData::Time(Some(tiberius::time::Time::new(*ticks, 7))),
        Value::DateTime { days_since_1900, ticks300 } => {
            ColumnData::DateTime(Some(tiberius::time::DateTime::new(*days_since_1900, *ticks300)))
        }
        Value::DateTime2 { days, ticks } => ColumnData::DateTime2(Some(datetime2(*days, *ticks))),
        Value::DateTimeOffset { days, ticks, offset_minutes } => ColumnData::DateTimeOffset(Some(
            tiberius::time::DateTimeOffset::new(datetime2(*days, *ticks), *offset_minutes),
        )),
        Value::Text(v) => ColumnData::String(Some(Cow::Borrowed(v))),
        Value::Bytes(v) => ColumnData::Binary(Some(Cow::Borrowed(v))),
        Value::Guid(v) => ColumnData::Guid(Some(tiberius::Uuid::from_bytes(*v))),
    }
}

/// A row's cells as the driver has them: opaque, moved, never copied. What a bulk load sends.
#[derive(Debug)]
pub struct RowData(pub(in crate::mssql) TokenRow<'static>);

impl RowData {
    /// Roughly the bytes this row holds in memory, for batches that are bounded in bytes.
    pub fn size_bytes(&self) -> usize {
        self.0.iter().map(cell_size_bytes).sum()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the cell at `index`, where it is.
    pub fn value_ref(&self, index: usize) -> Result<ValueRef<'_>> {
        self.0.get(index).map(seen).unwrap_or_else(|| Err(missing_cell(index)))
    }

    /// The value of the cell at `index`.
    pub fn value(&self, index: usize) -> Result<Value> {
        Ok(self.value_ref(index)?.to_value())
    }

    /// All values, in place of what `values` had; text and bytes are moved, not copied.
    pub fn values_into(self, values: &mut Vec<Value>) -> Result<()> {
        values.clear();
        for cell in self.0 {
            values.push(match cell {
                ColumnData::String(Some(v)) => Value::Text(v.into_owned()),
                ColumnData::Binary(Some(v)) => Value::Bytes(v.into_owned()),
                other => value(&other)?,
            });
        }
        Ok(())
    }

    /// Whether the driver's bulk load would refuse a cell of it for its length.
    pub(in crate::mssql) fn is_wide(&self) -> bool {
        self.0.iter().any(|cell| match cell {
            // a unit of UTF-16 never comes from less than a byte of UTF-8
            ColumnData::String(Some(v)) => {
                2 * v.len() > CELL_BYTES_MAX && 2 * v.encode_utf16().count() > CELL_BYTES_MAX
            }
            ColumnData::Binary(Some(v)) => v.len() > CELL_BYTES_MAX,
            _ => false,
        })
    }

    /// The cells as parameters. Decimals go as text, which the server turns into the column's type:
    /// the driver would declare `0.5` of scale 38 as `numeric(39,38)`, which there is not.
    pub(in crate::mssql) fn into_params(self) -> impl Iterator<Item = DriverCell> {
        self.0.into_iter().map(|cell| {
            DriverCell(match cell {
                ColumnData::Numeric(Some(v)) => {
                    ColumnData::String(Some(Cow::Owned(decimal_text(v.value(), v.scale()))))
                }
                ColumnData::Numeric(None) => ColumnData::String(None),
                other => other,
            })
        })
    }

    /// The cells as values of these types; `Err` has the place of the first that is none, and what
    /// is in the way.
    pub(in crate::mssql) fn convert(
        self,
        types: &[TypeInfo],
    ) -> std::result::Result<RowData, (usize, String)> {
        let mut changed = Vec::new();
        for (i, (cell, ty)) in self.0.iter().zip(types).enumerate() {
            if let Some(cell) = convert::converted(cell, ty).map_err(|why| (i, why))? {
                changed.push((i, cell));
            }
        }
        if changed.is_empty() {
            return Ok(self);
        }
        let mut changed = changed.into_iter().peekable();
        let mut row = TokenRow::with_capacity(self.len());
        for (i, cell) in self.0.into_iter().enumerate() {
            row.push(changed.next_if(|(place, _)| *place == i).map_or(cell, |(_, cell)| cell));
        }
        Ok(RowData(row))
    }

    /// Adds a cell behind the others.
    pub fn push(&mut self, param: Param<'_>) {
        self.0.push(into_owned(param.to_sql()));
    }
}

/// A driver's cell as a parameter.
pub(in crate::mssql) struct DriverCell(ColumnData<'static>);

impl ToSql for DriverCell {
    fn to_sql(&self) -> ColumnData<'_> {
        match &self.0 {
            // the long ones are not copied
            ColumnData::String(Some(v)) => ColumnData::String(Some(Cow::Borrowed(v.as_ref()))),
            ColumnData::Binary(Some(v)) => ColumnData::Binary(Some(Cow::Borrowed(v.as_ref()))),
            other => other.clone(),
        }
    }
}

/// `-12.340`
fn decimal_text(mantissa: i128, scale: u8) -> String {
    let digits = format!("{:0>width$}", mantissa.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if mantissa < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

impl FromIterator<Value> for RowData {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Self {
        let mut row = TokenRow::new();
        for value in values {
            row.push(into_owned(cell(&value)));
        }
        RowData(row)
    }
}

fn into_owned(cell: ColumnData<'_>) -> ColumnData<'static> {
    match cell {
        ColumnData::U8(v) => ColumnData::U8(v),
        ColumnData::I16(v) => ColumnData::I16(v),
        ColumnData::I32(v) => ColumnData::I32(v),
        ColumnData::I64(v) => ColumnData::I64(v),
        ColumnData::F32(v) => ColumnData::F32(v),
        ColumnData::F64(v) => ColumnData::F64(v),
        ColumnData::Bit(v) => ColumnData::Bit(v),
        ColumnData::String(v) => ColumnData::String(v.map(|v| Cow::Owned(v.into_owned()))),
        ColumnData::Guid(v) => ColumnData::Guid(v),
        ColumnData::Binary(v) => ColumnData::Binary(v.map(|v| Cow::Owned(v.into_owned()))),
        ColumnData::Numeric(v) => ColumnData::Numeric(v),
        ColumnData::Xml(v) => ColumnData::Xml(v.map(|v| Cow::Owned(v.into_owned()))),
        ColumnData::DateTime(v) => ColumnData::DateTime(v),
        ColumnData::SmallDateTime(v) => ColumnData::SmallDateTime(v),
        ColumnData::Time(v) => ColumnData::Time(v),
        ColumnData::Date(v) => ColumnData::Date(v),
        ColumnData::DateTime2(v) => ColumnData::DateTime2(v),
        ColumnData::DateTimeOffset(v) => ColumnData::DateTimeOffset(v),
    }
}

fn cell_size_bytes(cell: &ColumnData<'_>) -> usize {
    let heap = match cell {
        ColumnData::String(Some(v)) => v.len(),
        ColumnData::Binary(Some(v)) => v.len(),
        ColumnData::Xml(Some(v)) => AsRef::<str>::as_ref(v.as_ref()).len(),
        _ => 0,
    };
    size_of::<ColumnData<'_>>() + heap
}

/// One row of a result set.
#[derive(Debug)]
pub struct Row(pub(in crate::mssql) tiberius::Row);

fn missing_cell(index: usize) -> Error {
    Error::new(Kind::Other, format!("the server's answer has no column {}", index + 1))
}

/// A driver cell as a value.
pub(in crate::mssql) fn value(cell: &ColumnData<'_>) -> Result<Value> {
    Ok(seen(cell)?.to_value())
}

/// A driver cell as a value that is still there; nothing is rounded.
fn seen<'a>(cell: &'a ColumnData<'_>) -> Result<ValueRef<'a>> {
    Ok(match cell {
        ColumnData::U8(Some(v)) => Value::Int(i64::from(*v)),
        ColumnData::I16(Some(v)) => Value::Int(i64::from(*v)),
        ColumnData::I32(Some(v)) => Value::Int(i64::from(*v)),
        ColumnData::I64(Some(v)) => Value::Int(*v),
        ColumnData::F32(Some(v)) => Value::Real(*v),
        ColumnData::F64(Some(v)) => Value::Float(*v),
        ColumnData::Bit(Some(v)) => Value::Bit(*v),
        ColumnData::String(Some(v)) => Value::Text(v.as_ref()),
        ColumnData::Guid(Some(v)) => Value::Guid(v.into_bytes()),
        ColumnData::Binary(Some(v)) => Value::Bytes(v.as_ref()),
        ColumnData::Numeric(Some(v)) => Value::Decimal { mantissa: v.value(), scale: v.scale() },
        ColumnData::Xml(Some(v)) => Value::Text(AsRef::<str>::as_ref(v.as_ref())),
        ColumnData::DateTime(Some(v)) => {
            Value::DateTime { days_since_1900: v.days(), ticks300: v.seconds_fragments() }
        }
        ColumnData::SmallDateTime(Some(v)) => {
            // smalldatetime counts minutes
            Value::DateTime {
                days_since_1900: i32::from(v.days()),
                ticks300: u32::from(v.seconds_fragments()) * 60 * 300,
            }
        }
        ColumnData::Time(Some(v)) => Value::Time(ticks(v)?),
        ColumnData::Date(Some(v)) => Value::Date(days(*v)?),
        ColumnData::DateTime2(Some(v)) => {
            Value::DateTime2 { days: days(v.date())?, ticks: ticks(&v.time())? }
        }
        ColumnData::DateTimeOffset(Some(v)) => {
            let utc = v.datetime2();
            Value::DateTimeOffset {
                days: days(utc.date())?,
                ticks: ticks(&utc.time())?,
                offset_minutes: v.offset(),
            }
        }
        ColumnData::U8(None)
        | ColumnData::I16(None)
        | ColumnData::I32(None)
        | ColumnData::I64(None)
        | ColumnData::F32(None)
        | ColumnData::F64(None)
        | ColumnData::Bit(None)
        | ColumnData::String(None)
        | ColumnData::Guid(None)
        | ColumnData::Binary(None)
        | ColumnData::Numeric(None)
        | ColumnData::Xml(None)
        | ColumnData::DateTime(None)
        | ColumnData::SmallDateTime(None)
        | ColumnData::Time(None)
        | ColumnData::Date(None)
        | ColumnData::DateTime2(None)
        | ColumnData::DateTimeOffset(None) => Value::Null,
    })
}

fn days(date: tiberius::time::Date) -> Result<i32> {
    i32::try_from(date.days()).map_err(|_| Error::new(Kind::Data, "a date is out of range"))
}

fn ticks(time: &tiberius::time::Time) -> Result<u64> {
    let places = 7u8.checked_sub(time.scale()).ok_or_else(|| {
        Error::new(
            Kind::Data,
            format!("a time has scale {}, which SQL Server does not have", time.scale()),
        )
    })?;
    Ok(time.increments() * 10u64.pow(u32::from(places)))
}

impl Row {
    pub fn len(&self) -> usize {
        self.0.columns().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The driver's cells, moved out.
    pub fn into_cells(self) -> RowData {
        RowData(self.0.into_token_row())
    }

    /// A text that is secret, taken out of the row: no copy of it stays in a driver's cell. (The
    /// driver's buffers, from which it made the cell, are its own.)
    pub fn into_secret(self, index: usize) -> Result<Secret> {
        self.text(index)?;
        match self.0.into_token_row().into_iter().nth(index) {
            Some(ColumnData::String(Some(text))) => Ok(Secret::new(text.into_owned())),
            _ => Err(missing_cell(index)),
        }
    }

    /// Roughly the bytes this row holds in memory.
    pub fn size_bytes(&self) -> usize {
        self.0.cells().map(|(_, cell)| cell_size_bytes(cell)).sum()
    }

    fn cell(&self, index: usize) -> Result<&ColumnData<'static>> {
        self.0.get_column_data(index).map_err(|_| missing_cell(index))
    }

    fn wrong_type(&self, index: usize, wanted: &str) -> Error {
        let name = self.0.columns().get(index).map_or("?", |column| column.name());
        Error::new(
            Kind::Other,
            format!("column {} ({name}) of the server's answer is not {wanted}", index + 1),
        )
    }

    pub fn value(&self, index: usize) -> Result<Value> {
        value(self.cell(index)?)
    }

    pub fn is_null(&self, index: usize) -> Result<bool> {
        Ok(self.value(index)? == Value::Null)
    }

    /// Any integer type, or bit.
    pub fn opt_i64(&self, index: usize) -> Result<Option<i64>> {
        match self.cell(index)? {
            ColumnData::U8(v) => Ok(v.map(i64::from)),
            ColumnData::I16(v) => Ok(v.map(i64::from)),
            ColumnData::I32(v) => Ok(v.map(i64::from)),
            ColumnData::I64(v) => Ok(*v),
            ColumnData::Bit(v) => Ok(v.map(i64::from)),
            _ => Err(self.wrong_type(index, "an integer")),
        }
    }

    pub fn i64(&self, index: usize) -> Result<i64> {
        self.opt_i64(index)?.ok_or_else(|| self.wrong_type(index, "an integer (it is NULL)"))
    }

    pub fn opt_i32(&self, index: usize) -> Result<Option<i32>> {
        self.opt_i64(index)?
            .map(|v| i32::try_from(v).map_err(|_| self.wrong_type(index, "in the range of int")))
            .transpose()
    }

    pub fn i32(&self, index: usize) -> Result<i32> {
        self.opt_i32(index)?.ok_or_else(|| self.wrong_type(index, "an integer (it is NULL)"))
    }

    pub fn opt_bool(&self, index: usize) -> Result<Option<bool>> {
        Ok(self.opt_i64(index)?.map(|v| v != 0))
    }

    pub fn bool(&self, index: usize) -> Result<bool> {
        self.opt_bool(index)?.ok_or_else(|| self.wrong_type(index, "a bit (it is NULL)"))
    }

    pub fn opt_text(&self, index: usize) -> Result<Option<&str>> {
        match self.cell(index)? {
            ColumnData::String(v) => Ok(v.as_deref()),
            _ => Err(self.wrong_type(index, "text")),
        }
    }

    pub fn text(&self, index: usize) -> Result<&str> {
        self.opt_text(index)?.ok_or_else(|| self.wrong_type(index, "text (it is NULL)"))
    }

    pub fn opt_bytes(&self, index: usize) -> Result<Option<&[u8]>> {
        match self.cell(index)? {
            ColumnData::Binary(v) => Ok(v.as_deref()),
            _ => Err(self.wrong_type(index, "binary")),
        }
    }

    pub fn bytes(&self, index: usize) -> Result<&[u8]> {
        self.opt_bytes(index)?.ok_or_else(|| self.wrong_type(index, "binary (it is NULL)"))
    }

    pub fn opt_lsn(&self, index: usize) -> Result<Option<Lsn>> {
        self.opt_bytes(index)?
            .map(|bytes| {
                Lsn::from_bytes(bytes).ok_or_else(|| self.wrong_type(index, "a binary(10) LSN"))
            })
            .transpose()
    }

    pub fn lsn(&self, index: usize) -> Result<Lsn> {
        self.opt_lsn(index)?.ok_or_else(|| self.wrong_type(index, "an LSN (it is NULL)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(v: Value) {
        assert_eq!(value(&cell(&v)).unwrap(), v);
    }

    #[test]
    fn values_survive_the_drivers_cells() {
        round_trip(Value::Null);
        round_trip(Value::Bit(true));
        round_trip(Value::Int(i64::MIN));
        round_trip(Value::Decimal { mantissa: -(10i128.pow(38) - 1), scale: 38 });
        round_trip(Value::Real(-0.0));
        round_trip(Value::Float(f64::MIN_POSITIVE));
        round_trip(Value::Date(3_652_058));
        round_trip(Value::Time(863_999_999_999));
        round_trip(Value::DateTime { days_since_1900: -53_690, ticks300: 25_919_999 });
        round_trip(Value::DateTime2 { days: 0, ticks: 1 });
        round_trip(Value::DateTimeOffset { days: 1, ticks: 2, offset_minutes: -840 });
        round_trip(Value::Text("näive 𝄞 ".into()));
        round_trip(Value::Bytes(vec![0, 255]));
        round_trip(Value::Guid([1; 16]));
    }

    #[test]
    fn decimals_in_words() {
        for (mantissa, scale, text) in [
            (0, 0, "0"),
            (-1, 4, "-0.0001"),
            (123_450, 3, "123.450"),
            (7, 0, "7"),
            (5, 38, "0.00000000000000000000000000000000000005"),
        ] {
            assert_eq!(decimal_text(mantissa, scale), text);
        }
    }

    #[test]
    fn rows_too_wide_for_a_bulk_load_are_told() {
        let row = |value| RowData::from_iter([Value::Int(1), value]);
        assert!(!row(Value::Bytes(vec![0; 65_535])).is_wide());
        assert!(row(Value::Bytes(vec![0; 65_536])).is_wide());
        assert!(!row(Value::Text("a".repeat(32_767))).is_wide());
        assert!(row(Value::Text("a".repeat(32_768))).is_wide());
        assert!(!row(Value::Text("東".repeat(32_767))).is_wide());
        assert!(row(Value::Text("🚚".repeat(16_384))).is_wide());
    }

    #[test]
    fn times_of_any_scale_become_ticks() {
        let cell = ColumnData::Time(Some(tiberius::time::Time::new(5, 3)));
        assert_eq!(value(&cell).unwrap(), Value::Time(50_000));
        assert!(value(&ColumnData::Time(Some(tiberius::time::Time::new(5, 9)))).is_err());
    }
}
