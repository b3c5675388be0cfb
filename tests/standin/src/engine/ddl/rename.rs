//! sp_rename, of tables and columns: the object keeps its id, its rows and what captures it.

use super::{open, put_meta};
use crate::{
    engine::{
        context::Session,
        procedures::{Argument, Arguments},
    },
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    tsql::{ast::ObjectName, parse_name},
};

pub fn rename(
    session: &mut Session,
    arguments: &mut [Argument],
    sink: &mut dyn Sink,
) -> SqlResult<i32> {
    let args = Arguments::new("sp_rename", &["@objname", "@newname", "@objtype"], arguments)?;
    args.required("@objname")?;
    args.required("@newname")?;
    let (object, new) =
        (args.text("@objname").unwrap_or_default(), args.text("@newname").unwrap_or_default());
    let kind = args.text("@objtype").map(|kind| kind.trim().to_ascii_uppercase());
    if new.is_empty() {
        return Err(SqlError::new(
            15223,
            11,
            "Error: The input parameter 'newname' is not allowed to be null.",
        ));
    }
    let column = match kind.as_deref() {
        None | Some("OBJECT") => false,
        Some("COLUMN") => true,
        Some(other) => return Err(SqlError::unsupported(format!("sp_rename of a {other}"))),
    };
    let mut name = parse_name(&object)?;
    let missing = |kind: Option<&str>| {
        SqlError::new(
            15225,
            11,
            format!(
                "No item by the name of '{object}' could be found in the current database '{}', given that @itemtype was input as '{}'.",
                session.database_name(),
                kind.unwrap_or("(null)")
            ),
        )
    };
    let of_column = if column {
        // schema.table.column reads as database.schema.table
        let (Some(table), column) = (name.schema.take(), name.name) else {
            return Err(missing(Some("COLUMN")));
        };
        name = ObjectName { database: None, schema: name.database.take(), name: table };
        Some(column)
    } else {
        None
    };
    let not_there = missing(kind.as_deref());
    let taken = |kind: &str| {
        SqlError::new(
            15335,
            11,
            format!(
                "Error: The new name '{new}' is already in use as a {kind} name and would cause a duplicate that is not permitted."
            ),
        )
    };
    session.statement(|session| {
        let work = session.work();
        let found = open(session, &work, &name)
            .map_err(|error| if error.number == 4902 { not_there.clone() } else { error })?;
        let mut state = work.lock();
        let mut meta = (*found.table).clone();
        match &of_column {
            None => {
                let catalog = &state.database(found.database)?.catalog;
                if catalog.id_of(meta.schema_id, &new).is_some_and(|id| id != meta.object_id) {
                    return Err(taken("object"));
                }
                meta.name.clone_from(&new);
            }
            Some(column) => {
                let at = meta.ordinal_named(column).ok_or_else(|| not_there.clone())?;
                if meta.ordinal_named(&new).is_some_and(|other| other != at) {
                    return Err(taken("COLUMN"));
                }
                for extension in state.extensions {
                    (extension.check_rename_column)(
                        &state,
                        found.database,
                        meta.object_id,
                        meta.columns[at].column_id,
                        column,
                    )?;
                }
                meta.columns[at].name.clone_from(&new);
                meta.version += 1;
            }
        }
        put_meta(&mut state, &work, found.database, meta);
        Ok(())
    })?;
    let caution = SqlError::new(
        15477,
        10,
        "Caution: Changing any part of an object name could break scripts and stored procedures.",
    );
    sink.message(&caution).map_err(|_| SqlError::cancelled())?;
    Ok(0)
}
