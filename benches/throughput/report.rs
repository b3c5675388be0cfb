//! The results: a table for readers and a JSON object for programs.

use std::time::Duration;

use serde_json::{Map, Number, Value};

/// The goal of a figure.
#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// no goal: the figure explains others
    None,
}

#[derive(Default)]
pub struct Report {
    lines: Vec<[String; 6]>,
    batches: Vec<[String; 3]>,
    figures: Map<String, Value>,
}

impl Report {
    pub fn new() -> Report {
        Report {
            lines: vec![
                ["measure", "daemon", "compared with", "figure", "goal", ""].map(str::to_owned),
            ],
            ..Report::default()
        }
    }

    /// A figure that compares the daemon with another client.
    pub fn ratio(
        &mut self,
        name: &str,
        key: &str,
        ours: String,
        against: String,
        ratio: f64,
        goal: Goal,
    ) {
        self.keep(key, ratio);
        self.note(name, ours, against, ratio, goal);
    }

    /// A figure of the daemon alone.
    pub fn figure(&mut self, name: &str, key: &str, remark: String, figure: f64, goal: Goal) {
        self.keep(key, figure);
        self.note(name, remark, String::new(), figure, goal);
    }

    /// A line of the table that is not in the JSON object.
    pub fn note(&mut self, name: &str, ours: String, against: String, figure: f64, goal: Goal) {
        let (goal, mark) = match goal {
            Goal::AtMost(most) => (format!("≤ {most}"), if figure <= most { "✓" } else { "✗" }),
            Goal::AtLeast(least) => (format!("≥ {least}"), if figure >= least { "✓" } else { "✗" }),
            Goal::None => (String::new(), ""),
        };
        let line = [name.to_owned(), ours, against, format!("{figure:.2}"), goal, mark.to_owned()];
        // print each line at once, as a whole run takes minutes
        eprintln!("{}", line.join("  "));
        self.lines.push(line);
    }

    /// A line of the table of batch sizes.
    pub fn batch(&mut self, rows: u64, per_second: f64, cpu_s_per_million: f64) {
        self.batches.push([
            rows.to_string(),
            format!("{per_second:.0}"),
            format!("{cpu_s_per_million:.2}"),
        ]);
    }

    fn keep(&mut self, key: &str, figure: f64) {
        let rounded = (figure * 1000.0).round() / 1000.0;
        self.figures
            .insert(key.to_owned(), Number::from_f64(rounded).map_or(Value::Null, Value::Number));
    }

    pub fn print(self) {
        println!();
        table(&self.lines);
        if !self.batches.is_empty() {
            println!("\nfull sync by batch size (DATAFLOW_BATCH_SIZE)");
            let head =
                ["rows in a batch", "rows/s", "client CPU s per million rows"].map(str::to_owned);
            table(&[&[head], self.batches.as_slice()].concat());
        }
        println!("\n{}", Value::Object(self.figures));
    }
}

/// Prints columns that are as wide as their widest cell.
fn table<const N: usize>(lines: &[[String; N]]) {
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for line in lines {
        let cells: Vec<_> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

pub fn per_second(count: u64, wall: Duration) -> f64 {
    count as f64 / wall.as_secs_f64()
}

pub fn median(figures: Vec<f64>) -> f64 {
    percentile(&figures, 50)
}

/// The figure that `percent` percent of all figures do not exceed.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get((sorted.len() * percent).div_ceil(100).saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}
