//! SET.

use super::cursor::Cursor;
use crate::{
    error::{SqlError, SqlResult},
    tsql::ast::*,
};
use sqlparser::tokenizer::Token;

const ON_OFF: [&str; 26] = [
    "ANSI_DEFAULTS",
    "ANSI_NULLS",
    "ANSI_NULL_DFLT_OFF",
    "ANSI_NULL_DFLT_ON",
    "ANSI_PADDING",
    "ANSI_WARNINGS",
    "ARITHABORT",
    "ARITHIGNORE",
    "CONCAT_NULL_YIELDS_NULL",
    "CURSOR_CLOSE_ON_COMMIT",
    "FMTONLY",
    "FORCEPLAN",
    "IMPLICIT_TRANSACTIONS",
    "NOCOUNT",
    "NOEXEC",
    "NUMERIC_ROUNDABORT",
    "PARSEONLY",
    "QUOTED_IDENTIFIER",
    "REMOTE_PROC_TRANSACTIONS",
    "SHOWPLAN_ALL",
    "SHOWPLAN_TEXT",
    "SHOWPLAN_XML",
    "XACT_ABORT",
    "NO_BROWSETABLE",
    "OFFSETS",
    "DISABLE_DEF_CNST_CHK",
];

/// Every option there is a SET for.
pub fn set_options() -> Vec<&'static str> {
    let own = [
        "TRANSACTION ISOLATION LEVEL",
        "STATISTICS IO",
        "STATISTICS TIME",
        "STATISTICS XML",
        "STATISTICS PROFILE",
    ];
    ON_OFF.iter().chain(&VALUED).copied().chain(own).collect()
}

const VALUED: [&str; 10] = [
    "CONTEXT_INFO",
    "DATEFIRST",
    "DATEFORMAT",
    "DEADLOCK_PRIORITY",
    "LANGUAGE",
    "LOCK_TIMEOUT",
    "QUERY_GOVERNOR_COST_LIMIT",
    "ROWCOUNT",
    "TEXTSIZE",
    "FIPS_FLAGGER",
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
        if self.accept("STATISTICS") {
            let names =
                self.list(Self::any_word)?.into_iter().map(|n| format!("STATISTICS {n}")).collect();
            let value = if self.on_off()? { OptionValue::On } else { OptionValue::Off };
            return Ok(Statement::SetOption { names, value });
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
            let known_later = ["ERRLVL", "STATS", "PROCID"].contains(&unknown.as_str());
            let error = SqlError::new(
                195,
                15,
                format!("'{}' is not a recognized SET option.", unknown.to_ascii_lowercase()),
            );
            return Err(if known_later {
                SqlError::unsupported(format!("SET {unknown}"))
            } else {
                error
            }
            .at(line));
        }
        if names == ["OFFSETS"] {
            return self.refuse("SET OFFSETS");
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
