//! The kind of each SQL Server error number, in one table.
//!
//! Numbers decide, never messages, because servers translate messages. The transient numbers
//! are those of EF Core's `SqlServerTransientExceptionDetector` (which leaves out timeouts on
//! purpose: the statement may have taken effect) and a few that a replica, a full log or a starting
//! database answer with. A number that is not here is [`Kind::Other`], with the number in the
//! message, so that an operator can look it up:
//! <https://learn.microsoft.com/sql/relational-databases/errors-events/database-engine-events-and-errors>.

use crate::error::{Error, Kind};
use std::{io, time::Duration};

/// The kind of a server's error number.
pub fn kind_of(number: i32) -> Kind {
    match number {
        // the connection or its login broke on the way
        20 | 64 | 121 | 233 | 10053 | 10054 | 10060 | 10061 | 11001 | 17142 | 17197 | 17830 => {
            Kind::Connection
        }
        // login refused
        18401 => Kind::Busy,
        18452 | 18456 | 18461 | 18470 | 18486 | 18487 | 18488 => Kind::Login,
        -2 | 3617 => Kind::Timeout,
        1205 => Kind::Deadlock,
        1222 => Kind::LockTimeout,
        // not there or no user in it; one user only, restoring, offline; read-only, also as a
        // replica
        4060 | 4062 | 4064 | 924 | 927 | 942 | 3906 | 3908 => Kind::Database,
        // short of locks, memory, workers, log, space
        701 | 802 | 1204 | 8645 | 8651 | 8628 | 9002 | 1101 | 1105 | 669 | 10928 | 10929
        | 10936 => Kind::Busy,
        // starting, restoring, failing over, moving
        615 | 617 | 844 | 845 | 846 | 847 | 913 | 921 | 922 | 923 | 926 | 945 | 952 | 976 | 978
        | 979 | 982 | 983 | 988 | 4221 | 6005 | 35217 | 35250 | 40197 | 40501 | 40540 | 40549
        | 40550 | 40551 | 40552 | 40553 | 40613 | 42108 | 42109 | 49918 | 49919 | 49920 | 49977
        | 49983 => Kind::Busy,
        // snapshot and in-memory conflicts: the whole transaction may be tried again
        3960 | 3961 | 41301 | 41302 | 41305 | 41325 | 41839 => Kind::Deadlock,
        229 | 230 | 262 | 297 | 300 | 371 | 378 | 916 | 1088 | 2104 | 2571 | 15151 | 15247
        | 15517 | 22904 => Kind::Permission,
        // an object, column, database or capture instance that is not there
        207 | 208 | 911 | 2812 | 3701 | 4902 | 2706 | 15009 | 22901 | 22905 | 22960 | 22981
        | 22985 => Kind::Missing,
        // tables or types that do not match
        206 | 213 | 257 | 271 | 272 | 273 | 306 | 334 | 402 | 451 | 468 | 512 | 529 | 544 | 545
        | 8101 | 8102 | 8107 | 4104 | 4711 | 4712 | 13536 | 13537 | 22962 => Kind::Schema,
        // a value that cannot be stored or converted
        220 | 232 | 241 | 242 | 244 | 245 | 248 | 295 | 296 | 515 | 517 | 2628 | 8114 | 8115
        | 8134 | 8152 | 8169 | 7139 | 6522 | 9420 => Kind::Data,
        547 => Kind::ForeignKey,
        1505 | 2601 | 2627 => Kind::Duplicate,
        // 313 is what the CDC functions say of an invalid window; 22957 that an LSN was already
        // cleaned up
        313 | 22957 => Kind::Gap,
        _ => Kind::Other,
    }
}

/// General advice for a number.
fn hint(number: i32) -> Option<&'static str> {
    Some(match number {
        18456 => {
            "Check the user and the password, and that SQL Server authentication is enabled; the server's log has the exact reason"
        }
        4060 => "Check the database's name, that it is online, and that the login has a user in it",
        18486..=18488 => "The login is locked or its password has expired; reset it at the server",
        229 | 230 | 262 | 297 | 300 | 371 | 916 | 22904 => {
            "Grant the right that is named, or use a login that has it; it is tried again every few minutes (DATAFLOW_PARKED_INTERVAL)"
        }
        208 | 2812 => {
            "Check the name in table_mappings, and that the object exists and the login may see it"
        }
        207 => "The table's columns have changed, or a name in table_mappings is wrong",
        1205 => "The whole transaction is tried again",
        1222 => {
            "Another session holds the lock; it is tried again. DATAFLOW_LOCK_TIMEOUT sets how long to wait"
        }
        9002 => {
            "The database's transaction log is full: back it up or let it grow (sys.databases.log_reuse_wait_desc says what holds it)"
        }
        1101 | 1105 => "The database's files are full: add space",
        547 => "A foreign key or check at the destination refuses the row",
        2601 | 2627 => "A unique key at the destination already has the value",
        7139 => {
            "Raise 'max text repl size' at the source: EXEC sp_configure 'max text repl size', -1; RECONFIGURE"
        }
        22901 => "Enable CDC on the source database: EXEC sys.sp_cdc_enable_db",
        3906 | 3908 => "The database is read-only here: a secondary replica, or set so",
        _ => return None,
    })
}

/// Advice about TLS, with the settings that matter.
const TLS_HINT: &str = "For the destination set DEST_CA_CERT to the certificate's authority; in a source's connection string name it with certificate=FILE, \
    and with hostNameInCertificate=NAME the name in the certificate, where it is another. DEST_TRUST_SERVER_CERTIFICATE=true and TrustServerCertificate=true \
    believe any certificate, also that of somebody on the network";

/// The error that a server sent.
pub fn server_error(number: i32, class: u8, message: &str, procedure: &str, line: u32) -> Error {
    let mut text =
        format!("{} (Msg {number}", without_values(number, message).trim().trim_end_matches('.'));
    if !procedure.is_empty() {
        text.push_str(&format!(", {procedure} line {line}"));
    }
    text.push(')');
    // Severity 20 and above: the server ended the connection, whatever the number.
    let kind = match kind_of(number) {
        Kind::Other if class >= 20 => Kind::Connection,
        kind => kind,
    };
    let error = Error::new(kind, text).with_number(number);
    match hint(number) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The error for a database whose `is_read_only` is set.
pub fn database_read_only() -> Error {
    server_error(3906, 16, "the database is read-only", "", 0)
}

/// Removes the row's values that SQL Server puts into some messages. It goes by number and by the
/// punctuation around the value, because the message may be in any language.
fn without_values(number: i32, message: &str) -> String {
    let between = |open: char, close: char| match (message.find(open), message.rfind(close)) {
        (Some(from), Some(to)) if from < to => format!("{}…{}", &message[..=from], &message[to..]),
        _ => message.to_owned(),
    };
    match number {
        // The duplicate key value is (…).
        1505 | 2601 | 2627 => between('(', ')'),
        // Conversion failed when converting the varchar value '…' to data type int. The conversion
        // of the varchar value '…' overflowed …
        244 | 245 | 248 => between('\'', '\''),
        // Arithmetic overflow error for data type tinyint, value = …
        220 | 232 => message
            .rfind('=')
            .map_or_else(|| message.to_owned(), |at| format!("{}= …", &message[..at])),
        // … in table 't', column 'c'. Truncated value: '…'.
        2628 => match message.match_indices('\'').nth(3) {
            Some((at, _)) => message[..=at].to_owned(),
            None => "String or binary data would be truncated".to_owned(),
        },
        _ => message.to_owned(),
    }
}

/// The error of a network operation.
pub fn io_error(kind: io::ErrorKind, message: &str) -> Error {
    match kind {
        io::ErrorKind::TimedOut => Error::new(Kind::Timeout, "no answer in time"),
        _ => Error::new(Kind::Connection, message.trim().trim_end_matches('.').to_owned()),
    }
}

/// The TLS handshake failed.
pub(in crate::mssql) fn tls_failed(reason: &str) -> Error {
    Error::new(Kind::Connection, format!("the TLS handshake failed: {reason}")).with_hint(TLS_HINT)
}

/// The server offers no encryption, and the endpoint requires it.
pub(in crate::mssql) fn encryption_unavailable() -> Error {
    Error::new(Kind::Connection, "the server does not encrypt connections, and encryption is required for this one")
        .with_hint("Give SQL Server a certificate (or let it make its own), and see that nothing between here and there answers for it")
}

/// The server was reached, but the login did not finish in time.
pub(in crate::mssql) fn login_timeout(limit: Duration) -> Error {
    Error::new(Kind::Connection, format!("no login within {} s", limit.as_secs()))
}

/// The server's bytes violate the protocol: the rest of the stream cannot be interpreted.
pub(in crate::mssql) fn protocol_error(what: &str) -> Error {
    Error::new(Kind::Connection, format!("the server's answer violates the protocol: {what}"))
}

/// nvarchar holds any 16-bit units, also half a surrogate pair (what LEFT or SUBSTRING leave of an
/// emoji under most collations).
/// <https://learn.microsoft.com/sql/relational-databases/collations/collation-and-unicode-support#supplementary-characters>
pub(in crate::mssql) fn invalid_utf16() -> Error {
    Error::new(Kind::Data, "a row's text is not valid UTF-16: it has half of a surrogate pair").with_hint(
        "Correct the text at the source (an emoji was cut in two there); a full sync with DATAFLOW_COPY_LANE=wire brings it as it is, CDC and verification cannot read it",
    )
}

/// The driver's message about a handshake without its advice to programmers; [`TLS_HINT`] has the
/// settings for operators.
fn without_programmer_advice(message: &str) -> &str {
    message.split(" To connect anyway").next().unwrap_or(message).trim_end_matches('.')
}

/// The error for one of the driver. Its texts never hold passwords or row values.
pub(in crate::mssql) fn driver_error(error: tiberius::error::Error) -> Error {
    use tiberius::error::Error as Driver;
    match error {
        Driver::Server(token) => server_error(
            i32::try_from(token.code()).unwrap_or(i32::MAX),
            token.class(),
            token.message(),
            token.procedure(),
            token.line(),
        ),
        Driver::Io { kind, message } => io_error(kind, &message),
        Driver::Tls(message) => tls_failed(without_programmer_advice(&message)),
        Driver::Routing { host, port } => {
            Error::new(Kind::Connection, format!("the server redirects to {host}:{port}"))
        }
        // the driver reports these three only as text
        Driver::Protocol(message) if message.contains("invalid UTF-16") => invalid_utf16(),
        Driver::Protocol(message)
            if message.contains("does not allow the requested encryption level") =>
        {
            encryption_unavailable()
        }
        Driver::Protocol(message) if message.contains("exceeds the maximum supported size") => {
            Error::new(Kind::TooLarge, "a value is longer than any value of SQL Server")
        }
        Driver::Protocol(message) => protocol_error(&message),
        Driver::Encoding(message) => {
            Error::new(Kind::Data, format!("text in an encoding that is not known: {message}"))
        }
        Driver::Conversion(message) => {
            Error::new(Kind::Data, format!("a value could not be converted: {message}"))
        }
        Driver::BulkInput(message) => {
            Error::new(Kind::Data, format!("a row does not fit the bulk load: {message}"))
        }
        Driver::Utf8 => Error::new(Kind::Data, "text from the server is not valid UTF-8"),
        Driver::Utf16 => invalid_utf16(),
        Driver::ParseInt(_) => Error::new(Kind::Connection, "the server sent an invalid number"),
        #[allow(unreachable_patterns)]
        other => Error::new(Kind::Other, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As tiberius 0.13 says it (`column_data/string.rs`): tried again, it would never be
    /// otherwise.
    #[test]
    fn half_a_surrogate_pair_is_the_rows_fault_and_not_the_connections() {
        let told = driver_error(tiberius::error::Error::Protocol(
            "nvarchar: invalid UTF-16 sequence".into(),
        ));
        assert_eq!(told.kind, Kind::Data);
        assert!(told.to_string().contains("surrogate pair"), "{told}");
        // as tiberius 0.13 says it (`column_data/plp.rs`)
        let long = "PLP value exceeds the maximum supported size of 2147483647 bytes";
        assert_eq!(
            driver_error(tiberius::error::Error::Protocol(long.into())).kind,
            Kind::TooLarge
        );
        assert_eq!(
            driver_error(tiberius::error::Error::Protocol("something else".into())).kind,
            Kind::Connection
        );
    }

    /// As tiberius 0.13 says it (`codec/pre_login.rs`). Whoever has no TLS, or claims so for the
    /// server, gets no password by our advice.
    #[test]
    fn no_advice_is_to_turn_encryption_off() {
        let told = driver_error(tiberius::error::Error::Protocol(
            "Server does not allow the requested encryption level.".into(),
        ));
        assert!(told.to_string().contains("does not encrypt"), "{told}");
        for told in [
            told,
            tls_failed("unknown issuer"),
            driver_error(tiberius::error::Error::Tls("unknown issuer".into())),
        ] {
            let told = told.to_string().to_lowercase();
            assert!(!told.contains("encrypt=") && !told.contains("disable"), "{told}");
        }
    }

    #[test]
    fn values_of_rows_are_left_out() {
        for (number, message, expected) in [
            (
                2627,
                "Violation of UNIQUE KEY constraint 'UQ'. Cannot insert duplicate key in object 'dbo.t'. The duplicate key value is (a(b), 2).",
                "Violation of UNIQUE KEY constraint 'UQ'. Cannot insert duplicate key in object 'dbo.t'. The duplicate key value is (…) (Msg 2627)",
            ),
            (
                2628,
                "String or binary data would be truncated in table 'd.dbo.t', column 'c'. Truncated value: 'secret'.",
                "String or binary data would be truncated in table 'd.dbo.t', column 'c' (Msg 2628)",
            ),
            (2628, "secret", "String or binary data would be truncated (Msg 2628)"),
            (
                245,
                "Conversion failed when converting the varchar value 'it's' to data type int.",
                "Conversion failed when converting the varchar value '…' to data type int (Msg 245)",
            ),
            (
                244,
                "The conversion of the varchar value '99999' overflowed an INT2 column.",
                "The conversion of the varchar value '…' overflowed an INT2 column (Msg 244)",
            ),
            (
                1505,
                "The CREATE UNIQUE INDEX statement terminated because a duplicate key was found. The duplicate key value is (7, a).",
                "The CREATE UNIQUE INDEX statement terminated because a duplicate key was found. The duplicate key value is (…) (Msg 1505)",
            ),
            (
                220,
                "Arithmetic overflow error for data type tinyint, value = 300.",
                "Arithmetic overflow error for data type tinyint, value = … (Msg 220)",
            ),
            (
                547,
                "The INSERT statement conflicted with the CHECK constraint \"CK\".",
                "The INSERT statement conflicted with the CHECK constraint \"CK\" (Msg 547)",
            ),
        ] {
            assert_eq!(server_error(number, 16, message, "", 0).message(), expected);
        }
    }

    #[test]
    fn numbers_have_the_kinds_that_decide_what_happens_next() {
        for (number, expected) in [
            (1205, Kind::Deadlock),
            (1222, Kind::LockTimeout),
            (208, Kind::Missing),
            (18456, Kind::Login),
            (4060, Kind::Database),
            (3906, Kind::Database),
            (547, Kind::ForeignKey),
            (2627, Kind::Duplicate),
            (9002, Kind::Busy),
            (40613, Kind::Busy),
            (10054, Kind::Connection),
            (229, Kind::Permission),
            (8152, Kind::Data),
            (313, Kind::Gap),
            (50000, Kind::Other),
        ] {
            assert_eq!(kind_of(number), expected, "{number}");
        }
    }

    #[test]
    fn transient_numbers_of_ef_core_are_never_other() {
        for number in [
            20, 64, 121, 233, 1205, 10053, 10054, 10060, 10928, 10929, 40197, 40501, 40613, 41301,
            41302, 41305, 41325, 41839, 49918, 49919, 49920, 49977, 49983, 1204, 1222, 615, 617,
            669, 701, 802, 845, 921, 923, 926, 976, 978, 983, 3960, 3961, 4221, 8645, 8651, 9002,
            11001, 18401, 17142, 35217, 42108, 42109,
        ] {
            assert!(
                matches!(
                    kind_of(number),
                    Kind::Connection | Kind::Busy | Kind::Deadlock | Kind::LockTimeout
                ),
                "{number} is {:?}",
                kind_of(number)
            );
        }
    }

    #[test]
    fn messages_carry_the_number_and_a_hint() {
        let error = server_error(18456, 14, "Login failed for user 'sa'.", "", 1);
        assert_eq!(error.number, Some(18456));
        assert!(
            error.to_string().starts_with("Login failed for user 'sa' (Msg 18456). Check the user"),
            "{error}"
        );
        assert_eq!(server_error(50000, 21, "gone", "", 0).kind, Kind::Connection);
    }
}
