//! The place in the token list, and the small steps every statement is read with.

use crate::{
    error::{SqlError, SqlResult},
    tsql::{
        ast::{AssignOp, DataType, ObjectName},
        datatype::{self, Place},
        dialect::{TSQL, is_reserved},
        lexer::{Lexed, is_word},
    },
    value::Collation,
};
use sqlparser::{
    ast::{Expr, Query},
    parser::{Parser, ParserError},
    tokenizer::Token,
};

/// Parentheses and subqueries may nest this deep; the real server's limit is its stack's too (Msg
/// 191).
const NESTING_MAX: usize = 64;

pub(super) struct Cursor<'t> {
    pub text: &'t str,
    pub parser: Parser<'static>,
    places: Vec<(usize, usize)>,
    lines: Vec<u32>,
}

impl<'t> Cursor<'t> {
    pub fn new(text: &'t str, lexed: Lexed) -> Self {
        let lines = lexed.tokens.iter().map(|t| t.span.start.line as u32).collect();
        let parser = Parser::new(&TSQL)
            .with_recursion_limit(NESTING_MAX)
            .with_tokens_with_locations(lexed.tokens);
        Self { text, parser, places: lexed.places, lines }
    }

    /// Number of the next token.
    pub fn index(&self) -> usize {
        self.parser.index().min(self.places.len())
    }

    pub fn at_end(&self) -> bool {
        self.index() >= self.places.len()
    }

    pub fn line(&self) -> u32 {
        self.line_of(self.index())
    }

    fn line_of(&self, index: usize) -> u32 {
        self.lines.get(index).or(self.lines.last()).copied().unwrap_or(1)
    }

    /// The text from token number `from` up to the next token.
    pub fn text_since(&self, from: usize) -> String {
        let to = self.index();
        if to <= from {
            return String::new();
        }
        self.text[self.places[from].0..self.places[to - 1].1].to_owned()
    }

    pub fn text_to_end(&self, from: usize) -> String {
        match (self.places.get(from), self.places.last()) {
            (Some(first), Some(last)) => self.text[first.0..last.1].to_owned(),
            _ => String::new(),
        }
    }

    pub fn peek(&self) -> &Token {
        &self.parser.peek_token_ref().token
    }

    pub fn peek_nth(&self, n: usize) -> &Token {
        &self.parser.peek_nth_token_ref(n).token
    }

    pub fn advance(&mut self) {
        self.parser.advance_token();
    }

    // errors

    /// `Incorrect syntax near …` at the next token.
    pub fn error(&self) -> SqlError {
        self.error_at(self.index())
    }

    fn error_at(&self, index: usize) -> SqlError {
        let index = index.min(self.places.len().saturating_sub(1));
        let near = self.places.get(index).map_or("", |(start, end)| &self.text[*start..*end]);
        let reserved = sqlparser::tokenizer::Token::make_word(near, None);
        let error = if is_reserved(&reserved) {
            SqlError::new(156, 15, format!("Incorrect syntax near the keyword '{near}'."))
        } else {
            let near = near.trim_start_matches(['[', '"', '\'']).trim_end_matches([']', '"', '\'']);
            SqlError::new(102, 15, format!("Incorrect syntax near '{near}'."))
        };
        error.at(self.line_of(index))
    }

    /// What `sqlparser` complained about, in the server's words: the place is at the end of its
    /// message.
    pub fn translate(&self, error: ParserError) -> SqlError {
        let message = match error {
            ParserError::RecursionLimitExceeded => {
                let text = "Some part of your SQL statement is nested too deeply. Rewrite the query or break it up into smaller queries.";
                return SqlError::new(191, 15, text).at(self.line());
            }
            ParserError::ParserError(m) | ParserError::TokenizerError(m) => m,
        };
        let column =
            message.rsplit_once("Column: ").and_then(|(_, n)| n.trim().parse::<usize>().ok());
        match column {
            Some(number) if number > 0 => self.error_at(number - 1),
            _ => self.error(),
        }
    }

    pub fn refuse<T>(&self, what: &str) -> SqlResult<T> {
        Err(SqlError::unsupported(what).at(self.line()))
    }

    // words and marks

    pub fn at(&self, word: &str) -> bool {
        is_word(self.peek(), word)
    }

    pub fn at_nth(&self, n: usize, word: &str) -> bool {
        is_word(self.peek_nth(n), word)
    }

    pub fn at_any(&self, words: &[&str]) -> bool {
        words.iter().any(|w| self.at(w))
    }

    pub fn at_seq(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, w)| self.at_nth(n, w))
    }

    pub fn accept(&mut self, word: &str) -> bool {
        let found = self.at(word);
        if found {
            self.advance();
        }
        found
    }

    pub fn accept_any(&mut self, words: &[&str]) -> bool {
        words.iter().any(|w| self.accept(w))
    }

    pub fn accept_seq(&mut self, words: &[&str]) -> bool {
        let found = self.at_seq(words);
        if found {
            words.iter().for_each(|_| self.advance());
        }
        found
    }

    pub fn expect(&mut self, word: &str) -> SqlResult<()> {
        if self.accept(word) { Ok(()) } else { Err(self.error()) }
    }

    pub fn expect_seq(&mut self, words: &[&str]) -> SqlResult<()> {
        words.iter().try_for_each(|w| self.expect(w))
    }

    pub fn is(&self, mark: &Token) -> bool {
        self.peek() == mark
    }

    pub fn mark(&mut self, mark: &Token) -> bool {
        self.parser.consume_token(mark)
    }

    pub fn expect_mark(&mut self, mark: &Token) -> SqlResult<()> {
        if self.mark(mark) { Ok(()) } else { Err(self.error()) }
    }

    pub fn comma(&mut self) -> bool {
        self.mark(&Token::Comma)
    }

    /// IF EXISTS of the DROP statements.
    pub fn if_exists(&mut self) -> bool {
        self.accept_seq(&["IF", "EXISTS"])
    }

    // names

    /// The next token is a word: quoted, or neither reserved nor a variable.
    pub fn at_name(&self) -> bool {
        matches!(self.peek(), Token::Word(w) if w.quote_style.is_some() || !w.value.starts_with('@'))
            && !is_reserved(self.peek())
    }

    pub fn at_variable(&self) -> bool {
        matches!(self.peek(), Token::Word(w) if w.quote_style.is_none() && w.value.starts_with('@'))
    }

    pub fn name(&mut self) -> SqlResult<String> {
        match self.peek() {
            Token::Word(w) if self.at_name() => {
                let value = w.value.clone();
                self.advance();
                check_name(&value)?;
                Ok(value)
            }
            _ => Err(self.error()),
        }
    }

    pub fn variable(&mut self) -> SqlResult<String> {
        match self.peek() {
            Token::Word(w) if self.at_variable() => {
                let value = w.value.clone();
                self.advance();
                Ok(value)
            }
            _ => Err(self.error()),
        }
    }

    /// Any word, reserved or not, in upper case.
    pub fn any_word(&mut self) -> SqlResult<String> {
        match self.peek() {
            Token::Word(w) => {
                let value = w.value.to_ascii_uppercase();
                self.advance();
                Ok(value)
            }
            _ => Err(self.error()),
        }
    }

    /// A string, with or without N.
    pub fn string(&mut self) -> SqlResult<String> {
        match self.peek() {
            Token::SingleQuotedString(s) | Token::NationalStringLiteral(s) => {
                let value = s.clone();
                self.advance();
                Ok(value)
            }
            _ => Err(self.error()),
        }
    }

    pub fn integer(&mut self) -> SqlResult<i128> {
        let negative = self.mark(&Token::Minus);
        if !negative {
            self.mark(&Token::Plus);
        }
        let value = match self.peek() {
            Token::Number(n, _) => n.parse::<i128>().ok(),
            _ => None,
        };
        let Some(value) = value else { return Err(self.error()) };
        self.advance();
        Ok(if negative { -value } else { value })
    }

    pub fn object_name(&mut self) -> SqlResult<ObjectName> {
        let line = self.line();
        let mut parts = vec![Some(self.name()?)];
        while self.mark(&Token::Period) {
            parts.push(if self.is(&Token::Period) { None } else { Some(self.name()?) });
        }
        let name = parts.pop().flatten();
        let schema = parts.pop().flatten();
        let database = parts.pop().flatten();
        let Some(name) = name else { return Err(self.error()) };
        if parts.is_empty() {
            Ok(ObjectName { database, schema, name })
        } else {
            Err(SqlError::unsupported("linked servers (a name of four parts)").at(line))
        }
    }

    pub fn object_names(&mut self) -> SqlResult<Vec<ObjectName>> {
        self.list(Self::object_name)
    }

    pub fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> SqlResult<T>,
    ) -> SqlResult<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.comma() {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub fn in_parentheses<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> SqlResult<T>,
    ) -> SqlResult<Vec<T>> {
        self.expect_mark(&Token::LParen)?;
        let items = self.list(item)?;
        self.expect_mark(&Token::RParen)?;
        Ok(items)
    }

    // expressions, queries, types

    pub fn expr(&mut self) -> SqlResult<Expr> {
        let line = self.line();
        let mut expr = self.parser.parse_expr().map_err(|e| self.translate(e))?;
        super::check::expression(&mut expr).map_err(|e| e.at(line))?;
        Ok(expr)
    }

    /// An expression and its own text.
    pub fn expr_text(&mut self) -> SqlResult<(Expr, String)> {
        let start = self.index();
        let expr = self.expr()?;
        Ok((expr, self.text_since(start)))
    }

    pub fn query(&mut self) -> SqlResult<Box<Query>> {
        let line = self.line();
        let mut query = self.parser.parse_query().map_err(|e| self.translate(e))?;
        let hints = self.query_hints()?;
        if !hints.is_empty() {
            query.settings = Some(hints);
        }
        super::check::query(&mut query).map_err(|e| e.at(line))?;
        Ok(query)
    }

    pub fn data_type(&mut self) -> SqlResult<DataType> {
        let line = self.line();
        let written = datatype::parse_written(&mut self.parser).map_err(|e| self.translate(e))?;
        let ty = datatype::meaning(&written, Place::Declaration).map_err(|e| e.at(line))?;
        if !self.accept("COLLATE") {
            return Ok(ty);
        }
        let DataType::Builtin { ty, .. } = ty else {
            return self.refuse("COLLATE on an alias type");
        };
        if self.accept("DATABASE_DEFAULT") {
            return Ok(DataType::Builtin { ty, explicit_collation: false, database_default: true });
        }
        let name = self.name()?;
        let Some(collation) = Collation::by_name(&name) else {
            return Err(SqlError::new(448, 16, format!("Invalid collation '{name}'.")).at(line));
        };
        Ok(DataType::Builtin {
            ty: datatype::with_collation(ty, collation),
            explicit_collation: true,
            database_default: false,
        })
    }

    /// `=`, `+=`, …
    pub fn assign_op(&mut self) -> SqlResult<AssignOp> {
        let op = match self.peek() {
            Token::Eq => AssignOp::Set,
            Token::CustomBinaryOperator(op) => match assign_op(op) {
                Some(op) => op,
                None => return Err(self.error()),
            },
            _ => return Err(self.error()),
        };
        self.advance();
        Ok(op)
    }
}

/// `+=` and its kin.
pub(super) fn assign_op(op: &str) -> Option<AssignOp> {
    Some(match op {
        "+=" => AssignOp::Add,
        "-=" => AssignOp::Sub,
        "*=" => AssignOp::Mul,
        "/=" => AssignOp::Div,
        "%=" => AssignOp::Mod,
        "&=" => AssignOp::And,
        "|=" => AssignOp::Or,
        "^=" => AssignOp::Xor,
        _ => return None,
    })
}

/// Identifiers have 1 to 128 characters.
fn check_name(name: &str) -> SqlResult<()> {
    if name.is_empty() {
        return Err(SqlError::new(
            1038,
            15,
            "An object or column name is missing or empty. For SELECT INTO statements, verify each column has a name. \
            For other statements, look for empty alias names. Aliases defined as \"\" or [] are not allowed. Change the alias to a valid name.",
        ));
    }
    if name.encode_utf16().count() > 128 {
        let start = name.chars().take(128).collect::<String>();
        return Err(SqlError::new(
            103,
            15,
            format!(
                "The identifier that starts with '{start}' is too long. Maximum length is 128."
            ),
        ));
    }
    Ok(())
}
