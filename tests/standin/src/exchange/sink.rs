//! Where a statement's results go. The TDS layer implements this with tokens; golden tests
//! implement it with text.

use crate::{
    error::SqlError,
    value::{Collation, SqlType, Value},
};

/// The client went away or sent an attention: stop the batch at once, roll nothing back by
/// yourself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

/// A column of a result set.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub ty: SqlType,
    pub nullable: bool,
    pub identity: bool,
    pub computed: bool,
}

/// What a DONE token says of the statement it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DoneKind {
    Select,
    Insert,
    Update,
    Delete,
    Other,
}

/// Changes of session state that the client is told about (MS-TDS 2.2.7.9 ENVCHANGE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvChange {
    /// Only the ENVCHANGE: message 5701 is the engine's to send.
    Database {
        new: String,
        old: String,
    },
    /// Follows a change of database whose collation is another.
    Collation(Collation),
    Language {
        new: String,
        old: String,
    },
    BeginTransaction(u64),
    CommitTransaction(u64),
    RollbackTransaction(u64),
}

pub trait Sink {
    /// Starts a result set.
    fn columns(&mut self, columns: &[Column]) -> Result<(), Cancelled>;
    /// The rows come in the order of these columns, the first being 1 (MS-TDS 2.2.7.17 ORDER).
    fn order(&mut self, _columns: &[u16]) -> Result<(), Cancelled> {
        Ok(())
    }
    fn row(&mut self, row: &[Value]) -> Result<(), Cancelled>;
    /// Ends a statement. `rows` is None under SET NOCOUNT ON and for statements that count nothing.
    /// A sink remembers whether an error came since the last end, so a failed statement is ended
    /// like any other.
    fn done(&mut self, kind: DoneKind, rows: Option<u64>) -> Result<(), Cancelled>;
    /// Class 10 and below is INFO, above is ERROR.
    fn message(&mut self, message: &SqlError) -> Result<(), Cancelled>;
    fn env(&mut self, change: &EnvChange) -> Result<(), Cancelled>;
    /// An output parameter of an RPC.
    fn return_value(&mut self, name: &str, ty: SqlType, value: &Value) -> Result<(), Cancelled>;
    /// A procedure's RETURN value. Only for an RPC's procedure itself and for EXEC of a procedure
    /// in a batch.
    fn return_status(&mut self, status: i32) -> Result<(), Cancelled>;

    /// A batch (or a procedure) enters a procedure, dynamic SQL or a trigger: until the matching
    /// [`Sink::leave_procedure`], statements end with DONEINPROC. Not called for an RPC's own
    /// procedure.
    fn enter_procedure(&mut self) {}
    fn leave_procedure(&mut self) -> Result<(), Cancelled> {
        Ok(())
    }

    /// Sends what is buffered: RAISERROR … WITH NOWAIT.
    fn flush(&mut self) -> Result<(), Cancelled> {
        Ok(())
    }

    /// Before a statement has any effect. `Some` is an injected error, to be raised as if the
    /// statement had failed with it.
    fn before_statement(&mut self, _text: &str) -> Result<Option<SqlError>, Cancelled> {
        Ok(None)
    }
    /// After a statement has taken effect (for COMMIT: after the commit) and before its end is
    /// reported.
    fn after_statement(&mut self, _text: &str) -> Result<Option<SqlError>, Cancelled> {
        Ok(None)
    }
}
