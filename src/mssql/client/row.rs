//! Rows and parameters.
//!
//! A copy from source to destination never decodes cells: [`Row::into_cells`] moves the driver's
//! own row into a bulk load. All other code reads cells through typed getters, whose errors name
//! the column that has another type than expected.

use super::{cell, convert};
use crate::{
    error::{Error, Kind, Result},
    model::{
        lsn::Lsn,
        secret::Secret,
        value::{Value, ValueRef},
    },
};
use std::borrow::Cow;
use tiberius::{ColumnData, ToSql, TokenRow, TypeInfo};

/// The longest cell that the driver's bulk load takes.
const CELL_BYTES_MAX: usize = 65_535;

/// A parameter of a statement; the first is `@P1`. Each kind has an `Opt` form, because a NULL needs
/// a type too.
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
            Param::DateTime2 { days, ticks } => {
                ColumnData::DateTime2(Some(cell::datetime2(days, ticks)))
            }
            // As text, which statements cast to the column's type: the driver would declare `0.5`
            // of scale 38 as `numeric(39,38)`, and the server answers with error 2717.
            Param::Value(Value::Decimal { mantissa, scale: scale @ 38 }) => {
                ColumnData::String(Some(Cow::Owned(cell::decimal_text(*mantissa, *scale))))
            }
            Param::Value(value) => cell::cell(value),
        }
    }
}

/// A row's cells as the driver has them, for a bulk load. They are moved, never copied.
#[derive(Debug)]
pub struct RowData(pub(in crate::mssql) TokenRow<'static>);

impl RowData {
    /// Roughly the bytes this row holds in memory, for batches that are bounded in bytes.
    pub fn size_bytes(&self) -> usize {
        self.0.iter().map(cell::size_bytes).sum()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the cell at `index`, borrowed.
    pub fn value_ref(&self, index: usize) -> Result<ValueRef<'_>> {
        self.0.get(index).map(cell::value_ref).unwrap_or_else(|| Err(missing_cell(index)))
    }

    /// The value of the cell at `index`.
    pub fn value(&self, index: usize) -> Result<Value> {
        Ok(self.value_ref(index)?.to_value())
    }

    /// Replaces the contents of `values` with all values; text and bytes are moved, not copied.
    pub fn values_into(self, values: &mut Vec<Value>) -> Result<()> {
        values.clear();
        for cell in self.0 {
            values.push(match cell {
                ColumnData::String(Some(v)) => Value::Text(v.into_owned()),
                ColumnData::Binary(Some(v)) => Value::Bytes(v.into_owned()),
                other => cell::value(&other)?,
            });
        }
        Ok(())
    }

    /// Whether a cell is too long for the driver's bulk load.
    pub(in crate::mssql) fn is_wide(&self) -> bool {
        self.0.iter().any(|cell| match cell {
            // a UTF-16 unit never takes less than one byte in UTF-8, so most texts need no count
            ColumnData::String(Some(v)) => {
                2 * v.len() > CELL_BYTES_MAX && 2 * v.encode_utf16().count() > CELL_BYTES_MAX
            }
            ColumnData::Binary(Some(v)) => v.len() > CELL_BYTES_MAX,
            _ => false,
        })
    }

    /// The cells as parameters. Decimals are sent as text, which the server converts to the column's
    /// type, for the same reason as in [`Param`].
    pub(in crate::mssql) fn into_params(self) -> impl Iterator<Item = DriverCell> {
        self.0.into_iter().map(|cell| {
            DriverCell(match cell {
                ColumnData::Numeric(Some(v)) => {
                    ColumnData::String(Some(Cow::Owned(cell::decimal_text(v.value(), v.scale()))))
                }
                ColumnData::Numeric(None) => ColumnData::String(None),
                other => other,
            })
        })
    }

    /// The cells converted to these types. `Err` has the index of the first cell that has no exact
    /// conversion, and the reason.
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
            row.push(changed.next_if(|(index, _)| *index == i).map_or(cell, |(_, cell)| cell));
        }
        Ok(RowData(row))
    }

    /// Appends a cell.
    pub fn push(&mut self, param: Param<'_>) {
        self.0.push(cell::into_owned(param.to_sql()));
    }
}

/// A driver's cell as a parameter.
pub(in crate::mssql) struct DriverCell(ColumnData<'static>);

impl ToSql for DriverCell {
    fn to_sql(&self) -> ColumnData<'_> {
        match &self.0 {
            // text and binary are borrowed, as they may be long
            ColumnData::String(Some(v)) => ColumnData::String(Some(Cow::Borrowed(v.as_ref()))),
            ColumnData::Binary(Some(v)) => ColumnData::Binary(Some(Cow::Borrowed(v.as_ref()))),
            other => other.clone(),
        }
    }
}

impl FromIterator<Value> for RowData {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Self {
        let mut row = TokenRow::new();
        for value in values {
            row.push(cell::into_owned(cell::cell(&value)));
        }
        RowData(row)
    }
}

/// One row of a result set.
#[derive(Debug)]
pub struct Row(pub(in crate::mssql) tiberius::Row);

fn missing_cell(index: usize) -> Error {
    Error::new(Kind::Other, format!("the server's answer has no column {}", index + 1))
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

    /// A secret text, moved out of the row, so that no copy stays in a cell. (The driver's receive
    /// buffers are outside our control.)
    pub fn into_secret(self, index: usize) -> Result<Secret> {
        self.text(index)?;
        match self.0.into_token_row().into_iter().nth(index) {
            Some(ColumnData::String(Some(text))) => Ok(Secret::new(text.into_owned())),
            _ => Err(missing_cell(index)),
        }
    }

    /// Roughly the bytes this row holds in memory.
    pub fn size_bytes(&self) -> usize {
        self.0.cells().map(|(_, cell)| cell::size_bytes(cell)).sum()
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
        cell::value(self.cell(index)?)
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

    #[test]
    fn rows_too_wide_for_a_bulk_load_are_found() {
        let row = |value| RowData::from_iter([Value::Int(1), value]);
        assert!(!row(Value::Bytes(vec![0; 65_535])).is_wide());
        assert!(row(Value::Bytes(vec![0; 65_536])).is_wide());
        assert!(!row(Value::Text("a".repeat(32_767))).is_wide());
        assert!(row(Value::Text("a".repeat(32_768))).is_wide());
        assert!(!row(Value::Text("東".repeat(32_767))).is_wide());
        assert!(row(Value::Text("🚚".repeat(16_384))).is_wide());
    }
}
