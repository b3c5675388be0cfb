//! A statement with parameters: the call of sp_executesql.
//! <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/619c43b6-9495-4a58-9e49-a4950db245b3>

use super::types::{self, utf16};
use crate::model::value::Value;

/// What says that a procedure's number comes instead of its name, and sp_executesql's number.
const EXECUTE_SQL: [u8; 4] = [0xFF, 0xFF, 0x0A, 0x00];
const NO_OPTIONS: [u8; 2] = [0; 2];
/// A parameter's empty name, and that nothing of it comes back.
const NAMELESS: [u8; 2] = [0; 2];
/// SQL_Latin1_General_CP1_CI_AS, which says nothing of Unicode text, but must be there.
const COLLATION: [u8; 5] = [0x09, 0x04, 0xD0, 0x00, 0x34];
/// What longer binaries and texts are, they are `(max)`.
const LENGTH_BYTES_MAX: u16 = 8000;
const SCALE: u8 = 7;
const DECIMAL_BYTES: u8 = 17;
const DECIMAL_PRECISION: u8 = 38;

/// The request's bytes. `params` are `@P1`, `@P2`, …; each is of the type that holds all values of
/// its kind.
pub(super) fn executesql(sql: &str, params: &[&Value]) -> Vec<u8> {
    let mut call = Vec::with_capacity(2 * sql.len() + 256);
    call.extend_from_slice(&EXECUTE_SQL);
    call.extend_from_slice(&NO_OPTIONS);
    text(sql, &mut call);
    if !params.is_empty() {
        let declared: Vec<_> = params
            .iter()
            .enumerate()
            .map(|(i, value)| format!("@P{} {}", i + 1, declaration(value)))
            .collect();
        text(&declared.join(","), &mut call);
    }
    for value in params {
        parameter(value, &mut call);
    }
    call
}

fn declaration(value: &Value) -> String {
    match value {
        Value::Bit(_) => "bit".into(),
        Value::Int(_) => "bigint".into(),
        Value::Decimal { scale, .. } => format!("decimal({DECIMAL_PRECISION},{scale})"),
        Value::Real(_) => "real".into(),
        Value::Float(_) => "float".into(),
        Value::Date(_) => "date".into(),
        Value::Time(_) => format!("time({SCALE})"),
        Value::DateTime { .. } => "datetime".into(),
        Value::DateTime2 { .. } => format!("datetime2({SCALE})"),
        Value::DateTimeOffset { .. } => format!("datetimeoffset({SCALE})"),
        Value::Bytes(bytes) if bytes.len() > usize::from(LENGTH_BYTES_MAX) => {
            "varbinary(max)".into()
        }
        Value::Bytes(_) => format!("varbinary({LENGTH_BYTES_MAX})"),
        Value::Guid(_) => "uniqueidentifier".into(),
        Value::Text(text) if 2 * text.encode_utf16().count() > usize::from(LENGTH_BYTES_MAX) => {
            "nvarchar(max)".into()
        }
        Value::Null | Value::Text(_) => format!("nvarchar({})", LENGTH_BYTES_MAX / 2),
    }
}

/// The type, the length and the value.
fn parameter(value: &Value, call: &mut Vec<u8>) {
    call.extend_from_slice(&NAMELESS);
    match value {
        Value::Bit(v) => call.extend_from_slice(&[types::BIT, 1, 1, u8::from(*v)]),
        Value::Int(v) => sized(&[types::INT, 8], &v.to_le_bytes(), call),
        Value::Decimal { mantissa, scale } => {
            call.extend_from_slice(&[
                types::DECIMAL,
                DECIMAL_BYTES,
                DECIMAL_PRECISION,
                *scale,
                DECIMAL_BYTES,
            ]);
            call.push(u8::from(*mantissa >= 0));
            call.extend_from_slice(&mantissa.unsigned_abs().to_le_bytes());
        }
        Value::Real(v) => sized(&[types::FLOAT, 4], &v.to_le_bytes(), call),
        Value::Float(v) => sized(&[types::FLOAT, 8], &v.to_le_bytes(), call),
        Value::Date(days) => sized(&[types::DATE], &date(*days), call),
        Value::Time(ticks) => sized(&[types::TIME, SCALE], &time(*ticks), call),
        Value::DateTime { days_since_1900, ticks300 } => {
            sized(
                &[types::DATETIME, 8],
                &[days_since_1900.to_le_bytes(), ticks300.to_le_bytes()].concat(),
                call,
            );
        }
        Value::DateTime2 { days, ticks } => {
            sized(&[types::DATETIME2, SCALE], &[&time(*ticks)[..], &date(*days)].concat(), call)
        }
        Value::DateTimeOffset { days, ticks, offset_minutes } => {
            sized(
                &[types::DATETIMEOFFSET, SCALE],
                &[&time(*ticks)[..], &date(*days), &offset_minutes.to_le_bytes()].concat(),
                call,
            );
        }
        Value::Bytes(bytes) => long(types::VARBINARY, &[], bytes, call),
        Value::Guid(guid) => {
            sized(&[types::GUID, 16], &uuid::Uuid::from_bytes(*guid).to_bytes_le(), call)
        }
        Value::Text(text) => long(types::NVARCHAR, &COLLATION, &utf16(text), call),
        Value::Null => {
            const NULL: [u8; 2] = [0xFF; 2];
            call.push(types::NVARCHAR);
            call.extend_from_slice(&LENGTH_BYTES_MAX.to_le_bytes());
            call.extend_from_slice(&COLLATION);
            call.extend_from_slice(&NULL);
        }
    }
}

fn sized(ty: &[u8], bytes: &[u8], call: &mut Vec<u8>) {
    call.extend_from_slice(ty);
    // none is longer than 16
    call.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    call.extend_from_slice(bytes);
}

/// A text of the call's own: the statement, the declarations.
fn text(text: &str, call: &mut Vec<u8>) {
    call.extend_from_slice(&NAMELESS);
    long(types::NVARCHAR, &COLLATION, &utf16(text), call);
}

/// With a length of two bytes, or, where that is too short, as a `(max)` type in one chunk.
fn long(ty: u8, collation: &[u8], bytes: &[u8], call: &mut Vec<u8>) {
    call.push(ty);
    match u16::try_from(bytes.len()) {
        Ok(length) if length <= LENGTH_BYTES_MAX => {
            call.extend_from_slice(&LENGTH_BYTES_MAX.to_le_bytes());
            call.extend_from_slice(collation);
            call.extend_from_slice(&length.to_le_bytes());
            call.extend_from_slice(bytes);
        }
        _ => {
            const LAST_CHUNK: [u8; 4] = [0; 4];
            call.extend_from_slice(&types::LENGTH_MAX.to_le_bytes());
            call.extend_from_slice(collation);
            call.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            call.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            call.extend_from_slice(bytes);
            call.extend_from_slice(&LAST_CHUNK);
        }
    }
}

fn date(days: i32) -> [u8; 3] {
    let [a, b, c, _] = days.to_le_bytes();
    [a, b, c]
}

fn time(ticks: u64) -> [u8; 5] {
    let [a, b, c, d, e, ..] = ticks.to_le_bytes();
    [a, b, c, d, e]
}
