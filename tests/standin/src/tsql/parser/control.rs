//! Statements in a row, blocks, and what steers them; variables, transactions, EXEC.

use super::cursor::Cursor;
use crate::{
    error::{SqlError, SqlResult},
    tsql::{ast::*, dialect::is_reserved},
};
use sqlparser::{
    ast::{Expr, Ident, Value as Literal, ValueWithSpan},
    tokenizer::{Span, Token},
};

impl Cursor<'_> {
    pub fn batch(&mut self) -> SqlResult<Batch> {
        let mut batch = Vec::new();
        while !self.at_end() {
            if self.mark(&Token::SemiColon) {
                continue;
            }
            let first = batch.is_empty();
            batch.push(self.statement(first)?);
        }
        Ok(batch)
    }

    /// Statements up to END.
    fn block(&mut self) -> SqlResult<Batch> {
        let mut batch = Vec::new();
        loop {
            if self.mark(&Token::SemiColon) {
                continue;
            }
            if self.at("END") {
                break;
            }
            batch.push(self.statement(false)?);
        }
        if batch.is_empty() { Err(self.error()) } else { Ok(batch) }
    }

    /// One statement; `first` in its batch: some may only stand there, and a procedure may be
    /// called there by its bare name.
    pub fn statement(&mut self, first: bool) -> SqlResult<Spanned> {
        let (line, start) = (self.line(), self.index());
        let statement = self.statement_kind(first, start).map_err(|e| e.at(line))?;
        let text = self.text_since(start);
        self.mark(&Token::SemiColon);
        Ok(Spanned { line, statement, text })
    }

    fn statement_kind(&mut self, first: bool, start: usize) -> SqlResult<Statement> {
        let Token::Word(word) = self.peek() else {
            return if self.is(&Token::LParen) { self.select() } else { Err(self.error()) };
        };
        if word.quote_style.is_some() {
            return if first { self.execute_rest(None).map(execute) } else { Err(self.error()) };
        }
        let upper = word.value.to_ascii_uppercase();
        match upper.as_str() {
            "SELECT" => self.select(),
            "WITH" => self.with_ctes(),
            "INSERT" => self.insert(None),
            "UPDATE" => self.update(None),
            "DELETE" => self.delete(None),
            "MERGE" => self.refuse("MERGE"),
            "TRUNCATE" => self.truncate(),
            "CREATE" => self.create(first, start),
            "ALTER" => self.alter(first, start),
            "DROP" => self.drop(),
            "GRANT" | "DENY" | "REVOKE" => self.permission(),
            "BEGIN" => self.begin(),
            "IF" => self.if_else(),
            "WHILE" => {
                self.advance();
                let condition = self.expr()?;
                Ok(Statement::While { condition, body: Box::new(self.statement(false)?) })
            }
            "BREAK" => self.plain(Statement::Break),
            "CONTINUE" => self.plain(Statement::Continue),
            "RETURN" => {
                self.advance();
                Ok(Statement::Return(if self.ends_here() { None } else { Some(self.expr()?) }))
            }
            "THROW" => self.throw(),
            "RAISERROR" => self.raiserror(),
            "PRINT" => {
                self.advance();
                Ok(Statement::Print(self.expr()?))
            }
            "WAITFOR" => {
                self.advance();
                if self.accept("DELAY") {
                    Ok(Statement::WaitForDelay(self.expr()?))
                } else {
                    self.refuse("WAITFOR TIME and WAITFOR (…)")
                }
            }
            "USE" => {
                self.advance();
                Ok(Statement::Use(self.name()?))
            }
            "DECLARE" => self.declare(),
            "SET" => self.set(),
            "COMMIT" => {
                self.advance();
                self.transaction_name()?;
                Ok(Statement::Commit)
            }
            "ROLLBACK" => {
                self.advance();
                let name = self.transaction_name()?;
                Ok(Statement::Rollback { name })
            }
            "EXEC" | "EXECUTE" => self.exec(),
            "DBCC" => self.dbcc(),
            "KILL" => {
                self.advance();
                let id = self.integer()?;
                i64::try_from(id).map(Statement::Kill).map_err(|_| self.error())
            }
            "CHECKPOINT" => self.plain(Statement::Checkpoint),
            "DISABLE" if self.at_nth(1, "TRIGGER") => self.disable_trigger(),
            "ENABLE" if self.at_nth(1, "TRIGGER") => self.refuse("ENABLE TRIGGER"),
            "SAVE" => {
                self.advance();
                match self.transaction_name()? {
                    Some(name) => Ok(Statement::SaveTransaction { name }),
                    None => Err(self.error()),
                }
            }
            "GOTO" => self.refuse("GOTO"),
            "OPEN" | "CLOSE" | "DEALLOCATE" | "FETCH" => self.refuse(&format!("cursors ({upper})")),
            "REVERT" => self.refuse("REVERT"),
            "BACKUP" | "RESTORE" | "BULK" | "DUMP" | "LOAD" | "SHUTDOWN" | "RECONFIGURE"
            | "READTEXT" | "WRITETEXT" | "UPDATETEXT" | "SETUSER" | "ADD" | "MOVE" | "SEND"
            | "RECEIVE" => self.refuse(&upper),
            _ if self.peek_nth(1) == &Token::Colon => self.refuse("labels and GOTO"),
            _ if first && !is_reserved(self.peek()) && !upper.starts_with('@') => {
                self.execute_rest(None).map(execute)
            }
            _ => Err(self.error()),
        }
    }

    pub fn plain(&mut self, statement: Statement) -> SqlResult<Statement> {
        self.advance();
        Ok(statement)
    }

    /// Nothing that belongs to this statement follows: an end, or a word that starts a statement.
    pub fn ends_here(&self) -> bool {
        const STARTS: [&str; 40] = [
            "SELECT",
            "WITH",
            "INSERT",
            "UPDATE",
            "DELETE",
            "MERGE",
            "TRUNCATE",
            "CREATE",
            "ALTER",
            "DROP",
            "GRANT",
            "DENY",
            "REVOKE",
            "BEGIN",
            "END",
            "IF",
            "ELSE",
            "WHILE",
            "BREAK",
            "CONTINUE",
            "RETURN",
            "THROW",
            "RAISERROR",
            "PRINT",
            "WAITFOR",
            "USE",
            "DECLARE",
            "SET",
            "COMMIT",
            "ROLLBACK",
            "SAVE",
            "EXEC",
            "EXECUTE",
            "DBCC",
            "KILL",
            "CHECKPOINT",
            "GOTO",
            "OPEN",
            "CLOSE",
            "FETCH",
        ];
        self.at_end() || self.is(&Token::SemiColon) || self.at_any(&STARTS)
    }

    fn begin(&mut self) -> SqlResult<Statement> {
        self.advance();
        if self.at_any(&["TRAN", "TRANSACTION"]) {
            let name = self.transaction_name()?;
            if self.at_seq(&["WITH", "MARK"]) {
                return self.refuse("BEGIN TRANSACTION … WITH MARK");
            }
            return Ok(Statement::BeginTransaction { name });
        }
        if self.accept("TRY") {
            let body = self.try_part("TRY")?;
            self.mark(&Token::SemiColon);
            self.expect_seq(&["BEGIN", "CATCH"])?;
            return Ok(Statement::TryCatch { body, handler: self.try_part("CATCH")? });
        }
        if self.at_any(&["DISTRIBUTED", "DIALOG", "CONVERSATION", "ATOMIC"]) {
            let what = self.any_word()?;
            return self.refuse(&format!("BEGIN {what}"));
        }
        let block = self.block()?;
        self.expect("END")?;
        Ok(Statement::Block(block))
    }

    /// A CATCH may be empty; so may a TRY.
    fn try_part(&mut self, word: &str) -> SqlResult<Batch> {
        while self.mark(&Token::SemiColon) {}
        let body = if self.at("END") { vec![] } else { self.block()? };
        self.expect_seq(&["END", word])?;
        Ok(body)
    }

    fn if_else(&mut self) -> SqlResult<Statement> {
        self.advance();
        let condition = self.expr()?;
        let then = Box::new(self.statement(false)?);
        let otherwise =
            if self.accept("ELSE") { Some(Box::new(self.statement(false)?)) } else { None };
        Ok(Statement::If { condition, then, otherwise })
    }

    fn throw(&mut self) -> SqlResult<Statement> {
        self.advance();
        if self.ends_here() {
            return Ok(Statement::Throw(None));
        }
        let number = self.expr()?;
        self.expect_mark(&Token::Comma)?;
        let message = self.expr()?;
        self.expect_mark(&Token::Comma)?;
        Ok(Statement::Throw(Some((number, message, self.expr()?))))
    }

    fn raiserror(&mut self) -> SqlResult<Statement> {
        self.advance();
        if !self.is(&Token::LParen) {
            return self.refuse("RAISERROR without parentheses");
        }
        let mut parts = self.in_parentheses(Self::expr)?.into_iter();
        let (Some(message), Some(severity), Some(state)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(self.error());
        };
        let args = parts.collect();
        let (mut with_log, mut with_nowait) = (false, false);
        if self.accept("WITH") {
            let options = self.list(Self::any_word)?;
            for option in options {
                match option.as_str() {
                    "LOG" => with_log = true,
                    "NOWAIT" => with_nowait = true,
                    "SETERROR" => {}
                    _ => return Err(self.error()),
                }
            }
        }
        Ok(Statement::RaiseError { message, severity, state, args, with_log, with_nowait })
    }

    /// `[TRAN | TRANSACTION | WORK] [name | @name]`
    fn transaction_name(&mut self) -> SqlResult<Option<String>> {
        if !self.accept_any(&["TRAN", "TRANSACTION"]) {
            self.accept("WORK");
            return Ok(None);
        }
        if self.at_variable() {
            return self.variable().map(Some);
        }
        if self.at_name() && !self.ends_here() { self.name().map(Some) } else { Ok(None) }
    }

    fn declare(&mut self) -> SqlResult<Statement> {
        self.advance();
        if self.at_name() {
            return self.refuse("cursors (DECLARE … CURSOR)");
        }
        let mut declared = Vec::new();
        loop {
            let name = self.variable()?;
            self.accept("AS");
            if self.at("CURSOR") {
                return self.refuse("cursors (DECLARE … CURSOR)");
            }
            if self.at("TABLE") {
                if !declared.is_empty() {
                    return self.refuse("a table variable declared together with others");
                }
                self.advance();
                let own = ObjectName { database: None, schema: None, name: name.clone() };
                let table = self.table_body(own)?;
                return Ok(Statement::DeclareTable { name, table: Box::new(table) });
            }
            let ty = self.data_type()?;
            let value = if self.mark(&Token::Eq) { Some(self.expr()?) } else { None };
            declared.push(Declare { name, ty, value });
            if !self.comma() {
                return Ok(Statement::Declare(declared));
            }
        }
    }

    // EXEC

    fn exec(&mut self) -> SqlResult<Statement> {
        self.advance();
        if self.at_any(&["AS"]) {
            return self.refuse("EXECUTE AS");
        }
        if self.is(&Token::LParen) {
            return self.execute_text().map(Statement::ExecuteText);
        }
        self.execute_call().map(execute)
    }

    /// What follows EXEC when it is not a text.
    pub fn execute_call(&mut self) -> SqlResult<Execute> {
        let return_into = if self.at_variable() {
            let name = self.variable()?;
            if !self.mark(&Token::Eq) {
                return self.refuse("EXEC of a procedure named by a variable");
            }
            Some(name)
        } else {
            None
        };
        self.execute_rest(return_into)
    }

    pub fn execute_text(&mut self) -> SqlResult<Vec<Expr>> {
        let parts = self.in_parentheses(Self::expr)?;
        if self.at("AT") || self.at_seq(&["AS", "USER"]) || self.at_seq(&["AS", "LOGIN"]) {
            return self.refuse("EXEC (…) AT and AS");
        }
        Ok(parts)
    }

    fn execute_rest(&mut self, return_into: Option<String>) -> SqlResult<Execute> {
        if self.at_variable() {
            return self.refuse("EXEC of a procedure named by a variable");
        }
        let procedure = self.object_name()?;
        if self.is(&Token::SemiColon) && matches!(self.peek_nth(1), Token::Number(..)) {
            return self.refuse("numbered procedures");
        }
        let mut args = Vec::new();
        if !self.ends_here() && !self.at("OPTION") {
            args = self.list(Self::execute_arg)?;
        }
        if self.at_seq(&["WITH", "RECOMPILE"]) {
            self.advance();
            self.advance();
        } else if self.at("WITH") && (self.at_nth(1, "RESULT")) {
            return self.refuse("EXEC … WITH RESULT SETS");
        }
        Ok(Execute { return_into, procedure, args })
    }

    fn execute_arg(&mut self) -> SqlResult<ExecuteArg> {
        let name = if self.at_variable() && self.peek_nth(1) == &Token::Eq {
            let name = self.variable()?;
            self.advance();
            Some(name)
        } else {
            None
        };
        let value = if self.accept("DEFAULT") { None } else { Some(self.argument_value()?) };
        let output = self.accept_any(&["OUTPUT", "OUT"]);
        Ok(ExecuteArg { name, value, output })
    }

    /// A constant, a variable, or a bare word, which is a string here.
    fn argument_value(&mut self) -> SqlResult<Expr> {
        let span = Span::empty();
        let literal = |value| Expr::Value(ValueWithSpan { value, span });
        let expr = match self.peek().clone() {
            Token::Number(n, long) => literal(Literal::Number(n, long)),
            Token::SingleQuotedString(s) => literal(Literal::SingleQuotedString(s)),
            Token::NationalStringLiteral(s) => literal(Literal::NationalStringLiteral(s)),
            Token::HexStringLiteral(s) => literal(Literal::HexStringLiteral(s)),
            Token::Placeholder(s) => literal(Literal::Placeholder(s)),
            Token::Minus | Token::Plus
                if matches!(self.peek_nth(1), Token::Number(..) | Token::Placeholder(_)) =>
            {
                return self.expr();
            }
            Token::Word(w) if self.at("NULL") => {
                let _ = w;
                literal(Literal::Null)
            }
            Token::Word(w) if self.at_variable() => Expr::Identifier(Ident::new(w.value)),
            Token::Word(w) if self.at_name() || w.quote_style.is_some() => {
                literal(Literal::SingleQuotedString(w.value))
            }
            _ => return Err(self.error()),
        };
        self.advance();
        Ok(expr)
    }

    fn dbcc(&mut self) -> SqlResult<Statement> {
        self.advance();
        let command = self.any_word()?;
        let mut args = Vec::new();
        if self.mark(&Token::LParen) {
            if !self.is(&Token::RParen) {
                args = self.list(Self::dbcc_arg)?;
            }
            self.expect_mark(&Token::RParen)?;
        }
        if self.accept("WITH") {
            self.list(Self::any_word)?;
        }
        Ok(Statement::Dbcc { command, args })
    }

    /// DBCC CHECKIDENT (t, RESEED, 0) names tables and words barely.
    fn dbcc_arg(&mut self) -> SqlResult<Expr> {
        if self.at_name() && !matches!(self.peek_nth(1), Token::LParen) {
            let start = self.index();
            self.object_name()?;
            let value = Literal::SingleQuotedString(self.text_since(start));
            return Ok(Expr::Value(ValueWithSpan { value, span: Span::empty() }));
        }
        self.expr()
    }
}

fn execute(call: Execute) -> Statement {
    Statement::Execute(Box::new(call))
}

/// `CREATE VIEW` and its like must stand alone.
pub(super) fn only_first(first: bool, what: &str) -> SqlResult<()> {
    if first {
        Ok(())
    } else {
        Err(SqlError::new(
            111,
            15,
            format!("'CREATE/ALTER {what}' must be the first statement in a query batch."),
        ))
    }
}
