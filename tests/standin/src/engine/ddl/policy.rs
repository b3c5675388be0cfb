//! Security policies and the functions they name: the catalog's part of row-level security. What a
//! predicate would filter is not emulated, so the rows of a table under an enabled policy are
//! refused ([`Catalog::beyond`](crate::engine::catalog::Catalog::beyond)).

use super::{already_there, place};
use crate::{
    engine::{
        catalog::PolicyMeta,
        context::Session,
        scope::{display, find_table},
    },
    error::{SqlError, SqlResult},
    tsql::ast::{ObjectName, SecurityPredicate},
};

pub fn create_function(session: &mut Session, name: &ObjectName) -> SqlResult<()> {
    let work = session.work();
    let mut state = work.lock();
    let (database, schema) = place(session, &state, name, "CREATE FUNCTION")?;
    let catalog = &mut state.database_mut(database)?.catalog;
    let key = (schema, catalog.key(&name.name));
    if catalog.functions.contains_key(&key) || catalog.id_of(schema, &name.name).is_some() {
        return Err(already_there(&name.name));
    }
    catalog.functions.insert(key, ());
    Ok(())
}

pub fn create_policy(
    session: &mut Session,
    name: &ObjectName,
    predicates: &[SecurityPredicate],
    enabled: bool,
) -> SqlResult<()> {
    let work = session.work();
    let mut state = work.lock();
    let (database, schema_id) = place(session, &state, name, "ALTER ANY SECURITY POLICY")?;
    let mut of = Vec::new();
    for predicate in predicates {
        let (_, schema) = place(session, &state, &predicate.function, "ALTER ANY SECURITY POLICY")?;
        let catalog = &state.database(database)?.catalog;
        if !catalog.functions.contains_key(&(schema, catalog.key(&predicate.function.name))) {
            return Err(SqlError::new(
                208,
                16,
                format!("Invalid object name '{}'.", display(&predicate.function)),
            ));
        }
        let table = find_table(session, &state, &predicate.table)?.table.object_id;
        of.push((predicate.filter, format!("({})", predicate.text), table));
    }
    let create_date = work.instance.now();
    let db = state.database_mut(database)?;
    let object_id = db.new_object_id();
    db.catalog.policies.push(PolicyMeta {
        object_id,
        schema_id,
        name: name.name.clone(),
        enabled,
        create_date,
        predicates: of,
    });
    Ok(())
}
