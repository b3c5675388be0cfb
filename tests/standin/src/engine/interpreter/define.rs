//! Statements that change structure, handed to `ddl`.

use crate::{
    engine::{context::Session, ddl},
    error::SqlResult,
    tsql::ast::{Spanned, Statement},
};

/// False: not a statement of this kind.
pub fn define(session: &mut Session, spanned: &Spanned) -> SqlResult<bool> {
    match &spanned.statement {
        Statement::CreateDatabase { name, collation } => {
            ddl::create_database(session, name, collation.as_deref())?
        }
        Statement::DropDatabase { name, if_exists } => {
            ddl::drop_database(session, name, *if_exists)?
        }
        Statement::AlterDatabase { name, action } => {
            ddl::alter_database(session, name.as_deref(), action)?
        }
        Statement::CreateSchema { name } => ddl::create_schema(session, name)?,
        Statement::DropSchema { name, if_exists } => ddl::drop_schema(session, name, *if_exists)?,
        Statement::CreateTable(create) => ddl::create_table(session, create)?,
        Statement::DeclareTable { name, table } => ddl::declare_table(session, name, table)?,
        Statement::AlterTable { table, action } => {
            ddl::alter_table(session, table, action, &spanned.text)?
        }
        Statement::DropTable { tables, if_exists } => ddl::drop_table(session, tables, *if_exists)?,
        Statement::CreateIndex(create) => ddl::create_index(session, create)?,
        Statement::DropIndex { name, table, if_exists } => {
            ddl::drop_index(session, name, table, *if_exists)?
        }
        Statement::AlterIndex { name, table, action } => {
            ddl::alter_index(session, name.as_deref(), table, *action)?
        }
        Statement::CreateView { name, columns, query, alter, create, schemabinding, text } => {
            ddl::create_view(session, name, columns, query, *alter, *create, *schemabinding, text)?;
        }
        Statement::DropView { names, if_exists } => {
            ddl::drop_objects(session, names, *if_exists, "view")?
        }
        Statement::CreateProcedure { name, params, body, alter, text } => {
            ddl::create_procedure(session, name, params, body, *alter, text)?;
        }
        Statement::CreateFunction { name } => ddl::create_function(session, name)?,
        Statement::CreateSecurityPolicy { name, predicates, enabled } => {
            ddl::create_policy(session, name, predicates, *enabled)?
        }
        Statement::DropProcedure { names, if_exists } => {
            ddl::drop_objects(session, names, *if_exists, "procedure")?
        }
        Statement::CreateTrigger(create) => ddl::create_trigger(session, create)?,
        Statement::DropTrigger { names, if_exists } => {
            ddl::drop_objects(session, names, *if_exists, "trigger")?
        }
        Statement::DisableTrigger { names, all, table } => {
            ddl::disable_trigger(session, names, *all, table)?
        }
        Statement::CreateType { name, base, nullable } => {
            ddl::create_type(session, name, base, *nullable)?
        }
        Statement::CreateLogin { name, password } => ddl::create_login(session, name, password)?,
        Statement::CreateUser { name, login } => ddl::create_user(session, name, login.as_deref())?,
        Statement::CreateRole { name } => ddl::create_role(session, name)?,
        Statement::DropLogin { name, if_exists } => ddl::drop_login(session, name, *if_exists)?,
        Statement::AddRoleMember { role, member } => ddl::add_role_member(session, role, member)?,
        Statement::Permission { verb, permissions, on, principals, columns } => {
            ddl::permission(session, *verb, permissions, on.as_ref(), principals, columns)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}
