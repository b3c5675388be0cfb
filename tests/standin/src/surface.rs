//! The T-SQL surface by name, held against the record of what of it is used ([`crate::usage`]).
//!
//! What nobody uses is not kept: it would be claimed and proven by nothing. Servers that are told
//! to ([`crate::server::Builder::surface_files`]) leave an empty file for each name that a
//! statement used, so that several processes and runs add up; `mssql-standin --unused FOLDER`
//! prints the names that have none, and fails when one of them is neither [`KEPT`] nor
//! [`NOT_IN_EVERY_RUN`]. This crate's own tests start servers that record nothing.

use crate::{
    cdc, engine,
    usage::{ALTER_TABLE, STATEMENTS},
};
use std::{collections::BTreeSet, sync::LazyLock};

static KNOWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let views = engine::views::names(&[&cdc::EXTENSION]);
    let procedures = engine::procedures::names(&[&cdc::EXTENSION]);
    let options = crate::tsql::set_options();
    let groups: [(&str, Vec<&str>); 7] = [
        ("statement", STATEMENTS.to_vec()),
        ("alter table", ALTER_TABLE.to_vec()),
        ("set", options.to_vec()),
        ("function", FUNCTIONS.to_vec()),
        ("global", engine::host::GLOBALS.to_vec()),
        ("view", views.iter().map(String::as_str).collect()),
        ("procedure", procedures),
    ];
    groups
        .into_iter()
        .flat_map(|(kind, names)| {
            names.into_iter().map(move |n| format!("{kind} {}", n.to_ascii_uppercase()))
        })
        .collect()
});

/// Names that nothing uses yet and that stay, by the reason. A name that is used after all is to be
/// taken off.
const KEPT: &[(&str, &[&str])] = &[
    (
        "a command that creates destination tables reads how a source table is defined",
        &[
            "statement CREATE SCHEMA",
            "statement DROP SCHEMA",
            "view SYS.COMPUTED_COLUMNS",
            "view SYS.DATA_SPACES",
            "view SYS.DEFAULT_CONSTRAINTS",
            "view SYS.DM_DB_PARTITION_STATS",
            "view SYS.FILEGROUPS",
            "view SYS.IDENTITY_COLUMNS",
            "view SYS.KEY_CONSTRAINTS",
            "view SYS.SQL_MODULES",
            "view SYS.STATS",
            "view SYS.SYNONYMS",
        ],
    ),
    (
        "a load of a large table switches it in and rebuilds its indexes afterwards",
        &[
            "alter table SWITCH",
            "statement ALTER INDEX DISABLE",
            "statement ALTER INDEX REBUILD",
            "statement CHECKPOINT",
            "statement DBCC",
        ],
    ),
    (
        "a diagnosis names sessions, what they run and which transactions they hold open",
        &[
            "statement KILL",
            "view SYS.DM_EXEC_REQUESTS",
            "view SYS.DM_EXEC_SESSIONS",
            "view SYS.DM_TRAN_ACTIVE_SNAPSHOT_DATABASE_TRANSACTIONS",
            "view SYS.DM_TRAN_ACTIVE_TRANSACTIONS",
        ],
    ),
    (
        "a command that prints the grants the service needs compares them with those there are",
        &[
            "statement DENY",
            "statement REVOKE",
            "view SYS.DATABASE_PERMISSIONS",
            "view SYS.DATABASE_PRINCIPALS",
            "view SYS.DATABASE_ROLE_MEMBERS",
        ],
    ),
    (
        "a start at a point in time maps times to LSNs",
        &["function FN_CDC_MAP_LSN_TO_TIME", "function FN_CDC_MAP_TIME_TO_LSN"],
    ),
    (
        "checks of an availability group ask for its replicas",
        &[
            "view SYS.AVAILABILITY_REPLICAS",
            "view SYS.DM_HADR_AVAILABILITY_REPLICA_STATES",
            "view SYS.DM_HADR_DATABASE_REPLICA_STATES",
        ],
    ),
    (
        "control of flow that any operator's script uses",
        &[
            "function ERROR_LINE",
            "function ERROR_MESSAGE",
            "function ERROR_NUMBER",
            "function ERROR_PROCEDURE",
            "function ERROR_SEVERITY",
            "function ERROR_STATE",
            "function XACT_STATE",
            "statement BREAK",
            "statement CONTINUE",
        ],
    ),
];

/// Names that are needed, but not used in every run of what leaves files, by where.
const NOT_IN_EVERY_RUN: &[(&str, &[&str])] = &[
    (
        "Northwind's script: in an IF that a new database does not enter, in a procedure not called",
        &["set ROWCOUNT", "statement DROP PROCEDURE", "statement DROP VIEW"],
    ),
    ("the demo, which leaves no files", &["function AVG"]),
    (
        "a scenario that enables capture again when it began to run before it could be stopped",
        &["procedure SP_CDC_DISABLE_DB"],
    ),
    ("the cleanup of scenarios against servers, where one left a login", &["statement DROP LOGIN"]),
];

/// What the files in a folder say of the surface.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    pub used: usize,
    /// Nothing uses them and nothing says why they stay: they are to go.
    pub unused: Vec<String>,
    /// Kept or excused names that are used after all, or not known: the lists are to be shortened.
    pub listed_in_vain: Vec<String>,
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.unused.is_empty() && self.listed_in_vain.is_empty()
    }
}

/// What the files in `folder` say of the surface.
pub fn report(folder: &std::path::Path) -> Report {
    let names = |list: &[(&str, &[&'static str])]| -> BTreeSet<&'static str> {
        list.iter().flat_map(|(_, names)| names.iter().copied()).collect()
    };
    decide(&KNOWN, |name| folder.join(name).exists(), &names(KEPT), &names(NOT_IN_EVERY_RUN))
}

/// `kept` names must be unused; `excused` ones may be either.
fn decide(
    known: &BTreeSet<String>,
    is_used: impl Fn(&str) -> bool,
    kept: &BTreeSet<&str>,
    excused: &BTreeSet<&str>,
) -> Report {
    let (used, unused): (Vec<&String>, Vec<&String>) = known.iter().partition(|n| is_used(n));
    let listed = |name: &str| kept.contains(name) || excused.contains(name);
    let in_vain = kept
        .union(excused)
        .filter(|name| !known.contains(**name) || (kept.contains(**name) && is_used(name)));
    Report {
        used: used.len(),
        unused: unused.into_iter().filter(|name| !listed(name)).cloned().collect(),
        listed_in_vain: in_vain.map(|name| (*name).to_owned()).collect(),
    }
}

/// Functions by name. A test finds those that are missing here.
const FUNCTIONS: &[&str] = &[
    "ABS",
    "APPLOCK_TEST",
    "AVG",
    "CHAR",
    "CHARINDEX",
    "COALESCE",
    "COLLATIONPROPERTY",
    "COL_LENGTH",
    "CONCAT",
    "COUNT",
    "COUNT_BIG",
    "DATABASEPROPERTYEX",
    "DATALENGTH",
    "DATEADD",
    "DATEDIFF",
    "DATEPART",
    "DB_ID",
    "DB_NAME",
    "ERROR_LINE",
    "ERROR_MESSAGE",
    "ERROR_NUMBER",
    "ERROR_PROCEDURE",
    "ERROR_SEVERITY",
    "ERROR_STATE",
    "FN_CDC_GET_MAX_LSN",
    "FN_CDC_GET_MIN_LSN",
    "FN_CDC_MAP_LSN_TO_TIME",
    "FN_CDC_MAP_TIME_TO_LSN",
    "GETDATE",
    "GETUTCDATE",
    "HASHBYTES",
    "HAS_PERMS_BY_NAME",
    "ISNULL",
    "LEFT",
    "LEN",
    "LOWER",
    "MAX",
    "MIN",
    "NCHAR",
    "NEWID",
    "OBJECT_ID",
    "OBJECT_NAME",
    "OBJECT_SCHEMA_NAME",
    "ORIGINAL_LOGIN",
    "QUOTENAME",
    "REPLACE",
    "REPLICATE",
    "RIGHT",
    "ROWCOUNT_BIG",
    "ROW_NUMBER",
    "SCHEMA_ID",
    "SCOPE_IDENTITY",
    "SERVERPROPERTY",
    "STUFF",
    "SUBSTRING",
    "SUM",
    "SYSDATETIME",
    "SYSDATETIMEOFFSET",
    "SYSUTCDATETIME",
    "TYPE_NAME",
    "UPPER",
    "USER_NAME",
    "XACT_STATE",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// What stands between quotes and in capitals in the code that knows functions is the name of
    /// one.
    #[test]
    fn every_function_is_listed() {
        let sources = [
            include_str!("engine/expr/functions/text.rs"),
            include_str!("engine/expr/functions/parts.rs"),
            include_str!("engine/expr/functions/bytes.rs"),
            include_str!("engine/expr/functions/math.rs"),
            include_str!("engine/expr/functions/dates.rs"),
            include_str!("engine/functions.rs"),
            include_str!("cdc/functions.rs"),
        ];
        for source in sources {
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            for word in code.split('"').skip(1).step_by(2) {
                let named = word.len() > 2
                    && word
                        .chars()
                        .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
                assert!(!named || FUNCTIONS.contains(&word), "{word}");
            }
        }
    }

    /// A name that could not be a file's would count as unused for ever.
    #[test]
    fn every_name_can_be_recorded() {
        for name in KNOWN.iter() {
            assert!(crate::usage::can_be_recorded(name), "{name}");
        }
    }

    #[test]
    fn every_listed_name_is_known() {
        let listed = KEPT.iter().chain(NOT_IN_EVERY_RUN).flat_map(|(_, names)| names.iter());
        for name in listed {
            assert!(KNOWN.contains(*name), "{name}");
        }
    }

    #[test]
    fn a_name_is_used_or_kept_for_a_reason() {
        let known = BTreeSet::from(["a", "b", "c", "d"].map(str::to_owned));
        let all = |used: &'static [&str], kept: &[&'static str], excused: &[&'static str]| {
            let set = |list: &[&'static str]| list.iter().copied().collect();
            let report = decide(&known, |name| used.contains(&name), &set(kept), &set(excused));
            (report.is_good(), report.used, report.unused, report.listed_in_vain)
        };
        let none = Vec::<String>::new;
        // all are used, or kept and unused, or excused and either
        assert_eq!(all(&["a", "b", "c", "d"], &[], &[]), (true, 4, none(), none()));
        assert_eq!(all(&["a", "b"], &["c"], &["d"]), (true, 2, none(), none()));
        assert_eq!(all(&["a", "b", "d"], &["c"], &["d"]), (true, 3, none(), none()));
        // nothing uses c
        assert_eq!(all(&["a", "b"], &["d"], &[]), (false, 2, vec!["c".into()], none()));
        // d is kept although it is used
        assert_eq!(all(&["a", "b", "c", "d"], &["d"], &[]), (false, 4, none(), vec!["d".into()]));
        // x is kept and gone, y is excused and gone
        let gone = vec!["x".to_owned(), "y".to_owned()];
        assert_eq!(all(&["a", "b", "c", "d"], &["x"], &["y"]), (false, 4, none(), gone));
    }

    #[test]
    fn files_say_what_is_used() {
        let folder = std::env::temp_dir().join(format!("standin-surface-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let before = report(&folder);
        fs::write(folder.join("view SYS.TABLES"), "").expect("a file");
        let after = report(&folder);
        fs::remove_dir_all(&folder).expect("the folder goes");
        assert_eq!((before.used, after.used), (0, 1));
        assert!(before.unused.contains(&"view SYS.TABLES".to_owned()), "{before:?}");
        assert!(!after.unused.contains(&"view SYS.TABLES".to_owned()), "{after:?}");
        assert_eq!(after.listed_in_vain, Vec::<String>::new());
    }
}
