//! What SQL Server says when it says no: a number, a severity, a state and words.

/// An error (severity above 10) or an informational message (10 and below) as it goes over the
/// wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// `Msg` number, as in `sys.messages`.
    pub number: i32,
    /// Severity, 0 to 25. From 20 on the connection is closed.
    pub class: u8,
    pub state: u8,
    pub message: String,
    /// Line in the batch, from 1; 0 where unknown.
    pub line: u32,
    /// The procedure it happened in, or empty.
    pub procedure: String,
}

pub type SqlResult<T> = Result<T, SqlError>;

impl SqlError {
    pub fn new(number: i32, class: u8, message: impl Into<String>) -> Self {
        Self { number, class, state: 1, message: message.into(), line: 0, procedure: String::new() }
    }

    /// Something a real server may well accept and this stand-in does not know. Never swallowed,
    /// never quietly ignored.
    pub fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::new(40_000, 16, format!("mssql-standin does not emulate this: {what}"))
    }

    /// The batch was cut off by an attention (or the connection is gone). No client sees this: the
    /// batch just ends.
    pub fn cancelled() -> Self {
        Self::new(Self::CANCELLED, 11, "The batch was cancelled.")
    }

    pub fn is_cancelled(&self) -> bool {
        self.number == Self::CANCELLED
    }

    /// Not a number of SQL Server's.
    const CANCELLED: i32 = -3;

    pub fn at(mut self, line: u32) -> Self {
        if self.line == 0 {
            self.line = line;
        }
        self
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Msg {}, Level {}, State {}, Line {}: {}",
            self.number, self.class, self.state, self.line, self.message
        )
    }
}

impl std::error::Error for SqlError {}
