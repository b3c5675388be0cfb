//! What a statement that went well leaves behind.

use crate::exchange::sink::DoneKind;

pub struct Done {
    /// What the client is told, if anything.
    pub report: Option<(DoneKind, Option<u64>)>,
    /// @@ROWCOUNT from here on; None: as it was.
    pub row_count: Option<i64>,
}

impl Done {
    /// Tells nothing, counts nothing.
    pub fn quiet(row_count: Option<i64>) -> Self {
        Self { report: None, row_count }
    }

    pub fn rows(kind: DoneKind, rows: u64) -> Self {
        Self {
            report: Some((kind, Some(rows))),
            row_count: Some(i64::try_from(rows).unwrap_or(i64::MAX)),
        }
    }

    pub fn other() -> Self {
        Self { report: Some((DoneKind::Other, None)), row_count: Some(0) }
    }
}
