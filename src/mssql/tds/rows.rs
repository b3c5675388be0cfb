//! Reads rows one at a time. A row stays in the receive buffer, and cells are read from there.
//!
//! First the ends of the row's cells are found. When the whole row has arrived, texts are decoded and
//! values in chunks are joined, in buffers that all rows share.

use super::{
    answer::has_next_row,
    cell::{CellForm, ChunkPosition},
    packet::{CHUNK_BYTES, Packets},
    types::{NBC_ROW, WireColumn},
    value::{CellType, TextBuffer},
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::value::{Value, ValueRef},
    mssql::classify::protocol_error,
};

/// The rows of one answer. When it is dropped before the end, the connection cannot be used any more.
pub struct Rows<'a> {
    packets: &'a mut Packets,
    row: RowParser,
    /// The length of the current row.
    row_bytes: usize,
}

/// Where the cells of the current row are. It does not own the row's bytes.
#[derive(Debug)]
pub(super) struct RowParser {
    columns: Vec<(CellForm, CellType)>,
    /// The cells found so far, and where the next one begins.
    cells: Vec<CellPlace>,
    at: usize,
    /// Where the search continues in a cell of chunks.
    chunk: (ChunkPosition, usize),
    /// The bitmap of NULLs, of a row that has one.
    nulls: Vec<u8>,
    texts: TextBuffer,
    chunked: Vec<u8>,
}

/// Where a cell is.
#[derive(Clone, Copy, Debug)]
enum CellPlace {
    Null,
    /// In the answer, without its length.
    Here {
        from: usize,
        to: usize,
    },
    /// In the answer, with its total and the lengths of its chunks.
    Chunks {
        from: usize,
        to: usize,
    },
    Text {
        from: usize,
        to: usize,
    },
    /// In the buffer for joined chunks.
    Whole {
        from: usize,
        to: usize,
    },
}

/// Capacity of that buffer that is kept for the next row.
const CHUNKED_KEPT_BYTES: usize = 1 << 20;

impl<'a> Rows<'a> {
    pub(super) fn new(packets: &'a mut Packets, row: RowParser) -> Self {
        Rows { packets, row, row_bytes: 0 }
    }

    /// Moves to the next row; `false` at the regular end.
    pub async fn next(&mut self) -> Result<bool> {
        self.packets.consume(std::mem::take(&mut self.row_bytes));
        if !has_next_row(self.packets).await? {
            return Ok(false);
        }
        let mut came_bytes = 0;
        loop {
            let here = self.packets.buffered();
            let read = self.row.read(here).with_context(|| self.packets.row_description());
            if let Some(bytes) = read? {
                self.row_bytes = bytes;
                self.packets.row_done();
                return Ok(true);
            }
            if here.len() - came_bytes >= CHUNK_BYTES {
                came_bytes = here.len();
                self.packets.restart_timeout();
            }
            self.packets.read_more().await?;
        }
    }

    /// The cell at `index` of the current row, borrowed.
    pub fn value_ref(&self, index: usize) -> Result<ValueRef<'_>> {
        self.row.value_ref(self.packets.buffered(), index)
    }
}

impl RowParser {
    /// `Err` names the first column that cannot be read here.
    pub fn new(columns: &[WireColumn]) -> std::result::Result<Self, String> {
        let columns = columns
            .iter()
            .map(|column| match CellType::of(&column.ty) {
                Some(meaning) => Ok((column.ty.form, meaning)),
                None => {
                    Err(format!("column {} comes as type {:02X?}", column.name, column.ty.info))
                }
            })
            .collect::<std::result::Result<Vec<_>, String>>()?;
        Ok(RowParser {
            columns,
            cells: Vec::new(),
            at: 0,
            chunk: (ChunkPosition::Total, 0),
            nulls: Vec::new(),
            texts: TextBuffer::default(),
            chunked: Vec::new(),
        })
    }

    /// Reads the row at the beginning of `here`. Returns its length, or `None` when it has not arrived
    /// completely; the next call gets more of the same row and continues.
    pub fn read(&mut self, here: &[u8]) -> Result<Option<usize>> {
        if self.at == 0 {
            self.cells.clear();
            let nulls =
                if here.first() == Some(&NBC_ROW) { self.columns.len().div_ceil(8) } else { 0 };
            let Some(bitmap) = here.get(1..=nulls) else { return Ok(None) };
            self.nulls.clear();
            self.nulls.extend_from_slice(bitmap);
            self.at = 1 + nulls;
        }
        if !self.find_cells(here)? {
            return Ok(None);
        }
        self.decode_long_cells(here)?;
        Ok(Some(std::mem::take(&mut self.at)))
    }

    /// Finds the row's cells; whether all have arrived.
    fn find_cells(&mut self, here: &[u8]) -> Result<bool> {
        while let Some((form, _)) = self.columns.get(self.cells.len()) {
            let i = self.cells.len();
            if self.nulls.get(i / 8).is_some_and(|bits| bits >> (i % 8) & 1 == 1) {
                self.cells.push(CellPlace::Null);
                continue;
            }
            let Some(rest) = here.get(self.at..) else { return Ok(false) };
            let (cell, bytes) = match form {
                CellForm::Pointer => {
                    return Err(protocol_error("a cell of a type that is not staged"));
                }
                CellForm::Chunks => {
                    let (chunk, behind) = &mut self.chunk;
                    let (taken, whole) = chunk.skip(rest.get(*behind..).unwrap_or_default())?;
                    *behind += taken;
                    if !whole {
                        return Ok(false);
                    }
                    let bytes = std::mem::take(behind);
                    (CellPlace::Chunks { from: self.at, to: self.at + bytes }, bytes)
                }
                _ => match form.extent(rest) {
                    Some((head, bytes)) => (
                        CellPlace::Here { from: self.at + head, to: self.at + head + bytes },
                        head + bytes,
                    ),
                    None => return Ok(false),
                },
            };
            let Some(whole) = rest.get(..bytes) else { return Ok(false) };
            self.cells.push(if form.is_null(whole) { CellPlace::Null } else { cell });
            self.at += bytes;
        }
        Ok(true)
    }

    /// Decodes texts, and joins values in chunks.
    fn decode_long_cells(&mut self, here: &[u8]) -> Result<()> {
        let RowParser { columns, cells, texts, chunked, .. } = self;
        texts.clear();
        chunked.clear();
        chunked.shrink_to(CHUNKED_KEPT_BYTES);
        for (cell, (_, meaning)) in cells.iter_mut().zip(columns) {
            if let CellPlace::Chunks { from, to } = *cell {
                let begin = chunked.len();
                join_chunks(&here[from..to], chunked);
                *cell = CellPlace::Whole { from: begin, to: chunked.len() };
            }
            if *meaning == CellType::Text {
                let bytes = match *cell {
                    CellPlace::Here { from, to } => &here[from..to],
                    CellPlace::Whole { from, to } => &chunked[from..to],
                    _ => continue,
                };
                let (from, to) = texts.add(bytes)?;
                *cell = CellPlace::Text { from, to };
            }
        }
        Ok(())
    }

    /// The cell at `index` of the row that was read, and that `here` begins with.
    pub fn value_ref<'a>(&'a self, here: &'a [u8], index: usize) -> Result<ValueRef<'a>> {
        let (Some(cell), Some((_, meaning))) = (self.cells.get(index), self.columns.get(index))
        else {
            return Err(Error::new(
                Kind::Other,
                format!("the server's answer has no column {}", index + 1),
            ));
        };
        match *cell {
            CellPlace::Null => Ok(Value::Null),
            CellPlace::Text { from, to } => Ok(Value::Text(self.texts.get(from, to))),
            CellPlace::Whole { from, to } => meaning.decode(&self.chunked[from..to]),
            CellPlace::Here { from, to } | CellPlace::Chunks { from, to } => {
                meaning.decode(&here[from..to])
            }
        }
    }
}

/// The bytes of a whole cell of chunks that is not NULL.
fn join_chunks(cell: &[u8], out: &mut Vec<u8>) {
    let mut rest = cell.get(8..).unwrap_or_default();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length =
            usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX).min(behind.len());
        let (chunk, later) = behind.split_at(length);
        out.extend_from_slice(chunk);
        rest = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mssql::tds::types::{self, ROW, Type};

    fn column(form: CellForm, info: &[u8]) -> WireColumn {
        WireColumn { flags: 0, ty: Type { form, info: info.to_vec() }, name: "c".into() }
    }

    #[test]
    fn a_row_is_read_when_all_of_it_is_here() {
        let columns = [
            column(CellForm::Fixed(4), &[0x38]),
            column(CellForm::Byte, &[types::INT, 4]),
            column(CellForm::Short, &[types::NVARCHAR, 8, 0]),
            column(CellForm::Chunks, &[types::VARBINARY, 0xFF, 0xFF]),
            column(CellForm::Chunks, &[types::NVARCHAR, 0xFF, 0xFF]),
        ];
        let mut whole = vec![ROW, 7, 0, 0, 0, 4, 8, 0, 0, 0, 2, 0, b'a', 0];
        whole.extend_from_slice(&3u64.to_le_bytes());
        whole.extend_from_slice(&[2, 0, 0, 0, 1, 2, 1, 0, 0, 0, 3, 0, 0, 0, 0]);
        whole.extend_from_slice(&[
            0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0xAC, 1, 0, 0, 0, 0x20, 0,
            0, 0, 0,
        ]);
        let mut nulls = vec![ROW, 9, 0, 0, 0, 0, 0xFF, 0xFF];
        nulls.extend_from_slice(&[0xFF; 16]);
        let bitmap = vec![NBC_ROW, 0b11110, 9, 0, 0, 0];
        let all = [
            Value::Int(7),
            Value::Int(8),
            Value::Text("a"),
            Value::Bytes(&[1, 2, 3][..]),
            Value::Text("€"),
        ];
        let none = [Value::Int(9), Value::Null, Value::Null, Value::Null, Value::Null];
        let mut row = RowParser::new(&columns).unwrap();
        for (bytes, values) in [(&whole, &all), (&nulls, &none), (&bitmap, &none), (&whole, &all)] {
            for short in 0..bytes.len() {
                assert_eq!(row.read(&bytes[..short]).unwrap(), None, "{short} of {}", bytes.len());
            }
            let more = [&bytes[..], &[ROW]].concat();
            assert_eq!(row.read(&more).unwrap(), Some(bytes.len()));
            for (i, value) in values.iter().enumerate() {
                assert_eq!(row.value_ref(&more, i).unwrap(), *value, "column {i}");
            }
            assert!(row.value_ref(&more, 5).is_err());
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_by_name() {
        let refused = RowParser::new(&[
            column(CellForm::Byte, &[types::INT, 4]),
            column(CellForm::Byte, &[types::MONEY, 8]),
        ])
        .unwrap_err();
        assert_eq!(refused, "column c comes as type [6E, 08]");
        assert!(RowParser::new(&[column(CellForm::Short, &[types::VARCHAR, 8, 0])]).is_err());
    }
}
