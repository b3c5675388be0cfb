//! The binder: scopes, names and plain expressions. Queries are bound in `engine::query::bind`,
//! functions in [`super::functions`].

use super::{
    bound::{BitOp, Bound, Comparison, Context, Node, Predicate, Subquery},
    cast,
    types::{self, Coercibility, Family},
};
use crate::{
    engine::query::{
        host::{Host, Settings},
        plan::{Aggregate, Plan, WindowCall},
    },
    error::{SqlError, SqlResult},
    tsql::{ast::ObjectName, datatype},
    value::{
        Collation, Decimal, Length, SqlType, Value,
        decimal::{Operation, result_type},
    },
};
use sqlparser::ast::{self, BinaryOperator, CastKind, Expr, Ident, ObjectNamePart, UnaryOperator};
use std::{collections::BTreeSet, sync::Arc};

/// A column as a scope offers it.
#[derive(Clone, Debug)]
pub struct ScopeColumn {
    pub name: Arc<str>,
    pub ty: SqlType,
    pub nullable: bool,
    pub coercibility: Coercibility,
    pub identity: Option<(i128, i128)>,
    pub computed: bool,
    pub rowguid: bool,
    pub hidden: bool,
    /// Found under its name as written only: of a database whose collation is case-sensitive.
    pub exact_name: bool,
}

impl ScopeColumn {
    pub fn is_named(&self, name: &str) -> bool {
        if self.exact_name { *self.name == *name } else { same_name(&self.name, name) }
    }
}

/// A source of a FROM clause.
#[derive(Clone, Debug)]
pub struct ScopeSource {
    /// Alias, or the table's own name.
    pub name: String,
    /// The table's full name, when it has no alias.
    pub full: Option<ObjectName>,
    pub columns: Vec<ScopeColumn>,
}

/// What may stand in an expression here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// WHERE, ON, GROUP BY: rows only.
    Rows,
    /// The select list, HAVING and ORDER BY: aggregates too.
    Groups,
    /// Inside an aggregate.
    Aggregate,
}

/// The names one SELECT brings into view.
pub struct Scope {
    /// The slot of the first source.
    pub first_slot: usize,
    pub sources: Vec<ScopeSource>,
    pub phase: Phase,
    pub windows_allowed: bool,
    pub aggregates: Vec<Aggregate>,
    pub windows: Vec<WindowCall>,
    /// Columns used outside aggregates: they must be grouped by, if anything is grouped.
    pub free: Vec<(usize, usize, String)>,
    /// GROUP BY's expressions in canonical text.
    pub group_texts: Vec<String>,
}

impl Scope {
    pub fn new(first_slot: usize) -> Self {
        Self {
            first_slot,
            sources: Vec::new(),
            phase: Phase::Rows,
            windows_allowed: false,
            aggregates: Vec::new(),
            windows: Vec::new(),
            free: Vec::new(),
            group_texts: Vec::new(),
        }
    }
}

/// A common table expression in view.
#[derive(Clone)]
pub struct CteDefinition {
    pub name: String,
    pub columns: Vec<String>,
    pub query: Arc<ast::Query>,
    /// How many CTEs were in view where it was defined.
    pub visible: usize,
    /// While its own step is bound: the number and columns of its rows so far.
    pub work: Option<(usize, Vec<ScopeColumn>)>,
}

pub struct Binder<'h> {
    pub host: &'h dyn Host,
    pub settings: Settings,
    pub scopes: Vec<Scope>,
    pub ctes: Vec<CteDefinition>,
    /// Where unqualified names are looked up: a view's own database.
    pub database: Option<String>,
    pub view_depth: usize,
    variables: Vec<(String, SqlType)>,
    values: Vec<Value>,
    /// (scope, slot) of every column met since the recorder was last taken.
    pub seen: BTreeSet<(usize, usize)>,
    /// Something with a new value every time was met (NEWID): results must not be kept.
    pub volatile: bool,
    counter: usize,
}

pub fn same_name(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b) || (!a.is_ascii() && a.to_lowercase() == b.to_lowercase())
}

/// `a.b.c` as an object name; `a..c` leaves the schema out.
pub fn object_name(name: &ast::ObjectName) -> SqlResult<ObjectName> {
    let mut parts: Vec<String> = name
        .0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(ident.value.clone()),
            ObjectNamePart::Function(_) => Err(SqlError::unsupported(format!("the name {name}"))),
        })
        .collect::<SqlResult<_>>()?;
    if parts.len() > 3 {
        return Err(SqlError::unsupported(format!("a linked server's name, {name}")));
    }
    let last = parts.pop().unwrap_or_default();
    let schema = parts.pop().filter(|s| !s.is_empty());
    let database = parts.pop().filter(|s| !s.is_empty());
    Ok(ObjectName { database, schema, name: last })
}

impl<'h> Binder<'h> {
    pub fn new(host: &'h dyn Host) -> Self {
        Self {
            host,
            settings: host.settings(),
            scopes: Vec::new(),
            ctes: Vec::new(),
            database: None,
            view_depth: 0,
            variables: Vec::new(),
            values: Vec::new(),
            seen: BTreeSet::new(),
            volatile: false,
            counter: 0,
        }
    }

    /// The context to evaluate what was bound in.
    pub fn context(&mut self) -> Context<'h> {
        Context::new(self.host, std::mem::take(&mut self.values))
    }

    /// The variables' values, for whoever evaluates later.
    pub fn take_values(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.values)
    }

    pub fn next_number(&mut self) -> usize {
        self.counter += 1;
        self.counter
    }

    /// The number of a variable, which is read now, once for the statement.
    pub fn variable(&mut self, name: &str) -> SqlResult<(usize, SqlType)> {
        if let Some(at) = self.variables.iter().position(|(known, _)| same_name(known, name)) {
            return Ok((at, self.variables[at].1));
        }
        let Some((ty, value)) = self.host.variable(name) else {
            return Err(SqlError::new(
                137,
                15,
                format!("Must declare the scalar variable \"{name}\"."),
            ));
        };
        self.variables.push((name.to_owned(), ty));
        self.values.push(value);
        Ok((self.variables.len() - 1, ty))
    }

    // ---- names

    /// Finds a column: (how many frames out, scope, slot, column).
    fn find_column(&self, parts: &[&str]) -> SqlResult<(usize, usize, usize, ScopeColumn)> {
        let Some((column, qualifier)) = parts.split_last() else {
            return Err(SqlError::unsupported("an empty name"));
        };
        let mut qualifier_found = false;
        for (depth, level) in (0..self.scopes.len()).rev().enumerate() {
            let scope = &self.scopes[level];
            let mut found = None;
            for (at, source) in scope.sources.iter().enumerate() {
                if !qualifier.is_empty() && !source_matches(source, qualifier) {
                    continue;
                }
                qualifier_found |= !qualifier.is_empty();
                if let Some(ordinal) = source.columns.iter().position(|c| c.is_named(column)) {
                    if found.is_some() {
                        return Err(SqlError::new(
                            209,
                            16,
                            format!("Ambiguous column name '{column}'."),
                        ));
                    }
                    found = Some((at, ordinal));
                }
            }
            if let Some((at, ordinal)) = found {
                return Ok((
                    depth,
                    at + scope.first_slot,
                    ordinal,
                    scope.sources[at].columns[ordinal].clone(),
                ));
            }
            if qualifier_found {
                break;
            }
        }
        if qualifier.is_empty() || qualifier_found {
            Err(SqlError::new(207, 16, format!("Invalid column name '{column}'.")))
        } else {
            Err(SqlError::new(
                4104,
                16,
                format!("The multi-part identifier \"{}\" could not be bound.", parts.join(".")),
            ))
        }
    }

    pub fn column(&mut self, parts: &[&str]) -> SqlResult<Bound> {
        let (depth, slot, ordinal, column) = self.find_column(parts)?;
        Ok(self.column_at(depth, slot, ordinal, &column))
    }

    pub fn column_at(
        &mut self,
        depth: usize,
        slot: usize,
        ordinal: usize,
        column: &ScopeColumn,
    ) -> Bound {
        let level = self.scopes.len() - 1 - depth;
        self.seen.insert((level, slot));
        let scope = &mut self.scopes[level];
        if scope.phase == Phase::Groups {
            let source = &scope.sources[slot - scope.first_slot];
            scope.free.push((slot, ordinal, format!("{}.{}", source.name, column.name)));
        }
        let node = Node::Column {
            depth: u16::try_from(depth).unwrap_or(u16::MAX),
            slot: u16::try_from(slot).unwrap_or(u16::MAX),
            column: u16::try_from(ordinal).unwrap_or(u16::MAX),
        };
        let mut bound = Bound::new(node, column.ty, column.nullable);
        bound.coercibility = column.coercibility;
        bound
    }

    /// Text that is the same for the same expression, however its names are written.
    pub fn canonical(&self, expr: &Expr) -> String {
        let mut copy = expr.clone();
        let _ = ast::visit_expressions_mut(&mut copy, |e: &mut Expr| {
            let parts: Vec<&str> = match &*e {
                Expr::Identifier(ident) => vec![&ident.value],
                Expr::CompoundIdentifier(idents) => {
                    idents.iter().map(|i| i.value.as_str()).collect()
                }
                _ => return std::ops::ControlFlow::<()>::Continue(()),
            };
            if let Ok((depth, slot, ordinal, _)) = self.find_column(&parts) {
                *e = Expr::Identifier(Ident::new(format!("#{depth}_{slot}_{ordinal}")));
            }
            std::ops::ControlFlow::Continue(())
        });
        while let Expr::Nested(inner) = copy {
            copy = *inner;
        }
        copy.to_string()
    }

    // ---- expressions

    pub fn expr(&mut self, expr: &Expr) -> SqlResult<Bound> {
        // what is grouped by may be used as a whole
        if let Some(scope) = self.scopes.last()
            && scope.phase == Phase::Groups
            && !scope.group_texts.is_empty()
            && !matches!(expr, Expr::Value(_))
            && scope.group_texts.contains(&self.canonical(expr))
        {
            let kept = self.scopes.last().map_or(0, |s| s.free.len());
            let bound = self.expr_inner(expr)?;
            if let Some(scope) = self.scopes.last_mut() {
                scope.free.truncate(kept);
            }
            return Ok(bound);
        }
        self.expr_inner(expr)
    }

    fn expr_inner(&mut self, expr: &Expr) -> SqlResult<Bound> {
        match expr {
            Expr::Nested(inner) => self.expr(inner),
            Expr::Value(value) => self.literal(&value.value),
            Expr::Identifier(ident)
                if ident.quote_style.is_none() && ident.value.starts_with("@@") =>
            {
                self.global(&ident.value)
            }
            Expr::Identifier(ident)
                if ident.quote_style.is_none() && ident.value.starts_with('@') =>
            {
                let (number, ty) = self.variable(&ident.value)?;
                Ok(Bound::new(Node::Variable(number), ty, true))
            }
            Expr::Identifier(ident)
                if ident.quote_style.is_none() && ident.value.starts_with('$') =>
            {
                self.dollar(&[], &ident.value)
            }
            Expr::Identifier(ident)
                if ident.quote_style.is_none() && ident.value.starts_with("%%") =>
            {
                Err(SqlError::unsupported(&ident.value))
            }
            Expr::Identifier(ident) => self.column(&[&ident.value]),
            Expr::CompoundIdentifier(idents) => {
                let parts: Vec<&str> = idents.iter().map(|i| i.value.as_str()).collect();
                match parts.split_last() {
                    Some((last, rest)) if last.starts_with('$') => self.dollar(rest, last),
                    _ => self.column(&parts),
                }
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::UnaryOp { op, expr } => self.unary(*op, expr),
            Expr::Cast { kind, expr, data_type, format: None } => {
                let ty = self.data_type(data_type)?;
                let attempt = match kind {
                    CastKind::Cast => false,
                    CastKind::TryCast => true,
                    _ => return Err(SqlError::unsupported("this form of CAST")),
                };
                let inner = self.expr(expr)?;
                explicit(inner, ty, None, attempt)
            }
            Expr::Convert {
                is_try,
                expr,
                data_type: Some(data_type),
                charset: None,
                styles,
                ..
            } => {
                let ty = self.data_type(data_type)?;
                let inner = self.expr(expr)?;
                let style = match styles.as_slice() {
                    [] => None,
                    [style] => Some(implicit(self.expr(style)?, SqlType::Int)?),
                    _ => {
                        return Err(SqlError::new(
                            174,
                            15,
                            "The convert function requires 2 to 3 arguments.",
                        ));
                    }
                };
                explicit(inner, ty, style, *is_try)
            }
            Expr::Collate { expr, collation } => {
                let name = collation.to_string();
                let name = name.trim_matches(|c| c == '[' || c == ']');
                let collation = if name.eq_ignore_ascii_case("database_default") {
                    self.settings.collation
                } else {
                    match self.host.collation(name)? {
                        Some(collation) => collation,
                        None => {
                            return Err(SqlError::new(
                                448,
                                16,
                                format!("Invalid collation '{name}'."),
                            ));
                        }
                    }
                };
                let inner = self.expr(expr)?;
                if inner.is_null {
                    return Ok(implicit(inner, SqlType::VarChar(Length::N(1), collation))?
                        .coerced(collation, Coercibility::Explicit));
                }
                if !types::is_text(inner.ty) {
                    return Err(SqlError::new(
                        447,
                        16,
                        format!(
                            "Expression type {} is invalid for COLLATE clause.",
                            types::name(inner.ty)
                        ),
                    ));
                }
                Ok(inner.coerced(collation, Coercibility::Explicit))
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Function(function) => self.function(function),
            Expr::Subquery(query) => {
                let subquery = self.subquery(query)?;
                let [column] = subquery.plan.columns.as_slice() else {
                    return Err(SqlError::new(
                        116,
                        16,
                        "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
                    ));
                };
                let (ty, coercibility, is_null) = (column.ty, column.coercibility, column.is_null);
                let mut bound = Bound::new(Node::Subquery(subquery), ty, true);
                bound.coercibility = coercibility;
                bound.is_null = is_null;
                Ok(bound)
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                let inner = self.expr(timestamp)?;
                let zone = self.expr(time_zone)?;
                super::functions::at_time_zone(inner, zone)
            }
            Expr::Substring {
                expr,
                substring_from: Some(from),
                substring_for: Some(length),
                ..
            } => {
                let args = vec![self.expr(expr)?, self.expr(from)?, self.expr(length)?];
                self.named("SUBSTRING", args)
            }
            Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::Exists { .. } => Err(SqlError::new(
                4145,
                15,
                "An expression of boolean type was found where a value is expected.",
            )),
            other => Err(SqlError::unsupported(format!("the expression {other}"))),
        }
    }

    pub fn data_type(&self, data_type: &ast::DataType) -> SqlResult<SqlType> {
        if let ast::DataType::Custom(name, _) = data_type
            && let Some(ty) = self.host.named_type(&object_name(name)?)?
        {
            return Ok(ty);
        }
        datatype::sql_type(data_type, self.settings.collation)
    }

    fn literal(&self, value: &ast::Value) -> SqlResult<Bound> {
        let collation = self.settings.collation;
        Ok(match value {
            ast::Value::Null => Bound::null(),
            ast::Value::Number(text, _) => number_literal(text)?,
            ast::Value::SingleQuotedString(text) | ast::Value::DoubleQuotedString(text) => {
                let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
                Bound::constant(
                    Value::Str(collation.squeeze(&text.as_str().into())),
                    types::text(false, Some(length), true, collation),
                )
            }
            ast::Value::NationalStringLiteral(text) => {
                let length = u32::try_from(text.encode_utf16().count()).unwrap_or(u32::MAX);
                Bound::constant(
                    Value::Str(text.as_str().into()),
                    types::text(true, Some(length), true, collation),
                )
            }
            ast::Value::HexStringLiteral(text) => {
                let padded = if text.len() % 2 == 1 { format!("0{text}") } else { text.clone() };
                let bytes: Vec<u8> = padded
                    .as_bytes()
                    .chunks(2)
                    .filter_map(|pair| {
                        std::str::from_utf8(pair)
                            .ok()
                            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                    })
                    .collect();
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let ty = if length > 8000 {
                    SqlType::VarBinary(Length::Max)
                } else {
                    types::binary(Some(length))
                };
                Bound::constant(Value::Bytes(bytes.into()), ty)
            }
            ast::Value::Placeholder(text) if text.starts_with('$') => {
                match Decimal::parse(&text[1..]).and_then(|d| d.rescale(4)) {
                    Some(d) => Bound::constant(Value::Decimal(d), SqlType::Money),
                    None => {
                        return Err(SqlError::new(
                            293,
                            16,
                            "Cannot convert char value to money. The char value has incorrect syntax.",
                        ));
                    }
                }
            }
            other => return Err(SqlError::unsupported(format!("the literal {other}"))),
        })
    }

    fn global(&mut self, name: &str) -> SqlResult<Bound> {
        let name = name.to_ascii_uppercase();
        match self.host.global(&name) {
            Some((ty, value)) => {
                let mut bound = Bound::constant(value, ty);
                bound.nullable = true;
                Ok(bound)
            }
            None => {
                Err(SqlError::new(137, 15, format!("Must declare the scalar variable \"{name}\".")))
            }
        }
    }

    /// `$IDENTITY` and `$ROWGUID`.
    fn dollar(&mut self, qualifier: &[&str], name: &str) -> SqlResult<Bound> {
        let wanted: fn(&ScopeColumn) -> bool = match name.to_ascii_uppercase().as_str() {
            "$IDENTITY" => |c| c.identity.is_some(),
            "$ROWGUID" => |c| c.rowguid,
            _ => return Err(SqlError::unsupported(name)),
        };
        let Some(scope) = self.scopes.last() else {
            return Err(SqlError::new(207, 16, format!("Invalid column name '{name}'.")));
        };
        let found =
            scope.sources.iter().enumerate().find_map(|(at, source)| {
                if !qualifier.is_empty() && !source_matches(source, qualifier) {
                    return None;
                }
                source.columns.iter().position(wanted).map(|ordinal| {
                    (at + scope.first_slot, ordinal, source.columns[ordinal].clone())
                })
            });
        match found {
            Some((slot, ordinal, column)) => Ok(self.column_at(0, slot, ordinal, &column)),
            None => Err(SqlError::new(207, 16, format!("Invalid column name '{name}'."))),
        }
    }

    fn unary(&mut self, op: UnaryOperator, expr: &Expr) -> SqlResult<Bound> {
        match op {
            UnaryOperator::Plus => self.expr(expr),
            UnaryOperator::Minus => {
                if let Expr::Value(value) = expr
                    && let ast::Value::Number(text, _) = &value.value
                {
                    // -9223372036854775808 is a numeric in T-SQL as well: the sign is no part of
                    // the literal
                    let inner = number_literal(text)?;
                    if let Node::Const(value) = &inner.node {
                        return Ok(Bound::constant(
                            super::arithmetic::negate(value.clone(), inner.ty)?,
                            inner.ty,
                        ));
                    }
                }
                let mut inner = self.expr(expr)?;
                if types::is_text(inner.ty) {
                    return Err(SqlError::new(
                        8117,
                        16,
                        format!(
                            "Operand data type {} is invalid for minus operator.",
                            types::name(inner.ty)
                        ),
                    ));
                }
                if inner.ty == SqlType::Bit {
                    return Err(SqlError::new(
                        8117,
                        16,
                        "Operand data type bit is invalid for minus operator.",
                    ));
                }
                if inner.ty == SqlType::TinyInt {
                    inner = implicit(inner, SqlType::SmallInt)?;
                }
                if !types::is_number(inner.ty) {
                    return Err(SqlError::new(
                        8117,
                        16,
                        format!(
                            "Operand data type {} is invalid for minus operator.",
                            types::name(inner.ty)
                        ),
                    ));
                }
                let (ty, nullable) = (inner.ty, inner.nullable);
                Ok(Bound::new(Node::Negate(Box::new(inner)), ty, nullable))
            }
            UnaryOperator::BitwiseNot => {
                let inner = self.expr(expr)?;
                if !matches!(types::family(inner.ty), Family::Integer | Family::Bit) {
                    return Err(SqlError::new(
                        8117,
                        16,
                        format!(
                            "Operand data type {} is invalid for '~' operator.",
                            types::name(inner.ty)
                        ),
                    ));
                }
                let (ty, nullable) = (inner.ty, inner.nullable);
                Ok(Bound::new(Node::BitNot(Box::new(inner)), ty, nullable))
            }
            UnaryOperator::Not => Err(SqlError::new(
                4145,
                15,
                "An expression of boolean type was found where a value is expected.",
            )),
            other => Err(SqlError::unsupported(format!("the operator {other}"))),
        }
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> SqlResult<Bound> {
        let operation = match op {
            BinaryOperator::Plus => Operation::Add,
            BinaryOperator::Minus => Operation::Subtract,
            BinaryOperator::Multiply => Operation::Multiply,
            BinaryOperator::Divide => Operation::Divide,
            BinaryOperator::Modulo => Operation::Modulo,
            BinaryOperator::BitwiseAnd => {
                return bits(BitOp::And, self.expr(left)?, self.expr(right)?);
            }
            BinaryOperator::BitwiseOr => {
                return bits(BitOp::Or, self.expr(left)?, self.expr(right)?);
            }
            BinaryOperator::BitwiseXor => {
                return bits(BitOp::Xor, self.expr(left)?, self.expr(right)?);
            }
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::And
            | BinaryOperator::Or => {
                return Err(SqlError::new(
                    4145,
                    15,
                    "An expression of boolean type was found where a value is expected.",
                ));
            }
            other => return Err(SqlError::unsupported(format!("the operator {other}"))),
        };
        let left = self.expr(left)?;
        let right = self.expr(right)?;
        arithmetic(operation, left, right)
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&Expr>,
    ) -> SqlResult<Bound> {
        let mut tests = Vec::with_capacity(conditions.len());
        let mut results = Vec::with_capacity(conditions.len() + 1);
        for when in conditions {
            tests.push(match operand {
                None => self.predicate(&when.condition)?,
                Some(operand) => {
                    let (left, right) = (self.expr(operand)?, self.expr(&when.condition)?);
                    compare(Comparison::Eq, left, right)?
                }
            });
            results.push(self.expr(&when.result)?);
        }
        let without_else = otherwise.is_none();
        results.push(match otherwise {
            Some(expr) => self.expr(expr)?,
            None => Bound::null(),
        });
        let nullable = without_else || results.iter().any(|r| r.nullable);
        if results.iter().all(|r| r.is_null) {
            return Err(SqlError::new(
                8133,
                16,
                "At least one of the result expressions in a CASE specification must be an expression other than the NULL constant.",
            ));
        }
        let (mut results, ty, coercibility) = unify(results, "CASE")?;
        let otherwise = results.pop().unwrap_or_else(Bound::null);
        let whens = tests.into_iter().zip(results).collect();
        let mut bound =
            Bound::new(Node::Case { whens, otherwise: Box::new(otherwise) }, ty, nullable);
        bound.coercibility = coercibility;
        Ok(bound)
    }

    // ---- conditions

    pub fn predicate(&mut self, expr: &Expr) -> SqlResult<Predicate> {
        Ok(match expr {
            Expr::Nested(inner) => self.predicate(inner)?,
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                let mut list = Vec::new();
                flatten(left, &BinaryOperator::And, &mut list);
                flatten(right, &BinaryOperator::And, &mut list);
                Predicate::And(
                    list.into_iter().map(|e| self.predicate(e)).collect::<SqlResult<_>>()?,
                )
            }
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                let mut list = Vec::new();
                flatten(left, &BinaryOperator::Or, &mut list);
                flatten(right, &BinaryOperator::Or, &mut list);
                Predicate::Or(
                    list.into_iter().map(|e| self.predicate(e)).collect::<SqlResult<_>>()?,
                )
            }
            Expr::BinaryOp { left, op, right } => {
                let Some(op) = comparison(op) else { return Err(not_a_condition(expr)) };
                let (left, right) = (self.expr(left)?, self.expr(right)?);
                if !self.settings.ansi_nulls && (left.is_null || right.is_null) {
                    let other = if left.is_null { right } else { left };
                    return match op {
                        Comparison::Eq => Ok(Predicate::IsNull(other)),
                        Comparison::Ne => Ok(Predicate::Not(Box::new(Predicate::IsNull(other)))),
                        _ => Ok(Predicate::Constant(None)),
                    };
                }
                compare(op, left, right)?
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                Predicate::Not(Box::new(self.predicate(expr)?))
            }
            Expr::IsNull(inner) => Predicate::IsNull(self.expr(inner)?),
            Expr::IsNotNull(inner) => {
                Predicate::Not(Box::new(Predicate::IsNull(self.expr(inner)?)))
            }
            Expr::IsDistinctFrom(left, right) => {
                let (left, right) = (self.expr(left)?, self.expr(right)?);
                distinct(false, left, right)?
            }
            Expr::IsNotDistinctFrom(left, right) => {
                let (left, right) = (self.expr(left)?, self.expr(right)?);
                distinct(true, left, right)?
            }
            Expr::Between { expr, negated, low, high } => {
                let (value, low, high) = (self.expr(expr)?, self.expr(low)?, self.expr(high)?);
                let both = Predicate::And(vec![
                    compare(Comparison::Ge, value.clone(), low)?,
                    compare(Comparison::Le, value, high)?,
                ]);
                negate(both, *negated)
            }
            Expr::InList { expr, list, negated } => {
                let value = self.expr(expr)?;
                let items = list.iter().map(|e| self.expr(e)).collect::<SqlResult<Vec<_>>>()?;
                negate(in_list(value, items)?, *negated)
            }
            Expr::InSubquery { expr, subquery, negated } => {
                let left = self.expr(expr)?;
                negate(self.quantified(Comparison::Eq, false, left, subquery)?, *negated)
            }
            Expr::AnyOp { left, compare_op, right, .. } => {
                self.any_all(left, compare_op, right, false)?
            }
            Expr::AllOp { left, compare_op, right } => {
                self.any_all(left, compare_op, right, true)?
            }
            Expr::Exists { subquery, negated } => negate(self.exists(subquery)?, *negated),
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                let (text, pattern) = (self.expr(expr)?, self.expr(pattern)?);
                let escape = escape_char.as_ref().map(|e| self.expr(e)).transpose()?;
                negate(like(text, pattern, escape, self.settings.collation)?, *negated)
            }
            Expr::Function(function) => {
                return Err(SqlError::unsupported(format!("the condition {function}")));
            }
            other => return Err(not_a_condition(other)),
        })
    }

    fn any_all(
        &mut self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        all: bool,
    ) -> SqlResult<Predicate> {
        let Some(op) = comparison(op) else {
            return Err(SqlError::unsupported(format!("{op} ANY")));
        };
        let mut right = right;
        while let Expr::Nested(inner) = right {
            right = inner;
        }
        let Expr::Subquery(query) = right else {
            return Err(SqlError::unsupported("ANY or ALL of anything but a subquery"));
        };
        let left = self.expr(left)?;
        self.quantified(op, all, left, query)
    }

    fn quantified(
        &mut self,
        op: Comparison,
        all: bool,
        left: Bound,
        query: &ast::Query,
    ) -> SqlResult<Predicate> {
        let subquery = self.subquery(query)?;
        let [column] = subquery.plan.columns.as_slice() else {
            return Err(SqlError::new(
                116,
                16,
                "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
            ));
        };
        let mut right = Bound::new(Node::Const(Value::Null), column.ty, true);
        right.coercibility = column.coercibility;
        right.is_null = column.is_null;
        let (left, right, collation) = meet(left, right, comparison_name(op))?;
        Ok(Predicate::Quantified {
            op,
            all,
            left,
            subquery: subquery.clone(),
            ty: right.ty,
            collation,
        })
    }

    fn exists(&mut self, query: &ast::Query) -> SqlResult<Predicate> {
        if let Some(predicate) = self.null_safe_equality(query)? {
            return Ok(predicate);
        }
        Ok(Predicate::Exists(self.subquery(query)?))
    }

    /// `EXISTS (SELECT a, b INTERSECT SELECT c, d)` is the customary way to say "equal, NULLs
    /// included", and EXCEPT to say "different".
    fn null_safe_equality(&mut self, query: &ast::Query) -> SqlResult<Option<Predicate>> {
        let ast::SetExpr::SetOperation {
            left,
            op,
            set_quantifier: ast::SetQuantifier::None,
            right,
        } = &*query.body
        else {
            return Ok(None);
        };
        let equal = match op {
            ast::SetOperator::Intersect => true,
            ast::SetOperator::Except => false,
            _ => return Ok(None),
        };
        let (Some(left), Some(right)) = (plain_row(left), plain_row(right)) else {
            return Ok(None);
        };
        if query.with.is_some() || left.len() != right.len() {
            return Ok(None);
        }
        let mut list = Vec::with_capacity(left.len());
        for (l, r) in left.into_iter().zip(right) {
            let (l, r) = (self.expr(l)?, self.expr(r)?);
            list.push(distinct(true, l, r)?);
        }
        let all = if list.len() == 1 { list.swap_remove(0) } else { Predicate::And(list) };
        Ok(Some(negate(all, !equal)))
    }

    pub fn subquery(&mut self, query: &ast::Query) -> SqlResult<Arc<Subquery>> {
        let level = self.scopes.len();
        let before = std::mem::take(&mut self.seen);
        let volatile = std::mem::replace(&mut self.volatile, false);
        let plan: SqlResult<Plan> = self.query(query);
        let inside = std::mem::replace(&mut self.seen, before);
        let correlated = inside.iter().any(|(l, _)| *l < level);
        self.seen.extend(inside.into_iter().filter(|(l, _)| *l < level));
        let cacheable = !correlated && !self.volatile;
        self.volatile |= volatile;
        Ok(Arc::new(Subquery { id: self.next_number(), plan: plan?, cacheable }))
    }
}

fn plain_row(body: &ast::SetExpr) -> Option<Vec<&Expr>> {
    let ast::SetExpr::Select(select) = body else { return None };
    let grouped =
        !matches!(&select.group_by, ast::GroupByExpr::Expressions(list, _) if list.is_empty());
    if !select.from.is_empty()
        || select.selection.is_some()
        || select.top.is_some()
        || grouped
        || select.having.is_some()
    {
        return None;
    }
    select
        .projection
        .iter()
        .map(|item| match item {
            ast::SelectItem::UnnamedExpr(e) | ast::SelectItem::ExprWithAlias { expr: e, .. } => {
                match e {
                    Expr::Function(f) if f.over.is_some() => None,
                    e => Some(e),
                }
            }
            _ => None,
        })
        .collect()
}

pub fn source_matches(source: &ScopeSource, qualifier: &[&str]) -> bool {
    match qualifier {
        [alias] => same_name(&source.name, alias),
        [schema, table] => source.full.as_ref().is_some_and(|full| {
            same_name(&full.name, table)
                && (schema.is_empty()
                    || full.schema.as_deref().is_none_or(|own| same_name(own, schema)))
        }),
        [database, schema, table] => source.full.as_ref().is_some_and(|full| {
            same_name(&full.name, table)
                && (schema.is_empty()
                    || full.schema.as_deref().is_none_or(|own| same_name(own, schema)))
                && full.database.as_deref().is_none_or(|own| same_name(own, database))
        }),
        _ => false,
    }
}

fn flatten<'e>(expr: &'e Expr, wanted: &BinaryOperator, out: &mut Vec<&'e Expr>) {
    match expr {
        Expr::BinaryOp { left, op, right } if op == wanted => {
            flatten(left, wanted, out);
            flatten(right, wanted, out);
        }
        Expr::Nested(inner) if matches!(&**inner, Expr::BinaryOp { op, .. } if op == wanted) => {
            flatten(inner, wanted, out)
        }
        other => out.push(other),
    }
}

/// The conjuncts of a condition.
pub fn conjuncts(expr: &Expr) -> Vec<&Expr> {
    let mut list = Vec::new();
    flatten(expr, &BinaryOperator::And, &mut list);
    list
}

fn not_a_condition(expr: &Expr) -> SqlError {
    match expr {
        Expr::Value(_)
        | Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Function(_)
        | Expr::Subquery(_)
        | Expr::BinaryOp { .. } => SqlError::new(
            4145,
            15,
            format!(
                "An expression of non-boolean type specified in a context where a condition is expected, near '{expr}'."
            ),
        ),
        other => SqlError::unsupported(format!("the condition {other}")),
    }
}

pub fn negate(predicate: Predicate, negated: bool) -> Predicate {
    if negated { Predicate::Not(Box::new(predicate)) } else { predicate }
}

fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Eq,
        BinaryOperator::NotEq => Comparison::Ne,
        BinaryOperator::Lt => Comparison::Lt,
        BinaryOperator::LtEq => Comparison::Le,
        BinaryOperator::Gt => Comparison::Gt,
        BinaryOperator::GtEq => Comparison::Ge,
        _ => return None,
    })
}

fn comparison_name(op: Comparison) -> &'static str {
    match op {
        Comparison::Eq => "equal to",
        Comparison::Ne => "not equal to",
        Comparison::Lt => "less than",
        Comparison::Le => "less than or equal to",
        Comparison::Gt => "greater than",
        Comparison::Ge => "greater than or equal to",
    }
}

/// Brings two expressions to one type and finds the collation to compare them with.
pub fn meet(left: Bound, right: Bound, operation: &str) -> SqlResult<(Bound, Bound, Collation)> {
    let incomparable = |ty: SqlType| {
        matches!(ty, SqlType::Text(_) | SqlType::NText(_) | SqlType::Image | SqlType::Xml)
    };
    if incomparable(left.ty) || incomparable(right.ty) {
        return Err(SqlError::new(
            402,
            16,
            format!(
                "The data types {} and {} are incompatible in the {operation} operator.",
                types::name(left.ty),
                types::name(right.ty)
            ),
        ));
    }
    let ty = match (left.is_null, right.is_null) {
        (true, false) => right.ty,
        (false, true) => left.ty,
        _ => types::common(left.ty, right.ty),
    };
    let mut collation = Collation::DEFAULT;
    if types::is_text(ty) {
        let side = |b: &Bound| {
            (
                b.collation()
                    .unwrap_or_else(|| types::collation_of(ty).unwrap_or(Collation::DEFAULT)),
                b.coercibility,
            )
        };
        let (won, how) = types::coerce(side(&left), side(&right), operation)?;
        if let Coercibility::NoCollation(a, b) = how {
            return Err(types::conflict(a, b, operation));
        }
        collation = ty.with_collation(won).compared_by().unwrap_or(won);
    }
    let (left, right) = (cast_for_comparison(left, ty)?, cast_for_comparison(right, ty)?);
    Ok((left, right, collation))
}

/// Texts are compared as they are: only their collation matters, not their declared lengths.
fn cast_for_comparison(expr: Bound, ty: SqlType) -> SqlResult<Bound> {
    let same_family = types::family(expr.ty) == types::family(ty);
    let keep = match types::family(ty) {
        Family::Text
        | Family::Binary
        | Family::Integer
        | Family::Money
        | Family::Time
        | Family::DateTime2
        | Family::DateTimeOffset => same_family,
        // values of equal scale compare by their digits
        Family::Decimal => {
            matches!((expr.ty, ty), (SqlType::Decimal { scale: a, .. }, SqlType::Decimal { scale: b, .. }) if a == b)
        }
        // a real is compared as the float it is
        Family::Float => same_family,
        _ => expr.ty == ty,
    };
    if keep && !expr.is_null {
        return Ok(expr);
    }
    implicit(expr, ty)
}

pub fn compare(op: Comparison, left: Bound, right: Bound) -> SqlResult<Predicate> {
    let (left, right, collation) = meet(left, right, comparison_name(op))?;
    Ok(Predicate::Compare { op, left, right, collation })
}

pub fn distinct(equal: bool, left: Bound, right: Bound) -> SqlResult<Predicate> {
    let (left, right, collation) = meet(left, right, "equal to")?;
    Ok(Predicate::Distinct { equal, left, right, collation })
}

fn in_list(value: Bound, items: Vec<Bound>) -> SqlResult<Predicate> {
    let mut all = Vec::with_capacity(items.len() + 1);
    all.push(value.clone());
    all.extend(items.iter().cloned());
    let mut ty = value.ty;
    for item in items.iter().filter(|i| !i.is_null) {
        ty = types::common(ty, item.ty);
    }
    let mut collation = Collation::DEFAULT;
    if types::is_text(ty) {
        let mut side = (value.collation().unwrap_or(Collation::DEFAULT), value.coercibility);
        for item in &items {
            side = types::coerce(
                side,
                (item.collation().unwrap_or(side.0), item.coercibility),
                "equal to",
            )?;
        }
        if let Coercibility::NoCollation(a, b) = side.1 {
            return Err(types::conflict(a, b, "equal to"));
        }
        collation = ty.with_collation(side.0).compared_by().unwrap_or(side.0);
    }
    let expr = cast_for_comparison(value, ty)?;
    let list =
        items.into_iter().map(|item| cast_for_comparison(item, ty)).collect::<SqlResult<_>>()?;
    Ok(Predicate::In { expr, list, collation })
}

fn like(
    text: Bound,
    pattern: Bound,
    escape: Option<Bound>,
    default: Collation,
) -> SqlResult<Predicate> {
    let as_text = |b: Bound| {
        if types::is_text(b.ty) && !b.is_null {
            Ok(b)
        } else {
            let ty = types::text(true, types::length(b.ty), false, default);
            implicit(b, ty)
        }
    };
    let (text, pattern) = (as_text(text)?, as_text(pattern)?);
    let escape = escape.map(as_text).transpose()?;
    let side = |b: &Bound| (b.collation().unwrap_or(default), b.coercibility);
    let (collation, how) = types::coerce(side(&text), side(&pattern), "like")?;
    if let Coercibility::NoCollation(a, b) = how {
        return Err(types::conflict(a, b, "like"));
    }
    let collation = types::common(text.ty, pattern.ty)
        .with_collation(collation)
        .compared_by()
        .unwrap_or(collation);
    Ok(Predicate::Like { text, pattern, escape, collation })
}

/// Brings expressions to one type: CASE, COALESCE, UNION.
pub fn unify(list: Vec<Bound>, operation: &str) -> SqlResult<(Vec<Bound>, SqlType, Coercibility)> {
    let mut typed = list.iter().filter(|b| !b.is_null);
    let first = typed.next();
    let mut ty = first.map_or(SqlType::Int, |b| b.ty);
    for other in typed {
        ty = types::common(ty, other.ty);
    }
    let mut coercibility = Coercibility::Default;
    if types::is_text(ty) {
        let fallback = types::collation_of(ty).unwrap_or(Collation::DEFAULT);
        let mut side: Option<(Collation, Coercibility)> = None;
        for item in list.iter().filter(|b| !b.is_null) {
            let own = (item.collation().unwrap_or(fallback), item.coercibility);
            side = Some(match side {
                None => own,
                Some(side) => types::coerce(side, own, operation)?,
            });
        }
        if let Some((collation, how)) = side {
            ty = types::with_collation(ty, collation);
            coercibility = how;
        }
    }
    let list = list.into_iter().map(|item| implicit(item, ty)).collect::<SqlResult<_>>()?;
    Ok((list, ty, coercibility))
}

/// An implicit conversion.
pub fn implicit(expr: Bound, ty: SqlType) -> SqlResult<Bound> {
    if expr.is_null {
        return Ok(Bound {
            node: Node::Const(Value::Null),
            ty,
            nullable: true,
            coercibility: Coercibility::Default,
            is_null: false,
        });
    }
    if expr.ty == ty {
        return Ok(expr);
    }
    cast::check_implicit(expr.ty, ty)?;
    Ok(cast_node(expr, ty, None, false, false))
}

/// CAST and CONVERT.
pub fn explicit(expr: Bound, ty: SqlType, style: Option<Bound>, attempt: bool) -> SqlResult<Bound> {
    if expr.is_null {
        return Ok(Bound {
            node: Node::Const(Value::Null),
            ty,
            nullable: true,
            coercibility: Coercibility::Default,
            is_null: false,
        });
    }
    cast::check_explicit(expr.ty, ty)?;
    let (ty, coercibility) = match (types::is_text(ty), expr.collation()) {
        // a character type stays in its own collation
        (true, Some(collation)) => (types::with_collation(ty, collation), expr.coercibility),
        _ => (ty, Coercibility::Default),
    };
    let mut bound = cast_node(expr, ty, style, attempt, true);
    bound.coercibility = coercibility;
    Ok(bound)
}

fn cast_node(
    expr: Bound,
    ty: SqlType,
    style: Option<Bound>,
    attempt: bool,
    explicit: bool,
) -> Bound {
    let nullable = expr.nullable || attempt || style.as_ref().is_some_and(|s| s.nullable);
    let coercibility = expr.coercibility;
    let node = Node::Cast { expr: Box::new(expr), style: style.map(Box::new), attempt, explicit };
    Bound { node, ty, nullable, coercibility, is_null: false }
}

/// A number as written: int, numeric or float.
fn number_literal(text: &str) -> SqlResult<Bound> {
    if text.contains(['e', 'E']) {
        return match text.parse::<f64>() {
            Ok(f) if f.is_finite() => Ok(Bound::constant(Value::Float(f), SqlType::Float)),
            _ => Err(SqlError::new(
                168,
                15,
                format!(
                    "The floating point value '{text}' is out of the range of computer representation (8 bytes)."
                ),
            )),
        };
    }
    if let Ok(int) = text.parse::<i32>() {
        return Ok(Bound::constant(Value::Int(i64::from(int)), SqlType::Int));
    }
    let Some(decimal) = Decimal::parse(text).filter(|d| d.precision() <= 38) else {
        return Err(SqlError::new(
            1007,
            15,
            format!(
                "The number '{text}' is out of the range for numeric representation (maximum precision 38)."
            ),
        ));
    };
    let ty = SqlType::Decimal { precision: decimal.precision(), scale: decimal.scale };
    Ok(Bound::constant(Value::Decimal(decimal), ty))
}

fn operator_name(op: Operation) -> &'static str {
    match op {
        Operation::Add => "add",
        Operation::Subtract => "subtract",
        Operation::Multiply => "multiply",
        Operation::Divide => "divide",
        Operation::Modulo => "modulo",
    }
}

/// `+ - * / %`
pub fn arithmetic(op: Operation, left: Bound, right: Bound) -> SqlResult<Bound> {
    let incompatible = |a: SqlType, b: SqlType| {
        SqlError::new(
            402,
            16,
            format!(
                "The data types {} and {} are incompatible in the {} operator.",
                types::name(a),
                types::name(b),
                operator_name(op)
            ),
        )
    };
    let nullable = left.nullable || right.nullable;
    let (left, right) = match (left.is_null, right.is_null) {
        (true, true) => (implicit(left, SqlType::Int)?, implicit(right, SqlType::Int)?),
        (true, false) => (implicit(left, right.ty)?, right),
        (false, true) => {
            let ty = left.ty;
            (left, implicit(right, ty)?)
        }
        (false, false) => (left, right),
    };
    let (fl, fr) = (types::family(left.ty), types::family(right.ty));
    if fl == Family::Text && fr == Family::Text {
        return if op == Operation::Add {
            concatenate(left, right)
        } else {
            Err(incompatible(left.ty, right.ty))
        };
    }
    if fl == Family::Binary && fr == Family::Binary {
        if op != Operation::Add {
            return Err(incompatible(left.ty, right.ty));
        }
        let ty =
            types::binary(types::length(left.ty).zip(types::length(right.ty)).map(|(a, b)| a + b));
        return Ok(Bound::new(
            Node::Concat { left: Box::new(left), right: Box::new(right) },
            ty,
            nullable,
        ));
    }
    let dated = |f: Family| matches!(f, Family::DateTime | Family::SmallDateTime);
    if dated(fl) || dated(fr) {
        if !matches!(op, Operation::Add | Operation::Subtract) {
            return Err(SqlError::new(
                8117,
                16,
                format!(
                    "Operand data type datetime is invalid for {} operator.",
                    operator_name(op)
                ),
            ));
        }
        let foreign = |f: Family| !(dated(f) || types_number(f) || f == Family::Text);
        if foreign(fl) || foreign(fr) {
            return Err(incompatible(left.ty, right.ty));
        }
        let ty = if fl == Family::DateTime || fr == Family::DateTime || (dated(fl) && dated(fr)) {
            SqlType::DateTime
        } else {
            SqlType::SmallDateTime
        };
        let (left, right) =
            (implicit(left, SqlType::DateTime)?, implicit(right, SqlType::DateTime)?);
        let node = Node::DateArithmetic {
            subtract: op == Operation::Subtract,
            left: Box::new(left),
            right: Box::new(right),
        };
        let bound = Bound::new(node, SqlType::DateTime, nullable);
        return implicit(bound, ty);
    }
    let ty = types::common(left.ty, right.ty);
    match types::family(ty) {
        Family::Integer => {
            let (left, right) = (implicit(left, ty)?, implicit(right, ty)?);
            Ok(Bound::new(
                Node::Arithmetic { op, left: Box::new(left), right: Box::new(right) },
                ty,
                nullable,
            ))
        }
        Family::Bit => Err(SqlError::new(
            8117,
            16,
            format!("Operand data type bit is invalid for {} operator.", operator_name(op)),
        )),
        Family::Float => {
            if op == Operation::Modulo {
                return Err(incompatible(left.ty, right.ty));
            }
            let (left, right) = (implicit(left, ty)?, implicit(right, ty)?);
            Ok(Bound::new(
                Node::Arithmetic { op, left: Box::new(left), right: Box::new(right) },
                ty,
                nullable,
            ))
        }
        Family::Money => {
            let (left, right) = (implicit(left, ty)?, implicit(right, ty)?);
            Ok(Bound::new(
                Node::Arithmetic { op, left: Box::new(left), right: Box::new(right) },
                ty,
                nullable,
            ))
        }
        Family::Decimal => {
            let side = |b: Bound| {
                // a literal counts for the digits it has
                let written = match &b.node {
                    Node::Const(Value::Int(i)) if types::family(b.ty) == Family::Integer => {
                        Some((Decimal { mantissa: i128::from(*i), scale: 0 }.precision(), 0))
                    }
                    _ => types::as_decimal(b.ty),
                };
                match written {
                    Some(written) => Ok((b, written)),
                    None => {
                        let SqlType::Decimal { precision, scale } = ty else {
                            return Err(incompatible(b.ty, ty));
                        };
                        Ok((implicit(b, ty)?, (precision, scale)))
                    }
                }
            };
            let ((left, left_type), (right, right_type)) = (side(left)?, side(right)?);
            let (precision, scale) = result_type(op, left_type, right_type);
            let node = Node::Decimal {
                op,
                left: Box::new(left),
                right: Box::new(right),
                left_type,
                right_type,
            };
            Ok(Bound::new(node, SqlType::Decimal { precision, scale }, nullable))
        }
        _ => {
            if types::is_number(left.ty) || types::is_number(right.ty) {
                return Err(types::clash(left.ty, right.ty));
            }
            if left.ty == right.ty {
                return Err(SqlError::new(
                    8117,
                    16,
                    format!(
                        "Operand data type {} is invalid for {} operator.",
                        types::name(left.ty),
                        operator_name(op)
                    ),
                ));
            }
            Err(incompatible(left.ty, right.ty))
        }
    }
}

fn types_number(f: Family) -> bool {
    matches!(f, Family::Bit | Family::Integer | Family::Decimal | Family::Money | Family::Float)
}

/// Text + text.
pub fn concatenate(left: Bound, right: Bound) -> SqlResult<Bound> {
    let fallback = left.collation().or(right.collation()).unwrap_or(Collation::DEFAULT);
    let side = |b: &Bound| (b.collation().unwrap_or(fallback), b.coercibility);
    let (collation, coercibility) = types::coerce(side(&left), side(&right), "add")?;
    let unicode = types::is_unicode(left.ty) || types::is_unicode(right.ty);
    let length = types::length(left.ty).zip(types::length(right.ty)).map(|(a, b)| a + b);
    let ty = types::text(unicode, length, false, collation);
    let nullable = left.nullable || right.nullable;
    let mut bound =
        Bound::new(Node::Concat { left: Box::new(left), right: Box::new(right) }, ty, nullable);
    bound.coercibility = coercibility;
    Ok(bound)
}

/// `& | ^`
pub fn bits(op: BitOp, mut left: Bound, mut right: Bound) -> SqlResult<Bound> {
    // binary meets integer: the integer decides
    for (one, other) in [(&mut left, right.ty), (&mut right, SqlType::Int)] {
        if types::family(one.ty) == Family::Binary || types::is_text(one.ty) {
            let to = if types::family(other) == Family::Integer { other } else { SqlType::Int };
            *one = implicit(one.clone(), to)?;
        }
    }
    let ty = types::common(left.ty, right.ty);
    if !matches!(types::family(ty), Family::Integer | Family::Bit) {
        let sign = match op {
            BitOp::And => "'&'",
            BitOp::Or => "'|'",
            BitOp::Xor => "'^'",
        };
        return Err(SqlError::new(
            402,
            16,
            format!(
                "The data types {} and {} are incompatible in the {sign} operator.",
                types::name(left.ty),
                types::name(right.ty)
            ),
        ));
    }
    let nullable = left.nullable || right.nullable;
    let (left, right) = (implicit(left, ty)?, implicit(right, ty)?);
    Ok(Bound::new(Node::Bits { op, left: Box::new(left), right: Box::new(right) }, ty, nullable))
}
