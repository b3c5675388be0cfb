//! Every environment variable: its name, default, permitted values and meaning.
//!
//! This is the one table of them. `--help`, the manual page, `docs/configuration.md` and the checks
//! in [`super::Config::from_vars`] are made from it. To add a variable, add a row here, read it in
//! `from_vars`, and write the page anew with `BLESS=1 cargo test --lib config::variables`.

use super::{DAY, HOUR, SECOND};
use std::{ops::RangeInclusive, time::Duration};

/// One variable.
pub struct Variable {
    pub name: &'static str,
    /// What holds when it is not set; empty: nothing does.
    pub default: &'static str,
    pub permitted: Permitted,
    /// One line, for `--help`, the manual page and the documentation.
    pub help: &'static str,
    /// Further sentences (Markdown) that the documentation has after `help`.
    pub details: &'static str,
}

/// The values that a variable may have.
pub enum Permitted {
    /// Text with rules of its own, which its reader checks; said in words (Markdown) where there
    /// are any.
    Text(&'static str),
    /// One of these words, in upper or lower case.
    Words(&'static [&'static str]),
    /// A whole number.
    Count(RangeInclusive<usize>),
    /// A time such as `500ms`, `10s`, `5m`, `1h` or `30d`.
    Duration(RangeInclusive<Duration>),
}

/// The variable of that name.
pub fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

const fn between(least: Duration, most: Duration) -> Permitted {
    Permitted::Duration(RangeInclusive::new(least, most))
}

const fn count(least: usize, most: usize) -> Permitted {
    Permitted::Count(RangeInclusive::new(least, most))
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * DAY.as_secs())
}

/// Every variable there is, in the order in which people meet them.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "DEST_SERVER",
        default: "localhost",
        permitted: Permitted::Text(""),
        help: "destination server: host, host,port, host:port, host\\instance, IPv6",
        details: "The port of a named instance is asked of SQL Server Browser (UDP 1434).",
    },
    Variable {
        name: "DEST_USER",
        default: "sa",
        permitted: Permitted::Text(""),
        help: "SQL login at the destination",
        details: "",
    },
    Variable {
        name: "DEST_PASS",
        default: "",
        permitted: Permitted::Text("required, unless `DEST_AUTH=integrated`"),
        help: "its password (required, unless DEST_AUTH is integrated)",
        details: "",
    },
    Variable {
        name: "DEST_AUTH",
        default: "sql",
        permitted: Permitted::Words(&["sql", "integrated"]),
        help: "sql, or integrated: the account that runs the service (Kerberos, SSPI)",
        details: "`integrated` does without `DEST_USER` and `DEST_PASS`, and needs a build with \
                  the feature `integrated-auth` ([install](install.md#build-features)).",
    },
    Variable {
        name: "DEST_ENCRYPT",
        default: "true",
        permitted: Permitted::Words(&[
            "true",
            "mandatory",
            "strict",
            "false",
            "optional",
            "disable",
        ]),
        help: "true (mandatory), strict (TDS 8.0), false (optional: the login only) or disable \
               (nothing)",
        details: "`true` and `mandatory` encrypt everything, `strict` everything from the first \
                  byte. These three verify the server's certificate, except that of a server at a \
                  loopback address under `true` and `mandatory`. `false` and `optional` encrypt \
                  the login only, and accept any certificate unless \
                  `DEST_TRUST_SERVER_CERTIFICATE=false` or `DEST_CA_CERT` is set. `disable` \
                  encrypts nothing, not even the password.",
    },
    Variable {
        name: "DEST_TRUST_SERVER_CERTIFICATE",
        default: "",
        permitted: Permitted::Words(&["true", "false"]),
        help: "true accepts any certificate; a loopback server's is accepted unless this is false",
        details: "A certificate is accepted because of a loopback address only from that address, \
                  not from another machine that it redirects to.",
    },
    Variable {
        name: "DEST_CA_CERT",
        default: "",
        permitted: Permitted::Text("a file that can be read"),
        help: "file with the certificate authority to trust (PEM, CRT or DER)",
        details: "A regular file of at most 1 MiB. It cannot be combined with \
                  `DEST_TRUST_SERVER_CERTIFICATE=true`.",
    },
    Variable {
        name: "DATAFLOW_CHECK_INTERVAL",
        default: "10s",
        permitted: between(Duration::from_millis(10), DAY),
        help: "time between two ticks: polls of the control tables and of the sources",
        details: "",
    },
    Variable {
        name: "DATAFLOW_VERIFY_INTERVAL",
        default: "5m",
        permitted: between(Duration::ZERO, days(30)),
        help: "time between two verifications of a table; 0 turns verification off",
        details: "",
    },
    Variable {
        name: "DATAFLOW_VERIFY_ROWS",
        default: "10000",
        permitted: count(1, 10_000_000),
        help: "newest rows that a verification compares",
        details: "",
    },
    Variable {
        name: "DATAFLOW_VERIFY_SWEEP_ROWS",
        default: "10000",
        permitted: count(0, 10_000_000),
        help: "further rows per verification, so that every row has its turn; 0 leaves them out",
        details: "",
    },
    Variable {
        name: "DATAFLOW_VERIFY_STRUCTURE_INTERVAL",
        default: "1h",
        permitted: between(Duration::ZERO, days(30)),
        help: "how often to compare row counts and columns; 0 turns it off",
        details: "They are `ROW_COUNT` and `SCHEMA` in `verification_logs`.",
    },
    Variable {
        name: "DATAFLOW_VERIFY_COUNT_ROWS",
        default: "1000000",
        permitted: count(0, 1_000_000_000),
        help: "tables with more rows are not counted row by row: the catalogs' row counts are compared",
        details: "`verify --full` counts every table exactly.",
    },
    Variable {
        name: "DATAFLOW_VERIFY_CONCURRENCY",
        default: "2",
        permitted: count(1, 64),
        help: "verifications at the same time",
        details: "",
    },
    Variable {
        name: "DATAFLOW_VERIFY_WAIT",
        default: "60s",
        permitted: between(SECOND, HOUR),
        help: "longest wait for rows that differ to stop changing, so that they can be compared",
        details: "After that the result is `PARTIAL`, and the next verification looks again.",
    },
    Variable {
        name: "DATAFLOW_REPAIR",
        default: "off",
        permitted: Permitted::Words(&["on", "off"]),
        help: "on repairs rows that verification found to differ; off only reports them",
        details: "See [repair](operations.md#repair).",
    },
    Variable {
        name: "DATAFLOW_BATCH_SIZE",
        default: "1000",
        permitted: count(1, 1_000_000),
        help: "rows in a batch",
        details: "It holds for full syncs and for CDC.",
    },
    Variable {
        name: "DATAFLOW_BATCH_BYTES",
        default: "8388608",
        permitted: count(65_536, 1_073_741_824),
        help: "bytes that a batch may hold in memory",
        details: "A batch ends at whichever limit it reaches first, rows or bytes.",
    },
    Variable {
        name: "DATAFLOW_COPY_LANE",
        default: "wire",
        permitted: Permitted::Words(&["wire", "driver"]),
        help: "how rows travel in full syncs and long verifications: wire (fast), or driver \
               (slower)",
        details: "With `wire` a full sync passes the bytes of rows on as they are, over a second \
                  connection to the destination (not where `DATAFLOW_MAX_CONNECTIONS` is below \
                  12). A verification of a table with more rows than `DATAFLOW_VERIFY_ROWS` reads \
                  the same way, over a second connection to each side (not where \
                  `DATAFLOW_SOURCE_CONNECTIONS` is below 8, either). With `driver` the SQL Server \
                  driver decodes every value, which costs several times the CPU.",
    },
    Variable {
        name: "DATAFLOW_MAX_CONNECTIONS",
        default: "50",
        permitted: count(6, 10_000),
        help: "most connections to the destination server, all in all",
        details: "",
    },
    Variable {
        name: "DATAFLOW_SOURCE_CONNECTIONS",
        default: "10",
        permitted: count(2, 10_000),
        help: "most connections to one source server",
        details: "",
    },
    Variable {
        name: "DATAFLOW_MAX_TASKS",
        default: "32",
        permitted: count(1, 10_000),
        help: "full syncs and CDC passes at the same time",
        details: "So that CDC goes on beside them, full syncs get at most half of the tasks, at \
                  most half of the destination's connections, and never all connections of a \
                  source (which needs at least 3 connections for that).",
    },
    Variable {
        name: "DATAFLOW_RETRY_ATTEMPTS",
        default: "3",
        permitted: count(1, 100),
        help: "attempts before a transient error (deadlock, broken connection) is logged as an \
               error",
        details: "",
    },
    Variable {
        name: "DATAFLOW_RETRY_DELAY",
        default: "30s",
        permitted: between(Duration::ZERO, HOUR),
        help: "time between these attempts",
        details: "",
    },
    Variable {
        name: "DATAFLOW_PARKED_INTERVAL",
        default: "5m",
        permitted: between(Duration::from_millis(10), DAY),
        help: "how often a parked mapping, one that needs an operator, is tried again",
        details: "What is missing, forbidden or does not fit is looked at again within a minute. \
                  `dbaops-dataflow retry`, or a change of its row or of its server's row in the \
                  control tables, tries it at once.",
    },
    Variable {
        name: "DATAFLOW_INITIAL_SYNC",
        default: "auto",
        permitted: Permitted::Words(&["auto", "never"]),
        help: "auto or never: whether a table that has never synced is loaded first",
        details: "`auto` does so where the destination table is empty; where it has rows, a \
                  warning names the choices. `never` begins at the first change. \
                  `table_mappings.initial_sync` says it for one table. See \
                  [the initial sync](operations.md#the-initial-sync).",
    },
    Variable {
        name: "DATAFLOW_ON_CDC_GAP",
        default: "full_sync",
        permitted: Permitted::Words(&["full_sync", "error"]),
        help: "full_sync or error: what to do when changes were lost before they could be read",
        details: "`full_sync` copies that table again. `error` reports it and waits until somebody \
                  requests a full sync.",
    },
    Variable {
        name: "DATAFLOW_STATEMENT_TIMEOUT",
        default: "5m",
        permitted: between(Duration::from_millis(100), DAY),
        help: "longest wait for one answer of a server",
        details: "",
    },
    Variable {
        name: "DATAFLOW_LONG_STATEMENT_TIMEOUT",
        default: "4h",
        permitted: between(SECOND, days(7)),
        help: "the same for the long statements of a full sync, such as its swap",
        details: "",
    },
    Variable {
        name: "DATAFLOW_LOCK_TIMEOUT",
        default: "30s",
        permitted: between(Duration::ZERO, HOUR),
        help: "longest wait for a lock",
        details: "",
    },
    Variable {
        name: "DATAFLOW_SHUTDOWN_TIMEOUT",
        default: "30s",
        permitted: between(Duration::ZERO, DAY),
        help: "time that running work gets to reach a batch boundary after SIGTERM",
        details: "Recording how runs ended and the last log rows takes a few seconds more, 15 at \
                  most.",
    },
    Variable {
        name: "DATAFLOW_LOG_ROWS_PER_DAY",
        default: "50000",
        permitted: count(0, 1_000_000_000),
        help: "most rows a day in all log tables, beyond which what repeats is summed; 0: no limit",
        details: "Holds for each daemon, and for stdout in the same way. See \
                  [how much is logged](operations.md#how-much-is-logged).",
    },
    Variable {
        name: "DATAFLOW_LOG_RETENTION",
        default: "30d",
        permitted: between(Duration::ZERO, days(3650)),
        help: "age at which rows of the log tables are deleted; 0 keeps them",
        details: "",
    },
    Variable {
        name: "DATAFLOW_HTTP",
        default: "",
        permitted: Permitted::Text("an IP address and a port"),
        help: "address and port for /healthz, /readyz and /metrics, such as 127.0.0.1:9464; \
               nothing listens without it",
        details: "See [monitoring](operations.md#monitoring-over-http).",
    },
    Variable {
        name: "DATAFLOW_LOG_FORMAT",
        default: "text",
        permitted: Permitted::Words(&["text", "json", "off"]),
        help: "stdout as text or json (one object a line), or off",
        details: "",
    },
];

#[cfg(test)]
mod tests {
    use super::super::{Config, MILLISECOND, Problems, spelled};
    use super::*;

    /// The lines between which the table stands in the page.
    const BEGIN: &str = "<!-- table of variables: begin -->";
    const END: &str = "<!-- table of variables: end -->";

    fn from(vars: &[(&str, &str)]) -> Result<Config, Problems> {
        Config::from_vars(vars.iter().copied())
    }

    impl Permitted {
        /// The permitted values in Markdown.
        fn markdown(&self) -> String {
            match self {
                Permitted::Text(words) => (*words).to_owned(),
                Permitted::Words(words) => {
                    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
                }
                Permitted::Count(range) => {
                    format!("{} to {}", grouped(*range.start()), grouped(*range.end()))
                }
                Permitted::Duration(range) => {
                    format!("`{}` to `{}`", spelled(*range.start()), spelled(*range.end()))
                }
            }
        }
    }

    /// A number with a comma before every third digit from the right.
    fn grouped(number: usize) -> String {
        let digits = number.to_string();
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    }

    fn table() -> String {
        let mut text =
            "| variable | default | permitted | meaning |\n|---|---|---|---|\n".to_owned();
        for variable in VARIABLES {
            let default = match variable.default {
                "" => "none".to_owned(),
                default => format!("`{default}`"),
            };
            let help = variable.help.replace('\\', "\\\\");
            text.push_str(&format!(
                "| `{}` | {default} | {} | {} |\n",
                variable.name,
                variable.permitted.markdown(),
                format!("{help}. {}", variable.details).trim_end(),
            ));
        }
        text
    }

    /// With `BLESS=1` in the environment the page is written instead of compared.
    #[test]
    fn the_page_has_this_table() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join("configuration.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).expect("the page has the first marker");
        let (_, after) = rest.split_once(END).expect("the page has the last marker");
        let wanted = format!("{before}{BEGIN}\n{}{END}{after}", table());
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, wanted).unwrap();
            return;
        }
        for (is, should_be) in page.lines().zip(wanted.lines()) {
            assert_eq!(is, should_be, "{REGENERATE}");
        }
        assert!(page == wanted, "{REGENERATE}");
    }

    const REGENERATE: &str = "docs/configuration.md does not have the table of variables: write it \
                              with BLESS=1 cargo test --lib config::variables";

    #[test]
    fn every_documented_default_can_be_read() {
        let vars: Vec<_> = VARIABLES
            .iter()
            .map(|v| (v.name, if v.name == "DEST_PASS" { "x" } else { v.default }))
            .collect();
        assert!(from(&vars).is_ok());
    }

    /// What is tried is inside and just outside of what the page permits.
    #[test]
    fn the_permitted_values_are_the_ones_that_are_read() {
        let refused = |name: &str, value: &str| -> bool {
            match from(&[("DEST_PASS", "x"), (name, value)]) {
                Ok(_) => false,
                Err(Problems(problems)) => {
                    assert!(problems.iter().all(|problem| problem.starts_with(name)));
                    true
                }
            }
        };
        for Variable { name, permitted, .. } in VARIABLES {
            let (inside, outside): (Vec<String>, Vec<String>) = match permitted {
                Permitted::Text(_) => continue,
                Permitted::Words(words) => {
                    let built = |word: &&&str| {
                        **word != "integrated" || crate::mssql::connect::endpoint::INTEGRATED_AUTH
                    };
                    let words: Vec<_> = words.iter().filter(built).collect();
                    (words.iter().map(|word| word.to_uppercase()).collect(), vec!["maybe".into()])
                }
                Permitted::Count(range) => {
                    let (least, most) = (*range.start(), *range.end());
                    let below = least.checked_sub(1).map(|count| count.to_string());
                    let outside = below.into_iter().chain([(most + 1).to_string()]).collect();
                    (vec![least.to_string(), most.to_string()], outside)
                }
                Permitted::Duration(range) => {
                    let (least, most) = (*range.start(), *range.end());
                    let below = least.checked_sub(MILLISECOND).map(spelled);
                    let outside = below.into_iter().chain([spelled(most + SECOND)]).collect();
                    (vec![spelled(least), spelled(most)], outside)
                }
            };
            for value in inside {
                assert!(!refused(name, &value), "{name}={value} is permitted, and refused");
            }
            for value in outside {
                assert!(refused(name, &value), "{name}={value} is not permitted, and taken");
            }
        }
    }
}
