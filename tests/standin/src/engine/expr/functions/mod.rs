//! Functions: which there are, what their arguments become and what they give.

mod aggregates;
pub mod arguments;
mod bytes;
mod characters;
mod dates;
mod math;
mod parts;
mod text;

use super::{
    binder::Binder,
    bound::{Bound, Node},
    conversions::{implicit, unify},
    types,
};
use crate::{
    error::{SqlError, SqlResult},
    value::{Length, SqlType, Value, datetime::DatePart},
};
use aggregates::aggregate_kind;
use arguments::{arity, call, expressions};
use sqlparser::ast::{
    self, DuplicateTreatment, Expr, FunctionArguments, ObjectNamePart, WindowType,
};

/// Functions the host answers, and what they give.
fn host_function(name: &str) -> Option<(SqlType, bool)> {
    let sysname = SqlType::NVarChar(Length::N(128), crate::value::Collation::DEFAULT);
    let long = SqlType::NVarChar(Length::N(4000), crate::value::Collation::DEFAULT);
    let ty = match name {
        "OBJECT_ID" | "DB_ID" | "SCHEMA_ID" | "HAS_PERMS_BY_NAME" | "ERROR_NUMBER"
        | "ERROR_SEVERITY" | "ERROR_STATE" | "ERROR_LINE" | "APPLOCK_TEST" => SqlType::Int,
        "COL_LENGTH" | "XACT_STATE" => SqlType::SmallInt,
        "OBJECT_NAME" | "OBJECT_SCHEMA_NAME" | "DB_NAME" | "TYPE_NAME" | "USER_NAME"
        | "ORIGINAL_LOGIN" | "ERROR_PROCEDURE" => sysname,
        "ERROR_MESSAGE" => long,
        "SERVERPROPERTY" | "DATABASEPROPERTYEX" | "COLLATIONPROPERTY" => SqlType::SqlVariant,
        "SCOPE_IDENTITY" => SqlType::Decimal { precision: 38, scale: 0 },
        "NEWID" => SqlType::UniqueIdentifier,
        "ROWCOUNT_BIG" => SqlType::BigInt,
        _ => return None,
    };
    Some((ty, !matches!(name, "NEWID" | "XACT_STATE")))
}

/// AT TIME ZONE, for UTC alone.
pub fn at_time_zone(value: Bound, zone: Bound) -> SqlResult<Bound> {
    match &zone.node {
        Node::Const(Value::Str(name)) if name.eq_ignore_ascii_case("UTC") => {}
        _ => return Err(SqlError::unsupported("AT TIME ZONE for anything but 'UTC'")),
    }
    let scale = match value.ty {
        SqlType::DateTime2(s) | SqlType::DateTimeOffset(s) => s,
        SqlType::DateTime => 3,
        SqlType::SmallDateTime => 0,
        other => {
            return Err(SqlError::new(
                8116,
                16,
                format!(
                    "Argument data type {} is invalid for argument 1 of AT TIME ZONE function.",
                    types::name(other)
                ),
            ));
        }
    };
    let nullable = value.nullable;
    Ok(call(dates::at_utc, vec![value], SqlType::DateTimeOffset(scale), nullable))
}

impl Binder<'_> {
    pub fn function(&mut self, function: &ast::Function) -> SqlResult<Bound> {
        let name = match function.name.0.as_slice() {
            [ObjectNamePart::Identifier(ident)] => ident.value.to_ascii_uppercase(),
            [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(ident)]
                if schema.value.eq_ignore_ascii_case("sys") =>
            {
                ident.value.to_ascii_uppercase()
            }
            [
                ObjectNamePart::Identifier(database),
                ObjectNamePart::Identifier(schema),
                ObjectNamePart::Identifier(ident),
            ] if schema.value.eq_ignore_ascii_case("sys") => {
                format!("{}.{}", database.value, ident.value.to_ascii_uppercase())
            }
            _ => {
                return Err(SqlError::unsupported(format!(
                    "the user-defined function {}",
                    function.name
                )));
            }
        };
        crate::usage::used("function", name.rsplit('.').next().unwrap_or_default());
        if function.filter.is_some() || !matches!(function.parameters, FunctionArguments::None) {
            return Err(SqlError::unsupported(format!("a clause of another dialect on {name}")));
        }
        let empty = Vec::new();
        let (list, distinct) = match &function.args {
            FunctionArguments::None => (&empty, false),
            FunctionArguments::List(list) if list.clauses.is_empty() => {
                (&list.args, list.duplicate_treatment == Some(DuplicateTreatment::Distinct))
            }
            _ => return Err(SqlError::unsupported(format!("the arguments of {name}"))),
        };
        if let Some(kind) = aggregate_kind(&name) {
            return self.aggregate_call(&name, kind, list, distinct, function);
        }
        if name == "ROW_NUMBER" {
            let Some(WindowType::WindowSpec(spec)) = &function.over else {
                return Err(SqlError::new(
                    10753,
                    15,
                    "The function 'ROW_NUMBER' must have an OVER clause.",
                ));
            };
            return self.row_number(list, spec);
        }
        if function.over.is_some() {
            return Err(SqlError::unsupported(format!("the function {name} with OVER")));
        }
        let exprs = expressions(list)
            .ok_or_else(|| SqlError::unsupported(format!("the arguments of {name}")))?;
        if matches!(name.as_str(), "DATEADD" | "DATEDIFF" | "DATEPART") {
            return self.date_function(&name, &exprs);
        }
        let args = exprs.iter().map(|e| self.expr(e)).collect::<SqlResult<Vec<_>>>()?;
        self.named(&name, args)
    }

    /// A function by its upper-case name.
    pub fn named(&mut self, name: &str, mut args: Vec<Bound>) -> SqlResult<Bound> {
        crate::usage::used("function", name);
        let collation = self.settings.collation;
        match name {
            "COALESCE" => {
                if args.len() < 2 {
                    return Err(SqlError::new(102, 15, "Incorrect syntax near ')'."));
                }
                if args.iter().all(|a| a.is_null) {
                    return Err(SqlError::new(
                        4127,
                        16,
                        "At least one of the arguments to COALESCE must be an expression that is not the NULL constant.",
                    ));
                }
                let nullable = args.iter().all(|a| a.nullable);
                let (list, ty, coercibility) = unify(args, "COALESCE")?;
                let mut bound = Bound::new(Node::FirstOf(list), ty, nullable);
                bound.coercibility = coercibility;
                Ok(bound)
            }
            "ISNULL" => {
                arity(name, &args, 2..=2)?;
                let second = args.pop().unwrap_or_else(Bound::null);
                let first = args.pop().unwrap_or_else(Bound::null);
                // the first argument decides the type, unless it is the word NULL
                let ty = if first.is_null { second.ty } else { first.ty };
                let nullable = first.nullable && second.nullable;
                let (coercibility, is_null) = (
                    if first.is_null { second.coercibility } else { first.coercibility },
                    first.is_null && second.is_null,
                );
                let list = vec![implicit(first, ty)?, implicit(second, ty)?];
                let mut bound = Bound::new(Node::FirstOf(list), ty, nullable);
                bound.coercibility = coercibility;
                bound.is_null = is_null;
                Ok(bound)
            }
            _ => {
                for bind in [text::bind, parts::bind, bytes::bind] {
                    if let Some(bound) = bind(name, &mut args, collation)? {
                        return Ok(bound);
                    }
                }
                if let Some(bound) = math::bind(name, &mut args)? {
                    return Ok(bound);
                }
                if let Some(bound) = dates::bind(name, &mut args)? {
                    return Ok(bound);
                }
                let own = name.rsplit_once('.').map_or(name, |(_, own)| own);
                let extension = self.host.function_type(own).map(|ty| (ty, true));
                if let Some((ty, nullable)) = extension.or_else(|| host_function(name)) {
                    if name == "NEWID" {
                        self.volatile = true;
                    }
                    return Ok(Bound::new(
                        Node::Host { name: name.into(), args },
                        types::with_collation(ty, collation),
                        nullable,
                    ));
                }
                Err(SqlError::unsupported(format!("the function {name}")))
            }
        }
    }

    fn date_function(&mut self, name: &str, exprs: &[&Expr]) -> SqlResult<Bound> {
        let Some((part, rest)) = exprs.split_first() else {
            return Err(SqlError::new(
                174,
                15,
                format!("The {} function requires arguments.", name.to_lowercase()),
            ));
        };
        let written = match part {
            Expr::Identifier(ident) => ident.value.clone(),
            other => other.to_string(),
        };
        let Some(part) = DatePart::parse(&written) else {
            return Err(SqlError::new(
                155,
                15,
                format!("'{written}' is not a recognized {} option.", name.to_lowercase()),
            ));
        };
        let args = rest.iter().map(|e| self.expr(e)).collect::<SqlResult<Vec<_>>>()?;
        dates::bind_part(name, part, args)
    }
}
