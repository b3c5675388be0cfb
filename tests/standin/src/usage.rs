//! A record of what of the T-SQL surface is used: an empty file for each name.

use crate::tsql::ast::*;
use std::{
    collections::HashSet,
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

/// Records a use, once. A disk that fails makes no statement fail: the name counts as unused. A
/// name that is none of the surface's may be recorded too, unless it could not be a file's.
pub(crate) fn used(kind: &str, name: &str) {
    let Some(folder) = FOLDER.get() else { return };
    let entry = format!("{kind} {}", name.to_ascii_uppercase());
    if can_be_recorded(&entry)
        && SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.clone())
    {
        let _ = fs::write(folder.join(entry), "");
    }
}

/// Whether a name can be a file's everywhere.
pub(crate) fn can_be_recorded(entry: &str) -> bool {
    entry.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '@' | ' '))
}

macro_rules! kinds {
    ($(#[$about:meta])* $list:ident, $function:ident($ty:ty), $($pattern:pat => $name:literal,)*) => {
        $(#[$about])*
        pub(crate) fn $function(of: &$ty) -> &'static str {
            match of { $($pattern => $name,)* }
        }
        pub(crate) const $list: &[&str] = &[$($name),*];
    };
}

kinds! {
    /// What a statement is called here.
    STATEMENTS, statement(Statement),
    Statement::Query(_) => "SELECT",
    Statement::SelectAssign { .. } => "SELECT @V",
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
    Statement::CreateView { create: true, .. } => "CREATE VIEW",
    Statement::CreateView { create: false, .. } => "ALTER VIEW",
    Statement::DropView { .. } => "DROP VIEW",
    Statement::CreateProcedure { .. } => "CREATE PROCEDURE",
    Statement::CreateFunction { .. } => "CREATE FUNCTION",
    Statement::CreateSecurityPolicy { .. } => "CREATE SECURITY POLICY",
    Statement::DropProcedure { .. } => "DROP PROCEDURE",
    Statement::CreateTrigger(_) => "CREATE TRIGGER",
    Statement::DropTrigger { .. } => "DROP TRIGGER",
    Statement::DisableTrigger { .. } => "DISABLE TRIGGER",
    Statement::CreateType { .. } => "CREATE TYPE",
    Statement::CreateLogin { .. } => "CREATE LOGIN",
    Statement::CreateUser { .. } => "CREATE USER",
    Statement::CreateRole { .. } => "CREATE ROLE",
    Statement::DropLogin { .. } => "DROP LOGIN",
    Statement::Permission { verb: PermissionVerb::Grant, .. } => "GRANT",
    Statement::Permission { verb: PermissionVerb::Deny, .. } => "DENY",
    Statement::Permission { verb: PermissionVerb::Revoke, .. } => "REVOKE",
    Statement::AddRoleMember { .. } => "ALTER ROLE ADD MEMBER",
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
    Statement::SetVariable { .. } => "SET @V",
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
    AlterTable::SwitchTo { .. } => "SWITCH",
}
