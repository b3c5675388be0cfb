//! The commit log of a database: what capture reads.
//!
//! An LSN is ten bytes, `VLF (4) : block (4) : slot (2)`, and only ever climbs. A commit that
//! changed a tracked table gets one block of its own: each logged row operation has a sequence
//! value in it, and the commit's LSN is greater than all of them, as in SQL Server where
//! `__$start_lsn` is the commit's LSN and `__$seqval` orders the changes within the transaction.

use crate::engine::{catalog::TableMeta, clock::Moment, storage::Row};
use std::{collections::VecDeque, sync::Arc};

/// A log sequence number, big-endian, so that bytes compare as numbers do.
pub type Lsn = [u8; 10];

pub fn lsn(vlf: u32, block: u32, slot: u16) -> Lsn {
    let mut out = [0; 10];
    out[..4].copy_from_slice(&vlf.to_be_bytes());
    out[4..8].copy_from_slice(&block.to_be_bytes());
    out[8..].copy_from_slice(&slot.to_be_bytes());
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedKind {
    Insert,
    Delete,
    Update,
}

/// One row operation on a tracked table.
#[derive(Clone, Debug)]
pub struct LoggedOp {
    pub seqval: Lsn,
    /// the table as it was when the row was written: the rows' values stand in the order of its
    /// columns
    pub table: Arc<TableMeta>,
    pub kind: LoggedKind,
    pub before: Option<Arc<Row>>,
    pub after: Option<Arc<Row>>,
    /// grows with every statement of the transaction
    pub command_id: i32,
    /// one half of an UPDATE that moved a key: a Delete, and later the Insert
    pub moved: bool,
}

/// One committed transaction.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// the commit's LSN
    pub lsn: Lsn,
    /// the first LSN of the transaction
    pub begin_lsn: Lsn,
    pub transaction_id: u64,
    pub begin_time: Moment,
    pub commit_time: Moment,
    pub ops: Arc<Vec<LoggedOp>>,
}

/// One database's log: the records capture has not yet taken, and where the next one goes.
#[derive(Clone, Debug)]
pub struct CommitLog {
    vlf: u32,
    block: u32,
    pub records: VecDeque<Arc<LogRecord>>,
}

impl Default for CommitLog {
    fn default() -> Self {
        Self { vlf: 0x24, block: 0x10, records: VecDeque::new() }
    }
}

impl CommitLog {
    /// Blocks per virtual log file before the next begins.
    const BLOCKS: u32 = 0x0010_0000;
    const SLOTS: usize = 0xFFF0;

    /// The greatest LSN given so far.
    pub fn head(&self) -> Lsn {
        lsn(self.vlf, self.block, u16::MAX)
    }

    /// An LSN of its own for something that is not a row change (a DDL history entry, a capture
    /// instance's start).
    pub fn next_lsn(&mut self) -> Lsn {
        self.advance();
        lsn(self.vlf, self.block, 1)
    }

    fn advance(&mut self) {
        self.block += 8;
        if self.block >= Self::BLOCKS {
            self.vlf += 1;
            self.block = 0x10;
        }
    }

    /// Stamps a transaction's operations (their `seqval` is filled in here) and appends it; the
    /// commit's LSN.
    pub fn append(
        &mut self,
        transaction_id: u64,
        begin_time: Moment,
        commit_time: Moment,
        mut ops: Vec<LoggedOp>,
    ) -> Lsn {
        self.advance();
        let begin_lsn = lsn(self.vlf, self.block, 1);
        let mut slot = 1;
        for op in &mut ops {
            slot += 1;
            if slot >= Self::SLOTS {
                self.advance();
                slot = 1;
            }
            op.seqval = lsn(self.vlf, self.block, slot as u16);
        }
        let commit = lsn(self.vlf, self.block, slot as u16 + 1);
        self.records.push_back(Arc::new(LogRecord {
            lsn: commit,
            begin_lsn,
            transaction_id,
            begin_time,
            commit_time,
            ops: Arc::new(ops),
        }));
        commit
    }
}
