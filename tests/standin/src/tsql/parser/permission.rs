//! GRANT, DENY and REVOKE.

use super::cursor::Cursor;
use crate::{error::SqlResult, tsql::ast::*};
use sqlparser::tokenizer::Token;

impl Cursor<'_> {
    pub fn permission(&mut self) -> SqlResult<Statement> {
        let verb = match self.any_word()?.as_str() {
            "GRANT" => PermissionVerb::Grant,
            "DENY" => PermissionVerb::Deny,
            _ => PermissionVerb::Revoke,
        };
        if verb == PermissionVerb::Revoke {
            self.accept_seq(&["GRANT", "OPTION", "FOR"]);
        }
        let mut columns = Vec::new();
        let permissions = self.list(|c| {
            let mut words = vec![c.any_word()?];
            while matches!(c.peek(), Token::Word(_)) && !c.at_any(&["ON", "TO", "FROM"]) {
                words.push(c.any_word()?);
            }
            if c.is(&Token::LParen) {
                columns.extend(c.in_parentheses(Self::name)?);
            }
            Ok(words.join(" "))
        })?;
        let on = if self.accept("ON") { Some(self.permission_target()?) } else { None };
        if self.is(&Token::LParen) {
            columns.extend(self.in_parentheses(Self::name)?);
        }
        if !self.accept("TO") {
            self.expect("FROM")?;
        }
        let principals =
            self.list(|c| if c.accept("PUBLIC") { Ok("public".to_owned()) } else { c.name() })?;
        self.accept_seq(&["WITH", "GRANT", "OPTION"]);
        self.accept("CASCADE");
        if self.accept("AS") {
            self.name()?;
        }
        Ok(Statement::Permission { verb, permissions, on, principals, columns })
    }

    fn permission_target(&mut self) -> SqlResult<PermissionTarget> {
        if self.peek_nth(1) != &Token::DoubleColon {
            return self.object_name().map(PermissionTarget::Object);
        }
        let class = self.any_word()?;
        self.advance();
        Ok(match class.as_str() {
            "OBJECT" => PermissionTarget::Object(self.object_name()?),
            "SCHEMA" => PermissionTarget::Schema(self.name()?),
            "DATABASE" => PermissionTarget::Database(self.name()?),
            other => return self.refuse(&format!("permissions on {other}")),
        })
    }
}
