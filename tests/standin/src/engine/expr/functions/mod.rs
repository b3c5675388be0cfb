//! Functions: which there are, what their arguments become and what they give.

mod dates;
mod math;
mod text;

use super::{
    binder::{Binder, Phase, implicit, unify},
    bound::{Bound, Builtin, Node},
    types::{self, Coercibility, Family},
};
use crate::{
    engine::query::{
        bind::{is_descending, sortable, sum_type},
        plan::{Aggregate, AggregateKind, WindowCall, WindowKind},
    },
    error::{SqlError, SqlResult},
    value::{Length, SqlType, Value, datetime::DatePart},
};
use sqlparser::ast::{
    self, DuplicateTreatment, Expr, FunctionArg, FunctionArgExpr, FunctionArguments,
    ObjectNamePart, WindowType,
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

/// Error 174.
fn arity(name: &str, args: &[Bound], range: std::ops::RangeInclusive<usize>) -> SqlResult<()> {
    if range.contains(&args.len()) {
        return Ok(());
    }
    let name = name.to_lowercase();
    Err(if range.start() == range.end() {
        SqlError::new(
            174,
            15,
            format!("The {name} function requires {} argument(s).", range.start()),
        )
    } else {
        SqlError::new(
            189,
            15,
            format!("The {name} function requires {} to {} arguments.", range.start(), range.end()),
        )
    })
}

fn call(function: Builtin, args: Vec<Bound>, ty: SqlType, nullable: bool) -> Bound {
    Bound::new(Node::Call { function, args }, ty, nullable)
}

fn any_nullable(args: &[Bound]) -> bool {
    args.iter().any(|a| a.nullable)
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
                if let Some(bound) = text::bind(name, &mut args, collation)? {
                    return Ok(bound);
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

    fn order_list(&mut self, list: &[ast::OrderByExpr]) -> SqlResult<Vec<(Bound, bool)>> {
        list.iter()
            .map(|item| {
                let bound = self.expr(&item.expr)?;
                sortable(&bound)?;
                Ok((bound, is_descending(item)))
            })
            .collect()
    }

    fn aggregate_call(
        &mut self,
        name: &str,
        mut kind: AggregateKind,
        list: &[FunctionArg],
        distinct: bool,
        function: &ast::Function,
    ) -> SqlResult<Bound> {
        let star = matches!(list, [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]);
        if star {
            if kind != AggregateKind::Count {
                return Err(SqlError::new(102, 15, "Incorrect syntax near '*'."));
            }
            kind = AggregateKind::CountRows;
        }
        let exprs = if star {
            Vec::new()
        } else {
            expressions(list)
                .ok_or_else(|| SqlError::unsupported(format!("the arguments of {name}")))?
        };
        let wanted = usize::from(!star);
        if exprs.len() != wanted {
            return Err(SqlError::new(
                174,
                15,
                format!("The {} function requires {wanted} argument(s).", name.to_lowercase()),
            ));
        }
        let windowed = function.over.is_some();
        if !windowed {
            match self.scopes.last().map(|s| s.phase) {
                Some(Phase::Groups) => {}
                Some(Phase::Aggregate) => {
                    return Err(SqlError::new(
                        130,
                        15,
                        "Cannot perform an aggregate function on an expression containing an aggregate or a subquery.",
                    ));
                }
                _ => {
                    return Err(SqlError::new(
                        147,
                        15,
                        "An aggregate may not appear in the WHERE clause unless it is in a subquery contained in a HAVING clause or a select list, and the column being aggregated is an outer reference.",
                    ));
                }
            }
            self.set_phase(Phase::Aggregate);
        }
        let bound = self.aggregate_args(&exprs, function);
        if !windowed {
            self.set_phase(Phase::Groups);
        }
        let args = bound?;
        let big = name == "COUNT_BIG";
        let arg_type = args.first().map_or(SqlType::Int, |a| a.ty);
        let (ty, nullable) = match kind {
            AggregateKind::CountRows | AggregateKind::Count => {
                (if big { SqlType::BigInt } else { SqlType::Int }, false)
            }
            AggregateKind::Sum | AggregateKind::Avg => {
                if matches!(types::family(arg_type), Family::Text | Family::Bit) || args[0].is_null
                {
                    return Err(SqlError::new(
                        8117,
                        16,
                        format!(
                            "Operand data type {} is invalid for {} operator.",
                            types::name(arg_type),
                            name.to_lowercase()
                        ),
                    ));
                }
                (sum_type(kind, arg_type)?, true)
            }
            AggregateKind::Min | AggregateKind::Max => {
                if matches!(
                    arg_type,
                    SqlType::Bit
                        | SqlType::Xml
                        | SqlType::Text(_)
                        | SqlType::NText(_)
                        | SqlType::Image
                ) {
                    return Err(SqlError::new(
                        8117,
                        16,
                        format!(
                            "Operand data type {} is invalid for {} operator.",
                            types::name(arg_type),
                            name.to_lowercase()
                        ),
                    ));
                }
                sortable(&args[0])?;
                (arg_type, true)
            }
        };
        if let Some(WindowType::WindowSpec(spec)) = &function.over {
            if distinct {
                return Err(SqlError::new(
                    10759,
                    15,
                    "Use of DISTINCT is not allowed with the OVER clause.",
                ));
            }
            return self.windowed(WindowKind::Aggregate(kind), args, spec, ty, nullable);
        }
        if function.over.is_some() {
            return Err(SqlError::unsupported("a named window"));
        }
        let collation =
            args.first().filter(|_| types::is_text(ty)).map(|a| (a.collation(), a.coercibility));
        let aggregate = Aggregate { kind, arg: args.into_iter().next(), distinct, ty };
        let mut bound = self.aggregate(aggregate, nullable)?;
        if let Some((_, coercibility)) = collation {
            bound.coercibility = coercibility;
        }
        Ok(bound)
    }

    fn aggregate_args(
        &mut self,
        exprs: &[&Expr],
        function: &ast::Function,
    ) -> SqlResult<Vec<Bound>> {
        if !function.within_group.is_empty() {
            return Err(SqlError::new(
                10757,
                15,
                "The function may not have a WITHIN GROUP clause.",
            ));
        }
        exprs.iter().map(|e| self.expr(e)).collect()
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.phase = phase;
        }
    }

    fn row_number(&mut self, list: &[FunctionArg], spec: &ast::WindowSpec) -> SqlResult<Bound> {
        if !list.is_empty() {
            return Err(SqlError::new(174, 15, "The row_number function requires 0 argument(s)."));
        }
        if spec.order_by.is_empty() {
            return Err(SqlError::new(
                4112,
                15,
                "The function 'ROW_NUMBER' must have an OVER clause with ORDER BY.",
            ));
        }
        self.windowed(WindowKind::RowNumber, Vec::new(), spec, SqlType::BigInt, false)
    }

    fn windowed(
        &mut self,
        kind: WindowKind,
        args: Vec<Bound>,
        spec: &ast::WindowSpec,
        ty: SqlType,
        nullable: bool,
    ) -> SqlResult<Bound> {
        if spec.window_name.is_some() {
            return Err(SqlError::unsupported("a named window"));
        }
        if spec.window_frame.is_some() {
            return Err(SqlError::unsupported("ROWS and RANGE of a window"));
        }
        let partition =
            spec.partition_by.iter().map(|e| self.expr(e)).collect::<SqlResult<Vec<_>>>()?;
        for bound in &partition {
            sortable(bound)?;
        }
        let order = self.order_list(&spec.order_by)?;
        let coercibility = args
            .first()
            .filter(|_| types::is_text(ty))
            .map_or(Coercibility::Default, |a| a.coercibility);
        let mut bound = self.window(WindowCall { kind, args, partition, order, ty }, nullable)?;
        bound.coercibility = coercibility;
        Ok(bound)
    }
}

fn expressions(list: &[FunctionArg]) -> Option<Vec<&Expr>> {
    list.iter().map(crate::engine::query::from::argument).collect()
}

fn aggregate_kind(name: &str) -> Option<AggregateKind> {
    Some(match name {
        "COUNT" | "COUNT_BIG" => AggregateKind::Count,
        "SUM" => AggregateKind::Sum,
        "AVG" => AggregateKind::Avg,
        "MIN" => AggregateKind::Min,
        "MAX" => AggregateKind::Max,
        _ => return None,
    })
}
