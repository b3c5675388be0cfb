//! SELECT, INSERT, UPDATE, DELETE, TRUNCATE, INSERT BULK.

use super::cursor::{Cursor, assign_op};
use crate::{
    error::{SqlError, SqlResult},
    tsql::ast::*,
};
use sqlparser::{
    ast::{
        BinaryOperator, Expr, Ident, Query, SelectItem, SetExpr, Setting, TableWithJoins,
        Value as Literal, ValueWithSpan, With,
    },
    parser::Parser,
    tokenizer::{Span, Token},
};

impl Cursor<'_> {
    pub fn select(&mut self) -> SqlResult<Statement> {
        let line = self.line();
        let mut query = self.query()?;
        match assignments(&mut query).map_err(|e| e.at(line))? {
            Some(assignments) => Ok(Statement::SelectAssign { assignments, query }),
            None => Ok(Statement::Query(query)),
        }
    }

    pub fn with_ctes(&mut self) -> SqlResult<Statement> {
        let start = self.parser.index();
        if self.at_nth(1, "XMLNAMESPACES") {
            return self.refuse("WITH XMLNAMESPACES");
        }
        let with_token = self.parser.peek_token_ref().clone();
        self.advance();
        let cte_tables =
            self.parser.parse_comma_separated(Parser::parse_cte).map_err(|e| self.translate(e))?;
        let mut ctes = With { with_token: with_token.into(), recursive: false, cte_tables };
        if self.at("SELECT") || self.is(&Token::LParen) {
            while self.parser.index() > start {
                self.parser.prev_token();
            }
            return self.select();
        }
        for cte in &mut ctes.cte_tables {
            super::check::query(&mut cte.query)?;
        }
        match () {
            () if self.at("INSERT") => self.insert(Some(ctes)),
            () if self.at("UPDATE") => self.update(Some(ctes)),
            () if self.at("DELETE") => self.delete(Some(ctes)),
            () if self.at("MERGE") => self.refuse("MERGE"),
            () => Err(self.error()),
        }
    }

    /// OPTION (…). Only MAXRECURSION means something here; the others are about speed, and are
    /// checked for their names.
    pub fn query_hints(&mut self) -> SqlResult<Vec<Setting>> {
        if !self.at("OPTION") || self.peek_nth(1) != &Token::LParen {
            return Ok(vec![]);
        }
        self.advance();
        let hints = self.in_parentheses(Self::query_hint)?;
        Ok(hints.into_iter().flatten().collect())
    }

    fn query_hint(&mut self) -> SqlResult<Option<Setting>> {
        const PLAIN: [&str; 5] = [
            "RECOMPILE",
            "IGNORE_NONCLUSTERED_COLUMNSTORE_INDEX",
            "DISABLE_OPTIMIZED_PLAN_FORCING",
            "NO_PERFORMANCE_SPOOL",
            "DISABLE_EXTERNALPUSHDOWN",
        ];
        const NUMBERED: [&str; 5] =
            ["FAST", "MAXDOP", "QUERYTRACEON", "MAX_GRANT_PERCENT", "MIN_GRANT_PERCENT"];
        let word = self.any_word()?;
        match word.as_str() {
            "MAXRECURSION" => {
                let value = self.expr()?;
                return Ok(Some(Setting { key: Ident::new(word), value }));
            }
            "LOOP" | "MERGE" | "HASH" | "CONCAT" | "ORDER" | "FORCE" => {
                self.any_word()?;
            }
            "KEEP" | "KEEPFIXED" | "ROBUST" | "EXPAND" => {
                self.any_word()?;
            }
            "OPTIMIZE" => {
                self.expect("FOR")?;
                if !self.accept("UNKNOWN") {
                    self.skip_parentheses()?;
                }
            }
            "USE" => {
                self.accept("HINT");
                self.skip_parentheses()?;
            }
            "LABEL" | "PARAMETERIZATION" => return self.refuse(&format!("OPTION ({word})")),
            _ if PLAIN.contains(&word.as_str()) => {}
            _ if NUMBERED.contains(&word.as_str()) => {
                self.mark(&Token::Eq);
                self.integer()?;
            }
            _ => return self.refuse(&format!("the query hint {word}")),
        }
        Ok(None)
    }

    /// `( … )`, balanced.
    pub fn skip_parentheses(&mut self) -> SqlResult<()> {
        self.expect_mark(&Token::LParen)?;
        let mut depth = 1;
        while depth > 0 {
            match self.peek() {
                Token::EOF => return Err(self.error()),
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            self.advance();
        }
        Ok(())
    }

    fn top(&mut self) -> SqlResult<Option<Top>> {
        if !self.accept("TOP") {
            return Ok(None);
        }
        let count = if self.mark(&Token::LParen) {
            let count = self.expr()?;
            self.expect_mark(&Token::RParen)?;
            count
        } else {
            let count = self.integer()?;
            Expr::Value(ValueWithSpan {
                value: Literal::Number(count.to_string(), false),
                span: Span::empty(),
            })
        };
        Ok(Some(Top { count, percent: self.accept("PERCENT") }))
    }

    fn target(&mut self) -> SqlResult<TargetName> {
        if self.at_variable() {
            return self.variable().map(TargetName::Variable);
        }
        if self.at_any(&["OPENQUERY", "OPENROWSET", "OPENDATASOURCE"]) {
            return self.refuse("OPENQUERY and OPENROWSET");
        }
        self.object_name().map(TargetName::Object)
    }

    /// `WITH (TABLOCK, INDEX(1))`: in upper case, with arguments as written.
    fn hints(&mut self) -> SqlResult<Vec<String>> {
        if !self.at("WITH") || self.peek_nth(1) != &Token::LParen {
            return Ok(vec![]);
        }
        self.advance();
        self.in_parentheses(|c| {
            let start = c.index();
            c.any_word()?;
            if c.is(&Token::LParen) {
                c.skip_parentheses()?;
            } else if c.mark(&Token::Eq) {
                c.expr()?;
            }
            Ok(c.text_since(start).to_ascii_uppercase())
        })
    }

    fn output(&mut self) -> SqlResult<Option<Output>> {
        if !self.accept("OUTPUT") {
            return Ok(None);
        }
        let items = self
            .parser
            .parse_comma_separated(Parser::parse_select_item)
            .map_err(|e| self.translate(e))?;
        let into = if self.accept("INTO") {
            let target = self.target()?;
            let columns = if self.is(&Token::LParen) && !self.at_nth(1, "SELECT") {
                self.in_parentheses(Self::name)?
            } else {
                vec![]
            };
            Some((target, columns))
        } else {
            None
        };
        if self.at("OUTPUT") {
            return self.refuse("two OUTPUT clauses");
        }
        Ok(Some(Output { items, into }))
    }

    pub fn insert(&mut self, ctes: Option<With>) -> SqlResult<Statement> {
        self.advance();
        if ctes.is_none() && self.accept("BULK") {
            return self.insert_bulk();
        }
        let top = self.top()?;
        self.accept("INTO");
        let target = self.target()?;
        let hints = self.hints()?;
        let subquery = self.at_nth(1, "SELECT")
            || self.at_nth(1, "WITH")
            || self.peek_nth(1) == &Token::LParen;
        let columns = if self.is(&Token::LParen) && !subquery {
            self.in_parentheses(Self::last_name)?
        } else {
            vec![]
        };
        let output = self.output()?;
        let source = if self.accept_seq(&["DEFAULT", "VALUES"]) {
            InsertSource::DefaultValues
        } else if self.at("VALUES") {
            self.advance();
            InsertSource::Values(self.list(|c| c.in_parentheses(Self::value_or_default))?)
        } else if self.accept_any(&["EXEC", "EXECUTE"]) {
            if self.is(&Token::LParen) {
                InsertSource::ExecuteText(self.execute_text()?)
            } else {
                InsertSource::Execute(Box::new(self.execute_call()?))
            }
        } else if self.at("SELECT") || self.at("WITH") || self.is(&Token::LParen) {
            InsertSource::Query(self.query()?)
        } else {
            return Err(self.error());
        };
        self.query_hints()?;
        Ok(Statement::Insert(Box::new(Insert {
            ctes,
            top,
            target,
            hints,
            columns,
            output,
            source,
        })))
    }

    /// A column's name, perhaps qualified.
    fn last_name(&mut self) -> SqlResult<String> {
        let mut name = if self.at("$IDENTITY") || self.at("$ROWGUID") {
            self.any_word()?
        } else {
            self.name()?
        };
        while self.mark(&Token::Period) {
            name = self.name()?;
        }
        Ok(name)
    }

    pub fn value_or_default(&mut self) -> SqlResult<Option<Expr>> {
        if self.accept("DEFAULT") { Ok(None) } else { self.expr().map(Some) }
    }

    pub fn update(&mut self, ctes: Option<With>) -> SqlResult<Statement> {
        self.advance();
        if self.at("STATISTICS") {
            return self.refuse("UPDATE STATISTICS");
        }
        let top = self.top()?;
        let target = self.target()?;
        let hints = self.hints()?;
        self.expect("SET")?;
        let set = self.list(Self::set_item)?;
        let output = self.output()?;
        let from = self.tables_from()?;
        let condition = self.where_clause()?;
        self.query_hints()?;
        Ok(Statement::Update(Box::new(Update {
            ctes,
            top,
            target,
            hints,
            set,
            output,
            from,
            condition,
        })))
    }

    fn set_item(&mut self) -> SqlResult<SetItem> {
        if self.at_variable() {
            let name = self.variable()?;
            let op = self.assign_op()?;
            let column = if op == AssignOp::Set && self.at_name() && self.peek_nth(1) == &Token::Eq
            {
                let column = self.name()?;
                self.advance();
                Some(column)
            } else {
                None
            };
            return Ok(SetItem::Variable { name, op, column, value: self.expr()? });
        }
        if self.peek_nth(1) == &Token::Period
            && self.at_nth(2, "WRITE")
            && self.peek_nth(3) == &Token::LParen
        {
            return self.write_item();
        }
        let name = self.last_name()?;
        if self.is(&Token::LParen) {
            return self.refuse("UPDATE … SET column.method()");
        }
        let op = self.assign_op()?;
        Ok(SetItem::Column { name, op, value: self.value_or_default()? })
    }

    /// `column.WRITE(value, offset, length)`; the column cannot be qualified.
    fn write_item(&mut self) -> SqlResult<SetItem> {
        let name = self.name()?;
        self.advance();
        self.advance();
        let arguments = self.in_parentheses(Self::expr)?;
        let arguments = <[Expr; 3]>::try_from(arguments).map_err(|_| self.error())?;
        Ok(SetItem::Write { name, arguments: Box::new(arguments) })
    }

    pub fn delete(&mut self, ctes: Option<With>) -> SqlResult<Statement> {
        self.advance();
        let top = self.top()?;
        self.accept("FROM");
        let target = self.target()?;
        let hints = self.hints()?;
        let output = self.output()?;
        let from = self.tables_from()?;
        let condition = self.where_clause()?;
        self.query_hints()?;
        Ok(Statement::Delete(Box::new(Delete {
            ctes,
            top,
            target,
            hints,
            output,
            from,
            condition,
        })))
    }

    fn tables_from(&mut self) -> SqlResult<Vec<TableWithJoins>> {
        if !self.accept("FROM") {
            return Ok(vec![]);
        }
        let line = self.line();
        let mut from = self
            .parser
            .parse_comma_separated(Parser::parse_table_and_joins)
            .map_err(|e| self.translate(e))?;
        super::check::tables(&mut from).map_err(|e| e.at(line))?;
        Ok(from)
    }

    fn where_clause(&mut self) -> SqlResult<Option<Expr>> {
        if !self.accept("WHERE") {
            return Ok(None);
        }
        if self.at_seq(&["CURRENT", "OF"]) {
            return self.refuse("cursors (WHERE CURRENT OF)");
        }
        self.expr().map(Some)
    }

    pub fn truncate(&mut self) -> SqlResult<Statement> {
        self.advance();
        self.expect("TABLE")?;
        let table = self.object_name()?;
        if self.at("WITH") && self.peek_nth(1) == &Token::LParen {
            return self.refuse("TRUNCATE TABLE … WITH (PARTITIONS …)");
        }
        Ok(Statement::Truncate { table })
    }

    fn insert_bulk(&mut self) -> SqlResult<Statement> {
        let table = self.object_name()?;
        let columns = self.in_parentheses(|c| Ok((c.name()?, c.data_type()?)))?;
        let mut options = Vec::new();
        if self.accept("WITH") {
            options = self.in_parentheses(|c| {
                let start = c.index();
                let word = c.any_word()?;
                if word == "ORDER" {
                    c.skip_parentheses()?;
                } else if c.mark(&Token::Eq) {
                    c.integer()?;
                }
                Ok(c.text_since(start).to_ascii_uppercase())
            })?;
        }
        Ok(Statement::InsertBulk(Box::new(InsertBulk { table, columns, options })))
    }
}

type Assignments = Vec<(String, AssignOp, Expr)>;

/// Takes `@v = expr` out of a select list, leaving the expressions. `sqlparser` reads it as an
/// alias (`@v = e`) or, for `+=`, as an operator.
fn assignments(query: &mut Query) -> SqlResult<Option<Assignments>> {
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(None) };
    let is_variable = |i: &Ident| {
        i.quote_style.is_none() && i.value.starts_with('@') && !i.value.starts_with("@@")
    };
    let mut found = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::ExprWithAlias { expr, alias } if is_variable(alias) => {
                found.push((alias.value.clone(), AssignOp::Set, expr.clone()))
            }
            SelectItem::UnnamedExpr(Expr::BinaryOp {
                left,
                op: BinaryOperator::Custom(op),
                right,
            }) => match (left.as_ref(), assign_op(op)) {
                (Expr::Identifier(i), Some(op)) if is_variable(i) => {
                    found.push((i.value.clone(), op, right.as_ref().clone()))
                }
                _ => return Err(SqlError::new(102, 15, format!("Incorrect syntax near '{op}'."))),
            },
            _ => {}
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    if found.len() < select.projection.len() {
        let text = "A SELECT statement that assigns a value to a variable must not be combined with data-retrieval operations.";
        return Err(SqlError::new(141, 15, text));
    }
    select.projection = found.iter().map(|(_, _, e)| SelectItem::UnnamedExpr(e.clone())).collect();
    Ok(Some(found))
}
