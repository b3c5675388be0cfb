//! Text → tokens.
//!
//! `sqlparser`'s parser is used, its tokenizer is not: T-SQL's lexical rules differ in small ways
//! that matter (`0x` alone, `$1.5`, `!<`, `]]`, `%%lockres%%`, nested comments, `"…"` by SET
//! QUOTED_IDENTIFIER), and the parser takes tokens from anybody. A word keeps its keyword only
//! where T-SQL gives that word a meaning in an expression or a query; otherwise it is a plain
//! identifier, so that columns called `limit`, `position` or `version` are only columns, and
//! MySQL's and PostgreSQL's syntax is not accepted by accident.
//!
//! A token's span carries its line and, as the column, its number in the token list plus one: an
//! error of the parser leads back to the token, and a statement to its own text.

use crate::error::{SqlError, SqlResult};
use sqlparser::{
    keywords::Keyword,
    tokenizer::{Location, Span, Token, TokenWithSpan, Word},
};

/// Tokens, and where in the text each of them is (byte offsets).
#[derive(Debug, Default)]
pub struct Lexed {
    pub tokens: Vec<TokenWithSpan>,
    pub places: Vec<(usize, usize)>,
}

/// Splits `text` into tokens. Errors are Msg 105 (an open string or bracket) and Msg 113 (an open
/// comment).
pub fn lex(text: &str, quoted_identifier: bool) -> SqlResult<Lexed> {
    Lexer {
        text,
        bytes: text.as_bytes(),
        pos: 0,
        line: 1,
        quoted_identifier,
        out: Lexed::default(),
    }
    .run()
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pos: usize,
    line: u32,
    quoted_identifier: bool,
    out: Lexed,
}

impl Lexer<'_> {
    fn run(mut self) -> SqlResult<Lexed> {
        loop {
            self.skip_blanks()?;
            let (start, line) = (self.pos, self.line);
            let Some(token) = self.token()? else { break };
            self.push(token, start, line);
        }
        drop_join_hints(&mut self.out);
        Ok(self.out)
    }

    fn push(&mut self, mut token: Token, start: usize, line: u32) {
        if let (Token::Word(w), Some(before)) = (&mut token, self.out.tokens.last_mut()) {
            // `at` is a word of its own unless TIME ZONE follows; FETCH NEXT @n takes a variable
            // only as a literal's stand-in
            if w.keyword == Keyword::TIME && is_word(&before.token, "AT") {
                before.token = Token::make_word("AT", None);
            } else if w.value.starts_with('@')
                && (is_word(&before.token, "NEXT") || is_word(&before.token, "FIRST"))
            {
                token = Token::Placeholder(w.value.clone());
            }
        }
        let number = self.out.tokens.len() as u64 + 1;
        let span = Span::new(
            Location::new(u64::from(line), number),
            Location::new(u64::from(self.line), number),
        );
        let switch = self.quoted_identifier_switch(&token);
        self.out.tokens.push(TokenWithSpan::new(token, span));
        self.out.places.push((start, self.pos));
        if let Some(on) = switch {
            self.quoted_identifier = on;
        }
    }

    /// SET QUOTED_IDENTIFIER takes effect at parse time, for the rest of the batch.
    fn quoted_identifier_switch(&self, token: &Token) -> Option<bool> {
        let last = &self.out.tokens;
        let before =
            |n: usize, text: &str| last.len() >= n && is_word(&last[last.len() - n].token, text);
        if !before(1, "QUOTED_IDENTIFIER") || !before(2, "SET") {
            return None;
        }
        if is_word(token, "ON") {
            Some(true)
        } else if is_word(token, "OFF") {
            Some(false)
        } else {
            None
        }
    }

    fn peek(&self, n: usize) -> u8 {
        self.bytes.get(self.pos + n).copied().unwrap_or(0)
    }

    fn char(&self) -> Option<char> {
        self.text[self.pos..].chars().next()
    }

    fn skip_blanks(&mut self) -> SqlResult<()> {
        while let Some(c) = self.char() {
            if c == '\n' {
                self.line += 1;
                self.pos += 1;
            } else if c.is_whitespace() || c == '\u{feff}' || c == '\0' {
                self.pos += c.len_utf8();
            } else if c == '-' && self.peek(1) == b'-' {
                self.pos =
                    self.text[self.pos..].find('\n').map_or(self.text.len(), |n| self.pos + n);
            } else if c == '/' && self.peek(1) == b'*' {
                self.comment()?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Comments nest.
    fn comment(&mut self) -> SqlResult<()> {
        let line = self.line;
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.pos += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.pos += 2;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ if self.pos >= self.bytes.len() => {
                    return Err(SqlError::new(113, 15, "Missing end comment mark '*/'.").at(line));
                }
                (c, _) => {
                    self.line += u32::from(c == b'\n');
                    self.pos += 1;
                }
            }
        }
    }

    fn token(&mut self) -> SqlResult<Option<Token>> {
        let Some(c) = self.char() else { return Ok(None) };
        let next = self.peek(1);
        let token = match c {
            'N' | 'n' if next == b'\'' => {
                self.pos += 1;
                Token::NationalStringLiteral(self.delimited('\'')?)
            }
            '\'' => Token::SingleQuotedString(self.delimited('\'')?),
            '"' if self.quoted_identifier => Token::Word(Word {
                value: self.delimited('"')?,
                quote_style: Some('"'),
                keyword: Keyword::NoKeyword,
            }),
            '"' => Token::SingleQuotedString(self.delimited('"')?),
            '[' => Token::Word(Word {
                value: self.delimited(']')?,
                quote_style: Some('['),
                keyword: Keyword::NoKeyword,
            }),
            '0' if matches!(next, b'x' | b'X') => {
                self.pos += 2;
                Token::HexStringLiteral(self.take(|c| c.is_ascii_hexdigit()))
            }
            '0'..='9' => self.number(),
            '.' if next.is_ascii_digit() => self.number(),
            '$' if next.is_ascii_digit() || (next == b'.' && self.peek(2).is_ascii_digit()) => {
                self.pos += 1;
                Token::Placeholder(format!("${}", self.take(|c| c.is_ascii_digit() || c == '.')))
            }
            '$' if next.is_ascii_alphabetic() => self.word(),
            '%' if next == b'%' => match self.text[self.pos + 2..].find("%%") {
                Some(n) => {
                    let value = self.text[self.pos..self.pos + n + 4].to_owned();
                    self.pos += n + 4;
                    Token::Word(Word { value, quote_style: None, keyword: Keyword::NoKeyword })
                }
                None => self.one(1, Token::Mod),
            },
            c if is_word_start(c) => self.word(),
            _ => self.operator(c, next),
        };
        Ok(Some(token))
    }

    fn operator(&mut self, c: char, next: u8) -> Token {
        let assign = |text: &str| Token::CustomBinaryOperator(text.to_owned());
        match (c, next) {
            ('<', b'>') | ('!', b'=') => self.one(2, Token::Neq),
            ('<', b'=') | ('!', b'>') => self.one(2, Token::LtEq),
            ('>', b'=') | ('!', b'<') => self.one(2, Token::GtEq),
            (':', b':') => self.one(2, Token::DoubleColon),
            ('+' | '-' | '*' | '/' | '%' | '&' | '|' | '^', b'=') => {
                self.one(2, assign(&format!("{c}=")))
            }
            ('<', _) => self.one(1, Token::Lt),
            ('>', _) => self.one(1, Token::Gt),
            ('=', _) => self.one(1, Token::Eq),
            ('+', _) => self.one(1, Token::Plus),
            ('-', _) => self.one(1, Token::Minus),
            ('*', _) => self.one(1, Token::Mul),
            ('/', _) => self.one(1, Token::Div),
            ('%', _) => self.one(1, Token::Mod),
            ('&', _) => self.one(1, Token::Ampersand),
            ('|', _) => self.one(1, Token::Pipe),
            ('^', _) => self.one(1, Token::Caret),
            ('~', _) => self.one(1, Token::Tilde),
            ('(', _) => self.one(1, Token::LParen),
            (')', _) => self.one(1, Token::RParen),
            (',', _) => self.one(1, Token::Comma),
            (';', _) => self.one(1, Token::SemiColon),
            ('.', _) => self.one(1, Token::Period),
            (':', _) => self.one(1, Token::Colon),
            ('{', _) => self.one(1, Token::LBrace),
            ('}', _) => self.one(1, Token::RBrace),
            _ => self.one(c.len_utf8(), Token::Char(c)),
        }
    }

    fn one(&mut self, len: usize, token: Token) -> Token {
        self.pos += len;
        token
    }

    fn take(&mut self, keep: impl Fn(char) -> bool) -> String {
        let start = self.pos;
        while let Some(c) = self.char().filter(|c| keep(*c)) {
            self.pos += c.len_utf8();
        }
        self.text[start..self.pos].to_owned()
    }

    fn number(&mut self) -> Token {
        let start = self.pos;
        self.take(|c| c.is_ascii_digit());
        if self.peek(0) == b'.' {
            self.pos += 1;
            self.take(|c| c.is_ascii_digit());
        }
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                self.pos += 1 + sign;
                self.take(|c| c.is_ascii_digit());
            }
        }
        Token::Number(self.text[start..self.pos].to_owned(), false)
    }

    fn word(&mut self) -> Token {
        let value = self.take(|c| is_word_start(c) || c.is_numeric() || c == '$');
        match Token::make_word(&value, None) {
            Token::Word(w) if means_something(w.keyword) => Token::Word(w),
            _ => Token::Word(Word { value, quote_style: None, keyword: Keyword::NoKeyword }),
        }
    }

    /// A string, `[…]` or `"…"`: the closing mark doubled stands for itself; in a string a
    /// backslash at the end of a line joins it with the next.
    fn delimited(&mut self, close: char) -> SqlResult<String> {
        let line = self.line;
        self.pos += 1;
        let start = self.pos;
        let mut value = String::new();
        while let Some(c) = self.char() {
            self.pos += c.len_utf8();
            if c == close {
                if self.char() != Some(close) {
                    return Ok(value);
                }
                self.pos += close.len_utf8();
            } else if c == '\n' {
                self.line += 1;
            } else if c == '\\'
                && close == '\''
                && (self.peek(0) == b'\n' || (self.peek(0) == b'\r' && self.peek(1) == b'\n'))
            {
                self.pos += if self.peek(0) == b'\r' { 2 } else { 1 };
                self.line += 1;
                continue;
            }
            value.push(c);
        }
        Err(SqlError::new(
            105,
            15,
            format!(
                "Unclosed quotation mark after the character string '{}'.",
                &self.text[start..]
            ),
        )
        .at(line))
    }
}

fn is_word_start(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '@' | '#')
}

/// Whether the token is this unquoted word.
pub fn is_word(token: &Token, text: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(text))
}

/// `INNER HASH JOIN`, `LEFT LOOP JOIN`: how to join, not what. There is one way here, so the hint
/// goes.
fn drop_join_hints(lexed: &mut Lexed) {
    let hinted = |i: usize, tokens: &[TokenWithSpan]| {
        i > 0
            && i + 1 < tokens.len()
            && ["LOOP", "HASH", "MERGE", "REMOTE"].iter().any(|w| is_word(&tokens[i].token, w))
            && ["INNER", "LEFT", "RIGHT", "FULL", "OUTER"]
                .iter()
                .any(|w| is_word(&tokens[i - 1].token, w))
            && is_word(&tokens[i + 1].token, "JOIN")
    };
    let Some(first) = (0..lexed.tokens.len()).find(|i| hinted(*i, &lexed.tokens)) else { return };
    let mut i = first;
    while i < lexed.tokens.len() {
        if hinted(i, &lexed.tokens) {
            lexed.tokens.remove(i);
            lexed.places.remove(i);
        } else {
            lexed.tokens[i].span.start.column = i as u64 + 1;
            i += 1;
        }
    }
}

/// The words whose keyword the parser may see.
fn means_something(keyword: Keyword) -> bool {
    use Keyword::*;
    matches!(
        keyword,
        SELECT
            | FROM
            | WHERE
            | GROUP
            | BY
            | HAVING
            | ORDER
            | ASC
            | DESC
            | DISTINCT
            | ALL
            | TOP
            | PERCENT
            | WITH
            | TIES
            | INTO
            | AS
            | ON
            | JOIN
            | INNER
            | LEFT
            | RIGHT
            | FULL
            | OUTER
            | CROSS
            | APPLY
            | UNION
            | EXCEPT
            | INTERSECT
            | AND
            | OR
            | NOT
            | NULL
            | IS
            | IN
            | BETWEEN
            | LIKE
            | ESCAPE
            | EXISTS
            | ANY
            | SOME
            | CASE
            | WHEN
            | THEN
            | ELSE
            | END
            | CAST
            | TRY_CAST
            | CONVERT
            | TRY_CONVERT
            | COLLATE
            | OVER
            | PARTITION
            | ROWS
            | RANGE
            | UNBOUNDED
            | PRECEDING
            | FOLLOWING
            | CURRENT
            | ROW
            | WITHIN
            | IGNORE
            | RESPECT
            | NULLS
            | OFFSET
            | FETCH
            | NEXT
            | FIRST
            | ONLY
            | VALUES
            | FOR
            | XML
            | JSON
            | BROWSE
            | RAW
            | AUTO
            | EXPLICIT
            | PATH
            | ELEMENTS
            | BINARY
            | BASE64
            | ROOT
            | TYPE
            | INCLUDE_NULL_VALUES
            | WITHOUT_ARRAY_WRAPPER
            | SYSTEM_TIME
            | OF
            | TIME
            | ZONE
            | PIVOT
            | UNPIVOT
            | ROLLUP
            | CUBE
            | GROUPING
            | SETS
            | TRIM
            | LEADING
            | TRAILING
            | BOTH
            | CURRENT_TIMESTAMP
            | TABLESAMPLE
            | OPENJSON
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, quoted_identifier: bool) -> Vec<String> {
        lex(text, quoted_identifier)
            .map(|l| l.tokens.iter().map(|t| t.token.to_string()).collect())
            .unwrap_or_else(|e| vec![e.to_string()])
    }

    #[test]
    fn literals_and_names() {
        // values without their escapes: a doubled quote or bracket is one
        assert_eq!(
            words("0x 0xAB $1.5 1e-3 .5 N'é''x' [a]]b] %%physloc%% @@spid #t", true).join("|"),
            "X''|X'AB'|$1.5|1e-3|.5|N'é'x'|[a]b]|%%physloc%%|@@spid|#t"
        );
        assert_eq!(words("a!=b!<c/*x/*y*/z*/--d\n", true).join("|"), "a|<>|b|>=|c");
    }

    #[test]
    fn double_quotes_follow_the_option_even_within_the_batch() {
        assert_eq!(
            words("\"x\" set quoted_identifier off \"x\"", true).join("|"),
            "\"x\"|set|quoted_identifier|off|'x'"
        );
    }

    #[test]
    fn open_ends_are_refused() {
        assert_eq!(
            words("select\n'abc", true),
            [
                "Msg 105, Level 15, State 1, Line 2: Unclosed quotation mark after the character string 'abc'."
            ]
        );
        assert_eq!(
            words("/* /* */", true),
            ["Msg 113, Level 15, State 1, Line 1: Missing end comment mark '*/'."]
        );
    }
}
