//! EXEC: user procedures, dynamic SQL, prepared statements, system procedures; for a batch and for
//! a remote call alike.

use super::{Failure, Flow, Stop, run};
use crate::{
    engine::{
        catalog::{Object, ProcedureMeta},
        context::{Frame, Prepared, Session},
        expr,
        procedures::{self, Argument, not_a_parameter, not_supplied, too_many},
    },
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    tsql::{
        ast::{Execute, ExecuteArg, ObjectName, ProcParam},
        parse, parse_parameters,
    },
    value::{Length, SqlType, Value, convert},
};
use sqlparser::ast::Expr;
use std::sync::Arc;

/// `EXEC [@rc =] procedure …`
pub fn execute(session: &mut Session, call_: &Execute, sink: &mut dyn Sink) -> Result<(), Failure> {
    let mut arguments =
        call_.args.iter().map(|a| evaluate(session, a)).collect::<SqlResult<Vec<_>>>()?;
    let from_batch = session.nest_level() == 0;
    let status = call(session, &call_.procedure, &mut arguments, true, sink)?;
    for (written, argument) in call_.args.iter().zip(&arguments) {
        if !argument.output {
            continue;
        }
        if let Some(Expr::Identifier(variable)) = &written.value {
            let ty = session.variable_type(&variable.value)?;
            let value =
                convert::cast(&argument.value, argument.ty, ty, None, &session.convert_context())?;
            session.set_variable(&variable.value, value)?;
        }
    }
    if let Some(variable) = &call_.return_into {
        let ty = session.variable_type(variable)?;
        let value = convert::cast(
            &Value::Int(i64::from(status)),
            SqlType::Int,
            ty,
            None,
            &session.convert_context(),
        )?;
        session.set_variable(variable, value)?;
    }
    if from_batch {
        sink.return_status(status)?;
    }
    Ok(())
}

fn evaluate(session: &mut Session, argument: &ExecuteArg) -> SqlResult<Argument> {
    let (ty, value) = match &argument.value {
        Some(expr) => session.statement(|s| expr::evaluate(&*s, expr))?,
        None => (SqlType::Int, Value::Null),
    };
    if argument.output
        && !matches!(&argument.value, Some(Expr::Identifier(i)) if i.value.starts_with('@'))
    {
        return Err(SqlError::new(
            179,
            15,
            "Cannot use the OUTPUT option when passing a constant to a stored procedure.",
        ));
    }
    Ok(Argument {
        name: argument.name.clone(),
        ty,
        value,
        output: argument.output,
        default: argument.value.is_none(),
    })
}

/// EXEC ('text')
pub fn execute_text(
    session: &mut Session,
    parts: &[Expr],
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    let ty = SqlType::NVarChar(Length::Max, session.collation());
    let mut text = String::new();
    for part in parts {
        if let Value::Str(s) = session.statement(|s| expr::evaluate_as(&*s, part, ty))? {
            text.push_str(&s);
        }
    }
    dynamic(session, &text, Frame::default(), |_| Ok(()), true, sink)?;
    Ok(())
}

/// Calls a procedure by name. `nested`: from a batch or procedure, not as a remote call's own.
pub fn call(
    session: &mut Session,
    name: &ObjectName,
    arguments: &mut [Argument],
    nested: bool,
    sink: &mut dyn Sink,
) -> Result<i32, Failure> {
    match name.name.to_ascii_lowercase().as_str() {
        "sp_executesql" => return execute_sql(session, arguments, nested, sink),
        "sp_prepare" => return prepare(session, arguments).map_err(Failure::from),
        "sp_prepexec" => return prepare_and_execute(session, arguments, nested, sink),
        "sp_execute" => return execute_prepared(session, arguments, nested, sink),
        "sp_unprepare" => return unprepare(session, arguments).map_err(Failure::from),
        _ => {}
    }
    if let Some(procedure) = procedures::find(session.instance.extensions, name) {
        // `db.sys.sp_…` is that database's: it works there, and the session stays where it is.
        let here = session.database;
        if let Some(database) = name.database.as_deref().filter(|d| !d.is_empty()) {
            session.database = session.instance.lock().open_database(&session.login, database)?;
        }
        let status = procedure(session, arguments, sink);
        session.database = here;
        return status.map_err(Failure::from);
    }
    match session.resolve(name) {
        Some((database, Object::Procedure(procedure))) => {
            execute_procedure(session, database, &procedure, arguments, nested, sink)
        }
        _ => Err(not_found(name).into()),
    }
}

/// 2812
pub fn not_found(name: &ObjectName) -> SqlError {
    let parts = [name.database.as_deref(), name.schema.as_deref(), Some(name.name.as_str())];
    let shown = parts.into_iter().flatten().collect::<Vec<_>>().join(".");
    let mut error = SqlError::new(2812, 16, format!("Could not find stored procedure '{shown}'."));
    error.state = 62;
    error
}

/// What a remote call answers: RETURN's value, then its output parameters.
pub fn report_call(status: i32, arguments: &[Argument], sink: &mut dyn Sink) -> Result<(), Stop> {
    sink.return_status(status)?;
    for argument in arguments.iter().filter(|a| a.output) {
        sink.return_value(argument.name.as_deref().unwrap_or(""), argument.ty, &argument.value)?;
    }
    Ok(())
}

fn execute_procedure(
    session: &mut Session,
    database: i32,
    procedure: &Arc<ProcedureMeta>,
    arguments: &mut [Argument],
    nested: bool,
    sink: &mut dyn Sink,
) -> Result<i32, Failure> {
    let places = bind(&procedure.params, arguments, &procedure.name)?;
    let frame = Frame::of(&procedure.name, procedure.object_id, None);
    let enter = |session: &mut Session| {
        session.database = database;
        session.options.quoted_identifier = true;
        for (param, place) in procedure.params.iter().zip(&places) {
            let ty = session.resolve_type(&param.ty)?;
            let value = match (place, &param.default) {
                (Some(at), _) => convert_argument(session, &arguments[*at], ty)?,
                (None, Some(default)) => {
                    session.statement(|s| expr::evaluate_as(&*s, default, ty))?
                }
                (None, None) => return Err(not_supplied(&procedure.name, &param.name)),
            };
            session.declare(&param.name, ty, value);
        }
        Ok(())
    };
    session.push_frame(frame)?;
    if let Err(error) = enter(session) {
        session.pop_frame();
        return Err(error.into());
    }
    let outputs = procedure.params.iter().zip(&places).map(|(p, at)| (p.name.clone(), *at));
    run_frame(session, &procedure.body, outputs.collect(), arguments, nested, sink)
}

/// Runs a pushed frame's body and pops it; gives output parameters their final values.
fn run_frame(
    session: &mut Session,
    body: &crate::tsql::ast::Batch,
    outputs: Vec<(String, Option<usize>)>,
    arguments: &mut [Argument],
    nested: bool,
    sink: &mut dyn Sink,
) -> Result<i32, Failure> {
    let before = session.tran_count;
    if nested {
        sink.enter_procedure();
    }
    let result = run(session, body, sink);
    let left = if nested { sink.leave_procedure() } else { Ok(()) };
    for (name, place) in outputs {
        if let (Some(at), Some(variable)) = (place, session.variable(&name))
            && arguments[at].output
        {
            arguments[at].ty = variable.ty;
            arguments[at].value = variable.value.clone();
        }
    }
    session.pop_frame();
    left?;
    let status = match result {
        Ok(Flow::Return(status)) => status.unwrap_or(0),
        Ok(Flow::Next | Flow::Break | Flow::Continue) => 0,
        // A procedure cut short answers ten less than its error's severity, negated: names that are
        // not there have 16.
        Err(Stop::Scope) => -6,
        Err(stop) => return Err(stop.into()),
    };
    if session.tran_count != before && !session.doomed {
        let text = format!(
            "Transaction count after EXECUTE indicates a mismatching number of BEGIN and COMMIT statements. Previous count = {before}, \
             current count = {}.",
            session.tran_count
        );
        let mut error = SqlError::new(266, 16, text);
        error.state = 2;
        return Err(error.into());
    }
    Ok(status)
}

/// Which argument each parameter gets: 8144, 8145.
fn bind(
    params: &[ProcParam],
    arguments: &[Argument],
    procedure: &str,
) -> SqlResult<Vec<Option<usize>>> {
    let mut places = vec![None; params.len()];
    for (at, argument) in arguments.iter().enumerate() {
        let place = match &argument.name {
            Some(name) => params
                .iter()
                .position(|p| p.name.eq_ignore_ascii_case(name))
                .ok_or_else(|| not_a_parameter(name, procedure))?,
            None if at < params.len() => at,
            None => return Err(too_many(procedure)),
        };
        if argument.output && !params[place].output {
            let text = format!(
                "The formal parameter \"{}\" was not declared as an OUTPUT parameter, but the actual parameter passed in requested output.",
                params[place].name
            );
            return Err(SqlError::new(8162, 16, text));
        }
        if !argument.default {
            places[place] = Some(at);
        }
    }
    Ok(places)
}

fn convert_argument(session: &Session, argument: &Argument, ty: SqlType) -> SqlResult<Value> {
    crate::value::types::check_implicit(argument.ty, ty)?;
    convert::cast(&argument.value, argument.ty, ty, None, &session.convert_context())
}

/// Runs a text in a frame of its own.
fn dynamic(
    session: &mut Session,
    text: &str,
    frame: Frame,
    declare: impl FnOnce(&mut Session) -> SqlResult<()>,
    nested: bool,
    sink: &mut dyn Sink,
) -> Result<i32, Failure> {
    dynamic_with(session, text, frame, declare, vec![], &mut [], nested, sink)
}

#[expect(clippy::too_many_arguments, reason = "one call of one frame")]
fn dynamic_with(
    session: &mut Session,
    text: &str,
    frame: Frame,
    declare: impl FnOnce(&mut Session) -> SqlResult<()>,
    outputs: Vec<(String, Option<usize>)>,
    arguments: &mut [Argument],
    nested: bool,
    sink: &mut dyn Sink,
) -> Result<i32, Failure> {
    let batch = parse(text, session.options.quoted_identifier)?;
    session.push_frame(frame)?;
    if let Err(error) = declare(session) {
        session.pop_frame();
        return Err(error.into());
    }
    run_frame(session, &batch, outputs, arguments, nested, sink)
}

fn text_of(argument: Option<&Argument>, procedure: &str) -> SqlResult<String> {
    match argument.map(|a| (&a.value, a.ty)) {
        Some((Value::Str(s), ty)) if ty.is_unicode() || matches!(ty, SqlType::NText(_)) => {
            Ok(s.to_string())
        }
        Some((Value::Null, _)) => Ok(String::new()),
        Some(_) => {
            let text = "Procedure expects parameter '@statement' of type 'ntext/nchar/nvarchar'.";
            Err(SqlError::new(214, 16, text))
        }
        None => Err(not_supplied(procedure, "@statement")),
    }
}

/// sp_executesql @stmt, @params, values…
fn execute_sql(
    session: &mut Session,
    arguments: &mut [Argument],
    nested: bool,
    sink: &mut dyn Sink,
) -> Result<i32, Failure> {
    let text = text_of(arguments.first(), "sp_executesql")?;
    let declared = match arguments.get(1) {
        Some(argument) => text_of(Some(argument), "sp_executesql")?,
        None => String::new(),
    };
    let rest = arguments.len().min(2);
    with_parameters(session, &declared, &text, &mut arguments[rest..], nested, sink)
}

/// Runs a text with the parameters it declares: 8178 for one that is not given.
fn with_parameters(
    session: &mut Session,
    declared: &str,
    text: &str,
    arguments: &mut [Argument],
    nested: bool,
    sink: &mut dyn Sink,
) -> Result<i32, Failure> {
    let params = parse_parameters(declared)?;
    // OUTPUT may be asked for without being declared: the value is simply given back.
    let places = bind(
        &params.iter().map(|p| ProcParam { output: true, ..p.clone() }).collect::<Vec<_>>(),
        arguments,
        "sp_executesql",
    )?;
    let mut values = Vec::new();
    for (param, place) in params.iter().zip(&places) {
        let ty = session.resolve_type(&param.ty)?;
        let value = match (place, &param.default) {
            (Some(at), _) => convert_argument(session, &arguments[*at], ty)?,
            (None, Some(default)) => session.statement(|s| expr::evaluate_as(&*s, default, ty))?,
            (None, None) => {
                let text = format!(
                    "The parameterized query '({declared}){text}' expects the parameter '{}', which was not supplied.",
                    param.name
                );
                return Err(SqlError::new(8178, 16, text).into());
            }
        };
        values.push((param.name.clone(), ty, value));
    }
    let outputs = params.iter().zip(&places).map(|(p, at)| (p.name.clone(), *at)).collect();
    let declare = |session: &mut Session| {
        values.into_iter().for_each(|(name, ty, value)| session.declare(&name, ty, value));
        Ok(())
    };
    dynamic_with(session, text, Frame::default(), declare, outputs, arguments, nested, sink)
}

/// `sp_prepare @handle OUTPUT, @params, @stmt [, @options]`
fn prepare(session: &mut Session, arguments: &mut [Argument]) -> SqlResult<i32> {
    let parameters = match arguments.get(1) {
        Some(argument) => text_of(Some(argument), "sp_prepare")?,
        None => return Err(not_supplied("sp_prepare", "@params")),
    };
    let text = text_of(arguments.get(2), "sp_prepare")?;
    parse(&text, session.options.quoted_identifier)?;
    parse_parameters(&parameters)?;
    session.next_handle += 1;
    let handle = session.next_handle;
    session.prepared.insert(handle, Prepared { parameters, text });
    arguments[0].ty = SqlType::Int;
    arguments[0].value = Value::Int(i64::from(handle));
    Ok(0)
}

fn handle_of(arguments: &[Argument], procedure: &str) -> SqlResult<i32> {
    match arguments.first().map(|a| &a.value) {
        Some(Value::Int(n)) => Ok(i32::try_from(*n).unwrap_or(0)),
        Some(_) => Ok(0),
        None => Err(not_supplied(procedure, "@handle")),
    }
}

fn no_handle(handle: i32) -> SqlError {
    SqlError::new(8179, 16, format!("Could not find prepared statement with handle {handle}."))
}

/// sp_prepexec @handle OUTPUT, @params, @stmt, values…
fn prepare_and_execute(
    session: &mut Session,
    arguments: &mut [Argument],
    nested: bool,
    sink: &mut dyn Sink,
) -> Result<i32, Failure> {
    prepare(session, arguments)?;
    let handle = handle_of(arguments, "sp_prepexec")?;
    let Some(prepared) = session.prepared.get(&handle).cloned() else {
        return Err(no_handle(handle).into());
    };
    let rest = arguments.len().min(3);
    with_parameters(
        session,
        &prepared.parameters,
        &prepared.text,
        &mut arguments[rest..],
        nested,
        sink,
    )
}

/// sp_execute @handle, values…
fn execute_prepared(
    session: &mut Session,
    arguments: &mut [Argument],
    nested: bool,
    sink: &mut dyn Sink,
) -> Result<i32, Failure> {
    let handle = handle_of(arguments, "sp_execute")?;
    let Some(prepared) = session.prepared.get(&handle).cloned() else {
        return Err(no_handle(handle).into());
    };
    with_parameters(
        session,
        &prepared.parameters,
        &prepared.text,
        &mut arguments[1..],
        nested,
        sink,
    )
}

/// sp_unprepare @handle
fn unprepare(session: &mut Session, arguments: &[Argument]) -> SqlResult<i32> {
    let handle = handle_of(arguments, "sp_unprepare")?;
    session.prepared.remove(&handle).map(|_| 0).ok_or_else(|| no_handle(handle))
}
