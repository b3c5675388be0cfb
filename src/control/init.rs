//! `init`: creates the control database, or upgrades an older one.
//!
//! An operator can run the same script with sqlcmd. It is split as sqlcmd splits it, at GO lines
//! outside of strings, quoted names and comments, and sent batch by batch on one session, because
//! it contains USE statements.

use super::{DATABASE, single_connection_pools};
use crate::{
    config::Config,
    error::{Context, Result},
    model::name::Ident,
};

/// The script that creates the control database.
pub const SCHEMA: &str = include_str!("../../sql/schema-dataflow.sql");

/// Runs [`SCHEMA`] at the destination. It can be run any number of times.
pub async fn init(config: &Config) -> Result<()> {
    let pools = single_connection_pools(config);
    let mut session = pools.checkout(&Ident::new("master"), "init").await?;
    // USE changes the session's database, so it must not go back to the pool.
    session.mark_not_reusable();
    for batch in split_go(SCHEMA) {
        session.batch(batch.text).await.with_context(|| {
            format!("make the database {DATABASE} (schema-dataflow.sql, line {})", batch.line)
        })?;
    }
    Ok(())
}

/// A piece of a script between two GO lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptBatch<'a> {
    pub text: &'a str,
    /// The line of its first word, from 1.
    pub line: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ScriptContext {
    Code,
    /// Until this character; doubled, it is part of the text.
    Quoted(char),
    /// `/* … */`, with the depth of nesting.
    Comment(usize),
}

/// Splits a script at its GO lines. Empty batches are left out.
pub fn split_go(script: &str) -> Vec<ScriptBatch<'_>> {
    let mut batches = Vec::new();
    let mut within = ScriptContext::Code;
    let mut start = 0;
    let mut start_line = 1;
    let mut position = 0;
    let mut push = |from: usize, to: usize, line: usize| {
        let text = script.get(from..to).unwrap_or_default();
        let first_word = text.len() - text.trim_start().len();
        let line = line + text.get(..first_word).unwrap_or_default().matches('\n').count();
        if !text.trim().is_empty() {
            batches.push(ScriptBatch { text: text.trim(), line });
        }
    };
    for (i, line) in script.split_inclusive('\n').enumerate() {
        let end = position + line.len();
        if within == ScriptContext::Code && is_go(line) {
            push(start, position, start_line);
            start = end;
            start_line = i + 2;
        } else {
            within = after(line, within);
        }
        position = end;
    }
    push(start, script.len(), start_line);
    batches
}

/// `GO`, with nothing else but a comment behind it.
fn is_go(line: &str) -> bool {
    let line = line.trim();
    match line.get(..2) {
        Some(word) if word.eq_ignore_ascii_case("go") => {
            let rest = line.get(2..).unwrap_or_default();
            rest.is_empty()
                || rest.trim_start().starts_with("--") && rest.starts_with(char::is_whitespace)
        }
        _ => false,
    }
}

/// The context after a line that begins in the context `within`.
fn after(line: &str, mut within: ScriptContext) -> ScriptContext {
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        within = match (within, c, next) {
            (ScriptContext::Code, '-', Some('-')) => return ScriptContext::Code,
            (ScriptContext::Code, '/', Some('*')) => {
                chars.next();
                ScriptContext::Comment(1)
            }
            (ScriptContext::Code, '\'', _) => ScriptContext::Quoted('\''),
            (ScriptContext::Code, '"', _) => ScriptContext::Quoted('"'),
            (ScriptContext::Code, '[', _) => ScriptContext::Quoted(']'),
            (ScriptContext::Quoted(close), c, Some(next)) if c == close && next == close => {
                chars.next();
                ScriptContext::Quoted(close)
            }
            (ScriptContext::Quoted(close), c, _) if c == close => ScriptContext::Code,
            (ScriptContext::Comment(depth), '/', Some('*')) => {
                chars.next();
                ScriptContext::Comment(depth + 1)
            }
            (ScriptContext::Comment(depth), '*', Some('/')) => {
                chars.next();
                if depth == 1 { ScriptContext::Code } else { ScriptContext::Comment(depth - 1) }
            }
            (other, _, _) => other,
        };
    }
    within
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(script: &str) -> Vec<&str> {
        split_go(script).into_iter().map(|batch| batch.text).collect()
    }

    #[test]
    fn splits_at_go_lines_only() {
        assert_eq!(texts("a\nGO\nb\r\n  go  \r\nc"), ["a", "b", "c"]);
        assert_eq!(texts("GO\nGO\n\nGO -- done\na\nGO"), ["a"]);
        assert_eq!(texts("GOTO x\nGO_on\nSELECT go\n"), ["GOTO x\nGO_on\nSELECT go"]);
    }

    #[test]
    fn strings_names_and_comments_hide_go() {
        for hidden in [
            "'x\nGO\n'",
            "'it''s\nGO\n'",
            "\"x\nGO\n\"",
            "[x\nGO\n]",
            "[x]]\nGO\n]",
            "/* x\nGO\n*/",
            "/* /* x */\nGO\n*/",
        ] {
            let script = format!("SELECT {hidden}\nGO\nb");
            assert_eq!(texts(&script), [script.split("\nGO\nb").next().unwrap(), "b"], "{hidden}");
        }
        assert_eq!(texts("-- it's\nGO\nb"), ["-- it's", "b"]);
    }

    #[test]
    fn batches_know_their_line() {
        let lines: Vec<usize> =
            split_go("a\nGO\n\nb\nGO\nc").iter().map(|batch| batch.line).collect();
        assert_eq!(lines, [1, 4, 6]);
    }

    #[test]
    fn the_schema_splits_into_whole_statements() {
        let batches = split_go(SCHEMA);
        assert!(batches.len() > 20);
        assert!(batches.iter().all(|batch| !batch.text.to_uppercase().contains("\nGO\n")));
        // A view must be alone in its batch.
        let ends = |text: &str| text.lines().filter(|line| line.trim_end().ends_with(';')).count();
        assert!(
            batches
                .iter()
                .filter(|batch| batch.text.contains("ALTER VIEW"))
                .all(|batch| ends(batch.text) == 1)
        );
    }
}
