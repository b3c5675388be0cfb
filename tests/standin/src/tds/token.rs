//! What a server answers: the tokens of a reply (2.2.7).

use super::{
    TdsVersion,
    types::{
        Place,
        encode::{b_varchar, us_varchar, user_type, write_type_info, write_value},
        fixed::{EncodeResult, Misfit},
    },
};
use crate::{
    error::SqlError,
    exchange::sink::{Column, DoneKind, EnvChange},
    value::{Collation, SqlType, Value},
};

mod kind {
    pub const RETURN_STATUS: u8 = 0x79;
    pub const COLUMN_METADATA: u8 = 0x81;
    pub const ERROR: u8 = 0xAA;
    pub const ORDER: u8 = 0xA9;
    pub const INFO: u8 = 0xAB;
    pub const RETURN_VALUE: u8 = 0xAC;
    pub const LOGIN_ACK: u8 = 0xAD;
    pub const FEATURE_EXT_ACK: u8 = 0xAE;
    pub const ROW: u8 = 0xD1;
    pub const NBC_ROW: u8 = 0xD2;
    pub const ENV_CHANGE: u8 = 0xE3;
    pub const DONE: u8 = 0xFD;
    pub const DONE_PROC: u8 = 0xFE;
    pub const DONE_IN_PROC: u8 = 0xFF;
}

/// Which of the three ends of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneToken {
    Done,
    Proc,
    InProc,
}

/// Status bits of the DONE tokens (2.2.7.6).
pub mod done_status {
    pub const MORE: u16 = 0x01;
    pub const ERROR: u16 = 0x02;
    pub const IN_TRANSACTION: u16 = 0x04;
    pub const COUNT: u16 = 0x10;
    pub const ATTENTION: u16 = 0x20;
    pub const SERVER_ERROR: u16 = 0x100;
}

/// A DONE token; what has to be known of it before it can be written is whether MORE follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub token: DoneToken,
    pub status: u16,
    pub command: u16,
    pub rows: u64,
}

/// CurCmd of a DONE token.
pub fn command(kind: DoneKind) -> u16 {
    match kind {
        DoneKind::Select => 0xC1,
        DoneKind::Insert => 0xC3,
        DoneKind::Delete => 0xC4,
        DoneKind::Update => 0xC5,
        DoneKind::Other => 0xFD,
    }
}

pub fn done(out: &mut Vec<u8>, done: Done) {
    out.push(match done.token {
        DoneToken::Done => kind::DONE,
        DoneToken::Proc => kind::DONE_PROC,
        DoneToken::InProc => kind::DONE_IN_PROC,
    });
    out.extend_from_slice(&done.status.to_le_bytes());
    out.extend_from_slice(&done.command.to_le_bytes());
    out.extend_from_slice(&done.rows.to_le_bytes());
}

/// ORDER: between the columns and the rows of a query that has an ORDER BY.
pub fn order(out: &mut Vec<u8>, columns: &[u16]) {
    out.push(kind::ORDER);
    with_length(out, |out| {
        columns.iter().for_each(|column| out.extend_from_slice(&column.to_le_bytes()))
    });
}

/// ERROR above class 10, INFO otherwise.
pub fn message(out: &mut Vec<u8>, message: &SqlError, server: &str) {
    out.push(if message.class > 10 { kind::ERROR } else { kind::INFO });
    with_length(out, |out| {
        out.extend_from_slice(&message.number.to_le_bytes());
        out.extend_from_slice(&[message.state, message.class]);
        us_varchar(out, &message.message);
        b_varchar(out, server);
        b_varchar(out, &message.procedure);
        out.extend_from_slice(&message.line.to_le_bytes());
    });
}

/// ENVCHANGE types (2.2.7.9).
mod env {
    pub const DATABASE: u8 = 1;
    pub const LANGUAGE: u8 = 2;
    pub const PACKET_SIZE: u8 = 4;
    pub const COLLATION: u8 = 7;
    pub const BEGIN_TRANSACTION: u8 = 8;
    pub const COMMIT_TRANSACTION: u8 = 9;
    pub const ROLLBACK_TRANSACTION: u8 = 10;
    pub const RESET_ACK: u8 = 18;
    pub const ROUTING: u8 = 20;
}

pub fn env_change(out: &mut Vec<u8>, change: &EnvChange) {
    out.push(kind::ENV_CHANGE);
    with_length(out, |out| match change {
        EnvChange::Database { new, old } => env_text(out, env::DATABASE, new, old),
        EnvChange::Language { new, old } => env_text(out, env::LANGUAGE, new, old),
        EnvChange::Collation(collation) => env_collation(out, *collation),
        EnvChange::BeginTransaction(id) => {
            out.extend_from_slice(&[env::BEGIN_TRANSACTION, 8]);
            out.extend_from_slice(&id.to_le_bytes());
            out.push(0);
        }
        EnvChange::CommitTransaction(id) => {
            out.extend_from_slice(&[env::COMMIT_TRANSACTION, 0, 8]);
            out.extend_from_slice(&id.to_le_bytes());
        }
        EnvChange::RollbackTransaction(id) => {
            out.extend_from_slice(&[env::ROLLBACK_TRANSACTION, 0, 8]);
            out.extend_from_slice(&id.to_le_bytes());
        }
    });
}

pub fn env_packet_size(out: &mut Vec<u8>, new: usize, old: usize) {
    out.push(kind::ENV_CHANGE);
    with_length(out, |out| env_text(out, env::PACKET_SIZE, &new.to_string(), &old.to_string()));
}

pub fn env_reset_ack(out: &mut Vec<u8>) {
    out.push(kind::ENV_CHANGE);
    with_length(out, |out| out.extend_from_slice(&[env::RESET_ACK, 0, 0]));
}

/// The login goes on at another server (2.2.7.9, type 20).
pub fn env_routing(out: &mut Vec<u8>, host: &str, port: u16) {
    const TCP: u8 = 0;
    out.push(kind::ENV_CHANGE);
    with_length(out, |out| {
        out.push(env::ROUTING);
        with_length(out, |out| {
            out.push(TCP);
            out.extend_from_slice(&port.to_le_bytes());
            us_varchar(out, host);
        });
        // there is no old value
        out.extend_from_slice(&[0, 0]);
    });
}

fn env_text(out: &mut Vec<u8>, kind: u8, new: &str, old: &str) {
    out.push(kind);
    b_varchar(out, new);
    b_varchar(out, old);
}

fn env_collation(out: &mut Vec<u8>, collation: Collation) {
    out.extend_from_slice(&[env::COLLATION, 5]);
    out.extend_from_slice(&collation.wire());
    out.push(0);
}

/// The interface is T-SQL (1); the version is the other way round than in LOGIN7.
pub fn login_ack(out: &mut Vec<u8>, version: TdsVersion, program: &str, program_version: [u8; 4]) {
    out.push(kind::LOGIN_ACK);
    with_length(out, |out| {
        out.push(1);
        out.extend_from_slice(&version.0.to_be_bytes());
        b_varchar(out, program);
        out.extend_from_slice(&program_version);
    });
}

pub fn feature_ext_ack(out: &mut Vec<u8>, features: &[(u8, &[u8])]) {
    out.push(kind::FEATURE_EXT_ACK);
    for (id, data) in features {
        out.push(*id);
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.extend_from_slice(data);
    }
    out.push(super::login::feature::TERMINATOR);
}

pub fn return_status(out: &mut Vec<u8>, status: i32) {
    out.push(kind::RETURN_STATUS);
    out.extend_from_slice(&status.to_le_bytes());
}

pub fn return_value(
    out: &mut Vec<u8>,
    ordinal: u16,
    name: &str,
    ty: SqlType,
    value: &Value,
) -> EncodeResult {
    out.push(kind::RETURN_VALUE);
    out.extend_from_slice(&ordinal.to_le_bytes());
    b_varchar(out, name);
    // Status: an output parameter (not a user-defined function's value); then UserType, and Flags:
    // nullable.
    out.push(0x01);
    out.extend_from_slice(&user_type(ty).to_le_bytes());
    out.extend_from_slice(&1u16.to_le_bytes());
    // text, ntext and image cannot be output parameters.
    if matches!(ty, SqlType::Text(_) | SqlType::NText(_) | SqlType::Image) {
        return Err(Misfit(format!("an output parameter of {ty:?}")));
    }
    write_type_info(out, ty, true, Place::Param);
    write_value(out, ty, true, value, Place::Param)
}

/// Column flags (2.2.7.4).
mod flag {
    pub const NULLABLE: u16 = 0x01;
    pub const CASE_SENSITIVE: u16 = 0x02;
    pub const UPDATEABLE_UNKNOWN: u16 = 0x08;
    pub const IDENTITY: u16 = 0x10;
    pub const COMPUTED: u16 = 0x20;
}

pub fn column_metadata(out: &mut Vec<u8>, columns: &[Column]) {
    out.push(kind::COLUMN_METADATA);
    out.extend_from_slice(&(columns.len() as u16).to_le_bytes());
    for column in columns {
        out.extend_from_slice(&user_type(column.ty).to_le_bytes());
        out.extend_from_slice(&flags(column).to_le_bytes());
        write_type_info(out, column.ty, column.nullable, Place::Column);
        b_varchar(out, &column.name);
    }
}

fn flags(column: &Column) -> u16 {
    let mut flags = 0;
    if column.nullable {
        flags |= flag::NULLABLE;
    }
    if column.identity {
        flags |= flag::IDENTITY;
    }
    if column.computed {
        flags |= flag::COMPUTED;
    }
    if !column.identity && !column.computed && column.ty != SqlType::RowVersion {
        flags |= flag::UPDATEABLE_UNKNOWN;
    }
    let collation = match column.ty {
        SqlType::Char(_, c)
        | SqlType::VarChar(_, c)
        | SqlType::NChar(_, c)
        | SqlType::NVarChar(_, c) => Some(c),
        SqlType::Text(c) | SqlType::NText(c) => Some(c),
        _ => None,
    };
    if collation.is_some_and(Collation::is_case_sensitive) {
        flags |= flag::CASE_SENSITIVE;
    }
    flags
}

/// A row; with its NULLs in a bitmap when `compress` allows and that is shorter.
pub fn row(out: &mut Vec<u8>, columns: &[Column], row: &[Value], compress: bool) -> EncodeResult {
    if row.len() != columns.len() {
        return Err(Misfit(format!("a row of {} values for {} columns", row.len(), columns.len())));
    }
    let nulls = row.iter().filter(|value| **value == Value::Null).count();
    let bitmap_bytes = columns.len().div_ceil(8);
    let start = out.len();
    let compressed = compress && nulls > bitmap_bytes;
    if compressed {
        out.push(kind::NBC_ROW);
        let bitmap = out.len();
        out.resize(bitmap + bitmap_bytes, 0);
        for (i, _) in row.iter().enumerate().filter(|(_, value)| **value == Value::Null) {
            out[bitmap + i / 8] |= 1 << (i % 8);
        }
    } else {
        out.push(kind::ROW);
    }
    for (column, value) in columns.iter().zip(row) {
        if compressed && *value == Value::Null {
            if !column.nullable {
                out.truncate(start);
                return Err(Misfit(format!("NULL in column {}, which is NOT NULL", column.name)));
            }
            continue;
        }
        if let Err(Misfit(what)) =
            write_value(out, column.ty, column.nullable, value, Place::Column)
        {
            out.truncate(start);
            return Err(Misfit(format!("column {}: {what}", column.name)));
        }
    }
    Ok(())
}

/// A length of two bytes before what `write` writes.
fn with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    write(out);
    // The longest is an ERROR: its text is cut at 32,000 units by `us_varchar`.
    let length = (out.len() - at - 2).min(usize::from(u16::MAX)) as u16;
    out[at..at + 2].copy_from_slice(&length.to_le_bytes());
}
