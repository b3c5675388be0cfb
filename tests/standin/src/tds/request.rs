//! What a client asks: SQL batches, remote procedure calls, transaction manager requests, bulk
//! loads (2.2.6).

use super::{
    reader::{MessageReader, WireError, WireResult, malformed, utf16},
    types::{
        Place,
        decode::{TypeInfo, read_type_info, read_value},
    },
};
use crate::{
    exchange::{
        connection::{BeginNext, Isolation, Param, TransactionRequest},
        sink::Column,
    },
    value::{SqlType, Value},
};

/// ALL_HEADERS (2.2.5.3): the transaction descriptor and the trace activity say nothing that the
/// connection does not know; query notifications are refused.
pub fn skip_headers(from: &mut MessageReader<'_>) -> WireResult<()> {
    const QUERY_NOTIFICATION: u16 = 1;
    let total = from.u32()? as usize;
    let Some(mut left) = total.checked_sub(4) else {
        return malformed("ALL_HEADERS shorter than its length");
    };
    while left > 0 {
        let length = from.u32()? as usize;
        if length < 6 || length > left {
            return malformed(format!("a header of {length} bytes in {left}"));
        }
        if from.u16()? == QUERY_NOTIFICATION {
            return Err(WireError::Unsupported("query notifications".into()));
        }
        from.bytes(length - 6)?;
        left -= length;
    }
    Ok(())
}

pub fn sql_batch(from: &mut MessageReader<'_>) -> WireResult<String> {
    skip_headers(from)?;
    let bytes = from.rest()?;
    if bytes.len() % 2 != 0 {
        return malformed("a SQL batch of half a character");
    }
    Ok(utf16(&bytes))
}

/// One call of an RPC message.
#[derive(Clone, Debug)]
pub struct RpcCall {
    pub procedure: String,
    pub params: Vec<Param>,
    /// fNoMetaData and fReuseMetaData: allowed to be ignored, as metadata is always sent
    pub flags: u16,
}

/// The calls of an RPC message, which may be several.
pub fn rpc(from: &mut MessageReader<'_>) -> WireResult<Vec<RpcCall>> {
    skip_headers(from)?;
    let mut calls = Vec::new();
    while !from.at_end()? {
        calls.push(rpc_call(from)?);
    }
    if calls.is_empty() { malformed("an RPC of no procedure") } else { Ok(calls) }
}

/// Between two calls of one message: BatchFlag (0x80 before 7.2), or NoExecFlag.
const BATCH_FLAG: u8 = 0xFF;
const NO_EXEC_FLAG: u8 = 0xFE;

fn rpc_call(from: &mut MessageReader<'_>) -> WireResult<RpcCall> {
    let procedure = match from.u16()? {
        0xFFFF => procedure_of(from.u16()?)?.to_owned(),
        units @ 1..=1046 => utf16(&from.bytes(usize::from(units) * 2)?),
        units => return malformed(format!("a procedure name of {units} characters")),
    };
    let flags = from.u16()?;
    let mut params = Vec::new();
    loop {
        match from.peek_u8()? {
            None => break,
            Some(BATCH_FLAG) => {
                from.u8()?;
                break;
            }
            Some(NO_EXEC_FLAG) => {
                return Err(WireError::Unsupported(
                    "an RPC that is not to be executed (NoExecFlag)".into(),
                ));
            }
            Some(_) => params.push(param(from)?),
        }
    }
    Ok(RpcCall { procedure, params, flags })
}

fn param(from: &mut MessageReader<'_>) -> WireResult<Param> {
    const BY_REFERENCE: u8 = 0x01;
    const DEFAULT: u8 = 0x02;
    const ENCRYPTED: u8 = 0x08;
    let name = from.b_varchar()?;
    let status = from.u8()?;
    if status & ENCRYPTED != 0 {
        return Err(WireError::Unsupported(format!("the encrypted parameter {name}")));
    }
    let info = read_type_info(from, Place::Param)?;
    let value = read_value(from, &info, Place::Param)?;
    Ok(Param {
        name,
        ty: info.ty,
        value,
        output: status & BY_REFERENCE != 0,
        default: status & DEFAULT != 0,
    })
}

/// The procedures that have a number (2.2.6.6). Cursors are named so that the refusal can name
/// them.
fn procedure_of(id: u16) -> WireResult<&'static str> {
    Ok(match id {
        1 => "sp_cursor",
        2 => "sp_cursoropen",
        3 => "sp_cursorprepare",
        4 => "sp_cursorexecute",
        5 => "sp_cursorprepexec",
        6 => "sp_cursorunprepare",
        7 => "sp_cursorfetch",
        8 => "sp_cursoroption",
        9 => "sp_cursorclose",
        10 => "sp_executesql",
        11 => "sp_prepare",
        12 => "sp_execute",
        13 => "sp_prepexec",
        14 => "sp_prepexecrpc",
        15 => "sp_unprepare",
        _ => return malformed(format!("the procedure number {id}")),
    })
}

pub fn transaction(from: &mut MessageReader<'_>) -> WireResult<TransactionRequest> {
    skip_headers(from)?;
    let refuse = |what: &str| Err(WireError::Unsupported(what.into()));
    match from.u16()? {
        0 => refuse("TM_GET_DTC_ADDRESS"),
        1 => refuse("TM_PROPAGATE_XACT"),
        5 => Ok(TransactionRequest::Begin { isolation: isolation(from)?, name: name(from)? }),
        6 => refuse("TM_PROMOTE_XACT"),
        7 => Ok(TransactionRequest::Commit { name: name(from)?, begin: begin_next(from)? }),
        8 => Ok(TransactionRequest::Rollback { name: name(from)?, begin: begin_next(from)? }),
        9 => Ok(TransactionRequest::Save { name: name(from)? }),
        other => malformed(format!("a transaction manager request of type {other}")),
    }
}

fn isolation(from: &mut MessageReader<'_>) -> WireResult<Option<Isolation>> {
    Ok(match from.u8()? {
        0 => None,
        1 => Some(Isolation::ReadUncommitted),
        2 => Some(Isolation::ReadCommitted),
        3 => Some(Isolation::RepeatableRead),
        4 => Some(Isolation::Serializable),
        5 => Some(Isolation::Snapshot),
        other => return malformed(format!("isolation level {other}")),
    })
}

/// A B_VARBYTE: the length counts bytes.
fn name(from: &mut MessageReader<'_>) -> WireResult<String> {
    let length = usize::from(from.u8()?);
    Ok(utf16(&from.bytes(length)?))
}

fn begin_next(from: &mut MessageReader<'_>) -> WireResult<Option<BeginNext>> {
    const BEGIN: u8 = 0x01;
    // A client may leave the flags away at the end of the message.
    if from.at_end()? || from.u8()? & BEGIN == 0 {
        return Ok(None);
    }
    Ok(Some(BeginNext { isolation: isolation(from)?, name: name(from)? }))
}

/// The columns of a bulk load, and how their values are laid out.
#[derive(Clone, Debug)]
pub struct BulkColumns {
    pub columns: Vec<Column>,
    infos: Vec<TypeInfo>,
}

impl BulkColumns {
    /// Text in a code page is read in the collation of what was declared.
    pub fn read_as(&mut self, declared: &[SqlType]) {
        for (info, declared) in self.infos.iter_mut().zip(declared) {
            if let (SqlType::Char(..) | SqlType::VarChar(..) | SqlType::Text(_), Some(collation)) =
                (info.ty, declared.collation())
            {
                info.ty = info.ty.with_collation(collation);
            }
        }
    }
}

const COLUMN_METADATA: u8 = 0x81;
const ROW: u8 = 0xD1;
const NBC_ROW: u8 = 0xD2;
const DONE: u8 = 0xFD;

/// COLMETADATA of a bulk load (2.2.6.1).
pub fn bulk_columns(from: &mut MessageReader<'_>) -> WireResult<BulkColumns> {
    match from.u8()? {
        COLUMN_METADATA => {}
        other => return malformed(format!("a bulk load that starts with the token {other:#04x}")),
    }
    let count = match from.u16()? {
        0xFFFF => 0,
        count => count,
    };
    let mut bulk = BulkColumns { columns: Vec::new(), infos: Vec::new() };
    for _ in 0..count {
        let _user_type = from.u32()?;
        let flags = from.u16()?;
        let info = read_type_info(from, Place::Bulk)?;
        let name = from.b_varchar()?;
        bulk.columns.push(Column {
            name,
            ty: info.ty,
            nullable: flags & 0x01 != 0,
            identity: flags & 0x10 != 0,
            computed: flags & 0x20 != 0,
        });
        bulk.infos.push(info);
    }
    Ok(bulk)
}

/// The next row of a bulk load; `None` at its end.
pub fn bulk_row(
    from: &mut MessageReader<'_>,
    bulk: &BulkColumns,
) -> WireResult<Option<Vec<Value>>> {
    if from.at_end()? {
        return Ok(None);
    }
    match from.u8()? {
        ROW => {
            let mut row = Vec::with_capacity(bulk.infos.len());
            for info in &bulk.infos {
                row.push(read_value(from, info, Place::Bulk)?);
            }
            Ok(Some(row))
        }
        NBC_ROW => {
            let bitmap = from.bytes(bulk.infos.len().div_ceil(8))?;
            let mut row = Vec::with_capacity(bulk.infos.len());
            for (i, info) in bulk.infos.iter().enumerate() {
                let null = bitmap[i / 8] & (1 << (i % 8)) != 0;
                row.push(if null { Value::Null } else { read_value(from, info, Place::Bulk)? });
            }
            Ok(Some(row))
        }
        DONE => {
            // Microsoft's own loaders end as TDS 7.1 did, with a row count of four bytes
            // (SqlClient's WriteBulkCopyDone, mssql-tds).
            match from.rest()?.len() {
                8 | 12 => Ok(None),
                other => malformed(format!("{other} bytes in a bulk load's DONE")),
            }
        }
        other => malformed(format!("the token {other:#04x} in a bulk load")),
    }
}

/// The statement of an RPC, for the log of statements and for faults: sp_executesql's and
/// sp_prepexec's text, or the procedure's name.
pub fn text_of(call: &RpcCall) -> String {
    let at = match call.procedure.to_ascii_lowercase().as_str() {
        "sp_executesql" => 0,
        "sp_prepare" | "sp_prepexec" => 2,
        _ => return call.procedure.clone(),
    };
    match call.params.get(at) {
        Some(Param {
            value: Value::Str(text),
            ty: SqlType::NVarChar(..) | SqlType::NText(_) | SqlType::NChar(..),
            ..
        }) => text.to_string(),
        _ => call.procedure.clone(),
    }
}
