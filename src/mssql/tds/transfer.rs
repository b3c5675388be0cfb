//! Cells from a result set into a bulk load.
//!
//! A cell has the same bytes in both, with three exceptions. A column that cannot be NULL may come
//! without a length, where the staging table's column (all are nullable) needs one. A server may
//! begin a row with a bitmap of its NULLs, which a bulk load does not have. And a `(max)` value
//! comes with its total length, which a bulk load must leave unknown: with a total, the server
//! expects bytes without chunks, and it reads a wrong value or reports error 4804.
//! <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/3840ef93-3b10-4aca-9fd1-a210b8bb1d0c>,
//! <https://github.com/denisenkom/pytds/issues/197>, FreeTDS `tds_generic_put`

use super::{
    cell::{CellForm, ChunkPosition, NULL_TOTAL, UNKNOWN_TOTAL},
    types::{BINARY, CHAR, DECIMAL, NBC_ROW, NCHAR, NUMERIC, ROW, Type, VARCHAR, WireColumn},
    value::{CellType, TextBuffer},
};
use crate::{
    error::Result,
    model::{name::Ident, value::Value},
    mssql::classify::protocol_error,
};

/// How a column's cells are copied.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CellCopy {
    from: CellForm,
    /// The length byte to write before a cell that comes without one.
    prefix: Option<u8>,
    to: CellForm,
    /// Its index among the key columns.
    key: Option<usize>,
}

/// The length byte that a cell of `from` needs before it to be a cell of `to` (the inner `None`: none).
/// The outer `None`: its bytes cannot be copied unchanged.
fn length_prefix(from: &Type, to: &Type) -> Option<Option<u8>> {
    match (from.form, to.form) {
        (CellForm::Fixed(bytes), CellForm::Byte) => {
            (from.nullable() == to.nullable()).then_some(Some(bytes))
        }
        (CellForm::Fixed(_), CellForm::Fixed(_)) => (from.at(0) == to.at(0)).then_some(None),
        (CellForm::Chunks, CellForm::Chunks) => {
            (from.at(0) == to.at(0) && same_bytes(from, to)).then_some(None)
        }
        (CellForm::Byte, CellForm::Byte) => {
            let decimals =
                [from.at(0), to.at(0)].iter().all(|number| matches!(*number, DECIMAL | NUMERIC));
            (from.info == to.info || decimals && from.info.get(1..) == to.info.get(1..))
                .then_some(None)
        }
        (CellForm::Short, CellForm::Short) => {
            let padded = matches!(from.at(0), BINARY | CHAR | NCHAR);
            let room =
                if padded { from.length() == to.length() } else { from.length() <= to.length() };
            (from.at(0) == to.at(0) && room && same_bytes(from, to)).then_some(None)
        }
        _ => None,
    }
}

/// Whether a cell's bytes mean the same value on both sides: for text in a code page only with the
/// same collation.
fn same_bytes(from: &Type, to: &Type) -> bool {
    !matches!(from.at(0), VARCHAR | CHAR) || from.info.get(3..) == to.info.get(3..)
}

/// Why rows cannot be copied as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CellMisfit {
    Count { read: usize, there: usize },
    Column { place: usize, why: String },
}

impl CellMisfit {
    /// The reason as text, with the columns' names.
    pub fn message(&self, names: &[Ident]) -> String {
        match self {
            CellMisfit::Count { read, there } => {
                format!("{read} columns are read, and {there} are there")
            }
            CellMisfit::Column { place, why } => format!(
                "column {} {why}",
                names.get(*place).map(Ident::to_string).unwrap_or_default()
            ),
        }
    }
}

/// Copies rows, and can pause anywhere until more bytes arrive, also in the middle of a cell.
#[derive(Debug)]
pub(super) struct Transfer {
    cells: Vec<CellCopy>,
    /// The last row's key cells.
    keys: Vec<KeyCell>,
    in_row: bool,
    column: usize,
    /// The bitmap of NULLs, of a row that has one.
    nulls: Vec<u8>,
    chunk: ChunkPosition,
}

/// A key cell of the last row.
#[derive(Debug)]
struct KeyCell {
    cell_type: CellType,
    null: bool,
    /// Without their length.
    bytes: Vec<u8>,
}

impl Transfer {
    /// `Err` names the first column whose bytes cannot be copied.
    pub fn new(
        from: &[WireColumn],
        to: &[WireColumn],
        key: &[usize],
    ) -> std::result::Result<Self, CellMisfit> {
        if from.len() != to.len() {
            return Err(CellMisfit::Count { read: from.len(), there: to.len() });
        }
        let cells = from
            .iter()
            .zip(to)
            .enumerate()
            .map(|(i, (from, to))| {
                let prefix = length_prefix(&from.ty, &to.ty).ok_or_else(|| CellMisfit::Column {
                    place: i,
                    why: format!(
                        "comes as type {:02X?} and is staged as {:02X?}",
                        from.ty.info, to.ty.info
                    ),
                })?;
                Ok(CellCopy {
                    from: from.ty.form,
                    prefix,
                    to: to.ty.form,
                    key: key.iter().position(|place| *place == i),
                })
            })
            .collect::<std::result::Result<Vec<_>, CellMisfit>>()?;
        let keys = key
            .iter()
            .filter_map(|place| from.get(*place).map(|column| (*place, column)))
            .map(|(place, column)| {
                let unfit =
                    || CellMisfit::Column { place, why: "is of a type that no key has".to_owned() };
                if column.ty.form == CellForm::Chunks {
                    return Err(unfit());
                }
                Ok(KeyCell {
                    cell_type: CellType::of(&column.ty).ok_or_else(unfit)?,
                    null: true,
                    bytes: Vec::new(),
                })
            })
            .collect::<std::result::Result<Vec<_>, CellMisfit>>()?;
        Ok(Transfer {
            cells,
            keys,
            in_row: false,
            column: 0,
            nulls: Vec::new(),
            chunk: ChunkPosition::Total,
        })
    }

    /// Whether a row was begun and is not complete.
    pub fn is_in_row(&self) -> bool {
        self.in_row
    }

    /// Copies what `input` has of one row to `out`: the number of bytes that were consumed, and
    /// whether the row is complete.
    pub fn advance(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool)> {
        // `input[..copied]` is in `out`, `input[copied..at]` will be
        let (mut at, mut copied) = (0, 0);
        if !self.in_row {
            match self.begin_row(input, out)? {
                Some(begun) => (at, copied) = begun,
                None => return Ok((0, false)),
            }
        }
        while let Some(cell) = self.cells.get(self.column) {
            if is_set(&self.nulls, self.column) {
                out.extend_from_slice(&input[copied..at]);
                copied = at;
                out.extend_from_slice(cell.to.null());
                if let Some(key) = cell.key.and_then(|key| self.keys.get_mut(key)) {
                    key.null = true;
                }
                self.column += 1;
                continue;
            }
            let rest = &input[at..];
            if cell.from == CellForm::Chunks {
                if self.chunk == ChunkPosition::Total
                    && let Some(total) = rest.first_chunk::<8>()
                    && *total != NULL_TOTAL
                {
                    out.extend_from_slice(&input[copied..at]);
                    out.extend_from_slice(&UNKNOWN_TOTAL);
                    at += total.len();
                    copied = at;
                    self.chunk = ChunkPosition::Length { before: 0 };
                }
                let (taken, complete) = self.chunk.skip(&input[at..])?;
                at += taken;
                if !complete {
                    break;
                }
                self.column += 1;
                continue;
            }
            if cell.from == CellForm::Pointer {
                return Err(protocol_error("a cell of a type that is not staged"));
            }
            let Some((head, bytes)) = cell.from.extent(rest) else { break };
            let Some(complete) = rest.get(..head + bytes) else { break };
            if let Some(prefix) = cell.prefix {
                out.extend_from_slice(&input[copied..at]);
                copied = at;
                out.push(prefix);
            }
            if let Some(key) = cell.key.and_then(|key| self.keys.get_mut(key)) {
                key.set(cell.from, complete, head);
            }
            at += complete.len();
            self.column += 1;
        }
        out.extend_from_slice(&input[copied..at]);
        self.in_row = self.column < self.cells.len();
        Ok((at, !self.in_row))
    }

    /// Begins a row: how much of `input` its head has, and how much of that is in `out`. `None`
    /// when not all of the head has arrived.
    fn begin_row(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, usize)>> {
        let begun = match input.first() {
            Some(&ROW) => {
                self.nulls.clear();
                (1, 0)
            }
            Some(&NBC_ROW) => {
                let Some(nulls) = input.get(1..=self.cells.len().div_ceil(8)) else {
                    return Ok(None);
                };
                self.nulls.clear();
                self.nulls.extend_from_slice(nulls);
                out.push(ROW);
                (1 + nulls.len(), 1 + nulls.len())
            }
            _ => return Err(protocol_error("no row begins here")),
        };
        self.in_row = true;
        self.column = 0;
        Ok(Some(begun))
    }

    /// The key of the last complete row.
    pub fn key(&self) -> Result<Vec<Value>> {
        self.keys.iter().map(KeyCell::value).collect()
    }
}

/// Whether the bitmap (empty where the row has none) says that the cell is NULL.
fn is_set(nulls: &[u8], column: usize) -> bool {
    nulls.get(column / 8).is_some_and(|bits| bits >> (column % 8) & 1 == 1)
}

impl KeyCell {
    /// Keeps a cell of `form`, whose length takes the first `head` bytes.
    fn set(&mut self, form: CellForm, cell: &[u8], head: usize) {
        self.null = form.is_null(cell);
        self.bytes.clear();
        self.bytes.extend_from_slice(&cell[head..]);
    }

    fn value(&self) -> Result<Value> {
        if self.null {
            return Ok(Value::Null);
        }
        if self.cell_type == CellType::Text {
            let mut texts = TextBuffer::default();
            let (from, to) = texts.add(&self.bytes)?;
            return Ok(Value::Text(texts.get(from, to).to_owned()));
        }
        Ok(self.cell_type.decode(&self.bytes)?.to_value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Kind,
        mssql::tds::{
            cell::CELL_BYTES_MAX,
            types::{FLOAT, INT, NVARCHAR, TIME},
        },
    };

    fn column(form: CellForm, info: &[u8]) -> WireColumn {
        WireColumn { flags: 0, ty: Type { form, info: info.to_vec() }, name: "c".into() }
    }

    fn int() -> WireColumn {
        column(CellForm::Byte, &[INT, 4])
    }

    fn text() -> WireColumn {
        column(CellForm::Short, &[0xE7, 100, 0, 1, 2, 3, 4, 5])
    }

    fn max() -> WireColumn {
        column(CellForm::Chunks, &[0xA5, 0xFF, 0xFF])
    }

    /// `out` after the rows came in pieces of `piece` bytes, and the rows that were whole.
    fn moved(transfer: &mut Transfer, input: &[u8], piece: usize) -> (Vec<u8>, usize) {
        let (mut out, mut here, mut rows) = (Vec::new(), Vec::new(), 0);
        for bytes in input.chunks(piece) {
            here.extend_from_slice(bytes);
            while !here.is_empty() {
                let (taken, whole) = transfer.advance(&here, &mut out).unwrap();
                here.drain(..taken);
                rows += usize::from(whole);
                if !whole {
                    break;
                }
            }
        }
        assert!(here.is_empty());
        (out, rows)
    }

    #[test]
    fn rows_go_as_they_are_however_they_come_in_pieces() {
        let columns = [int(), text(), max(), max()];
        let row = |total: [u8; 8]| {
            let mut row = vec![ROW, 4, 7, 0, 0, 0, 4, 0, b'a', 0, b'b', 0];
            row.extend_from_slice(&total);
            row.extend_from_slice(&[3, 0, 0, 0, 1, 2, 3, 2, 0, 0, 0, 4, 5, 0, 0, 0, 0]);
            // an empty one
            row.extend_from_slice(if total == UNKNOWN_TOTAL { &UNKNOWN_TOTAL } else { &[0; 8] });
            row.extend_from_slice(&[0; 4]);
            row
        };
        let mut nulls = vec![ROW, 0, 0xFF, 0xFF];
        nulls.extend_from_slice(&[0xFF; 16]);
        let input = [row(5u64.to_le_bytes()), nulls.clone(), row(UNKNOWN_TOTAL)].concat();
        let wanted = [row(UNKNOWN_TOTAL), nulls, row(UNKNOWN_TOTAL)].concat();
        for piece in 1..=input.len() {
            let mut transfer = Transfer::new(&columns, &columns, &[0, 1]).unwrap();
            assert_eq!(
                moved(&mut transfer, &input, piece),
                (wanted.clone(), 3),
                "pieces of {piece}"
            );
            assert_eq!(transfer.key().unwrap(), [Value::Int(7), Value::Text("ab".into())]);
        }
    }

    #[test]
    fn a_bitmap_of_nulls_becomes_nulls_and_a_bare_cell_gets_its_length() {
        let from = [column(CellForm::Fixed(4), &[0x38]), text(), max(), int()];
        let to = [int(), text(), max(), int()];
        let input = [NBC_ROW, 0b1110, 7, 0, 0, 0, ROW, 8, 0, 0, 0, 0, 0];
        let mut whole = input.to_vec();
        whole.extend_from_slice(&[0xFF; 8]);
        whole.extend_from_slice(&[4, 1, 0, 0, 0]);
        let mut wanted = vec![ROW, 4, 7, 0, 0, 0, 0xFF, 0xFF];
        wanted.extend_from_slice(&[0xFF; 8]);
        wanted.extend_from_slice(&[0, ROW, 4, 8, 0, 0, 0, 0, 0]);
        wanted.extend_from_slice(&[0xFF; 8]);
        wanted.extend_from_slice(&[4, 1, 0, 0, 0]);
        for piece in 1..=whole.len() {
            let mut transfer = Transfer::new(&from, &to, &[0]).unwrap();
            assert_eq!(
                moved(&mut transfer, &whole, piece),
                (wanted.clone(), 2),
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn what_is_not_the_same_on_both_sides_does_not_go_as_it_is() {
        let goes = |from: &WireColumn, to: &WireColumn| {
            Transfer::new(std::slice::from_ref(from), std::slice::from_ref(to), &[]).is_ok()
        };
        let decimal = |number: u8, scale: u8| column(CellForm::Byte, &[number, 9, 18, scale]);
        assert!(goes(&decimal(NUMERIC, 2), &decimal(DECIMAL, 2)));
        assert!(!goes(&decimal(DECIMAL, 2), &decimal(DECIMAL, 3)));
        assert!(!goes(&int(), &column(CellForm::Byte, &[INT, 8])));
        assert!(!goes(&int(), &column(CellForm::Fixed(4), &[0x38])), "NULL has no form there");
        assert!(!goes(&column(CellForm::Fixed(4), &[0x38]), &column(CellForm::Byte, &[FLOAT, 4])));
        let wide = column(CellForm::Short, &[0xE7, 200, 0, 1, 2, 3, 4, 5]);
        assert!(goes(&text(), &wide) && !goes(&wide, &text()));
        assert!(!goes(&text(), &column(CellForm::Chunks, &[0xE7, 0xFF, 0xFF, 1, 2, 3, 4, 5])));
        assert!(!goes(&max(), &column(CellForm::Pointer, &[0x22])));
        let collated = |number: u8, length: u8, sort: u8| {
            column(
                if length == 0xFF { CellForm::Chunks } else { CellForm::Short },
                &[number, length, length, 9, 4, 0xD0, 0, sort],
            )
        };
        for (number, length) in [(VARCHAR, 1), (CHAR, 1), (VARCHAR, 0xFF)] {
            assert!(goes(&collated(number, length, 52), &collated(number, length, 52)));
            assert!(
                !goes(&collated(number, length, 52), &collated(number, length, 30)),
                "another collation may have another code page"
            );
        }
        assert!(goes(&collated(NVARCHAR, 1, 52), &collated(NVARCHAR, 1, 30)));
        for scale in 0..7 {
            assert!(!goes(
                &column(CellForm::Byte, &[TIME, scale]),
                &column(CellForm::Byte, &[TIME, 7])
            ));
        }
        assert_eq!(
            Transfer::new(&[int()], &[], &[]).unwrap_err().message(&[]),
            "1 columns are read, and 0 are there"
        );
        let unfit =
            Transfer::new(&[int()], &[text()], &[]).unwrap_err().message(&[Ident::new("a\tb")]);
        assert!(
            unfit.starts_with("column [a\tb] comes as type [26, 04] and is staged as [E7"),
            "{unfit}"
        );
    }

    /// Its bytes are passed on as they come, and it would go on for ever.
    #[test]
    fn a_value_that_is_longer_than_any_has_no_end() {
        let columns = [max()];
        let begin = [&[ROW][..], &UNKNOWN_TOTAL].concat();
        let length = |bytes: u64| u32::try_from(bytes).unwrap().to_le_bytes();
        for (before, chunk, fits) in [
            (0, CELL_BYTES_MAX, true),
            (0, CELL_BYTES_MAX + 1, false),
            (CELL_BYTES_MAX - 5, 5, true),
            (CELL_BYTES_MAX - 5, 6, false),
        ] {
            let mut transfer = Transfer::new(&columns, &columns, &[]).unwrap();
            transfer.advance(&begin, &mut Vec::new()).unwrap();
            transfer.chunk = ChunkPosition::Length { before };
            let end = transfer.advance(&length(chunk), &mut Vec::new());
            assert_eq!(
                end.as_ref().err().map(|error| error.kind),
                (!fits).then_some(Kind::TooLarge)
            );
        }
        let key = Transfer::new(&columns, &columns, &[0]).unwrap_err().message(&[]);
        assert!(key.contains("of a type that no key has"), "{key}");
    }

    #[test]
    fn a_key_may_be_null() {
        for null in [&[ROW, 0, 0xFF, 0xFF][..], &[NBC_ROW, 0b11]] {
            let columns = [int(), text()];
            let mut transfer = Transfer::new(&columns, &columns, &[1, 0]).unwrap();
            let row = [ROW, 4, 7, 0, 0, 0, 0, 0];
            moved(&mut transfer, &[&row, null].concat(), 3);
            assert_eq!(transfer.key().unwrap(), [Value::Null, Value::Null]);
            moved(&mut transfer, &row, 3);
            assert_eq!(transfer.key().unwrap(), [Value::Text(String::new()), Value::Int(7)]);
        }
    }
}
