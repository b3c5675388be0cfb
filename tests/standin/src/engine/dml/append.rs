//! UPDATE's `.WRITE(value, NULL, length)`: appending to a large value.
//! <https://learn.microsoft.com/sql/t-sql/queries/update-transact-sql#arguments>

use crate::{
    error::{SqlError, SqlResult},
    value::{Length, SqlType, Value},
};

/// Whether `.WRITE` takes a column of this type.
pub fn takes(ty: SqlType) -> bool {
    matches!(
        ty,
        SqlType::VarChar(Length::Max, _)
            | SqlType::NVarChar(Length::Max, _)
            | SqlType::VarBinary(Length::Max)
    )
}

/// `old` with `piece` behind it. A column that is NULL takes no `.WRITE`; a piece that is NULL
/// would truncate.
pub fn append(old: &Value, piece: &Value) -> SqlResult<Value> {
    match (old, piece) {
        (Value::Str(old), Value::Str(piece)) => Ok(Value::Str([&**old, &**piece].concat().into())),
        (Value::Bytes(old), Value::Bytes(piece)) => {
            Ok(Value::Bytes([&**old, &**piece].concat().into()))
        }
        (Value::Null, _) => Err(SqlError::unsupported(".WRITE on a column that is NULL")),
        _ => Err(SqlError::unsupported(".WRITE of NULL")),
    }
}
