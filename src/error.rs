//! Errors of this crate, without the driver's types.
//!
//! `kind` decides what happens next (see `plan::retry`); the message is for people. Callers add
//! context in the present tense ("read change rows"), and an error is logged once, where it is
//! handled. Messages never contain row values or secrets.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What decides how an error is handled. It is matched exhaustively, so that a new kind cannot be
/// forgotten anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The server cannot be reached, the connection broke, or the login handshake failed on the
    /// network.
    Connection,
    /// The login was refused.
    Login,
    /// The database cannot be used now: it does not exist, is offline, restoring, read-only or in
    /// single-user mode, or has no user for this login.
    Database,
    /// No answer within the statement's timeout. The statement may have taken effect.
    Timeout,
    /// Chosen as the deadlock victim: the whole transaction may be tried again.
    Deadlock,
    /// A lock was not granted in time.
    LockTimeout,
    /// The server is short of a resource, starting, or failing over: a later attempt may succeed.
    Busy,
    /// A permission is missing (229, 230, 262, 297, 300, 916, …).
    Permission,
    /// An object, column, database or capture instance does not exist.
    Missing,
    /// The destination table does not exist, or this login has no right on it.
    DestMissing,
    /// Source and destination tables do not match, or a table has a property that is not supported.
    Schema,
    /// A table was altered while its rows were read: they may have been read with the wrong columns.
    Altered,
    /// A value does not fit (conversion, truncation, overflow, NOT NULL).
    Data,
    /// A server's answer, or a row of it, is larger than what is held in memory.
    TooLarge,
    /// A foreign key or check constraint at the destination refuses a row (547).
    ForeignKey,
    /// A unique key at the destination refuses a row (2601, 2627).
    Duplicate,
    /// Changes between the checkpoint and what the source still has are lost.
    Gap,
    /// The checkpoint was changed by another process, which owns this mapping now.
    CheckpointConflict,
    /// Configuration: a variable, connection string or control row that cannot be used.
    Config,
    /// Asked to stop.
    Cancelled,
    /// Anything else; the message has the server's error number.
    Other,
}

impl Kind {
    /// The value of `error_logs.error_type`.
    pub fn error_type(self) -> &'static str {
        match self {
            Kind::Connection | Kind::Login | Kind::Database => "CONNECTION",
            Kind::Schema | Kind::Altered => "SCHEMA",
            Kind::Timeout
            | Kind::Deadlock
            | Kind::LockTimeout
            | Kind::Busy
            | Kind::Permission
            | Kind::Missing
            | Kind::DestMissing
            | Kind::Data
            | Kind::TooLarge
            | Kind::ForeignKey
            | Kind::Duplicate
            | Kind::Gap
            | Kind::CheckpointConflict => "SYNC",
            Kind::Config | Kind::Cancelled | Kind::Other => "OTHER",
        }
    }

    /// What an operator can do about it, where the error has no hint of its own.
    pub fn advice(self) -> &'static str {
        match self {
            Kind::Connection => {
                "check that the server runs and can be reached from here: its name, port, firewall and TLS settings"
            }
            Kind::Login => {
                "check the user, the password and the database in the connection string or in the DEST_ variables"
            }
            Kind::Database => {
                "look at the database's state and access in sys.databases, and that this login has a user in it"
            }
            Kind::Timeout => {
                "look for what blocks or slows the server; DATAFLOW_STATEMENT_TIMEOUT sets how long to wait"
            }
            Kind::Deadlock => {
                "nothing, unless it stays: then look at what else writes to the table"
            }
            Kind::LockTimeout => {
                "find the session that holds the lock (sys.dm_tran_locks); DATAFLOW_LOCK_TIMEOUT sets how long to wait"
            }
            Kind::Busy => {
                "nothing, unless it stays: then the server is short of what the message names"
            }
            Kind::Permission => {
                "grant the right that is named; docs/setup.md lists all that are needed"
            }
            Kind::Missing => {
                "check the names in table_mappings, and that the object exists and the login may see it"
            }
            Kind::DestMissing => {
                "create the destination table, or correct its name in table_mappings, and grant this login its rights on it"
            }
            Kind::Schema => "change the destination table, or the mapping, so that they fit",
            Kind::Altered => "nothing: it begins again by itself with the columns as they are now",
            Kind::Data => {
                "change the destination's column, or the row at the source, so that the value fits"
            }
            Kind::TooLarge => {
                "look at what the server answers with; a row this large is carried by full syncs with DATAFLOW_COPY_LANE=wire"
            }
            Kind::ForeignKey => {
                "map the table that the row refers to, or drop the key at the destination"
            }
            Kind::Duplicate => {
                "look for rows that others write at the destination, and for a collation that makes two keys one"
            }
            Kind::Gap => "request a full sync: UPDATE table_mappings SET full_sync_requested = 1",
            Kind::CheckpointConflict => "nothing: another process did the work",
            Kind::Config => "correct the row or the variable that is named",
            Kind::Cancelled => "nothing",
            Kind::Other => "look the number up in SQL Server's list of errors",
        }
    }
}

/// An error with its context. It is cloned where one failure concerns several mappings.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    /// SQL Server's error number, if the error came from a server.
    pub number: Option<i32>,
    /// innermost first
    context: Vec<String>,
    message: String,
    /// What the operator can do about it, if anything is known.
    pub hint: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, number: None, context: Vec::new(), message: message.into(), hint: None }
    }

    pub fn with_number(mut self, number: i32) -> Self {
        self.number = Some(number);
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context.push(context.into());
        self
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// The text of `error_logs.error_details`: the kind, what happens next, and what an operator can
    /// do.
    pub fn details(&self, attempts: u32, then: &str) -> String {
        let which =
            if attempts == 1 { "the first".to_owned() } else { format!("{attempts} failures") };
        let advice = self.hint.as_deref().unwrap_or_else(|| self.kind.advice());
        format!("kind {:?}; {which} in a row; {then}; what to do: {advice}", self.kind)
    }
}

/// Outermost context first, the cause last: `full sync of a.dbo.t: read source rows: Invalid object
/// name (Msg 208). Create it…`
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for context in self.context.iter().rev() {
            write!(f, "{context}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, ". {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Adds context to an error on its way up.
pub trait Context<T> {
    fn context(self, context: impl Into<String>) -> Result<T>;
    fn with_context(self, context: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, context: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.into().context(context))
    }

    fn with_context(self, context: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().context(context()))
    }
}
