//! Text of others, where people read it: on a terminal, in a log's lines.
//!
//! A server's messages, the names of its objects and what a control row says may hold any
//! character. ESC starts a command to a terminal, a line break forges a line of a log, marks of
//! direction turn what follows around, and what has no width makes two names look alike. Whoever
//! prints a line for people prints it through here, once: each such character is shown by its
//! number. A backslash stays as it is (`HOST\INSTANCE`), so text that was shown can be shown again
//! and stays the same.
//!
//! A line is the unit: line breaks of our own stand between lines, and where several lines are one
//! text (a verification's details), what others say is made visible before it goes into one.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

/// Does this character do something else than stand there and be seen? Controls (C0, DEL, C1), the
/// separators of lines and paragraphs, and what Unicode says to show nothing for
/// (`Default_Ignorable_Code_Point`: marks of direction, zero width, joiners, fillers, tags).
/// <https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt>
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}'..='\u{2029}' // line and paragraph separator
                | '\u{FFF9}'..='\u{FFFB}' // interlinear annotations
                | '\u{AD}'
                | '\u{34F}'
                | '\u{61C}'
                | '\u{115F}'..='\u{1160}'
                | '\u{17B4}'..='\u{17B5}'
                | '\u{180B}'..='\u{180F}'
                | '\u{200B}'..='\u{200F}'
                | '\u{202A}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{3164}'
                | '\u{FE00}'..='\u{FE0F}'
                | '\u{FEFF}'
                | '\u{FFA0}'
                | '\u{FFF0}'..='\u{FFF8}'
                | '\u{1BCA0}'..='\u{1BCA3}'
                | '\u{1D173}'..='\u{1D17A}'
                | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// The text with every hidden character shown: `\n`, `\r`, `\t`, else its number, as in `\u{1b}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    // Writing to a String cannot fail.
    let _ = Visible(&mut shown).write_str(text);
    Cow::Owned(shown)
}

/// Shows hidden characters of what is written through it.
pub struct Visible<W>(pub W);

impl<W: fmt::Write> fmt::Write for Visible<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, character)) =
            rest.char_indices().find(|(_, character)| is_hidden(*character))
        {
            let (before, from) = rest.split_at(at);
            self.0.write_str(before)?;
            match character {
                '\n' => self.0.write_str("\\n")?,
                '\r' => self.0.write_str("\\r")?,
                '\t' => self.0.write_str("\\t")?,
                other => write!(self.0, "{}", other.escape_unicode())?,
            }
            rest = from.split_at(character.len_utf8()).1;
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_or_a_log_acts_on_is_left() {
        let said = "a\u{1b}[2Jb\u{7}\r\nERROR forged\tc\u{9b}1m\u{7f}\u{202e}d\u{200b}e\u{2066}\u{feff}\u{ad}\u{2028}\u{e0041}f\0";
        let shown = visible(said);
        assert_eq!(
            shown,
            "a\\u{1b}[2Jb\\u{7}\\r\\nERROR forged\\tc\\u{9b}1m\\u{7f}\\u{202e}d\\u{200b}e\\u{2066}\\u{feff}\\u{ad}\\u{2028}\\u{e0041}f\\u{0}"
        );
        assert_eq!(visible(&shown), shown, "shown once is shown for good");
    }

    #[test]
    fn what_is_seen_stays_as_it_is() {
        for text in [r"HOST\SQL2019", "Größe 名前 ✓ ✗ – … 😍", "it's \"so\"", "[x]]y]"]
        {
            assert!(matches!(visible(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
