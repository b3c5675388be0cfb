//! The command line: arguments → one function per command → exit code.

use crate::{
    config::{self, VARIABLES},
    model::lsn::Lsn,
    plan::time::SourceTime,
};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::{io::Write, time::Duration};

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
        /// Everything up to and including this LSN is in the destination: 0x and 20 digits, or the
        /// decimal number that RESTORE HEADERONLY prints
        #[arg(long, required_unless_present = "time", conflicts_with = "time")]
        lsn: Option<Lsn>,
        /// Everything that was committed up to then is in the destination: YYYY-MM-DDThh:mm:ss by
        /// the source server's clock, or with Z or an offset such as +02:00 behind it
        #[arg(long)]
        time: Option<SourceTime>,
    },
    /// Have what is parked, or waits after a failure, tried at the daemon's next tick
    Retry {
        /// Only this mapping
        #[arg(long, value_name = "N", required_unless_present = "all")]
        mapping: Option<i32>,
        /// Every mapping and every server
        #[arg(long, conflicts_with = "mapping")]
        all: bool,
    },
    /// Compare source and destination now; exit code 1 if something differs, 3 if something could
    /// not be decided
    Verify {
        /// Only this mapping
        #[arg(long, value_name = "N")]
        mapping: Option<i32>,
        /// Every row of the table, not only the newest and the next range
        #[arg(long)]
        full: bool,
        /// Mend what differs from the source, whatever DATAFLOW_REPAIR says
        #[arg(long)]
        repair: bool,
        /// End when this time is up (10m, 2h): what is not compared by then is PARTIAL or SKIPPED
        #[arg(long, value_name = "TIME", value_parser = time)]
        limit: Option<Duration>,
    },
    /// Connect to everything, look for whatever is not as it must be, and say what mends it; exit
    /// code 1 if there is something
    Check {
        /// Only this mapping
        #[arg(long, value_name = "N")]
        mapping: Option<i32>,
    },
    /// Tell in what state every mapping is, and what to do about it; exit code 1 if something needs
    /// somebody
    Status {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
        /// Ask the daemon on this machine whether it is alive (needs DATAFLOW_HTTP); exit code 1 if
        /// not
        #[arg(long, conflicts_with = "json")]
        health: bool,
    },
    /// Sync a whole table now, and show how far it is; exit code 1 if it did not complete
    Sync {
        /// mapping_id in table_mappings
        #[arg(long, value_name = "N")]
        mapping: i32,
    },
    /// Print a shell's completions to stdout
    Completions { shell: Shell },
    /// Print the manual page (roff) to stdout
    Man,
}

/// A time as the variables have it.
fn time(text: &str) -> Result<Duration, &'static str> {
    config::duration(text)
        .filter(|time| !time.is_zero())
        .ok_or("must be a time such as 90s, 10m or 2h")
}

/// The name that people type.
const NAME: &str = "dbaops-dataflow";

/// Writes a shell's completions.
pub fn completions(shell: Shell, out: &mut impl Write) {
    clap_complete::generate(shell, &mut Cli::command(), NAME, out);
}

/// Writes the manual page: the commands one after the other, as `man git` would show git's.
pub fn man(out: &mut impl Write) -> std::io::Result<()> {
    let mut cli = Cli::command();
    cli.build();
    let page = clap_mangen::Man::new(cli.clone());
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("{NAME} {}", command.get_name());
        let command = command.clone().disable_help_flag(true).disable_version_flag(true);
        let page = clap_mangen::Man::new(command);
        writeln!(out, ".SH \"{name}\"")?;
        page.render_description_section(out)?;
        page.render_options_section(out)?;
    }
    writeln!(out, ".SH ENVIRONMENT")?;
    for variable in VARIABLES {
        writeln!(out, ".TP\n\\fB{}\\fR\n{}", variable.name, roff(variable.help))?;
        if !variable.default.is_empty() {
            writeln!(out, "(default: {})", roff(variable.default))?;
        }
    }
    writeln!(out, ".SH \"EXIT STATUS\"")?;
    for (code, meaning) in EXIT_CODES {
        writeln!(out, ".TP\n\\fB{code}\\fR\n{}", roff(meaning))?;
    }
    page.render_version_section(out)
}

/// Text as roff wants it: hyphens that stay hyphens, and no line that looks like a request.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace("\n.", "\n\\&.")
}

/// What the process says with its exit code.
const EXIT_CODES: [(u8, &str); 4] = [
    (
        0,
        "done: stopped by a signal, every check passed, nothing differs, the full sync is complete, no mapping needs somebody",
    ),
    (
        1,
        "failed, or something was found (of status: a mapping needs somebody): the last lines say what; also at a second signal",
    ),
    (2, "wrong arguments or environment, or the destination refuses the login: nothing was done"),
    (3, "verify: nothing is known to differ, and something is PARTIAL or SKIPPED"),
];

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
    text.push_str("\nExit codes:\n");
    for (code, meaning) in EXIT_CODES {
        text.push_str(&format!("  {code}  {meaning}\n"));
    }
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
    fn the_manual_names_every_command_and_variable() {
        let mut page = Vec::new();
        man(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        for command in Cli::command().get_subcommands() {
            assert!(
                page.contains(&format!(".SH \"{NAME} {}\"", command.get_name())),
                "{} in {page}",
                command.get_name()
            );
        }
        for variable in VARIABLES {
            assert!(page.contains(variable.name), "{}", variable.name);
        }
        assert!(page.contains("EXIT STATUS"));
    }

    #[test]
    fn completions_know_the_commands() {
        use clap::ValueEnum;
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            completions(*shell, &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(
                script.contains("start-from") && script.contains("verify"),
                "{shell}: {script}"
            );
        }
    }

    #[test]
    fn help_tells_of_every_variable() {
        let help = Cli::command().render_help().to_string();
        for variable in VARIABLES {
            assert!(help.contains(variable.name), "{}", variable.name);
        }
    }
}
