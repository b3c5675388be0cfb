//! INSERT.

use crate::{
    engine::{
        context::Session,
        dml::{
            Changed, foreign_keys,
            output::{BoundOutput, target_table},
            prepare::{Prepared, refuse_write},
            triggers::{after_triggers, fire_triggers, triggers},
            write::{Writer, Written},
        },
        expr,
        instance::Target,
        lock::TableMode,
        query::{self, host::Row},
        scope::{Found, full_name},
    },
    error::{SqlError, SqlResult},
    exchange::{
        connection::Isolation,
        sink::{Column, Sink},
    },
    tsql::ast::{Insert, InsertSource},
    value::{SqlType, Value},
};
use std::sync::Arc;

/// Runs an INSERT. For INSERT … EXEC the caller has run the procedure and hands over its rows.
pub fn insert(
    session: &mut Session,
    insert: &Insert,
    executed: Option<(Vec<Column>, Vec<Row>)>,
    sink: &mut dyn Sink,
) -> SqlResult<Changed> {
    let found = target_table(session, &insert.target)?;
    let work = session.work();
    {
        let state = work.lock();
        if !found.table.is_temp() {
            state.check_permission(
                &session.login,
                Target::object(found.database, found.table.object_id),
                "INSERT",
            )?;
        }
        let hinted = |hint: &str| insert.hints.iter().any(|h| h == hint);
        let exclusive = hinted("TABLOCKX") || (hinted("TABLOCK") && !found.table.is_temp());
        let keeps = hinted("HOLDLOCK")
            || hinted("SERIALIZABLE")
            || work.isolation == Isolation::Serializable;
        if exclusive {
            drop(work.lock_table(state, found.id(), TableMode::Exclusive)?);
        } else if keeps && hinted("UPDLOCK") {
            drop(work.lock_table(state, found.id(), TableMode::Update)?);
        }
    }
    let places = places(
        session,
        &found,
        &insert.columns,
        matches!(insert.source, InsertSource::DefaultValues),
    )?;
    let mut incoming = Incoming { places, rows: Vec::new() };
    match &insert.source {
        InsertSource::DefaultValues => incoming.rows.push(vec![None; incoming.places.len()]),
        InsertSource::Values(rows) => {
            for row in rows {
                check_count(row.len(), incoming.places.len(), !insert.columns.is_empty())?;
                let mut values = Vec::with_capacity(row.len());
                for value in row {
                    values.push(match value {
                        Some(expr) => {
                            let (ty, value) = expr::evaluate(session.as_host(), expr)?;
                            Some((ty, value))
                        }
                        None => None,
                    });
                }
                incoming.rows.push(values);
            }
        }
        InsertSource::Query(query) => {
            let mut types: Vec<SqlType> = Vec::new();
            let mut rows = Vec::new();
            let width = incoming.places.len();
            let named = !insert.columns.is_empty();
            let query = with_ctes(query, insert);
            query::stream(
                session.as_host(),
                &query,
                &mut |columns, _| {
                    check_count(columns.len(), width, named)?;
                    types = columns.iter().map(|c| c.column.ty).collect();
                    Ok(())
                },
                &mut |row| {
                    rows.push(row.to_vec());
                    Ok(())
                },
            )?;
            let limit = match &insert.top {
                Some(top) => Some(top_count(session, top, rows.len())?),
                None => None,
            };
            rows.truncate(limit.unwrap_or(usize::MAX));
            return insert_typed(session, &found, incoming.places, &types, rows, insert, sink);
        }
        InsertSource::Execute(_) | InsertSource::ExecuteText(_) => {
            let Some((columns, rows)) = executed else {
                return Err(SqlError::unsupported("INSERT … EXEC here"));
            };
            if let Some(row) = rows.first() {
                check_count(row.len(), incoming.places.len(), !insert.columns.is_empty())?;
            }
            let types: Vec<SqlType> = columns.iter().map(|c| c.ty).collect();
            return insert_typed(session, &found, incoming.places, &types, rows, insert, sink);
        }
    }
    write(session, &found, incoming, Some(insert), sink)
}

/// INSERT TOP (n)
pub fn top_count(session: &Session, top: &crate::tsql::ast::Top, rows: usize) -> SqlResult<usize> {
    if top.percent {
        let Value::Float(percent) =
            expr::evaluate_as(session.as_host(), &top.count, SqlType::Float)?
        else {
            return Ok(0);
        };
        return Ok((rows as f64 * percent / 100.0).ceil() as usize);
    }
    match expr::evaluate_as(session.as_host(), &top.count, SqlType::BigInt)? {
        Value::Int(n) => Ok(usize::try_from(n).unwrap_or(0)),
        _ => Ok(0),
    }
}

fn with_ctes(query: &sqlparser::ast::Query, insert: &Insert) -> sqlparser::ast::Query {
    let mut query = query.clone();
    if query.with.is_none() {
        query.with = insert.ctes.clone();
    }
    query
}

/// Rows of known types into a table: OUTPUT INTO, SELECT INTO, capture.
pub fn insert_rows(
    session: &mut Session,
    found: &Found,
    columns: &[String],
    types: &[SqlType],
    rows: Vec<Row>,
    sink: &mut dyn Sink,
) -> SqlResult<u64> {
    let places = places(session, found, columns, false)?;
    check_count(types.len(), places.len(), !columns.is_empty())?;
    let rows = rows
        .into_iter()
        .map(|row| row.into_iter().zip(types).map(|(value, ty)| Some((*ty, value))).collect())
        .collect();
    Ok(write(session, found, Incoming { places, rows }, None, sink)?.rows)
}

fn insert_typed(
    session: &mut Session,
    found: &Found,
    places: Vec<usize>,
    types: &[SqlType],
    rows: Vec<Row>,
    insert: &Insert,
    sink: &mut dyn Sink,
) -> SqlResult<Changed> {
    let rows = rows
        .into_iter()
        .map(|row| row.into_iter().zip(types).map(|(value, ty)| Some((*ty, value))).collect())
        .collect();
    write(session, found, Incoming { places, rows }, Some(insert), sink)
}

/// Rows as the statement gave them: for each listed column a typed value, or None for DEFAULT.
struct Incoming {
    /// ordinals of the listed columns
    places: Vec<usize>,
    rows: Vec<Vec<Option<(SqlType, Value)>>>,
}

fn check_count(given: usize, expected: usize, named: bool) -> SqlResult<()> {
    if given == expected {
        return Ok(());
    }
    Err(if !named {
        SqlError::new(
            213,
            16,
            "Column name or number of supplied values does not match table definition.",
        )
    } else if given < expected {
        SqlError::new(
            120,
            15,
            "The select list for the INSERT statement contains fewer items than the insert list. The number of SELECT values must match the number of INSERT columns.",
        )
    } else {
        SqlError::new(
            121,
            15,
            "The select list for the INSERT statement contains more items than the insert list. The number of SELECT values must match the number of INSERT columns.",
        )
    })
}

/// The ordinals of the columns named, or of all that an INSERT without a list fills.
fn places(
    session: &Session,
    found: &Found,
    columns: &[String],
    defaults: bool,
) -> SqlResult<Vec<usize>> {
    let meta = &found.table;
    let identity_insert = session.identity_insert == Some(found.id());
    if columns.is_empty() {
        if defaults {
            return Ok(Vec::new());
        }
        if identity_insert {
            let name = full_name(&session.work().lock(), found.database, meta);
            return Err(SqlError::new(
                8101,
                16,
                format!(
                    "An explicit value for the identity column in table '{name}' can only be specified when a column list is used and IDENTITY_INSERT is ON."
                ),
            ));
        }
        let all = meta.columns.iter().enumerate();
        return Ok(all
            .filter(|(_, c)| {
                c.identity.is_none() && c.computed.is_none() && !c.hidden && !c.is_rowversion()
            })
            .map(|(at, _)| at)
            .collect());
    }
    let mut places = Vec::with_capacity(columns.len());
    for name in columns {
        let Some(at) = meta.ordinal_named(name) else {
            return Err(SqlError::new(207, 16, format!("Invalid column name '{name}'.")));
        };
        if places.contains(&at) {
            let message = format!(
                "The column name '{name}' is specified more than once in the SET clause or column list of an INSERT. A column cannot be assigned more than one value in the same clause. Modify the clause to make sure that a column is updated only once. If this statement updates or inserts columns into a view, column aliasing can conceal the duplication in your code."
            );
            return Err(SqlError::new(264, 16, message));
        }
        refuse_write(meta, at, true)?;
        places.push(at);
    }
    if let Some(identity) = meta.identity_ordinal() {
        let given = places.contains(&identity);
        if given && !identity_insert {
            return Err(SqlError::new(
                544,
                16,
                format!(
                    "Cannot insert explicit value for identity column in table '{}' when IDENTITY_INSERT is set to OFF.",
                    meta.name
                ),
            ));
        }
        if !given && identity_insert {
            return Err(SqlError::new(
                545,
                16,
                format!(
                    "Explicit value must be specified for identity column in table '{}' either when IDENTITY_INSERT is set to ON or when a replication user is inserting into a NOT FOR REPLICATION identity column.",
                    meta.name
                ),
            ));
        }
    }
    Ok(places)
}

fn write(
    session: &mut Session,
    found: &Found,
    incoming: Incoming,
    insert: Option<&Insert>,
    sink: &mut dyn Sink,
) -> SqlResult<Changed> {
    let work = session.work();
    let mark = work.mark();
    let result = write_inner(session, found, incoming, insert, sink);
    if result.is_err() {
        work.undo_to(mark);
    }
    result
}

fn write_inner(
    session: &mut Session,
    found: &Found,
    incoming: Incoming,
    insert: Option<&Insert>,
    sink: &mut dyn Sink,
) -> SqlResult<Changed> {
    let work = session.work();
    let prepared = Prepared::new(session.as_host(), &work, found, true)?;
    let width = prepared.meta.columns.len();
    let identity_given =
        prepared.meta.identity_ordinal().is_some_and(|at| incoming.places.contains(&at));
    let mut rows = Vec::with_capacity(incoming.rows.len());
    let mut last_identity = None;
    let output = match insert.and_then(|i| i.output.as_ref()) {
        Some(output) => Some(BoundOutput::bind(session, output, &prepared)?),
        None => None,
    };
    // Defaults may not be the same for two rows (NEWID()), so each row asks anew.
    let missing: Vec<usize> = (0..width)
        .filter(|at| !incoming.places.contains(at) && prepared.has_default(*at))
        .collect();
    for (count, given) in incoming.rows.into_iter().enumerate() {
        if count % 256 == 255 {
            work.check_cancelled()?;
        }
        let mut row: Row = vec![Value::Null; width];
        for (at, value) in incoming.places.iter().zip(given) {
            row[*at] = match value {
                Some((ty, value)) => prepared.convert(*at, value, ty)?,
                None => prepared.default_value(session.as_host(), *at)?,
            };
        }
        for at in &missing {
            row[*at] = prepared.default_value(session.as_host(), *at)?;
        }
        if let Some(identity) =
            prepared.complete_new(session.as_host(), &work, &mut row, identity_given)?
        {
            last_identity = Some(identity);
        }
        rows.push(row);
    }
    if let Some(instead) = instead_of(&work, found) {
        let rows: Vec<Arc<Row>> = rows.into_iter().map(Arc::new).collect();
        let count = rows.len() as u64;
        fire_triggers(session, found, &instead, Arc::new(rows), Arc::default(), count, sink)?;
        return Ok(Changed { rows: count, ..Changed::default() });
    }
    let (written, ignored) = Writer::open(&work, &prepared)?.insert(rows)?;
    if ignored > 0 {
        let message = SqlError { class: 0, ..SqlError::new(3604, 0, "Duplicate key was ignored.") };
        sink.message(&message).map_err(|_| SqlError::cancelled())?;
    }
    foreign_keys::check_children(&work, &prepared, &written, "INSERT")?;
    if let Some(identity) = last_identity {
        session.set_last_identity(identity);
    }
    let count = written.len() as u64;
    let mut changed = Changed { rows: count, ..Changed::default() };
    if let Some(output) = output {
        let images: Vec<Written> =
            written.iter().map(|row| Written { before: None, after: Some(row.clone()) }).collect();
        let rows = output.rows(session, &images, width)?;
        changed.output = output.deliver(session, rows, sink)?;
    }
    let after = after_triggers(&work, found, |t| t.insert);
    if !after.is_empty() {
        fire_triggers(session, found, &after, Arc::new(written), Arc::default(), count, sink)?;
    }
    Ok(changed)
}

fn instead_of(
    work: &crate::engine::instance::Work,
    found: &Found,
) -> Option<Vec<Arc<crate::engine::catalog::TriggerMeta>>> {
    let triggers = triggers(work, found, |t| t.instead_of && t.insert);
    (!triggers.is_empty()).then_some(triggers)
}
