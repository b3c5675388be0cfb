//! Answers: collected as a whole, or as a stream of rows.

use futures_util::TryStreamExt;
use tiberius::{QueryItem, QueryStream};

use super::{row::Row, state::SessionState};
use crate::{
    error::{Error, Kind, Result},
    mssql::{
        connect::budget::{ANSWER_BYTES_MAX, AnswerPart},
        timeout::with_lazy_timeout,
    },
};

/// Most rows that are collected; longer answers are streamed.
pub const ROWS_MAX: usize = 100_000;
/// Most result sets that are collected: no statement here has as many, and each keeps a list of its
/// columns in memory.
const RESULT_SETS_MAX: usize = 64;

/// Reads an answer to its end: the rows of each result set.
pub(super) async fn collect(
    stream: QueryStream<'_>,
    server_database: &str,
) -> std::result::Result<Result<Vec<Vec<Row>>>, tiberius::error::Error> {
    let mut sets: Vec<Vec<Row>> = Vec::new();
    // a cell may have more bytes in memory than on the wire
    let mut bytes = 0u64;
    let taken = |item| {
        match item {
            QueryItem::Metadata(_) if sets.len() == RESULT_SETS_MAX => {
                return Err(Error::new(
                    Kind::Other,
                    format!("the server's answer has more than {RESULT_SETS_MAX} result sets"),
                ));
            }
            QueryItem::Metadata(_) => sets.push(Vec::new()),
            QueryItem::Row(row) => {
                let row = Row(row);
                bytes = bytes.saturating_add(u64::try_from(row.size_bytes()).unwrap_or(u64::MAX));
                if bytes > ANSWER_BYTES_MAX {
                    return Err(AnswerPart::Whole.too_large(server_database));
                }
                if let Some(rows) = sets.last_mut() {
                    rows.push(row);
                }
            }
        }
        Ok(())
    };
    let end = read_to_end(stream, taken).await?;
    Ok(end.map(|()| sets))
}

/// Reads an answer to its end, so that the session can be used again, and passes each item to
/// `take`: at most [`ROWS_MAX`] rows, and none after the first error of `take`.
pub(super) async fn read_to_end(
    mut stream: QueryStream<'_>,
    mut take: impl FnMut(QueryItem) -> Result<()>,
) -> std::result::Result<Result<()>, tiberius::error::Error> {
    let (mut count, mut taken) = (0usize, Ok(()));
    while let Some(item) = stream.try_next().await? {
        count += usize::from(matches!(item, QueryItem::Row(_)));
        if taken.is_ok() && count <= ROWS_MAX {
            taken = take(item);
        }
    }
    Ok(if count > ROWS_MAX {
        Err(Error::new(
            Kind::Other,
            format!("the server's answer has {count} rows, more than the {ROWS_MAX} allowed here"),
        ))
    } else {
        taken
    })
}

/// The rows of a result set, one at a time.
pub struct RowStream<'a> {
    pub(super) stream: Option<QueryStream<'a>>,
    pub(super) state: &'a mut SessionState,
    /// Rows that were returned so far.
    pub(super) rows: u64,
}

impl RowStream<'_> {
    /// The next row; `None` once, at the clean end.
    pub async fn next(&mut self) -> Result<Option<Row>> {
        let Some(stream) = self.stream.as_mut() else { return Ok(None) };
        let next = async {
            loop {
                match stream.try_next().await {
                    Ok(Some(QueryItem::Row(row))) => return Ok(Some(Row(row))),
                    Ok(Some(QueryItem::Metadata(_))) => {}
                    Ok(None) => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        };
        match with_lazy_timeout(self.state.timeout, next).await {
            Ok(Ok(Some(row))) => {
                self.rows += 1;
                self.state.start_part(AnswerPart::Row(self.rows));
                Ok(Some(row))
            }
            Ok(end) => {
                self.stream = None;
                self.state.end_request(end)
            }
            Err(_) => {
                self.stream = None;
                Err(self.state.timed_out())
            }
        }
    }
}
