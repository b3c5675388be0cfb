//! Views, procedures and triggers: their text runs to the end of the batch.

use super::cursor::Cursor;
use crate::{error::SqlResult, tsql::ast::*};
use sqlparser::tokenizer::Token;

impl Cursor<'_> {
    pub fn view(&mut self, start: usize, create: bool, alter: bool) -> SqlResult<Statement> {
        let name = self.object_name()?;
        let columns =
            if self.is(&Token::LParen) { self.in_parentheses(Self::name)? } else { vec![] };
        let mut schemabinding = false;
        if self.accept("WITH") {
            for attribute in self.list(Self::any_word)? {
                match attribute.as_str() {
                    "SCHEMABINDING" => schemabinding = true,
                    "VIEW_METADATA" => {}
                    other => return self.refuse(&format!("CREATE VIEW … WITH {other}")),
                }
            }
        }
        self.expect("AS")?;
        let query = self.query()?;
        if self.at_seq(&["WITH", "CHECK", "OPTION"]) {
            return self.refuse("CREATE VIEW … WITH CHECK OPTION");
        }
        let text = self.text_since(start);
        self.mark(&Token::SemiColon);
        if !self.at_end() {
            return Err(self.error());
        }
        Ok(Statement::CreateView { name, columns, query, alter, create, schemabinding, text })
    }

    /// An inline table-valued function; what it computes stays unknown, as nobody can call it.
    pub fn function(&mut self, alter: bool) -> SqlResult<Statement> {
        let name = self.object_name()?;
        self.expect_mark(&Token::LParen)?;
        if !self.mark(&Token::RParen) {
            self.list(|c| {
                c.variable()?;
                c.accept("AS");
                c.data_type()
            })?;
            self.expect_mark(&Token::RParen)?;
        }
        if alter || !self.accept_seq(&["RETURNS", "TABLE"]) {
            return self.refuse("CREATE FUNCTION other than an inline table-valued one");
        }
        while !self.at_end() {
            self.advance();
        }
        Ok(Statement::CreateFunction { name })
    }

    /// `CREATE SECURITY POLICY p ADD FILTER PREDICATE dbo.fn(a) ON dbo.t, … WITH (STATE = ON)`
    pub fn security_policy(&mut self) -> SqlResult<Statement> {
        let name = self.object_name()?;
        let predicates = self.list(|c| {
            c.expect("ADD")?;
            let filter = c.accept("FILTER");
            if !filter {
                c.expect("BLOCK")?;
            }
            c.expect("PREDICATE")?;
            let start = c.index();
            let function = c.object_name()?;
            c.in_parentheses(Self::name)?;
            let text = c.text_since(start);
            c.expect("ON")?;
            let table = c.object_name()?;
            if c.at_any(&["AFTER", "BEFORE"]) {
                return c.refuse("a block predicate for some operations");
            }
            Ok(SecurityPredicate { filter, function, text, table })
        })?;
        let mut enabled = true;
        if self.accept("WITH") {
            self.expect_mark(&Token::LParen)?;
            self.expect("STATE")?;
            self.expect_mark(&Token::Eq)?;
            enabled = self.accept("ON");
            if !enabled {
                self.expect("OFF")?;
            }
            self.expect_mark(&Token::RParen)?;
        }
        Ok(Statement::CreateSecurityPolicy { name, predicates, enabled })
    }

    pub fn procedure(&mut self, start: usize, alter: bool) -> SqlResult<Statement> {
        let name = self.object_name()?;
        if self.is(&Token::SemiColon) {
            return self.refuse("numbered procedures");
        }
        let parenthesized = self.mark(&Token::LParen);
        let params = if self.at_variable() { self.parameters()? } else { vec![] };
        if parenthesized {
            self.expect_mark(&Token::RParen)?;
        }
        if self.accept("WITH") {
            for option in self.list(Self::any_word)? {
                if option != "RECOMPILE" {
                    return self.refuse(&format!("CREATE PROCEDURE … WITH {option}"));
                }
            }
        }
        if self.at_seq(&["FOR", "REPLICATION"]) {
            return self.refuse("CREATE PROCEDURE … FOR REPLICATION");
        }
        self.expect("AS")?;
        if self.at("EXTERNAL") {
            return self.refuse("CLR procedures");
        }
        let body = self.batch()?;
        Ok(Statement::CreateProcedure { name, params, body, alter, text: self.text_to_end(start) })
    }

    /// `@a int = 1, @b nvarchar(10) OUTPUT`
    pub fn parameters(&mut self) -> SqlResult<Vec<ProcParam>> {
        self.list(|c| {
            let name = c.variable()?;
            c.accept("AS");
            if c.at("CURSOR") {
                return c.refuse("cursors (a cursor parameter)");
            }
            let ty = c.data_type()?;
            if !c.accept_seq(&["NOT", "NULL"]) {
                c.accept("NULL");
            }
            let default = if c.mark(&Token::Eq) { Some(c.expr()?) } else { None };
            let output = c.accept_any(&["OUTPUT", "OUT"]);
            if c.at("READONLY") {
                return c.refuse("table-valued parameters");
            }
            Ok(ProcParam { name, ty, default, output })
        })
    }

    pub fn trigger(&mut self, start: usize, create: bool, alter: bool) -> SqlResult<Statement> {
        let name = self.object_name()?;
        self.expect("ON")?;
        if self.at_seq(&["ALL", "SERVER"]) || self.at("DATABASE") {
            return self.refuse("DDL triggers");
        }
        let table = self.object_name()?;
        if self.at("WITH") {
            return self.refuse("CREATE TRIGGER … WITH");
        }
        let instead_of = self.accept_seq(&["INSTEAD", "OF"]);
        if !instead_of && !self.accept_any(&["FOR", "AFTER"]) {
            return Err(self.error());
        }
        let (mut insert, mut update, mut delete) = (false, false, false);
        for event in self.list(Self::any_word)? {
            match event.as_str() {
                "INSERT" => insert = true,
                "UPDATE" => update = true,
                "DELETE" => delete = true,
                _ => return Err(self.error()),
            }
        }
        self.accept_seq(&["NOT", "FOR", "REPLICATION"]);
        self.expect("AS")?;
        let body = self.batch()?;
        let text = self.text_to_end(start);
        Ok(Statement::CreateTrigger(Box::new(CreateTrigger {
            name,
            table,
            instead_of,
            insert,
            update,
            delete,
            body,
            text,
            alter,
            create,
        })))
    }

    /// DISABLE TRIGGER names | ALL ON table
    pub fn disable_trigger(&mut self) -> SqlResult<Statement> {
        self.expect_seq(&["DISABLE", "TRIGGER"])?;
        let all = self.accept("ALL");
        let names =
            if all { vec![] } else { self.object_names()?.into_iter().map(|n| n.name).collect() };
        self.expect("ON")?;
        if self.at_seq(&["ALL", "SERVER"]) || self.at("DATABASE") {
            return self.refuse("DDL triggers");
        }
        Ok(Statement::DisableTrigger { names, all, table: self.object_name()? })
    }
}
