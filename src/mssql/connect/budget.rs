//! The memory limit of a server's answers after the login.
//!
//! The driver reads a whole row before it returns it, and a value of a `(max)` type may have 2 GB; an
//! answer that is collected is read as a whole. So the bytes that come from the network are counted ([`crate::mssql::connect::socket`]), and the read that passes the limit fails. The count starts again
//! with every request and every part of an answer that was returned.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::error::{Error, Kind};

/// Most bytes of one row that is held in memory as a whole. A row without large values has far less
/// (SQL Server's rows have 8,060 bytes, and 8,000 for each value outside of the row). The driver
/// holds text up to three times while it decodes it, and the service has to stay below the 1 GiB
/// that its unit allows (`MemoryMax`).
pub(in crate::mssql) const ROW_BYTES_MAX: u64 = 128 << 20;
/// Most bytes of an answer that is collected: from the network, and in memory. The longest regular
/// ones (every mapping, every capture instance) have a few MiB.
pub(in crate::mssql) const ANSWER_BYTES_MAX: u64 = 128 << 20;

/// A part of an answer that is in memory as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mssql) enum AnswerPart {
    /// The whole answer, which is collected.
    Whole,
    /// One row of a stream; the number of rows before it.
    Row(u64),
}

impl AnswerPart {
    fn bytes_max(self) -> u64 {
        match self {
            AnswerPart::Whole => ANSWER_BYTES_MAX,
            AnswerPart::Row(_) => ROW_BYTES_MAX,
        }
    }

    /// The part's name in messages.
    pub fn description(self, server: &str) -> String {
        match self {
            AnswerPart::Whole => format!("the answer of {server}"),
            AnswerPart::Row(before) => format!("row {} of the answer of {server}", before + 1),
        }
    }

    /// The error for a part that is larger than its limit; `server` as messages name it.
    pub fn too_large(self, server: &str) -> Error {
        let message = format!(
            "{} has more than {} MiB, the most that is held in memory",
            self.description(server),
            self.bytes_max() >> 20
        );
        let error = Error::new(Kind::TooLarge, message);
        match self {
            AnswerPart::Whole => error,
            AnswerPart::Row(_) => error.with_hint(
                "Full syncs carry rows of any size with DATAFLOW_COPY_LANE=wire (the default) and DATAFLOW_MAX_CONNECTIONS of at least 12; \
                 otherwise make the row's values smaller",
            ),
        }
    }
}

/// Counts the bytes that one connection receives. It is shared by the socket and the session.
#[derive(Debug)]
pub(in crate::mssql) struct AnswerBudget {
    logged_in: AtomicBool,
    bytes: AtomicU64,
    bytes_max: AtomicU64,
}

impl AnswerBudget {
    pub fn new() -> Self {
        AnswerBudget {
            logged_in: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            bytes_max: AtomicU64::new(ANSWER_BYTES_MAX),
        }
    }

    /// Ends the login's own limit.
    pub fn logged_in(&self) {
        self.logged_in.store(true, Ordering::Release);
    }

    pub fn is_logged_in(&self) -> bool {
        self.logged_in.load(Ordering::Acquire)
    }

    /// Starts the count for this part.
    pub fn reset(&self, part: AnswerPart) {
        self.bytes.store(0, Ordering::Relaxed);
        self.bytes_max.store(part.bytes_max(), Ordering::Relaxed);
    }

    /// Counts received bytes; an error when they are more than the limit.
    pub fn received(&self, bytes: usize) -> io::Result<()> {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        if self.is_exceeded() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer is too large"));
        }
        Ok(())
    }

    /// Whether a read failed because of the limit. The driver's error does not keep the reason, so the
    /// session asks here.
    pub fn is_exceeded(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.bytes_max.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_has_all_of_its_limit() {
        let budget = AnswerBudget::new();
        let most = usize::try_from(ROW_BYTES_MAX).unwrap();
        for rows in 0..3 {
            budget.reset(AnswerPart::Row(rows));
            budget.received(most - 1).unwrap();
            budget.received(1).unwrap();
        }
        assert!(!budget.is_exceeded());
        assert!(budget.received(1).is_err() && budget.is_exceeded());
        budget.reset(AnswerPart::Whole);
        budget.received(usize::try_from(ANSWER_BYTES_MAX).unwrap()).unwrap();
        assert!(budget.received(1).is_err());
    }
}
