//! What an answer consists of, for whoever reads rows: rows, and an end.

use super::{
    packet::Packets,
    token::Token,
    types::{NBC_ROW, ROW},
};
use crate::{
    error::{Error, Kind, Result},
    mssql::classify,
};

enum RowOrEnd {
    /// A row begins; it is not consumed.
    Row,
    /// The answer has ended; the row count of its last statement.
    End(u64),
}

/// Skips tokens up to the next row or the answer's end: an ORDER token comes before the rows of a
/// statement with ORDER BY, messages may come anywhere. An answer without a final DONE was cut
/// short and is an error.
async fn next_row_or_end(packets: &mut Packets) -> Result<RowOrEnd> {
    let (mut counted, mut done, mut other_columns) = (0, false, false);
    while let Some(token) = packets.next_token().await? {
        match token {
            Token::Error(error) => return Err(error),
            Token::Done { failed: true, .. } => {
                return Err(Error::new(Kind::Other, "the server failed without saying why"));
            }
            Token::Done { rows, more, .. } => {
                counted = rows.unwrap_or(counted);
                done = !more;
            }
            Token::Columns(_) => other_columns = true,
            Token::UnknownType(why) => {
                return Err(Error::new(
                    Kind::Other,
                    format!("the server answers with a result set that is not read here: {why}"),
                ));
            }
            Token::Row if other_columns => {
                return Err(Error::new(Kind::Other, "the server answers with a second result set"));
            }
            Token::Row => return Ok(RowOrEnd::Row),
            _ => {}
        }
    }
    if done {
        Ok(RowOrEnd::End(counted))
    } else {
        Err(classify::protocol_error("an answer ends without DONE"))
    }
}

/// Whether a row comes next; otherwise the answer has ended.
pub(super) async fn has_next_row(packets: &mut Packets) -> Result<bool> {
    // the fast path: the row has already arrived
    Ok(matches!(packets.buffered().first(), Some(&(ROW | NBC_ROW)))
        || matches!(next_row_or_end(packets).await?, RowOrEnd::Row))
}

/// Reads an answer without rows to its end. Returns the row count of its last statement.
pub(super) async fn read_to_end(packets: &mut Packets) -> Result<u64> {
    match next_row_or_end(packets).await? {
        RowOrEnd::End(counted) => Ok(counted),
        RowOrEnd::Row => {
            Err(Error::new(Kind::Other, "the server answers with rows where none are expected"))
        }
    }
}
