//! How far a command is: one line on a terminal, drawn over the last one.

use crate::model::visible::visible;
use std::io::{IsTerminal, Write};

/// How far it is: one line on a terminal, and nothing elsewhere.
pub(crate) struct ProgressBar<'a> {
    name: &'a str,
    terminal: bool,
}

impl<'a> ProgressBar<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        let bar = ProgressBar { name, terminal: std::io::stderr().is_terminal() };
        bar.draw(&format!("{name} …"));
        bar
    }

    pub(crate) fn show(&mut self, done: usize, total: Option<i64>) {
        self.draw(&line(self.name, done, total));
    }

    pub(crate) fn clear(&self) {
        self.draw("");
    }

    fn draw(&self, text: &str) {
        if self.terminal {
            redraw(text);
        }
    }
}

/// Draws a line over the last one.
pub(crate) fn redraw(text: &str) {
    // nobody is served by a failure to draw
    let _ = write!(std::io::stderr(), "\r\x1b[K{}", visible(text));
    let _ = std::io::stderr().flush();
}

/// A line on stderr, for whoever reads it later.
pub(crate) fn print_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(text));
}

/// A bar with name, percent and number of rows; without a total the number alone.
pub(crate) fn line(name: &str, done: usize, total: Option<i64>) -> String {
    const WIDTH: usize = 20;
    let Some(total) =
        total.and_then(|total| usize::try_from(total).ok()).filter(|total| *total > 0)
    else {
        return format!("{name}  {done} rows");
    };
    // the total is what the catalog last heard
    let filled = (done.saturating_mul(WIDTH) / total).min(WIDTH);
    format!(
        "{name}  [{}{}] {}%  {done} rows",
        "#".repeat(filled),
        "-".repeat(WIDTH - filled),
        (done.saturating_mul(100) / total).min(100)
    )
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_bar_never_overflows() {
        assert_eq!(line("m", 5, None), "m  5 rows");
        assert_eq!(line("m", 5, Some(0)), "m  5 rows");
        assert_eq!(line("m", 5, Some(10)), "m  [##########----------] 50%  5 rows");
        assert_eq!(line("m", 50, Some(10)), "m  [####################] 100%  50 rows");
    }
}
