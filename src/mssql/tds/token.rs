//! Tokens, the elements of an answer.
//! <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/7091f6f6-b83d-4ed2-afeb-ba5013dfb18f>
//!
//! Parsing is pure: from the received bytes, either a token and its length, or the result that more
//! bytes are needed. The one long token, the list of columns, is continued where it ended, so that each
//! byte is parsed once, however few arrive at a time.

use super::{
    cell::CellForm,
    types::{self, COLUMNS, DONE, NBC_ROW, ROW, Type, WireColumn},
};
use crate::{
    error::{Error, Result},
    mssql::classify::{self, protocol_error},
};

const DONE_PROC: u8 = 0xFE;
const DONE_IN_PROC: u8 = 0xFF;
const RETURN_STATUS: u8 = 0x79;
const ORDER: u8 = 0xA9;
const TABLE_NAME: u8 = 0xA4;
const COLUMN_INFO: u8 = 0xA5;
const ERROR: u8 = 0xAA;
const INFO: u8 = 0xAB;
const LOGIN_ACK: u8 = 0xAD;
const FEATURES: u8 = 0xAE;
const ENVIRONMENT: u8 = 0xE3;
const SESSION_STATE: u8 = 0xE4;

/// Columns of a SELECT.
/// <https://learn.microsoft.com/sql/sql-server/maximum-capacity-specifications-for-sql-server>
const COLUMNS_MAX: usize = 4096;
/// Parts of a table's name: server, database, schema, table.
const NAME_PARTS_MAX: u8 = 4;
/// Features have a number of one byte.
const FEATURES_MAX: usize = 256;

#[derive(Clone, Debug)]
pub(super) enum Token {
    Columns(Vec<WireColumn>),
    /// Columns with a type that is not supported here; the rest of the answer cannot be parsed. The
    /// driver may support it.
    UnknownType(String),
    /// A row begins here; it is not consumed.
    Row,
    Error(Error),
    LoginAck,
    PacketBytes(usize),
    /// The server redirects the login.
    Routed {
        host: String,
        port: u16,
    },
    /// The end of a statement, with its row count if it has one. Without `more`, also the answer's end.
    Done {
        rows: Option<u64>,
        more: bool,
        failed: bool,
    },
    /// A token that is not needed here.
    Other,
}

/// The part of a list of columns that was parsed.
#[derive(Debug, Default)]
pub(super) struct ColumnList {
    columns: Vec<WireColumn>,
    /// Where in the token the next column begins; 0: none was read.
    at: usize,
}

#[cfg(test)]
impl ColumnList {
    pub fn read_bytes(&self) -> usize {
        self.at
    }
}

/// The token at the beginning of `bytes`, and its length; `None` when it is incomplete. `list` keeps
/// the columns that were parsed, for the next call.
pub(super) fn parse(bytes: &[u8], list: &mut ColumnList) -> Result<Option<(Token, usize)>> {
    let mut reader = TokenReader { bytes, at: 0 };
    match reader.token(list) {
        Ok(token) => Ok(Some((token, reader.at))),
        Err(Incomplete::More) => Ok(None),
        Err(Incomplete::UnknownType(why)) => Ok(Some((Token::UnknownType(why), bytes.len()))),
        Err(Incomplete::Invalid(error)) => Err(*error),
    }
}

/// Why there is no token yet.
enum Incomplete {
    More,
    UnknownType(String),
    Invalid(Box<Error>),
}

impl From<Error> for Incomplete {
    fn from(error: Error) -> Self {
        Incomplete::Invalid(Box::new(error))
    }
}

struct TokenReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> TokenReader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Incomplete> {
        let end = self.at.checked_add(count).ok_or(Incomplete::More)?;
        let taken = self.bytes.get(self.at..end).ok_or(Incomplete::More)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Incomplete> {
        Ok(self.take(N)?.try_into().unwrap_or([0; N]))
    }

    fn u8(&mut self) -> Result<u8, Incomplete> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, Incomplete> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Incomplete> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// UTF-16 with its length in units before it.
    fn text(&mut self, units: usize) -> Result<String, Incomplete> {
        let units: Vec<u16> = self
            .take(units * 2)?
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
            .collect();
        Ok(String::from_utf16_lossy(&units))
    }

    fn token(&mut self, list: &mut ColumnList) -> Result<Token, Incomplete> {
        Ok(match self.u8()? {
            ROW | NBC_ROW => {
                self.at = 0;
                Token::Row
            }
            COLUMNS => Token::Columns(self.columns(list)?),
            DONE | DONE_PROC | DONE_IN_PROC => {
                const MORE: u16 = 0x1;
                const FAILED: u16 = 0x2 | 0x100;
                const COUNT: u16 = 0x10;
                let status = self.u16()?;
                self.u16()?;
                let rows = u64::from_le_bytes(self.array()?);
                Token::Done {
                    rows: (status & COUNT != 0).then_some(rows),
                    more: status & MORE != 0,
                    failed: status & FAILED != 0,
                }
            }
            RETURN_STATUS => {
                self.u32()?;
                Token::Other
            }
            FEATURES => {
                const TERMINATOR: u8 = 0xFF;
                for _ in 0..FEATURES_MAX {
                    if self.u8()? == TERMINATOR {
                        return Ok(Token::Other);
                    }
                    let length = self.u32()?;
                    self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
                }
                return Err(protocol_error("there are more features than numbers for them").into());
            }
            SESSION_STATE => {
                let length = self.u32()?;
                self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
                Token::Other
            }
            kind @ (ORDER | TABLE_NAME | COLUMN_INFO | ERROR | INFO | LOGIN_ACK | ENVIRONMENT) => {
                let length = usize::from(self.u16()?);
                let mut inside = TokenReader { bytes: self.take(length)?, at: 0 };
                // all of it has arrived, so a need for more is an error
                inside.length_prefixed(kind).map_err(|short| match short {
                    Incomplete::More => {
                        protocol_error("a token is shorter than what is in it").into()
                    }
                    other => other,
                })?
            }
            other => {
                return Err(protocol_error(&format!("token 0x{other:02X} is not known")).into());
            }
        })
    }

    fn length_prefixed(&mut self, kind: u8) -> Result<Token, Incomplete> {
        const PACKET_SIZE: u8 = 4;
        const ROUTING: u8 = 20;
        Ok(match kind {
            ERROR => {
                let number = self.u32()?.cast_signed();
                self.u8()?;
                let class = self.u8()?;
                let length = usize::from(self.u16()?);
                let message = self.text(length)?;
                let length = usize::from(self.u8()?);
                self.text(length)?;
                let length = usize::from(self.u8()?);
                let procedure = self.text(length)?;
                let line = self.u32()?;
                Token::Error(classify::server_error(number, class, &message, &procedure, line))
            }
            LOGIN_ACK => Token::LoginAck,
            ENVIRONMENT => match self.u8()? {
                PACKET_SIZE => {
                    let length = usize::from(self.u8()?);
                    let size = self.text(length)?;
                    Token::PacketBytes(
                        size.parse().map_err(|_| protocol_error("the packet size is no number"))?,
                    )
                }
                ROUTING => {
                    self.u16()?;
                    self.u8()?;
                    let port = self.u16()?;
                    let length = usize::from(self.u16()?);
                    Token::Routed { host: self.text(length)?, port }
                }
                _ => Token::Other,
            },
            _ => Token::Other,
        })
    }

    fn columns(&mut self, list: &mut ColumnList) -> Result<Vec<WireColumn>, Incomplete> {
        const NONE: u16 = 0xFFFF;
        let count = match self.u16()? {
            NONE => 0,
            count => usize::from(count),
        };
        if count > COLUMNS_MAX {
            return Err(
                protocol_error(&format!("{count} columns are more than there can be")).into()
            );
        }
        self.at = self.at.max(list.at);
        while list.columns.len() < count {
            let column = self.column(list.columns.len())?;
            list.columns.push(column);
            list.at = self.at;
        }
        Ok(std::mem::take(&mut list.columns))
    }

    fn column(&mut self, index: usize) -> Result<WireColumn, Incomplete> {
        self.u32()?;
        let flags = self.u16()?;
        let ty = self.type_info()?.map_err(|number| {
            Incomplete::UnknownType(format!("column {} is of type 0x{number:02X}", index + 1))
        })?;
        if ty.form == CellForm::Pointer {
            let parts = self.u8()?;
            if parts > NAME_PARTS_MAX {
                return Err(protocol_error("a table's name has too many parts").into());
            }
            for _ in 0..parts {
                let units = usize::from(self.u16()?);
                self.take(units * 2)?;
            }
        }
        let length = usize::from(self.u8()?);
        Ok(WireColumn { flags, ty, name: self.text(length)? })
    }

    /// TYPE_INFO; `Err` is the number of a type that is not known.
    /// <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/cbe9c510-eae6-4b1f-9893-a098944d430a>
    fn type_info(&mut self) -> Result<std::result::Result<Type, u8>, Incomplete> {
        const COLLATION_BYTES: usize = 5;
        let from = self.at;
        let token = self.u8()?;
        let form = match token {
            0x30 | 0x32 => CellForm::Fixed(1),
            0x34 => CellForm::Fixed(2),
            0x38 | 0x3A | 0x3B | 0x7A => CellForm::Fixed(4),
            0x3C | 0x3D | 0x3E | 0x7F => CellForm::Fixed(8),
            types::DATE => CellForm::Byte,
            // the length, or the scale
            types::GUID
            | types::INT
            | types::BIT
            | types::FLOAT
            | types::MONEY
            | types::DATETIME => {
                self.u8()?;
                CellForm::Byte
            }
            types::TIME | types::DATETIME2 | types::DATETIMEOFFSET => {
                self.u8()?;
                CellForm::Byte
            }
            // length, precision, scale
            types::DECIMAL | types::NUMERIC => {
                self.take(3)?;
                CellForm::Byte
            }
            types::VARBINARY | types::BINARY => self.string_length()?,
            types::VARCHAR | types::CHAR | types::NVARCHAR | types::NCHAR => {
                let form = self.string_length()?;
                self.take(COLLATION_BYTES)?;
                form
            }
            // image, text, ntext
            0x22 | 0x23 | 0x63 => {
                self.u32()?;
                if token != 0x22 {
                    self.take(COLLATION_BYTES)?;
                }
                CellForm::Pointer
            }
            other => return Ok(Err(other)),
        };
        Ok(Ok(Type { form, info: self.bytes[from..self.at].to_vec() }))
    }

    /// The length of a string or binary type.
    fn string_length(&mut self) -> Result<CellForm, Incomplete> {
        Ok(if self.u16()? == types::LENGTH_MAX { CellForm::Chunks } else { CellForm::Short })
    }
}
