//! SET.

use super::cursor::Cursor;
use crate::{
    error::{SqlError, SqlResult},
    tsql::ast::*,
};
use sqlparser::tokenizer::Token;

const ON_OFF: [&str; 13] = [
    "ANSI_NULLS",
    "ANSI_NULL_DFLT_ON",
    "ANSI_PADDING",
    "ANSI_WARNINGS",
    "ARITHABORT",
    "CONCAT_NULL_YIELDS_NULL",
    "CURSOR_CLOSE_ON_COMMIT",
    "FMTONLY",
    "IMPLICIT_TRANSACTIONS",
    "NOCOUNT",
    "NUMERIC_ROUNDABORT",
    "QUOTED_IDENTIFIER",
    "XACT_ABORT",
];

/// Every option there is a SET for.
pub fn set_options() -> Vec<&'static str> {
    ON_OFF.iter().chain(&VALUED).copied().chain(["TRANSACTION ISOLATION LEVEL"]).collect()
}

const VALUED: [&str; 8] = [
    "CONTEXT_INFO",
    "DATEFIRST",
    "DATEFORMAT",
    "DEADLOCK_PRIORITY",
    "LANGUAGE",
    "LOCK_TIMEOUT",
    "ROWCOUNT",
    "TEXTSIZE",
];

impl Cursor<'_> {
    pub fn set(&mut self) -> SqlResult<Statement> {
        self.advance();
        if self.at_variable() {
            let name = self.variable()?;
            if self.is(&Token::Period) {
                return self.refuse("SET @variable.member");
            }
            let op = self.assign_op()?;
            if self.at("CURSOR") {
                return self.refuse("cursors (SET @c = CURSOR)");
            }
            return Ok(Statement::SetVariable { name, op, value: self.expr()? });
        }
        if self.accept("IDENTITY_INSERT") {
            let table = self.object_name()?;
            return Ok(Statement::SetIdentityInsert { table, on: self.on_off()? });
        }
        if self.accept("TRANSACTION") {
            self.expect_seq(&["ISOLATION", "LEVEL"])?;
            let level = if self.accept("READ") {
                if self.accept("UNCOMMITTED") {
                    "READ UNCOMMITTED"
                } else {
                    self.expect("COMMITTED")?;
                    "READ COMMITTED"
                }
            } else if self.accept("REPEATABLE") {
                self.expect("READ")?;
                "REPEATABLE READ"
            } else if self.accept("SERIALIZABLE") {
                "SERIALIZABLE"
            } else {
                self.expect("SNAPSHOT")?;
                "SNAPSHOT"
            };
            return Ok(option("TRANSACTION ISOLATION LEVEL", OptionValue::Word(level.to_owned())));
        }
        let line = self.line();
        let first = self.any_word()?;
        if VALUED.contains(&first.as_str()) {
            return Ok(option(&first, self.option_value()?));
        }
        let mut names = vec![first];
        while self.comma() {
            names.push(self.any_word()?);
        }
        if let Some(unknown) = names.iter().find(|n| !ON_OFF.contains(&n.as_str())) {
            return Err(SqlError::unsupported(format!("SET {unknown}")).at(line));
        }
        let value = if self.on_off()? { OptionValue::On } else { OptionValue::Off };
        Ok(Statement::SetOption { names, value })
    }

    fn on_off(&mut self) -> SqlResult<bool> {
        if self.accept("ON") {
            Ok(true)
        } else {
            self.expect("OFF")?;
            Ok(false)
        }
    }

    fn option_value(&mut self) -> SqlResult<OptionValue> {
        Ok(match self.peek() {
            Token::Word(_) if self.at("ON") => {
                self.advance();
                OptionValue::On
            }
            Token::Word(_) if self.at("OFF") => {
                self.advance();
                OptionValue::Off
            }
            Token::Word(w) if !self.at_variable() => {
                let word = w.value.clone();
                self.advance();
                OptionValue::Word(word)
            }
            _ => OptionValue::Expr(Box::new(self.expr()?)),
        })
    }
}

fn option(name: &str, value: OptionValue) -> Statement {
    Statement::SetOption { names: vec![name.to_owned()], value }
}
