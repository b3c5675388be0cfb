//! How far a command is: one line on a terminal, drawn over the last one; for verifications also
//! lines now and then where stderr is no terminal.

use crate::{
    jobs::verify::Step,
    model::{id::MappingId, visible::visible},
};
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    sync::{Mutex, PoisonError},
};

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
fn redraw(text: &str) {
    // nobody is served by a failure to draw
    let _ = write!(std::io::stderr(), "\r\x1b[K{}", visible(text));
    let _ = std::io::stderr().flush();
}

/// A line on stderr, for whoever reads it later.
fn print_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(text));
}

/// A bar with name, percent and number of rows; without a total the number alone.
fn line(name: &str, done: usize, total: Option<i64>) -> String {
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

/// How far all are: one line on a terminal, a line now and then elsewhere.
pub(crate) struct Board {
    pub terminal: bool,
    mappings: usize,
    state: Mutex<BoardState>,
}

#[derive(Default)]
struct BoardState {
    ended: usize,
    running: BTreeMap<MappingId, Step>,
}

impl Board {
    pub fn new(mappings: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Board { terminal, mappings, state: Mutex::default() }
    }

    pub fn show(&self, id: MappingId, step: Step) {
        self.lock().running.insert(id, step);
    }

    pub fn end(&self, id: MappingId) {
        self.clear();
        let mut state = self.lock();
        state.running.remove(&id);
        state.ended += 1;
    }

    pub fn draw(&self) {
        let text = self.text();
        if self.terminal { redraw(&text) } else { print_line(&text) }
    }

    pub fn clear(&self) {
        if self.terminal {
            redraw("");
        }
    }

    fn text(&self) -> String {
        let state = self.lock();
        let mut text = format!("verified {} of {}", state.ended, self.mappings);
        for (id, step) in &state.running {
            text.push_str("; ");
            text.push_str(&step_text(*id, *step));
            // a line that is wrapped cannot be drawn over
            if self.terminal {
                break;
            }
        }
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn step_text(id: MappingId, step: Step) -> String {
    match step {
        Step::Compared { rows, total } => line(&format!("mapping {id}"), rows, total),
        Step::LookingAgain { keys } => {
            format!("mapping {id}: looking again at {keys} rows that differ")
        }
        Step::Repairing { done, of } => format!("mapping {id}: {done} of {of} rows repaired"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_never_overflows() {
        assert_eq!(line("m", 5, None), "m  5 rows");
        assert_eq!(line("m", 5, Some(0)), "m  5 rows");
        assert_eq!(line("m", 5, Some(10)), "m  [##########----------] 50%  5 rows");
        assert_eq!(line("m", 50, Some(10)), "m  [####################] 100%  50 rows");
    }

    #[test]
    fn a_line_names_everything_that_runs() {
        let board = Board { terminal: false, mappings: 40, state: Mutex::default() };
        board.end(MappingId(3));
        board.show(MappingId(1), Step::Compared { rows: 50, total: Some(100) });
        board.show(MappingId(2), Step::LookingAgain { keys: 7 });
        assert_eq!(
            board.text(),
            "verified 1 of 40; mapping 1  [##########----------] 50%  50 rows; \
             mapping 2: looking again at 7 rows that differ"
        );
    }
}
