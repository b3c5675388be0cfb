//! The T-SQL surface by name, and a record of what of it is used.
//!
//! What nobody uses is not kept: it would be claimed and proven by nothing. Servers that are told
//! to ([`crate::server::Builder::surface_files`]) leave an empty file for each name that a
//! statement used, so that several processes and runs add up; `mssql-standin --surface FOLDER`
//! prints the names that have none. This crate's own tests start servers that record nothing.

use crate::{engine, tsql::ast::*};
use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::PathBuf,
    sync::{LazyLock, Mutex, OnceLock, PoisonError},
};

static FOLDER: OnceLock<PathBuf> = OnceLock::new();
static SEEN: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Uses are recorded from here on, in all of this process's servers. The first folder is the one.
pub(crate) fn record_in(folder: PathBuf) -> io::Result<()> {
    fs::create_dir_all(&folder)?;
    let _ = FOLDER.set(folder);
    Ok(())
}

/// Records a use, once. A disk that fails makes no statement fail: the name counts as unused.
pub(crate) fn used(kind: &str, name: &str) {
    let Some(folder) = FOLDER.get() else { return };
    let entry = format!("{kind} {}", name.to_ascii_uppercase());
    if SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.clone())
        && KNOWN.contains(&entry)
    {
        let _ = fs::write(folder.join(entry), "");
    }
}

static KNOWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let views = engine::views::names();
    let procedures = engine::procedures::names();
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

/// Every name of the surface that has no file in `folder`, and how many have one.
pub fn unused(folder: &std::path::Path) -> (Vec<String>, usize) {
    let (used, unused): (Vec<&String>, Vec<&String>) =
        KNOWN.iter().partition(|entry| folder.join(entry).exists());
    (unused.into_iter().cloned().collect(), used.len())
}

macro_rules! kinds {
    ($(#[$about:meta])* $list:ident, $function:ident($ty:ty), $($pattern:pat => $name:literal,)*) => {
        $(#[$about])*
        pub(crate) fn $function(of: &$ty) -> &'static str {
            match of { $($pattern => $name,)* }
        }
        const $list: &[&str] = &[$($name),*];
    };
}

kinds! {
    /// What a statement is called here.
    STATEMENTS, statement(Statement),
    Statement::Query(_) => "SELECT",
    Statement::SelectAssign { .. } => "SELECT @V =",
    Statement::Insert(_) => "INSERT",
    Statement::Update(_) => "UPDATE",
    Statement::Delete(_) => "DELETE",
    Statement::Truncate { .. } => "TRUNCATE TABLE",
    Statement::InsertBulk(_) => "INSERT BULK",
    Statement::CreateDatabase { .. } => "CREATE DATABASE",
    Statement::DropDatabase { .. } => "DROP DATABASE",
    Statement::AlterDatabase { .. } => "ALTER DATABASE",
    Statement::CreateSchema { .. } => "CREATE SCHEMA",
    Statement::DropSchema { .. } => "DROP SCHEMA",
    Statement::CreateTable(_) => "CREATE TABLE",
    Statement::AlterTable { .. } => "ALTER TABLE",
    Statement::DropTable { .. } => "DROP TABLE",
    Statement::CreateIndex(_) => "CREATE INDEX",
    Statement::DropIndex { .. } => "DROP INDEX",
    Statement::AlterIndex { action: AlterIndex::Disable, .. } => "ALTER INDEX DISABLE",
    Statement::AlterIndex { action: AlterIndex::Rebuild, .. } => "ALTER INDEX REBUILD",
    Statement::AlterIndex { action: AlterIndex::Reorganize, .. } => "ALTER INDEX REORGANIZE",
    Statement::CreateView { create: true, .. } => "CREATE VIEW",
    Statement::CreateView { create: false, .. } => "ALTER VIEW",
    Statement::DropView { .. } => "DROP VIEW",
    Statement::CreateProcedure { create: true, .. } => "CREATE PROCEDURE",
    Statement::CreateProcedure { create: false, .. } => "ALTER PROCEDURE",
    Statement::CreateFunction { .. } => "CREATE FUNCTION",
    Statement::CreateSecurityPolicy { .. } => "CREATE SECURITY POLICY",
    Statement::DropProcedure { .. } => "DROP PROCEDURE",
    Statement::CreateTrigger(_) => "CREATE TRIGGER",
    Statement::DropTrigger { .. } => "DROP TRIGGER",
    Statement::EnableTrigger { enable: true, .. } => "ENABLE TRIGGER",
    Statement::EnableTrigger { enable: false, .. } => "DISABLE TRIGGER",
    Statement::CreateType { .. } => "CREATE TYPE",
    Statement::DropType { .. } => "DROP TYPE",
    Statement::CreateLogin { .. } => "CREATE LOGIN",
    Statement::CreateUser { .. } => "CREATE USER",
    Statement::CreateRole { .. } => "CREATE ROLE",
    Statement::DropPrincipal { kind: PrincipalKind::Login, .. } => "DROP LOGIN",
    Statement::DropPrincipal { kind: PrincipalKind::User, .. } => "DROP USER",
    Statement::DropPrincipal { kind: PrincipalKind::Role, .. } => "DROP ROLE",
    Statement::AlterLogin { .. } => "ALTER LOGIN",
    Statement::Permission { verb: PermissionVerb::Grant, .. } => "GRANT",
    Statement::Permission { verb: PermissionVerb::Deny, .. } => "DENY",
    Statement::Permission { verb: PermissionVerb::Revoke, .. } => "REVOKE",
    Statement::AlterRole { add: true, .. } => "ALTER ROLE ADD MEMBER",
    Statement::AlterRole { add: false, .. } => "ALTER ROLE DROP MEMBER",
    Statement::Block(_) => "BEGIN END",
    Statement::If { .. } => "IF",
    Statement::While { .. } => "WHILE",
    Statement::Break => "BREAK",
    Statement::Continue => "CONTINUE",
    Statement::TryCatch { .. } => "TRY CATCH",
    Statement::Return(_) => "RETURN",
    Statement::Throw(_) => "THROW",
    Statement::RaiseError { .. } => "RAISERROR",
    Statement::Print(_) => "PRINT",
    Statement::WaitForDelay(_) => "WAITFOR DELAY",
    Statement::Use(_) => "USE",
    Statement::Declare(_) => "DECLARE",
    Statement::DeclareTable { .. } => "DECLARE TABLE",
    Statement::SetVariable { .. } => "SET @V =",
    Statement::SetOption { .. } => "SET",
    Statement::SetIdentityInsert { .. } => "SET IDENTITY_INSERT",
    Statement::BeginTransaction { .. } => "BEGIN TRANSACTION",
    Statement::Commit => "COMMIT",
    Statement::Rollback { .. } => "ROLLBACK",
    Statement::SaveTransaction { .. } => "SAVE TRANSACTION",
    Statement::Execute(_) => "EXECUTE",
    Statement::ExecuteText(_) => "EXECUTE TEXT",
    Statement::Dbcc { .. } => "DBCC",
    Statement::Kill(_) => "KILL",
    Statement::Checkpoint => "CHECKPOINT",
}

kinds! {
    /// What is altered of a table.
    ALTER_TABLE, alter_table(AlterTable),
    AlterTable::Add { .. } => "ADD",
    AlterTable::AlterColumn { .. } => "ALTER COLUMN",
    AlterTable::DropColumns { .. } => "DROP COLUMN",
    AlterTable::DropConstraints { .. } => "DROP CONSTRAINT",
    AlterTable::CheckConstraint { enable: true, .. } => "CHECK CONSTRAINT",
    AlterTable::CheckConstraint { enable: false, .. } => "NOCHECK CONSTRAINT",
    AlterTable::EnableTrigger { enable: true, .. } => "ENABLE TRIGGER",
    AlterTable::EnableTrigger { enable: false, .. } => "DISABLE TRIGGER",
    AlterTable::Set { .. } => "SET",
    AlterTable::AddPeriod { .. } => "ADD PERIOD",
    AlterTable::DropPeriod => "DROP PERIOD",
    AlterTable::MaskColumn { .. } => "ALTER COLUMN MASKED",
    AlterTable::SwitchTo { .. } => "SWITCH",
    AlterTable::Rebuild => "REBUILD",
    AlterTable::EnableChangeTracking(_) => "CHANGE_TRACKING",
}

/// Functions by name. A test finds those that are missing here.
const FUNCTIONS: &[&str] = &[
    "ABS",
    "ACOS",
    "APPLOCK_MODE",
    "APPLOCK_TEST",
    "APP_NAME",
    "ASCII",
    "ASIN",
    "ATAN",
    "ATN2",
    "AVG",
    "BINARY_CHECKSUM",
    "CEILING",
    "CHAR",
    "CHARINDEX",
    "CHECKSUM",
    "CHECKSUM_AGG",
    "CHOOSE",
    "COALESCE",
    "COLLATIONPROPERTY",
    "COLUMNPROPERTY",
    "COL_LENGTH",
    "COL_NAME",
    "CONCAT",
    "CONCAT_WS",
    "CONTEXT_INFO",
    "COS",
    "COT",
    "COUNT",
    "COUNT_BIG",
    "CUME_DIST",
    "CURRENT_TIMESTAMP",
    "CURRENT_TRANSACTION_ID",
    "CURRENT_USER",
    "DATABASEPROPERTYEX",
    "DATABASE_PRINCIPAL_ID",
    "DATALENGTH",
    "DATEADD",
    "DATEDIFF",
    "DATEDIFF_BIG",
    "DATEFROMPARTS",
    "DATENAME",
    "DATEPART",
    "DATETIME2FROMPARTS",
    "DATETIMEFROMPARTS",
    "DATETRUNC",
    "DATE_BUCKET",
    "DAY",
    "DB_ID",
    "DB_NAME",
    "DEGREES",
    "DENSE_RANK",
    "EOMONTH",
    "ERROR_LINE",
    "ERROR_MESSAGE",
    "ERROR_NUMBER",
    "ERROR_PROCEDURE",
    "ERROR_SEVERITY",
    "ERROR_STATE",
    "EXP",
    "FIRST_VALUE",
    "FLOOR",
    "FN_CDC_DECREMENT_LSN",
    "FN_CDC_GET_COLUMN_ORDINAL",
    "FN_CDC_GET_MAX_LSN",
    "FN_CDC_GET_MIN_LSN",
    "FN_CDC_HAS_COLUMN_CHANGED",
    "FN_CDC_HEXSTRTOBIN",
    "FN_CDC_INCREMENT_LSN",
    "FN_CDC_IS_BIT_SET",
    "FN_CDC_MAP_LSN_TO_TIME",
    "FN_CDC_MAP_TIME_TO_LSN",
    "GETDATE",
    "GETUTCDATE",
    "HASHBYTES",
    "HAS_DBACCESS",
    "HAS_PERMS_BY_NAME",
    "HOST_ID",
    "HOST_NAME",
    "IDENT_CURRENT",
    "IDENT_INCR",
    "IDENT_SEED",
    "IIF",
    "ISDATE",
    "ISNULL",
    "ISNUMERIC",
    "IS_MEMBER",
    "IS_ROLEMEMBER",
    "IS_SRVROLEMEMBER",
    "LAG",
    "LAST_VALUE",
    "LEAD",
    "LEFT",
    "LEN",
    "LOG",
    "LOG10",
    "LOWER",
    "LTRIM",
    "MAX",
    "MIN",
    "MIN_ACTIVE_ROWVERSION",
    "MONTH",
    "NCHAR",
    "NEWID",
    "NEWSEQUENTIALID",
    "NTILE",
    "NULLIF",
    "OBJECTPROPERTY",
    "OBJECTPROPERTYEX",
    "OBJECT_ID",
    "OBJECT_NAME",
    "OBJECT_SCHEMA_NAME",
    "ORIGINAL_LOGIN",
    "PARSENAME",
    "PATINDEX",
    "PERCENT_RANK",
    "PI",
    "POWER",
    "QUOTENAME",
    "RADIANS",
    "RAND",
    "RANK",
    "REPLACE",
    "REPLICATE",
    "REVERSE",
    "RIGHT",
    "ROUND",
    "ROWCOUNT_BIG",
    "ROW_NUMBER",
    "RTRIM",
    "SCHEMA_ID",
    "SCHEMA_NAME",
    "SCOPE_IDENTITY",
    "SERVERPROPERTY",
    "SESSION_USER",
    "SIGN",
    "SIN",
    "SPACE",
    "SQL_VARIANT_PROPERTY",
    "SQRT",
    "SQUARE",
    "STR",
    "STRING_AGG",
    "STUFF",
    "SUBSTRING",
    "SUM",
    "SUSER_NAME",
    "SUSER_SNAME",
    "SWITCHOFFSET",
    "SYSDATETIME",
    "SYSDATETIMEOFFSET",
    "SYSTEM_USER",
    "SYSUTCDATETIME",
    "TAN",
    "TIMEFROMPARTS",
    "TODATETIMEOFFSET",
    "TRANSLATE",
    "TRIGGER_NESTLEVEL",
    "TRIM",
    "TYPE_NAME",
    "UNICODE",
    "UPDATE",
    "UPPER",
    "USER",
    "USER_ID",
    "USER_NAME",
    "XACT_STATE",
    "YEAR",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between quotes and in capitals in the code that knows functions is the name of
    /// one, or this.
    const NO_FUNCTIONS: &[&str] = &["STRING_ESCAPE"];

    #[test]
    fn every_function_is_listed() {
        let sources = [
            include_str!("engine/expr/functions/text.rs"),
            include_str!("engine/expr/functions/math.rs"),
            include_str!("engine/expr/functions/dates.rs"),
            include_str!("engine/functions.rs"),
        ];
        for source in sources {
            let code = source.split("#[cfg(test)]").next().unwrap_or_default();
            for word in code.split('"').skip(1).step_by(2) {
                let named = word.len() > 2
                    && word
                        .chars()
                        .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
                let known =
                    FUNCTIONS.contains(&word) || NO_FUNCTIONS.contains(&word) || word == "FN_CDC_";
                assert!(!named || known, "{word}");
            }
        }
    }

    #[test]
    fn what_was_used_is_not_told_as_unused() {
        let folder = std::env::temp_dir().join(format!("standin-surface-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (all, none) = unused(&folder);
        assert_eq!((all.len(), none), (KNOWN.len(), 0));
        fs::write(folder.join("view SYS.TABLES"), "").expect("a file");
        let (rest, one) = unused(&folder);
        fs::remove_dir_all(&folder).expect("the folder goes");
        assert_eq!((rest.len(), one), (all.len() - 1, 1));
        assert!(!rest.iter().any(|name| name == "view SYS.TABLES"), "{rest:?}");
    }
}
