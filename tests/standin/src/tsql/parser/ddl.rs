//! CREATE, ALTER and DROP of everything but tables, modules and permissions.

use super::{control::only_first, cursor::Cursor};
use crate::{error::SqlResult, tsql::ast::*};
use sqlparser::tokenizer::Token;

impl Cursor<'_> {
    /// CREATE [OR ALTER]; `start` is the number of the word CREATE.
    pub fn create(&mut self, first: bool, start: usize) -> SqlResult<Statement> {
        self.advance();
        let or_alter = self.accept_seq(&["OR", "ALTER"]);
        if self.accept("VIEW") {
            only_first(first, "VIEW")?;
            return self.view(start, true, or_alter);
        }
        if self.accept_any(&["PROCEDURE", "PROC"]) {
            only_first(first, "PROCEDURE")?;
            return self.procedure(start, or_alter);
        }
        if self.accept("TRIGGER") {
            only_first(first, "TRIGGER")?;
            return self.trigger(start, true, or_alter);
        }
        if self.accept("FUNCTION") {
            only_first(first, "FUNCTION")?;
            return self.function(or_alter);
        }
        if or_alter {
            return Err(self.error());
        }
        if self.accept_seq(&["SECURITY", "POLICY"]) {
            return self.security_policy();
        }
        match self.any_word()?.as_str() {
            "TABLE" => {
                let name = self.object_name()?;
                if self.accept("AS") {
                    return self.refuse("CREATE TABLE … AS");
                }
                Ok(Statement::CreateTable(Box::new(self.table_body(name)?)))
            }
            "DATABASE" => self.create_database(),
            "SCHEMA" => {
                if self.at("AUTHORIZATION") {
                    return self.refuse("CREATE SCHEMA AUTHORIZATION");
                }
                let name = self.name()?;
                if self.accept("AUTHORIZATION") {
                    self.name()?;
                }
                Ok(Statement::CreateSchema { name })
            }
            "UNIQUE" => self.create_index(true),
            "CLUSTERED" | "NONCLUSTERED" | "COLUMNSTORE" | "INDEX" => {
                self.parser.prev_token();
                self.create_index(false)
            }
            "TYPE" => self.create_type(),
            "LOGIN" => {
                let name = self.name()?;
                if !self.accept_seq(&["WITH", "PASSWORD"]) {
                    return self.refuse("CREATE LOGIN without a password");
                }
                self.expect_mark(&Token::Eq)?;
                let password = self.string()?;
                self.login_options()?;
                Ok(Statement::CreateLogin { name, password })
            }
            "USER" => {
                let name = self.name()?;
                let mut login = None;
                if self.accept_any(&["FOR", "FROM"]) {
                    self.expect("LOGIN")?;
                    login = Some(self.name()?);
                } else if self.accept_seq(&["WITHOUT", "LOGIN"]) {
                    return Ok(Statement::CreateUser { name, login: None });
                }
                if self.accept_seq(&["WITH", "DEFAULT_SCHEMA"]) {
                    self.expect_mark(&Token::Eq)?;
                    self.name()?;
                }
                Ok(Statement::CreateUser {
                    login: Some(login.unwrap_or_else(|| name.clone())),
                    name,
                })
            }
            "ROLE" => {
                let name = self.name()?;
                if self.accept("AUTHORIZATION") {
                    self.name()?;
                }
                Ok(Statement::CreateRole { name })
            }
            other => {
                let what = match self.peek() {
                    Token::Word(w) => format!("CREATE {other} {}", w.value),
                    _ => format!("CREATE {other}"),
                };
                self.refuse(&what)
            }
        }
    }

    fn login_options(&mut self) -> SqlResult<()> {
        while self.comma() {
            self.any_word()?;
            self.expect_mark(&Token::Eq)?;
            self.advance();
        }
        Ok(())
    }

    fn create_database(&mut self) -> SqlResult<Statement> {
        let name = self.name()?;
        if self.at("ON") || self.at("AS") || self.at("FOR") {
            return self.refuse("CREATE DATABASE with files, snapshots or attachments");
        }
        let collation = if self.accept("COLLATE") { Some(self.name()?) } else { None };
        if self.at("WITH") || self.at("CONTAINMENT") {
            return self.refuse("options of CREATE DATABASE");
        }
        Ok(Statement::CreateDatabase { name, collation })
    }

    fn create_type(&mut self) -> SqlResult<Statement> {
        let name = self.object_name()?;
        if !self.accept("FROM") {
            return self.refuse("CREATE TYPE other than an alias of a system type");
        }
        let base = self.data_type()?;
        let nullable = if self.accept_seq(&["NOT", "NULL"]) {
            false
        } else {
            self.accept("NULL");
            true
        };
        Ok(Statement::CreateType { name, base, nullable })
    }

    fn create_index(&mut self, unique: bool) -> SqlResult<Statement> {
        let clustered = self.accept("CLUSTERED");
        if !clustered {
            self.accept("NONCLUSTERED");
        }
        let columnstore = self.accept("COLUMNSTORE");
        self.expect("INDEX")?;
        let name = self.name()?;
        self.expect("ON")?;
        let table = self.object_name()?;
        let columns =
            if self.is(&Token::LParen) { self.in_parentheses(Self::index_column)? } else { vec![] };
        if columns.is_empty() && !columnstore {
            return Err(self.error());
        }
        let mut index = CreateIndex {
            name,
            table,
            unique,
            clustered,
            columnstore,
            columns,
            include: vec![],
            filter: None,
            options: vec![],
        };
        self.index_tail(&mut index)?;
        Ok(Statement::CreateIndex(Box::new(index)))
    }

    /// INCLUDE, WHERE, WITH, ON.
    pub fn index_tail(&mut self, index: &mut CreateIndex) -> SqlResult<()> {
        if self.accept("INCLUDE") {
            index.include = self.in_parentheses(Self::name)?;
        }
        if self.accept("WHERE") {
            index.filter = Some(self.expr_text()?);
        }
        index.options = self.with_options()?;
        self.file_group()
    }

    pub fn index_column(&mut self) -> SqlResult<IndexColumn> {
        let name = self.name()?;
        let descending = self.accept("DESC");
        if !descending {
            self.accept("ASC");
        }
        Ok(IndexColumn { name, descending })
    }

    /// `ON [PRIMARY]`, `TEXTIMAGE_ON …`: files are not kept, so only the default place is known.
    pub fn file_group(&mut self) -> SqlResult<()> {
        while self.accept_any(&["ON", "TEXTIMAGE_ON", "FILESTREAM_ON"]) {
            let name = match self.peek() {
                Token::Word(w) => w.value.clone(),
                _ => return Err(self.error()),
            };
            if !["PRIMARY", "DEFAULT"].iter().any(|n| name.eq_ignore_ascii_case(n)) {
                return self.refuse("filegroups and partition schemes");
            }
            self.advance();
        }
        Ok(())
    }

    /// `WITH (NAME = value, …)`, and the old `WITH FILLFACTOR = 80`. Values as written.
    pub fn with_options(&mut self) -> SqlResult<Vec<(String, String)>> {
        if !self.accept("WITH") {
            return Ok(vec![]);
        }
        if self.is(&Token::LParen) {
            return self.in_parentheses(Self::option);
        }
        self.list(|c| {
            let name = c.any_word()?;
            let value = if c.mark(&Token::Eq) { c.integer()?.to_string() } else { "ON".to_owned() };
            Ok((name, value))
        })
    }

    pub fn option(&mut self) -> SqlResult<(String, String)> {
        let name = self.any_word()?;
        self.mark(&Token::Eq);
        let start = self.index();
        let mut depth = 0;
        loop {
            match self.peek() {
                Token::EOF => return Err(self.error()),
                Token::Comma | Token::RParen if depth == 0 => break,
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            self.advance();
        }
        let value = self.text_since(start);
        Ok((name, if value.is_empty() { "ON".to_owned() } else { value }))
    }

    pub fn alter(&mut self, first: bool, start: usize) -> SqlResult<Statement> {
        self.advance();
        match self.any_word()?.as_str() {
            "TABLE" => self.alter_table(),
            "VIEW" => {
                only_first(first, "VIEW")?;
                self.view(start, false, true)
            }
            "TRIGGER" => {
                only_first(first, "TRIGGER")?;
                self.trigger(start, false, true)
            }
            "DATABASE" => self.alter_database(),
            "INDEX" => self.alter_index(),
            "ROLE" => self.add_role_member("ALTER ROLE"),
            "SERVER" if self.accept("ROLE") => self.add_role_member("ALTER SERVER ROLE"),
            other => self.refuse(&format!("ALTER {other}")),
        }
    }

    fn add_role_member(&mut self, statement: &str) -> SqlResult<Statement> {
        let role = self.name()?;
        if !self.accept_seq(&["ADD", "MEMBER"]) {
            return self.refuse(&format!("{statement} other than ADD MEMBER"));
        }
        Ok(Statement::AddRoleMember { role, member: self.name()? })
    }

    fn alter_database(&mut self) -> SqlResult<Statement> {
        let name = if self.accept("CURRENT") { None } else { Some(self.name()?) };
        if self.accept("COLLATE") {
            return Ok(Statement::AlterDatabase {
                name,
                action: AlterDatabase::Collate(self.name()?),
            });
        }
        if self.accept_seq(&["MODIFY", "NAME"]) {
            self.expect_mark(&Token::Eq)?;
            return Ok(Statement::AlterDatabase {
                name,
                action: AlterDatabase::ModifyName(self.name()?),
            });
        }
        if !self.accept("SET") {
            return self.refuse("ALTER DATABASE other than SET, COLLATE and MODIFY NAME");
        }
        let (line, start) = (self.line(), self.index());
        let settings = self.list(Self::database_option)?;
        let mut others = Others::Wait;
        if self.accept("WITH") {
            if self.accept("NO_WAIT") {
                others = Others::Fail;
            } else {
                others = Others::End;
                self.expect("ROLLBACK")?;
            }
        }
        if others == Others::End && !self.accept("IMMEDIATE") {
            self.expect("AFTER")?;
            self.integer()?;
            self.accept("SECONDS");
        }
        let text = self.text_since(start);
        let statement = |(option, value)| Statement::AlterDatabase {
            name: name.clone(),
            action: AlterDatabase::Set { name: option, value, others },
        };
        let mut statements = settings.into_iter().map(statement).collect::<Vec<_>>();
        match statements.pop() {
            Some(only) if statements.is_empty() => Ok(only),
            Some(last) => {
                statements.push(last);
                let spanned = |statement| Spanned { line, statement, text: text.clone() };
                Ok(Statement::Block(statements.into_iter().map(spanned).collect()))
            }
            None => Err(self.error()),
        }
    }

    fn database_option(&mut self) -> SqlResult<(String, String)> {
        let name = self.any_word()?;
        if [
            "SINGLE_USER",
            "MULTI_USER",
            "RESTRICTED_USER",
            "READ_ONLY",
            "READ_WRITE",
            "ONLINE",
            "OFFLINE",
            "EMERGENCY",
        ]
        .contains(&name.as_str())
        {
            return Ok((name, String::new()));
        }
        self.mark(&Token::Eq);
        let value = match self.peek() {
            Token::Number(n, _) => {
                let n = n.clone();
                self.advance();
                n
            }
            Token::Word(_) => self.any_word()?,
            _ => return Err(self.error()),
        };
        if self.is(&Token::LParen) {
            self.skip_parentheses()?;
        }
        self.accept_any(&["MINUTES", "SECONDS"]);
        Ok((name, value))
    }

    fn alter_index(&mut self) -> SqlResult<Statement> {
        let name = if self.accept("ALL") { None } else { Some(self.name()?) };
        self.expect("ON")?;
        let table = self.object_name()?;
        let action = match self.any_word()?.as_str() {
            "DISABLE" => AlterIndex::Disable,
            "REBUILD" => AlterIndex::Rebuild,
            other => return self.refuse(&format!("ALTER INDEX … {other}")),
        };
        if self.accept("PARTITION") {
            self.expect_mark(&Token::Eq)?;
            if !self.accept("ALL") {
                self.integer()?;
            }
        }
        self.with_options()?;
        Ok(Statement::AlterIndex { name, table, action })
    }

    pub fn drop(&mut self) -> SqlResult<Statement> {
        self.advance();
        let what = self.any_word()?;
        let what = what.as_str();
        if ![
            "TABLE",
            "VIEW",
            "PROCEDURE",
            "PROC",
            "TRIGGER",
            "DATABASE",
            "SCHEMA",
            "INDEX",
            "LOGIN",
        ]
        .contains(&what)
        {
            return self.refuse(&format!("DROP {what}"));
        }
        let if_exists = self.if_exists();
        match what {
            "TABLE" => Ok(Statement::DropTable { tables: self.object_names()?, if_exists }),
            "VIEW" => Ok(Statement::DropView { names: self.object_names()?, if_exists }),
            "PROCEDURE" | "PROC" => {
                Ok(Statement::DropProcedure { names: self.object_names()?, if_exists })
            }
            "TRIGGER" => {
                let names = self.object_names()?;
                if self.at("ON") {
                    self.refuse("DDL triggers")
                } else {
                    Ok(Statement::DropTrigger { names, if_exists })
                }
            }
            "SCHEMA" => Ok(Statement::DropSchema { name: self.name()?, if_exists }),
            "DATABASE" => {
                let name = self.name()?;
                if self.is(&Token::Comma) {
                    return self.refuse("DROP DATABASE of several");
                }
                Ok(Statement::DropDatabase { name, if_exists })
            }
            "INDEX" => self.drop_index(if_exists),
            _ => Ok(Statement::DropLogin { name: self.name()?, if_exists }),
        }
    }

    /// `DROP INDEX i ON t`, and the old `DROP INDEX t.i`.
    fn drop_index(&mut self, if_exists: bool) -> SqlResult<Statement> {
        let mut dropped = self.object_name()?;
        let (name, table) = if self.accept("ON") {
            (dropped.name, self.object_name()?)
        } else {
            let Some(table) = dropped.schema.take() else { return Err(self.error()) };
            (dropped.name, ObjectName { database: None, schema: dropped.database, name: table })
        };
        self.with_options()?;
        if self.is(&Token::Comma) {
            return self.refuse("DROP INDEX of several");
        }
        Ok(Statement::DropIndex { name, table, if_exists })
    }
}
