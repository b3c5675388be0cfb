//! System procedures: found by name here, written where their subject is.
//!
//! A procedure gets its arguments evaluated, sends its result sets and messages to the sink, and
//! answers its RETURN value; an output parameter is an argument whose `value` it replaces.

use crate::{
    engine::{
        applocks, context::Session, ddl, extension::Extensions, table_collations::table_collations,
    },
    error::{SqlError, SqlResult},
    exchange::sink::Sink,
    tsql::ast::ObjectName,
    value::{SqlType, Value},
};

/// An evaluated argument of EXEC or of a remote call.
#[derive(Clone, Debug)]
pub struct Argument {
    /// with the @; None for a positional one
    pub name: Option<String>,
    pub ty: SqlType,
    pub value: Value,
    /// OUTPUT was asked for
    pub output: bool,
    /// DEFAULT was written: as if it were not there
    pub default: bool,
}

pub type SystemProcedure = fn(&mut Session, &mut [Argument], &mut dyn Sink) -> SqlResult<i32>;

/// Every system procedure this server knows, in lower case.
const PROCEDURES: &[(&str, SystemProcedure)] = &[
    ("sp_getapplock", applocks::get),
    ("sp_releaseapplock", applocks::release),
    ("sp_rename", ddl::rename),
    ("sp_tablecollations_100", table_collations),
];

/// The procedure of that name, with or without `sys` or `dbo`, in any database.
pub fn find(extensions: Extensions, name: &ObjectName) -> Option<SystemProcedure> {
    if !name.schema.as_deref().is_none_or(|s| {
        s.is_empty() || s.eq_ignore_ascii_case("sys") || s.eq_ignore_ascii_case("dbo")
    }) {
        return None;
    }
    let (own, procedure) = all(extensions).find(|(own, _)| name.name.eq_ignore_ascii_case(own))?;
    crate::usage::used("procedure", own);
    Some(procedure)
}

/// The engine's own procedures, and those of extensions.
fn all(extensions: Extensions) -> impl Iterator<Item = (&'static str, SystemProcedure)> {
    PROCEDURES.iter().chain(extensions.iter().flat_map(|e| e.procedures)).copied()
}

/// The names of all.
pub fn names(extensions: Extensions) -> Vec<&'static str> {
    all(extensions).map(|(name, _)| name).collect()
}

/// The arguments by the procedure's own parameter names; each may be given by name or by place.
pub struct Arguments<'a> {
    procedure: &'a str,
    given: Vec<Option<&'a mut Argument>>,
    names: &'a [&'a str],
}

impl<'a> Arguments<'a> {
    /// 8144 for too many, 8145 for an unknown name.
    pub fn new(
        procedure: &'a str,
        names: &'a [&'a str],
        arguments: &'a mut [Argument],
    ) -> SqlResult<Self> {
        let mut given: Vec<Option<&'a mut Argument>> = names.iter().map(|_| None).collect();
        for (place, argument) in arguments.iter_mut().enumerate() {
            let at = match &argument.name {
                Some(name) => names
                    .iter()
                    .position(|n| n.eq_ignore_ascii_case(name))
                    .ok_or_else(|| not_a_parameter(name, procedure))?,
                None if place < names.len() => place,
                None => return Err(too_many(procedure)),
            };
            if !argument.default {
                given[at] = Some(argument);
            }
        }
        Ok(Self { procedure, given, names })
    }

    fn at(&self, name: &str) -> Option<&Argument> {
        let at = self.names.iter().position(|n| n.eq_ignore_ascii_case(name))?;
        self.given[at].as_deref()
    }

    /// The value, or NULL when it was not given.
    pub fn value(&self, name: &str) -> Value {
        self.at(name).map_or(Value::Null, |a| a.value.clone())
    }

    /// 201 when it was not given.
    pub fn required(&self, name: &str) -> SqlResult<&Argument> {
        self.at(name).ok_or_else(|| not_supplied(self.procedure, name))
    }

    /// Text, or None for NULL and what was not given.
    pub fn text(&self, name: &str) -> Option<String> {
        match &self.at(name)?.value {
            Value::Str(s) => Some(s.to_string()),
            _ => None,
        }
    }

    pub fn integer(&self, name: &str) -> Option<i64> {
        match &self.at(name)?.value {
            Value::Int(n) => Some(*n),
            Value::Bit(b) => Some(i64::from(*b)),
            Value::Decimal(d) => i64::try_from(d.trunc()).ok(),
            Value::Str(s) => s.trim().parse().ok(),
            _ => None,
        }
    }
}

/// 8144
pub fn too_many(procedure: &str) -> SqlError {
    SqlError::new(
        8144,
        16,
        format!("Procedure or function {procedure} has too many arguments specified."),
    )
}

/// 8145
pub fn not_a_parameter(name: &str, procedure: &str) -> SqlError {
    SqlError::new(8145, 16, format!("{name} is not a parameter for procedure {procedure}."))
}

/// 201
pub fn not_supplied(procedure: &str, name: &str) -> SqlError {
    let mut error = SqlError::new(
        201,
        16,
        format!(
            "Procedure or function '{procedure}' expects parameter '{name}', which was not supplied."
        ),
    );
    error.state = 4;
    error
}
