//! The command line: arguments → one function per command → exit code.

use crate::config::VARIABLES;
use crate::model::lsn::Lsn;
use clap::{Parser, Subcommand};

/// Keeps SQL Server tables in sync: full sync, CDC and verification, managed from SQL.
#[derive(Debug, Parser)]
#[command(name = "dbaops-dataflow", version, about, after_help = variables())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// One tick: find the work there is, do it, and exit
    #[arg(long)]
    pub once: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run until stopped (the default)
    Run {
        /// One tick: find the work there is, do it, and exit
        #[arg(long)]
        once: bool,
    },
    /// Make the control database at the destination, or bring it up to date
    Init,
    /// Tell from where CDC goes on, for a destination that was made from a backup
    StartFrom {
        /// mapping_id in table_mappings
        #[arg(long)]
        mapping: i32,
        /// Everything up to and including this LSN is in the destination (0x and 20 digits)
        #[arg(long)]
        lsn: Lsn,
    },
    /// Compare source and destination now; exit code 1 if something differs
    Verify {
        /// Only this mapping
        #[arg(long, value_name = "N")]
        mapping: Option<i32>,
        /// Every row of the table, not only the newest and the next range
        #[arg(long)]
        full: bool,
    },
}

/// Every environment variable, for `--help`.
fn variables() -> String {
    let width = VARIABLES.iter().map(|variable| variable.name.len()).max().unwrap_or(0);
    let mut text = String::from("Environment:\n");
    for variable in VARIABLES {
        text.push_str(&format!("  {:width$}  {}", variable.name, variable.help));
        if !variable.default.is_empty() {
            text.push_str(&format!(" [default: {}]", variable.default));
        }
        text.push('\n');
    }
    text.push_str("\nTimes are written 100ms, 10s, 5m, 2h or 30d. RUST_LOG sets what stdout shows (info), NO_COLOR turns colours off.\n");
    text.push_str("Exit codes: 0 done, 1 failed, 2 wrong arguments or environment.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_tells_of_every_variable() {
        let help = Cli::command().render_help().to_string();
        for variable in VARIABLES {
            assert!(help.contains(variable.name), "{}", variable.name);
        }
    }
}
