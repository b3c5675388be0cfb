//! Where the cells of a row end.

use crate::error::{Error, Kind, Result};

/// How the length of a type's cells is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CellForm {
    /// A fixed number of bytes, never NULL.
    Fixed(u8),
    /// A length of one byte; 0 is NULL.
    Byte,
    /// A length of two bytes; 0xFFFF is NULL.
    Short,
    /// A total of eight bytes (all ones: NULL), then chunks of a length of four bytes each, up to
    /// an empty one: `(max)` types.
    Chunks,
    /// text, ntext, image: never staged.
    Pointer,
}

impl CellForm {
    /// The bytes of a cell's length field, and those of its value. `None`: the length field has not
    /// arrived, or the cell consists of chunks.
    pub fn extent(self, cell: &[u8]) -> Option<(usize, usize)> {
        Some(match (self, cell) {
            (CellForm::Fixed(bytes), _) => (0, usize::from(bytes)),
            (CellForm::Byte, [bytes, ..]) => (1, usize::from(*bytes)),
            (CellForm::Short, [0xFF, 0xFF, ..]) => (2, 0),
            (CellForm::Short, [low, high, ..]) => {
                (2, usize::from(u16::from_le_bytes([*low, *high])))
            }
            _ => return None,
        })
    }

    /// Whether a complete cell is NULL.
    pub fn is_null(self, cell: &[u8]) -> bool {
        match self {
            CellForm::Fixed(_) => false,
            _ => cell.starts_with(self.null()),
        }
    }

    /// A NULL of this form.
    pub fn null(self) -> &'static [u8] {
        match self {
            CellForm::Fixed(_) | CellForm::Byte => &[0],
            CellForm::Short => &[0xFF; 2],
            CellForm::Chunks | CellForm::Pointer => &NULL_TOTAL,
        }
    }
}

/// The longest value of a `(max)` type, in bytes.
/// <https://learn.microsoft.com/sql/t-sql/data-types/binary-and-varbinary-transact-sql>
pub(super) const CELL_BYTES_MAX: u64 = i32::MAX as u64;
/// The total of a `(max)` value that is NULL, and of one whose length is not known in advance.
pub(super) const NULL_TOTAL: [u8; 8] = [0xFF; 8];
pub(super) const UNKNOWN_TOTAL: [u8; 8] = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

/// A position in a cell of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkPosition {
    Total,
    /// A chunk's length; so many bytes of the value came before.
    Length {
        before: u64,
    },
    /// Bytes of a chunk that are still to come; the value has so many with this chunk.
    Bytes {
        left: usize,
        with: u64,
    },
}

impl ChunkPosition {
    /// Skips the received bytes of the cell: their number, and whether the cell is complete. A cell
    /// longer than the longest value of SQL Server is an error: it might never end.
    pub fn skip(&mut self, input: &[u8]) -> Result<(usize, bool)> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match *self {
                ChunkPosition::Total => {
                    let Some(total) = rest.first_chunk::<8>() else { return Ok((at, false)) };
                    at += total.len();
                    if *total == NULL_TOTAL {
                        return Ok((at, true));
                    }
                    *self = ChunkPosition::Length { before: 0 };
                }
                ChunkPosition::Length { before } => {
                    let Some(length) = rest.first_chunk::<4>() else { return Ok((at, false)) };
                    at += length.len();
                    let length = u32::from_le_bytes(*length);
                    if length == 0 {
                        *self = ChunkPosition::Total;
                        return Ok((at, true));
                    }
                    let with = before + u64::from(length);
                    if with > CELL_BYTES_MAX {
                        return Err(Error::new(
                            Kind::TooLarge,
                            format!(
                                "a value has more than {CELL_BYTES_MAX} bytes, which no value of SQL Server has"
                            ),
                        ));
                    }
                    let left = usize::try_from(length).unwrap_or(usize::MAX);
                    *self = ChunkPosition::Bytes { left, with };
                }
                ChunkPosition::Bytes { left, with } => {
                    let taken = left.min(rest.len());
                    at += taken;
                    if taken < left {
                        *self = ChunkPosition::Bytes { left: left - taken, with };
                        return Ok((at, false));
                    }
                    *self = ChunkPosition::Length { before: with };
                }
            }
        }
    }
}
