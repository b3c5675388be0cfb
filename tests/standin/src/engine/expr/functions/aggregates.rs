//! Aggregates and window functions.

use super::arguments::expressions;
use crate::{
    engine::{
        expr::{
            binder::{Binder, Phase},
            bound::Bound,
            sorting::{is_descending, sortable},
            types::{self, Coercibility, Family},
        },
        query::plan::{Aggregate, AggregateKind, WindowCall, WindowKind},
    },
    error::{SqlError, SqlResult},
    value::SqlType,
};
use sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, WindowType};

impl Binder<'_> {
    fn order_list(&mut self, list: &[ast::OrderByExpr]) -> SqlResult<Vec<(Bound, bool)>> {
        list.iter()
            .map(|item| {
                let bound = self.expr(&item.expr)?;
                sortable(&bound)?;
                Ok((bound, is_descending(item)))
            })
            .collect()
    }

    pub fn aggregate_call(
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

    pub fn row_number(&mut self, list: &[FunctionArg], spec: &ast::WindowSpec) -> SqlResult<Bound> {
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

/// What SUM and AVG of a type give.
pub fn sum_type(kind: AggregateKind, ty: SqlType) -> SqlResult<SqlType> {
    Ok(match ty {
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int => SqlType::Int,
        SqlType::BigInt => SqlType::BigInt,
        SqlType::Money | SqlType::SmallMoney => SqlType::Money,
        SqlType::Real | SqlType::Float => SqlType::Float,
        SqlType::Decimal { scale, .. } => {
            let scale = if kind == AggregateKind::Avg { scale.max(6) } else { scale };
            SqlType::Decimal { precision: 38, scale }
        }
        other => {
            let name = if kind == AggregateKind::Avg { "avg" } else { "sum" };
            return Err(SqlError::new(
                8117,
                16,
                format!("Operand data type {} is invalid for {name} operator.", types::name(other)),
            ));
        }
    })
}

pub fn aggregate_kind(name: &str) -> Option<AggregateKind> {
    Some(match name {
        "COUNT" | "COUNT_BIG" => AggregateKind::Count,
        "SUM" => AggregateKind::Sum,
        "AVG" => AggregateKind::Avg,
        "MIN" => AggregateKind::Min,
        "MAX" => AggregateKind::Max,
        _ => return None,
    })
}
