//! What the dialects share: `key=value` pairs, quoting, percent-encoding, flags.

use std::ops::Range;

use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};

pub(super) fn config_error(message: impl Into<String>) -> Error {
    Error::new(Kind::Config, message)
}

/// Like [`str::strip_prefix`], without regard to case.
pub(super) fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len())
        .filter(|start| start.eq_ignore_ascii_case(prefix))
        .and_then(|_| text.get(prefix.len()..))
}

/// A flag as the dialects spell it.
pub fn flag(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "1" | "on" | "t" => Some(true),
        "false" | "no" | "0" | "off" | "f" => Some(false),
        _ => None,
    }
}

/// A key without spaces, underscores and hyphens, in lower case: `User ID`, `user_id` and `userId`
/// are the same key.
pub(super) fn normalized(key: &str) -> String {
    key.chars()
        .filter(|c| !c.is_whitespace() && *c != '_' && *c != '-')
        .flat_map(char::to_lowercase)
        .collect()
}

pub(super) fn is_password(normalized_key: &str) -> bool {
    matches!(normalized_key, "password" | "pwd" | "pass")
}

/// One `key=value`. Also the key may be a piece of a password: of one with a `;` that was not
/// quoted.
pub(super) struct KeyValue {
    pub key: Zeroizing<String>,
    pub value: Zeroizing<String>,
    /// Where it begins, in characters, from 1.
    pub position: usize,
}

/// Splits `key=value;…`. Positions count characters of `text`.
pub(super) fn key_values(text: &str) -> Result<Vec<KeyValue>> {
    let mut chars = Zeroizing::new(Vec::with_capacity(text.len()));
    chars.extend(text.chars());
    let mut scanner = Scanner { chars, at: 0, bytes_max: text.len() };
    let mut pairs: Vec<KeyValue> = Vec::new();
    loop {
        scanner.skip_while(|c| c.is_whitespace() || c == ';');
        if scanner.peek().is_none() {
            return Ok(pairs);
        }
        let position = scanner.at + 1;
        let after_password = pairs.last().is_some_and(|pair| is_password(&normalized(&pair.key)));
        let key = scanner.key(after_password)?;
        scanner.skip_while(|c| c.is_whitespace() && c != ';');
        let value = match scanner.peek() {
            Some('"') => scanner.quoted_value('"')?,
            Some('\'') => scanner.quoted_value('\'')?,
            Some('{') => scanner.quoted_value('}')?,
            _ => scanner.plain_value(),
        };
        pairs.push(KeyValue { key, value, position });
    }
}

/// Reads the characters of `key=value;…`. Its buffers are allocated once with the length of the
/// whole text: one that grew would leave a copy of a password in freed memory.
struct Scanner {
    chars: Zeroizing<Vec<char>>,
    at: usize,
    bytes_max: usize,
}

impl Scanner {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn skip_while(&mut self, skipped: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&skipped) {
            self.at += 1;
        }
    }

    fn piece(&self, range: Range<usize>) -> Zeroizing<String> {
        let mut piece = Zeroizing::new(String::with_capacity(self.bytes_max));
        piece.extend(self.chars.get(range).unwrap_or_default());
        let length = piece.trim_end().len();
        piece.truncate(length);
        piece
    }

    /// A key and the `=` after it.
    fn key(&mut self, after_password: bool) -> Result<Zeroizing<String>> {
        let start = self.at;
        let position = start + 1;
        self.skip_while(|c| c != '=' && c != ';');
        if self.peek() != Some('=') {
            let hint = if after_password {
                " (a password that holds a ; must be in double quotes)"
            } else {
                ""
            };
            return Err(config_error(format!(
                "the connection string has something without a value at character {position}{hint}"
            )));
        }
        let key = self.piece(start..self.at);
        if key.is_empty() {
            return Err(config_error(format!(
                "the connection string has a value without a key at character {position}"
            )));
        }
        self.at += 1;
        Ok(key)
    }

    fn plain_value(&mut self) -> Zeroizing<String> {
        let start = self.at;
        self.skip_while(|c| c != ';');
        self.piece(start..self.at)
    }

    /// A value up to `close`, which is doubled inside. Only a `;` may follow.
    fn quoted_value(&mut self, close: char) -> Result<Zeroizing<String>> {
        let mut value = Zeroizing::new(String::with_capacity(self.bytes_max));
        let opened = self.at + 1;
        self.at += 1;
        loop {
            match self.peek() {
                Some(c) if c == close && self.chars.get(self.at + 1) == Some(&close) => {
                    value.push(close);
                    self.at += 2;
                }
                Some(c) if c == close => {
                    self.at += 1;
                    break;
                }
                Some(c) => {
                    value.push(c);
                    self.at += 1;
                }
                None => {
                    return Err(config_error(format!(
                        "the connection string has a quoted value that begins at character {opened} and never ends"
                    )));
                }
            }
        }
        self.skip_while(char::is_whitespace);
        if self.peek().is_some_and(|c| c != ';') {
            return Err(config_error(format!(
                "the connection string has something between the end of a quoted value and the next ; at character {}",
                self.at + 1
            )));
        }
        Ok(value)
    }
}

pub(super) fn percent_decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let digits = tail
                .get(..2)
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
            let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(decoded.ok_or_else(|| {
                config_error(
                    "the connection string has a % that is not followed by two hexadecimal digits",
                )
            })?);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes)
        .map_err(|_| config_error("the connection string's percent-encoding is not UTF-8"))
}
